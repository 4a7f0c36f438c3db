"""Jars from Maven Central, kept outside the repository, and a Java to run them; what is missing is installed where
that is allowed.

The folder is `$SPANLOOM_TEST_CACHE`, else the user's cache folder. Several test runs may fetch at the same time.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

FETCH_S = 600  # a slow registry's worst
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion>
<groupId>spanloom.tests</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def cache_folder() -> Path:
    """Where what was fetched is kept from run to run; made if there is none."""
    chosen = os.environ.get("SPANLOOM_TEST_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(chosen) if chosen else Path(home) / "spanloom-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def jars(name: str, artifacts: Sequence[str]) -> Path:
    """The folder with the jars of `group:artifact:version` and all they depend on; fetched once."""
    digest = hashlib.sha256("\n".join(artifacts).encode()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{digest}"
    with locked(folder):
        if not folder.exists():
            _fetch(folder, name, artifacts)
    return folder


def java(at_least: int = 17) -> str | None:
    """The oldest Java of that version or newer; None where there is none and none can be installed."""
    found = [path for version, path in sorted(_javas()) if version >= at_least]
    if not found and at_least <= 17 and may_install():
        install("openjdk-17-jdk-headless")
        found = [path for version, path in sorted(_javas()) if version >= at_least]
    return found[0] if found else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(folder: Path, name: str, artifacts: Sequence[str]) -> None:
    """Let Maven resolve and copy; the folder gets its name once it is whole."""
    maven, home = _maven(), java()
    assert home is not None, "no Java to run Maven with"
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    pom = unfinished / "pom.xml"
    dependencies = "".join(_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
    pom.write_text(_POM.format(name=name, dependencies=dependencies))
    line = [maven, "-B", "-q", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}"]
    environ = {**os.environ, "JAVA_HOME": str(Path(home).resolve().parent.parent)}
    ran = subprocess.run(line, capture_output=True, text=True, timeout=FETCH_S, env=environ)
    assert ran.returncode == 0, f"{' '.join(line)} failed:\n{ran.stdout}{ran.stderr}"
    unfinished.rename(folder)


def _maven() -> str:
    if shutil.which("mvn") is None and may_install():
        install("maven")
    found = shutil.which("mvn")
    assert found, "Maven is needed to fetch the test servers: apt-get install maven openjdk-17-jdk-headless"
    return found


@cache
def _javas() -> tuple[tuple[int, str], ...]:
    """(version, path) of every JDK found."""
    places = {os.environ.get("JAVA_HOME", ""), *map(str, Path("/usr/lib/jvm").glob("*"))} - {""}
    programs = {str(Path(place, "bin", "java").resolve()) for place in places if Path(place, "bin", "javac").exists()}
    on_path = shutil.which("java")
    programs |= {str(Path(on_path).resolve())} if on_path else set()
    return tuple((_java_version(program), program) for program in sorted(programs))


def _java_version(program: str) -> int:
    said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60).stderr
    version = re.search(r'version "(\d+)', said)
    return int(version[1]) if version else 0


def may_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(package: str) -> None:
    """Install a Debian package. One run at a time."""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with locked(cache_folder() / "apt"):
        for line in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", package]):
            ran = subprocess.run(line, capture_output=True, text=True, timeout=FETCH_S, env=environ)
            assert ran.returncode == 0, f"{' '.join(line)} failed:\n{ran.stdout}{ran.stderr}"
    _javas.cache_clear()
