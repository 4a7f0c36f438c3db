"""Kills a real node again and again while stock exporters and the load generator send, and looks for what they lost.

`python -m tests.integration.kills [KILLS [ALIVE_S [SPANS_PER_S]]]` does it at length; see docs/evidence/.
"""

import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.process import QUICK, Process, eventually, running
from tests.oracle_checks import check_loadgen_record
from tests.oracle_files import log_partitions, parse_record, parse_spans, read_log
from tests.servers.ports import free_ports

PROGRAM = Path(__file__).parent.parent / "collector" / "exporter_program.py"
CLIENTS = (("grpc", "none"), ("grpc", "gzip"), ("http", "none"), ("http", "gzip"))
REQUESTS_COME_S = 0.5  # a node is frozen before it is killed; each client sends within this, so that is in flight
FOR_KILLS = {**QUICK, "drain_s": "1s"}


class Address:
    """A node's ports, the same at every start."""

    def __init__(self) -> None:
        self.http, self.grpc = free_ports(2)

    def flags(self) -> list[str]:
        return [f"--port={self.http}", f"--set=grpc.port={self.grpc}"]

    def endpoint(self, protocol: str) -> str:
        return f"http://127.0.0.1:{self.grpc}" if protocol == "grpc" else f"http://127.0.0.1:{self.http}/v1/traces"


class Client:
    """A running exporter program; its output is gathered as it comes."""

    def __init__(self, popen: "subprocess.Popen[str]", name: str) -> None:
        self.popen, self.name = popen, name
        self.acknowledged: list[tuple[str, str]] = []
        self.said: list[str] = []
        readers = (threading.Thread(target=each, daemon=True) for each in (self._read_out, self._read_err))
        self._readers = tuple(readers)
        for reader in self._readers:
            reader.start()

    def _read_out(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            trace_id, _, span_id = line.strip().partition(" ")
            self.acknowledged.append((trace_id, span_id))

    def _read_err(self) -> None:
        assert self.popen.stderr is not None
        self.said.extend(self.popen.stderr)

    def finish(self, within_s: float) -> None:
        """Wait until the program has ended, well."""
        assert self.popen.wait(within_s) == 0, self.said[-5:]
        for reader in self._readers:
            reader.join()

    @property
    def retries(self) -> int:
        """How often the exporter said that it tries again; gRPC's says so once in 20 s at most."""
        return sum("Transient error" in line for line in self.said)


@contextmanager
def client(address: Address, protocol: str, compression: str, *, spans: int, spans_per_s: float) -> Iterator[Client]:
    line = [sys.executable, str(PROGRAM), protocol, address.endpoint(protocol), compression, str(spans)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*line, str(spans_per_s)], text=True, **pipes) as popen:  # type: ignore[call-overload]
        try:
            yield Client(popen, f"{protocol}-{compression}")
        finally:
            if popen.poll() is None:
                popen.kill()


def missing(clients: Sequence[Client], folder: Path) -> list[str]:
    """The acknowledged spans that are not in the log, as sentences."""
    in_log = {
        (span.trace_id.hex(), span.span_id.hex())
        for partition in log_partitions(folder / "log.db")
        for record in read_log(folder / "log.db", partition)
        for span in parse_spans(parse_record(record.value))
    }
    return [
        f"{each.name}: acknowledged, not in the log: {trace_id}/{span_id}"
        for each in clients
        for trace_id, span_id in each.acknowledged
        if (trace_id, span_id) not in in_log
    ]


@dataclass
class Outcome:
    """What a run of kills came to."""

    acknowledged: dict[str, int]
    retries: dict[str, int]
    in_flight: dict[str, list[int]]  # by door: connections with requests in flight, at each kill
    lost: list[str]


def kill_again_and_again(folder: Path, kills: int, *, alive_s: float, spans_per_s: int = 200) -> Outcome:
    """Start a node, kill it, start it again...; clients send all the while and finish on the last node.

    Each exporter sends *spans_per_s*, the load generator five times as many.
    """
    address, record = Address(), folder.parent / "sent"
    lasts_s = kills * (alive_s + 4.0)  # a start and the clients' return take about that on two busy cores
    in_flight: dict[str, list[int]] = {"http": [], "grpc": []}
    with ExitStack() as stack:
        node = _start(address, folder, stack)
        clients = [
            stack.enter_context(client(address, *each, spans=round(lasts_s * spans_per_s), spans_per_s=spans_per_s))
            for each in CLIENTS
        ]
        load = stack.enter_context(
            _load(address, record, spans=round(lasts_s * spans_per_s * 5), spans_per_s=spans_per_s * 5)
        )
        for _ in range(kills):
            _until_all_are_back(clients)
            time.sleep(alive_s)
            assert load.poll() is None, "the load ended before the kills"
            node.popen.send_signal(signal.SIGSTOP)
            time.sleep(REQUESTS_COME_S)
            in_flight["http"].append(unread_connections(address.http))
            in_flight["grpc"].append(unread_connections(address.grpc))
            node.popen.kill()
            node.popen.wait()
            node = _start(address, folder, stack)
        for each in clients:
            each.finish(within_s=lasts_s + 120)
        said, _ = load.communicate(timeout=lasts_s + 120)
        assert load.returncode == 0, said
        counts = dict(line.split()[:2] for line in said.splitlines() if len(line.split()) > 1)
        node.terminate()
    acknowledged = {each.name: len(each.acknowledged) for each in clients}
    retries = {each.name: each.retries for each in clients}
    return Outcome(
        acknowledged | {"loadgen": int(counts["spans_acknowledged"])},
        retries | {"loadgen": int(counts["retries"])},
        in_flight,
        missing(clients, folder) + check_loadgen_record(record, folder),
    )


def _until_all_are_back(clients: Sequence[Client]) -> None:
    """Wait until the node has acknowledged something to each."""
    before = [len(each.acknowledged) for each in clients]
    eventually(
        lambda: all(len(each.acknowledged) > count for each, count in zip(clients, before, strict=True)), within_s=60
    )


def unread_connections(port: int) -> int:
    """Connections to *port* whose server has not read all that came: of a frozen one, requests in flight."""
    found = 0
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]  # gRPC listens on a socket of both
    for line in (line for table in tables for line in table.read_text().splitlines()[1:]):
        _, local, _, state, queues = line.split()[:5]
        found += local.endswith(f":{port:04X}") and state == "01" and int(queues.rpartition(":")[2], 16) > 0
    return found


def _start(address: Address, folder: Path, stack: ExitStack) -> Process:
    return stack.enter_context(running(folder, FOR_KILLS, *address.flags()))


@contextmanager
def _load(address: Address, record: Path, *, spans: int, spans_per_s: float) -> Iterator["subprocess.Popen[str]"]:
    line = [sys.executable, "-m", "spanloom", "loadgen", f"--url={address.endpoint('http')}", f"--record={record}"]
    line += [f"--spans={spans}", f"--rate={spans_per_s}"]
    with subprocess.Popen(line, text=True, stdout=subprocess.PIPE) as popen:
        try:
            yield popen
        finally:
            if popen.poll() is None:
                popen.kill()


def main(kills: int, alive_s: float, spans_per_s: int) -> int:
    """Run it; the exit code."""
    python = f"Python {platform.python_version()}, {platform.machine()}"
    print(f"{kills} kills, {spans_per_s} spans a second and exporter, {python}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        outcome = kill_again_and_again(Path(name) / "data", kills, alive_s=alive_s, spans_per_s=spans_per_s)
        print(f"after {time.monotonic() - began:.0f} s")
    for client_name, spans in outcome.acknowledged.items():
        print(f"{client_name:<12}{spans:>9} spans acknowledged {outcome.retries[client_name]:>7} retries")
    for door, counts in outcome.in_flight.items():
        print(f"connections with a request in flight at a kill, {door}: at least {min(counts)}, in all {sum(counts)}")
    print(f"lost or stored twice: {len(outcome.lost)} {outcome.lost[:5]}")
    return int(bool(outcome.lost))


if __name__ == "__main__":
    given = sys.argv[1:]
    defaults = ["100", "1.0", "200"]
    kills, alive_s, spans_per_s = [*given, *defaults[len(given) :]]
    sys.exit(main(int(kills), float(alive_s), int(spans_per_s)))
