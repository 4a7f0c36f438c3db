"""How each client program is prepared and started; all print `TRACE_ID SPAN_ID` for what was acknowledged to them."""

import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.jars import cache_folder, jars, java, locked

HERE = Path(__file__).parent
PYTHON = HERE.parent / "collector" / "exporter_program.py"
OTEL_JAVA, ZIPKIN_REPORTER = "1.68.0", "3.5.1"
OTLP_JARS = ("opentelemetry-sdk", "opentelemetry-exporter-otlp")
ZIPKIN_JARS = ("zipkin-reporter", "zipkin-sender-urlconnection", "zipkin-sender-okhttp3")
INSTALL_S = 600  # a slow registry's worst


@dataclass(frozen=True, slots=True)
class Line:
    """A command line, but for endpoint, spans and spans a second, and what its environment needs."""

    words: tuple[str, ...]
    environ: Mapping[str, str]
    after: tuple[str, ...] = ()  # between endpoint and spans


def javascript(protocol: str) -> Line:
    """OpenTelemetry's JavaScript exporter: http is OTLP/JSON, proto and grpc are protobuf."""
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node, "node is needed: apt-get install nodejs"
    assert npm, "npm is needed: apt-get install npm"
    package = HERE / "js" / "package.json"
    folder = cache_folder() / f"js-{hashlib.sha256(package.read_bytes()).hexdigest()[:12]}"
    with locked(folder):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            shutil.copy(package, unfinished)
            line = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(line, cwd=unfinished, check=True, timeout=INSTALL_S, stdout=subprocess.DEVNULL)
            unfinished.rename(folder)
    return Line((node, str(HERE / "js" / "client.cjs"), protocol), {"NODE_PATH": str(folder / "node_modules")})


def java_otlp(protocol: str) -> Line:
    """OpenTelemetry's Java exporter."""
    artifacts = tuple(f"io.opentelemetry:{name}:{OTEL_JAVA}" for name in OTLP_JARS)
    return _java("OtlpClient.java", jars("otlp-client", artifacts), protocol)


def zipkin(sender: str) -> Line:
    """Zipkin's reporter with one of its senders."""
    artifacts = tuple(f"io.zipkin.reporter2:{name}:{ZIPKIN_REPORTER}" for name in ZIPKIN_JARS)
    return _java("ZipkinClient.java", jars("zipkin-client", (*artifacts, "io.zipkin.zipkin2:zipkin:2.27.1")), sender)


def python(protocol: str) -> Line:
    """OpenTelemetry's Python exporter: what feeds a Collector that stands before ours."""
    return Line((sys.executable, str(PYTHON), protocol), {}, after=("none",))


def _java(program: str, folder: Path, first: str) -> Line:
    found = java()
    assert found, "no Java: apt-get install openjdk-17-jdk-headless"
    return Line((found, "-Xmx512m", "-cp", f"{folder}/*", str(HERE / "java" / program), first), {})


class Client:
    """A running program; what it says is gathered as it comes."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self.popen = popen
        self.acknowledged: list[str] = []  # `TRACE_ID SPAN_ID`
        self.said: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((popen.stdout, self.acknowledged), (popen.stderr, self.said))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: Iterator[str], into: list[str]) -> None:
        into.extend(line.strip() for line in pipe)

    def finish(self, within_s: float) -> None:
        """Wait until the program has ended, well."""
        assert self.popen.wait(within_s) == 0, self.said[-20:]
        for reader in self._readers:
            reader.join()

    @property
    def retries(self) -> int:
        """How often it said that it tries again."""
        return sum(line == "retry" or "Transient error" in line for line in self.said)

    @property
    def complaints(self) -> list[str]:
        """Why it gave up, each reason once."""
        return sorted({line.split(" ", 2)[2] for line in self.said if line.startswith("failed ")})

    @property
    def failed(self) -> int:
        """Spans that it gave up."""
        return sum(int(line.split()[1]) for line in self.said if line.startswith("failed "))


@contextmanager
def started(
    line: Line, endpoint: str, *, spans: int, spans_per_s: float, environ: Mapping[str, str]
) -> Iterator[Client]:
    """The program until the block ends; killed if it is still there then."""
    words = [*line.words, endpoint, *line.after, str(spans), str(spans_per_s)]
    with subprocess.Popen(
        words, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**environ, **line.environ}
    ) as popen:
        try:
            yield Client(popen)
        finally:
            if popen.poll() is None:
                popen.kill()
