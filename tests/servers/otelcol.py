"""A real OpenTelemetry Collector: built once from the Go modules its makers publish, run with the configuration given.

Building takes one to four minutes and about a gigabyte of Go's own caches; the program alone is kept. Several test runs
may build at the same time: one does, the others wait.
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml

from tests.servers import need_servers
from tests.servers.go import go, go_environ
from tests.servers.jars import _locked, cache_folder
from tests.servers.ports import free_ports
from tests.servers.processes import cpu_s, peak_rss_bytes, rss_bytes
from tests.servers.prometheus import MetricSample, scrape, total

BUILDER = Path(__file__).with_name("otelcol-builder.yaml")
READY = "Everything is ready"
NO_GO = "no Go 1.21 or newer to build the OpenTelemetry Collector with"
_BUILD_S = 1500  # both cores to itself: 100 s
_START_S = 60  # at once, on an idle machine
_STOP_S = 60  # it sends on what it holds
_PROGRAM = "built/otelcol-peer"
_PORT = re.compile(r"\$\{env:(\w+_PORT)\}")


class Otelcol:
    """A running collector."""

    def __init__(self, popen: "subprocess.Popen[bytes]", ports: dict[str, int], folder: Path) -> None:
        self.ports = ports
        """The free ports it was given, by the variable's name: METRICS_PORT and whatever the configuration named."""
        self._popen = popen
        self._folder = folder

    @property
    def pid(self) -> int:
        """Its process."""
        return self._popen.pid

    @property
    def log(self) -> str:
        """What it said so far."""
        return (self._folder / "said").read_text(errors="replace")

    def cpu_s(self) -> float:
        """User and system time so far."""
        return cpu_s(self.pid)

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return rss_bytes(self.pid)

    def peak_rss_bytes(self) -> int:
        """The most resident memory so far."""
        return peak_rss_bytes(self.pid)

    def samples(self) -> list[MetricSample]:
        """Every metric with its labels."""
        return scrape(f"http://127.0.0.1:{self.ports['METRICS_PORT']}/metrics")

    def metrics(self) -> dict[str, float]:
        """Every metric by its name, summed over its labels."""
        sums: dict[str, float] = {}
        for sample in self.samples():
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def metric(self, name: str, **labels: str) -> float:
        """One metric, summed over the samples that have these labels; 0 where there is none."""
        return total(self.samples(), name, **labels)

    def stop(self) -> None:
        """Let it send on what it holds, and end. May be called again."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
        try:
            self._popen.wait(_STOP_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """kill -9. May be called again."""
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_S
        while READY not in self.log or not self._answers():
            died = self._popen.poll()
            assert died is None, f"the collector ended with {died}:\n{self.log[-4000:]}"
            assert time.monotonic() < deadline, f"the collector is not up in {_START_S} s:\n{self.log[-4000:]}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            return bool(self.samples())
        except OSError:
            return False


@contextmanager
def running_otelcol(config_text: str, **env: str) -> Iterator[Otelcol]:
    """A collector with that configuration, until the block ends.

    `${env:NAME}` in the text is what *env* gives. METRICS_PORT, and every other NAME_PORT the text speaks of that is
    not given, becomes a free port of the loopback interface; the text must serve its metrics at METRICS_PORT:

        service: {telemetry: {metrics: {readers: [{pull: {exporter: {prometheus:
            {host: 127.0.0.1, port: "${env:METRICS_PORT}"}}}}]}}}

    Raises AssertionError where it cannot be built or does not start.
    """
    names = sorted({"METRICS_PORT", *_PORT.findall(config_text)} - env.keys())
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environ = {**os.environ, **env, **{name: str(port) for name, port in ports.items()}}
    with TemporaryDirectory(prefix="spanloom-otelcol-") as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(config_text)
        # At `info` because only there it says that it is ready; it says little else.
        line = [str(binary()), "--config", str(folder / "config.yaml"), "--set=service.telemetry.logs.level=info"]
        with (folder / "said").open("wb") as said:
            popen = subprocess.Popen(line, stdout=said, stderr=subprocess.STDOUT, env=environ, cwd=folder)
        collector = Otelcol(popen, ports, folder)
        try:
            collector._wait()
            yield collector
            collector.stop()
        finally:
            collector.kill()


def need_otelcol() -> None:
    """Skip the calling test where there are no servers or no Go; in CI that fails."""
    need_servers()
    if go() is None:
        assert os.environ.get("CI") != "true", NO_GO
        pytest.skip(NO_GO)


def version() -> str:
    """Which collector this is."""
    return str(yaml.safe_load(BUILDER.read_text())["dist"]["version"])


@cache
def binary() -> Path:
    """The program, built where it is not yet. Raises AssertionError where there is no Go or the build fails."""
    digest = hashlib.sha256(BUILDER.read_bytes()).hexdigest()[:12]
    program = cache_folder() / f"otelcol-{version()}-{digest}"
    with _locked(program):
        if not program.exists():
            _build(program)
    return program


def _build(program: Path) -> None:
    """Make the builder, let it make the collector; the program gets its name once it is whole."""
    assert go() is not None, NO_GO
    folder = program.with_name(f"{program.name}.unfinished")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    environ = {**go_environ(), "GOBIN": str(folder), "GOFLAGS": "-buildvcs=false"}
    _run([str(go()), "install", f"go.opentelemetry.io/collector/cmd/builder@v{version()}"], folder, environ)
    _run([str(folder / "builder"), "--config", str(BUILDER)], folder, environ)
    (folder / _PROGRAM).rename(program)
    shutil.rmtree(folder)


def _run(line: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    ran = subprocess.run(line, capture_output=True, text=True, timeout=_BUILD_S, cwd=folder, env=environ)
    assert ran.returncode == 0, f"{' '.join(line)} failed:\n{(ran.stdout + ran.stderr)[-8000:]}"
