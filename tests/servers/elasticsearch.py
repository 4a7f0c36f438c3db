"""A real Elasticsearch, one node, from the jars its makers publish: HTTP, documents, search and templates.

What it lacks, because those modules are not published: ILM, security, ES|QL, scripts. Version 8 runs on Java 17 and is
there in every run; version 9 wants Java 21 and is there where such a Java is found.
"""

import atexit
import hashlib
import json
import os
import shutil
import subprocess
import time
from contextlib import closing
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from tempfile import mkdtemp

from tests.servers.jars import cache_folder, jars, java
from tests.servers.ports import free_ports

BASELINE = "8.19.21"
NEWEST = "9.5.3"
_JAVA_OF = {BASELINE: 17, NEWEST: 21}
_LAUNCHER = Path(__file__).with_name("ElasticsearchNode.java")
_START_S = 120  # it takes five seconds; a machine that is busy with other suites takes longer
_MODULE = "transport-netty4"
_DESCRIPTOR = """name={module}
description=HTTP
version={version}
elasticsearch.version={version}
java.version={java}
classname=org.elasticsearch.transport.netty4.Netty4Plugin
has.native.controller=false
"""


class ElasticsearchServer:
    """One node on free ports of the loopback interface; what it stores lies in a folder of its own."""

    def __init__(self, version: str) -> None:
        """Raises AssertionError where the version's Java is missing or the server does not start."""
        self.version = version
        program = java(_JAVA_OF[version])
        assert program is not None, f"Elasticsearch {version} needs Java {_JAVA_OF[version]}"
        self._java = program
        self._program = _laid_out(version, program)
        self._folder = Path(mkdtemp(prefix="spanloom-elasticsearch-"))
        self.port, self._transport_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None, "it is not running"
        return self._process.pid

    def start(self) -> None:
        """Start it, on the data it had and the ports it had."""
        home = self._folder / "home"
        if not home.exists():
            (home / "config").mkdir(parents=True)
            (home / "modules").symlink_to(self._program / "modules")
        line = [self._java, "-Xmx1g", "-XX:+UseSerialGC"]
        line += ["--enable-native-access=ALL-UNNAMED"] if _JAVA_OF[self.version] >= 21 else []
        line += ["--module-path", str(self._program / "core"), "--add-modules", "ALL-MODULE-PATH"]
        line += ["-cp", str(self._program), _LAUNCHER.stem, str(home), str(self._folder / "data")]
        line += [str(self.port), str(self._transport_port)]
        said = self._folder / "server.log"
        with said.open("wb") as output:
            self._process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, cwd=self._folder
            )
        deadline = time.monotonic() + _START_S
        while b"STARTED" not in said.read_bytes():
            told = said.read_text(errors="replace")[-4000:]
            assert self._process.poll() is None, f"Elasticsearch {self.version} ended with its start:\n{told}"
            assert time.monotonic() < deadline, f"Elasticsearch {self.version} has not started:\n{told}"
            time.sleep(0.05)

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def signal(self, number: int) -> None:
        """Send a signal, SIGSTOP for example."""
        os.kill(self.pid, number)

    def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        """What it answers. Raises AssertionError where that is no success."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            connection.request(method, target, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            told = answer.read()
        assert answer.status == 200, f"{method} {target}: {answer.status} {told[:2000]!r}"
        return told

    def forget(self, prefix: str) -> None:
        """Delete every index whose name begins with *prefix*, and the template of that name."""
        indices = json.loads(self.request("GET", f"/{prefix}*/_alias"))
        if indices:
            self.request("DELETE", f"/{','.join(indices)}")
        wanted = prefix.rstrip("-")
        templates = json.loads(self.request("GET", "/_index_template"))["index_templates"]
        if any(template["name"].startswith(wanted) for template in templates):
            self.request("DELETE", f"/_index_template/{wanted}*")

    def close(self) -> None:
        """End it and forget what it stored."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def running(version: str = BASELINE) -> ElasticsearchServer:
    """A server that all tests of this process share; it ends with the process."""
    return _running(version)


@cache
def _running(version: str) -> ElasticsearchServer:
    server = ElasticsearchServer(version)
    atexit.register(server.close)
    return server


def can_run(version: str) -> bool:
    """Whether this machine has the version's Java; the baseline's is installed where it is missing."""
    return version == BASELINE or java(_JAVA_OF[version]) is not None


@cache
def _laid_out(version: str, program: str) -> Path:
    """A folder with `core`, `modules` and the launcher's class, as the launcher wants them."""
    fetched = jars(
        f"elasticsearch-{version}",
        [f"org.elasticsearch:elasticsearch:{version}", f"org.elasticsearch.plugin:{_MODULE}:{version}"],
    )
    folder = cache_folder() / f"{fetched.name}-home-{_stamp()}"
    if not folder.exists():
        unfinished = Path(mkdtemp(prefix=f"{folder.name}.", dir=cache_folder()))
        core, module = unfinished / "core", unfinished / "modules" / _MODULE
        core.mkdir()
        module.mkdir(parents=True)
        for jar in fetched.glob("*.jar"):
            of_module = jar.name.startswith(("netty-", f"{_MODULE}-"))
            (module if of_module else core).joinpath(jar.name).symlink_to(jar)
        needed = _JAVA_OF[version]
        descriptor = _DESCRIPTOR.format(module=_MODULE, version=version, java=needed)
        module.joinpath("plugin-descriptor.properties").write_text(descriptor)
        compiler = Path(program).with_name("javac")
        line = [str(compiler), "-cp", f"{core}/*", "-d", str(unfinished), str(_LAUNCHER)]
        ran = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0, f"{' '.join(line)} failed:\n{ran.stdout}{ran.stderr}"
        try:
            unfinished.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(unfinished)
    return folder


def _stamp() -> str:
    """Changes with the launcher."""
    return hashlib.sha256(_LAUNCHER.read_bytes()).hexdigest()[:12]
