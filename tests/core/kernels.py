"""The two kernels by name, for the tests that run on both."""

import importlib
import os
from types import ModuleType
from typing import cast

import pytest

from spanloom.core._pure.assembler import Assembler

BOTH = ("pure", "native")
MODULES = {"pure": "spanloom.core._pure.assembler", "native": "spanloom._native.kernel"}


def native_kernel() -> ModuleType:
    """The compiled kernel; where it was not built a developer's test is skipped, but CI's fails."""
    try:
        return importlib.import_module(MODULES["native"])
    except ImportError as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the native kernel was not built: {missing}")
        pytest.skip("the native kernel was not built")


def assembler_class(name: str) -> type[Assembler]:
    """The Assembler of the kernel of that name."""
    return Assembler if name == "pure" else cast(type[Assembler], native_kernel().Assembler)
