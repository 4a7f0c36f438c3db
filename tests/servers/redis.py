"""A real Redis, nothing on disk, from Debian's package; installed where it is missing and that is allowed."""

import atexit
import os
import shutil
import socket
import subprocess
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tests.servers.jars import install, may_install
from tests.servers.ports import free_ports

_START_S = 30  # at once, on an idle machine


class RedisServer:
    """One server on a free port of the loopback interface. It keeps nothing: killed, it starts empty."""

    def __init__(self) -> None:
        """Raises AssertionError where there is no Redis or it does not start."""
        self._program = _program()
        self._folder = Path(mkdtemp(prefix="spanloom-redis-"))
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, on the port it had."""
        line = [
            self._program,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(self._folder),
        ]
        log = self._folder / "server.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + _START_S
        while not self._answers():
            told = log.read_text(errors="replace")
            assert self._process.poll() is None, f"Redis ended with its start:\n{told}"
            assert time.monotonic() < deadline, f"Redis has not started:\n{told}"
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Send a signal, SIGSTOP for example."""
        assert self._process is not None, "it is not running"
        os.kill(self._process.pid, number)

    def say(self, command: str) -> bytes:
        """Send one inline command, FLUSHALL for example, and give the first bytes of the answer."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=10)) as connection:
            connection.sendall(command.encode() + b"\r\n")
            return connection.recv(65536)

    def close(self) -> None:
        """End it."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return self.say("PING") == b"+PONG\r\n"
        except OSError:
            return False


@cache
def running() -> RedisServer:
    """A server that all tests of this process share; it ends with the process."""
    server = RedisServer()
    atexit.register(server.close)
    return server


@cache
def _program() -> str:
    if shutil.which("redis-server") is None and may_install():
        install("redis-server")
    found = shutil.which("redis-server")
    assert found, "Redis is needed: apt-get install redis-server"
    return found
