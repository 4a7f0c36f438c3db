"""Builds the native kernel: every ext/NAME.pyx becomes spanloom._native.NAME.

A missing compiler leaves an install without it (the pure kernel is complete, only slower); the build log says so.
`SPANLOOM_SANITIZE=1` builds with the address and undefined-behaviour sanitizers, unoptimised.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

STANDARD = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function"]
OPTIMISED = ["-O2", "-g"]  # no -march=native: a wheel may run on another machine
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
SANITIZED = ["-O0", "-g", "-fno-omit-frame-pointer", *SANITIZERS]


def extension(source: Path, *, sanitize: bool) -> Extension:
    """One extension module from one .pyx; a change of any header rebuilds it."""
    return Extension(
        f"spanloom._native.{source.stem}",
        sources=[source.as_posix()],
        depends=[header.as_posix() for header in sorted(Path("ext").glob("*.h"))],
        include_dirs=["ext"],
        extra_compile_args=[*STANDARD, *(SANITIZED if sanitize else OPTIMISED)],
        extra_link_args=SANITIZERS if sanitize else [],
    )


def extensions() -> list[Extension]:
    """All of them; without a compiler each is left out with a warning, unless sanitizers were asked for."""
    sanitize = os.environ.get("SPANLOOM_SANITIZE") == "1"
    found = cythonize(
        [extension(source, sanitize=sanitize) for source in sorted(Path("ext").glob("*.pyx"))],
        include_path=["ext"],
        compiler_directives={"language_level": 3, "embedsignature": True},
    )
    for module in found:
        module.optional = not sanitize  # set here, because cythonize makes new Extensions and forgets it
    return found


setup(ext_modules=extensions())
