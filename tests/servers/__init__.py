"""Real servers for tests, without a container engine: each starts in seconds from what package registries hold.

A server that does not start fails the test that wanted it. `SPANLOOM_TEST_SERVERS=0` leaves such tests out, but not
where `CI=true`: there nothing is left out.
"""

import os

import pytest


def wanted() -> bool:
    """Whether tests may start servers."""
    return os.environ.get("CI") == "true" or os.environ.get("SPANLOOM_TEST_SERVERS") != "0"


def need_servers() -> None:
    """Skip the calling test where servers are not wanted."""
    if not wanted():
        pytest.skip("SPANLOOM_TEST_SERVERS=0")
