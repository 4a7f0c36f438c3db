"""A real `spanloom run` in a process of its own, on ports and a folder that nobody else has."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

QUICK = {  # a trace's life in seconds instead of a minute
    "assembly.quiet_s": "0.5s",
    "assembly.idle_s": "1s",
    "assembly.age_max_s": "10s",
    "commit_interval_s": "0.1s",
}
START_S = 30  # a loaded machine's worst start
Found = TypeVar("Found")


class Process:
    """The running node; `log` gathers what it says, one JSON object a line."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self.popen = popen
        self.log: list[dict[str, object]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        ready = eventually(lambda: self.said("ready") or self._ended(), within_s=START_S)
        assert isinstance(ready, dict), f"spanloom ended with {popen.returncode}: {self.log}"
        ports = ready["ports"]
        assert isinstance(ports, dict)
        self.intake = f"http://127.0.0.1:{ports.get('intake')}"  # a member that takes no spans has none
        self.grpc = f"127.0.0.1:{ports.get('grpc')}"
        self.zipkin = f"http://127.0.0.1:{ports.get('zipkin')}"
        self.query = f"http://127.0.0.1:{ports['query']}"

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"event": "text", "text": line})

    def _ended(self) -> bool:
        return self.popen.poll() is not None

    def said(self, event: str) -> dict[str, object] | None:
        """The first log line of that name."""
        return next((line for line in list(self.log) if line["event"] == event), None)

    def post(self, path: str, body: bytes, content_type: str, **headers: str) -> tuple[int, bytes]:
        """Send a body to the intake."""
        request = urllib.request.Request(f"{self.intake}{path}", body, {"Content-Type": content_type, **headers})
        return _answer(request)

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask the query port."""
        return _answer(urllib.request.Request(f"{self.query}{path}"))

    def metric(self, name: str) -> float:
        """A metric, summed over its labels; 0 where it has no sample."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def settled(self, spans: int, within_s: float = 60) -> None:
        """Wait until at least *spans* were received and every one is resolved."""
        eventually(
            lambda: (
                self.metric("spanloom_spans_received_total") >= spans and self.metric("spanloom_spans_pending") == 0
            ),
            within_s=within_s,
        )

    def terminate(self, within_s: float = 30) -> int:
        """SIGTERM, and the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(within_s)


def _answer(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def eventually(look: Callable[[], Found | None], within_s: float) -> Found:
    """What *look* gives once that is true."""
    ends = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < ends, f"not within {within_s} s"
        time.sleep(0.05)


def command(folder: Path, settings: Mapping[str, str] = QUICK, *flags: str) -> list[str]:
    """The command line of a node on *folder*."""
    sets = [f"--set={key}={value}" for key, value in settings.items()]
    ports = ["--port=0", "--query-port=0", "--set=http.zipkin_port=0", "--set=grpc.port=0"]
    return [sys.executable, "-m", "spanloom", "run", f"--data={folder}", "--set=log.format=json", *ports, *sets, *flags]


@contextmanager
def running(folder: Path, settings: Mapping[str, str] = QUICK, *flags: str) -> Iterator[Process]:
    """A node on *folder* until the block ends; killed if it is still there then."""
    line = command(folder, settings, *flags)
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environ) as popen:
        try:
            yield Process(popen)
        finally:
            if popen.poll() is None:
                popen.kill()
