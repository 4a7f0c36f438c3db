"""The hashes' two twins, for the tests that run on both."""

import importlib
import os
from typing import Protocol, cast

import pytest


class Hashes(Protocol):
    """What both twins are."""

    def murmur2(self, data: bytes, /) -> int: ...
    def murmur3_x86_32(self, data: bytes, /) -> int: ...
    def fnv1a_32(self, data: bytes, /) -> int: ...
    def fnv1a_64(self, data: bytes, /) -> int: ...
    def content_hash(self, data: bytes, /) -> int: ...


def native_hashes() -> Hashes:
    """The compiled twin; where it was not built a developer's test is skipped, but CI's fails."""
    try:
        return cast(Hashes, importlib.import_module("spanloom._native.hashes"))
    except ImportError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the native kernel was not built: {missing}")
        pytest.skip("the native kernel was not built")
