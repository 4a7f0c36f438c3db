"""The aggregator processes of a chaos run: as many as are wanted, whatever becomes of them.

Each life of a process has a number and a log file of its own, so that what happened can be looked into afterwards.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import trio

from tests.cluster.members import Cluster, owned

LOOK_S = 0.1  # how often it is seen to that as many live as are wanted
RESTART_S = 1.0  # at most, drawn; an orchestrator does not start again at once either
ABSENT = 4  # the exit code of a program that finds no Kafka at its start
END_S = 60.0  # that a process gets to end on SIGTERM


@dataclass(slots=True)
class Life:
    """One process from its start to its end."""

    number: int
    popen: "subprocess.Popen[bytes]"
    path: Path
    file: BinaryIO
    started_unix: float
    log: list[dict[str, object]] = field(default_factory=list)
    is_frozen: bool = False
    is_leaving: bool = False
    is_noted: bool = False  # its end is
    killed_unix: float = 0.0
    _rest: bytes = b""

    @property
    def is_alive(self) -> bool:
        """It has not ended."""
        return self.popen.poll() is None

    @property
    def partitions(self) -> set[object]:
        """What it owns, as far as it has said."""
        return owned(self)

    def tail(self) -> None:
        """Take in what it has said since."""
        *lines, self._rest = (self._rest + self.file.read()).split(b"\n")
        for line in lines:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"event": "text", "text": line.decode(errors="replace")})

    def said(self, event: str) -> bool:
        """Whether there is a log line of that name."""
        return any(line["event"] == event for line in self.log)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal if it is there."""
        if self.is_alive:
            self.popen.send_signal(number)


class Fleet:
    """Keeps `wanted` processes running; a context manager that leaves none behind."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        settings: Mapping[str, str],
        draw: Callable[[], float],
        *,
        wanted: int = 3,
        program: str = "spanloom",
        armed: str = "",  # a failpoint, in every life
    ) -> None:
        self.lives: list[Life] = []
        self.wanted = wanted
        self._environ = {**os.environ, "PYTHONUNBUFFERED": "1", "SPANLOOM_FAILPOINT": armed}
        self.ended_by_themselves: list[tuple[int, int]] = []  # number of the life, exit code
        self.not_started = 0  # Kafka was away when they looked for their topics
        self._line = [
            *(sys.executable, "-m", program, "aggregator"),
            *(f"--set={key}=0" for key in ("http.port", "http.query_port", "http.zipkin_port", "grpc.port")),
            f"--config={folder / 'spanloom.yaml'}",
            *cluster.flags(dict(settings)),
        ]
        self._folder = folder
        self._draw = draw
        self._stop = ExitStack()

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for life in self.living:
            life.popen.kill()
        for life in self.lives:
            life.popen.wait()
        self._stop.close()

    @property
    def living(self) -> list[Life]:
        """Those that have not ended."""
        return [life for life in self.lives if life.is_alive]

    @property
    def able(self) -> list[Life]:
        """Those that can be done something to: alive, not frozen, not told to leave."""
        return [life for life in self.living if not life.is_frozen and not life.is_leaving]

    async def run(self) -> None:
        """Keep them running until cancelled."""
        while True:
            for life in [life for life in self.lives if not life.is_noted]:
                life.tail()
                self._note_end(life)
            staying = [life for life in self.living if not life.is_leaving]
            if len(staying) < self.wanted:
                await trio.sleep(self._draw() * RESTART_S)
                self._start()
            await trio.sleep(LOOK_S)

    def kill(self, life: Life) -> None:
        """`kill -9`."""
        life.killed_unix = time.time()
        life.signal(signal.SIGKILL)

    def leave(self, life: Life) -> None:
        """SIGTERM: it drains, commits, leaves the group and ends."""
        life.is_leaving = True
        life.signal(signal.SIGTERM)

    async def end(self) -> None:
        """Tell them all to leave, and wait; who does not end in time is killed, which shows as an end by itself."""
        for life in self.living:
            self.leave(life)
        with trio.move_on_after(END_S):
            while self.living:  # noqa: ASYNC110 - other processes
                await trio.sleep(LOOK_S)
        for life in self.living:
            life.popen.kill()
            life.popen.wait()
        for life in self.lives:
            life.tail()
            self._note_end(life)

    def _note_end(self, life: Life) -> None:
        code = life.popen.poll()
        if code is None or life.is_noted:
            return
        life.is_noted = True
        is_young = not life.said("ready")  # no handler of signals yet
        if life.killed_unix or (life.is_leaving and code in ((0, -signal.SIGTERM) if is_young else (0,))):
            return
        if code == ABSENT and is_young:
            self.not_started += 1
        else:
            self.ended_by_themselves.append((life.number, code))

    def _start(self) -> None:
        number = len(self.lives)
        path = self._folder / f"life-{number:03}.log"
        with path.open("wb") as output:
            line = [*self._line, f"--data={self._folder / 'data'}"]
            popen = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self._environ)
        file = self._stop.enter_context(path.open("rb"))
        self.lives.append(Life(number, popen, path, file, time.time()))
