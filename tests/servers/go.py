"""A Go that can build the peers; installed where it is missing, that is allowed and Debian's is new enough.

Where the Go found is older than what is to be built asks for, the go command itself fetches that toolchain as a module;
Go 1.21 was the first that can.
"""

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from tests.servers.jars import FETCH_S, _install, _may_install, cache_folder

OLDEST = (1, 21)
NEWEST_ASKED = (1, 25)  # what the collector's parts ask for
_PLACES = ("/usr/local/go/bin", "/usr/lib/go/bin", "/opt/go/bin")


@cache
def go() -> str | None:
    """The go command; None where there is none and none can be installed."""
    found = _found()
    if found is None and _may_install() and _debian_version() >= OLDEST:
        _install("golang-go")
        found = _found()
    return found


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


def _debian_version() -> tuple[int, int]:
    """Of the package that could be installed; (0, 0) for none."""
    line = ["apt-cache", "policy", "golang-go"]
    said = subprocess.run(line, capture_output=True, text=True, timeout=FETCH_S, cwd=cache_folder()).stdout
    return _pair(r"Candidate: (?:\d+:)?(\d+)\.(\d+)", said)


def _pair(pattern: str, text: str) -> tuple[int, int]:
    found = re.search(pattern, text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
