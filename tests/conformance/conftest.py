"""One rig for each implementation: every test of this folder runs on all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.rigs import MemoryRig, Rig, SqliteRig


@pytest.fixture(params=["memory", "sqlite"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """The implementation under test."""
    rig: Rig = MemoryRig() if request.param == "memory" else SqliteRig(tmp_path / "data")
    yield rig
    rig.close()


@pytest.fixture
def durable_rig(rig: Rig) -> Rig:
    """The implementation under test, where it outlives its process."""
    if not rig.durable:
        pytest.skip("promises nothing across a restart")
    return rig
