"""`spanloom demo`: a node and its traffic in one process, and a live table of what both know of themselves.

Nothing is precomputed: the spans go in through the OTLP port, the traces shown come out of the query port.
"""

import json
import shutil
import signal
import sys
import time
import urllib.request
from dataclasses import dataclass

import trio

from spanloom.app import Node, run_node
from spanloom.config import Config
from spanloom.load.client import LoadClient
from spanloom.load.demo import DemoSnapshot, redraw, render_line, render_table
from spanloom.load.run import run_load
from spanloom.load.workload import Workload

REDRAW_S = 0.5
LINE_S = 5.0  # where nobody watches
SHOWN = 5  # traces, at the end


@dataclass(frozen=True, slots=True)
class Show:
    """What is sent, and whether the node serves on afterwards."""

    spans: int
    spans_per_s: float
    seed: int
    stays: bool


async def show(config: Config, plan: Show) -> None:
    """Run the demo. Ends by itself, or on SIGINT or SIGTERM."""
    async with trio.open_nursery() as nursery:
        node: Node = await nursery.start(run_node, config)
        nursery.start_soon(_stop_on_signal, node)
        intake, query = (f"http://{config.http.host}:{node.ports[name]}" for name in ("intake", "query"))
        print(f"spanloom takes OTLP/HTTP at {intake}/v1/traces and answers at {query}", flush=True)
        client = LoadClient(f"{intake}/v1/traces", seed=plan.seed)
        async with trio.open_nursery() as traffic:
            table = _Table(node, client)
            traffic.start_soon(table.keep_drawing)
            traffic.start_soon(_cancel_when_stopped, node, traffic.cancel_scope)
            workload = Workload(seed=plan.seed, spans=plan.spans)
            await run_load(client, workload, epoch_unix_ns=time.time_ns(), spans_per_s=plan.spans_per_s)
            await _settled(node)
            table.draw()
            await trio.to_thread.run_sync(_point_out, query, abandon_on_cancel=True)
            traffic.cancel_scope.cancel()
        if not plan.stays:
            node.stop()
        await node.stopped.wait()
        nursery.cancel_scope.cancel()


async def _stop_on_signal(node: Node) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            node.stop()


async def _cancel_when_stopped(node: Node, scope: trio.CancelScope) -> None:
    await node.stopped.wait()
    scope.cancel()


async def _settled(node: Node) -> None:
    """Wait until every span sent is resolved."""
    while True:
        await trio.sleep(REDRAW_S)
        now = node.statistics()
        read = sum(p.assembler.offset for p in now.partitions) and now.lag == 0
        if read and all(p.assembler.tally.pending == 0 for p in now.partitions):
            return


class _Table:
    """The table on the terminal; a line now and then where there is no terminal."""

    def __init__(self, node: Node, client: LoadClient) -> None:
        self._node = node
        self._client = client
        self._began_s = self._drawn_s = trio.current_time()
        self._received = 0
        self._shown = ""

    async def keep_drawing(self) -> None:
        while True:
            await trio.sleep(REDRAW_S if sys.stdout.isatty() else LINE_S)
            self.draw()

    def draw(self) -> None:
        snapshot = self._snapshot()
        if sys.stdout.isatty():
            table = render_table(snapshot)
            sys.stdout.write(redraw(table, self._shown))
            self._shown = table
        else:
            sys.stdout.write(render_line(snapshot))
        sys.stdout.flush()

    def _snapshot(self) -> DemoSnapshot:
        now = trio.current_time()
        statistics = self._node.statistics()
        assemblers = [p.assembler for p in statistics.partitions]
        tallies = [assembler.tally for assembler in assemblers]
        received = sum(tally.received for tally in tallies)
        arrived = received - self._received
        rate = arrived / max(now - self._drawn_s, 1e-9)
        self._received, self._drawn_s = received, now
        appended = statistics.intake.produced + sum(tally.moved for tally in tallies)
        return DemoSnapshot(
            elapsed_s=now - self._began_s,
            sent=self._client.statistics().spans_acknowledged,
            spans_per_s=rate,
            received=received,
            traces_open=sum(assembler.open_traces for assembler in assemblers),
            traces_kept=sum(p.documents_stored for p in statistics.partitions),
            stored=sum(tally.stored for tally in tallies),
            dropped=(
                ("not sampled", sum(tally.not_sampled for tally in tallies)),
                ("pressure", sum(tally.pressure for tally in tallies)),
            ),
            duplicates=sum(tally.duplicate for tally in tallies),
            late=sum(tally.late for tally in tallies),
            moved=sum(tally.moved for tally in tallies),
            dead_lettered=sum(tally.dead_lettered for tally in tallies),
            pending=sum(tally.pending for tally in tallies),
            lag=statistics.lag,
            balance_closes=received == appended or (received < appended and arrived > 0),
            restarts=sum(statistics.restarts.values()),
        )


def _point_out(query: str) -> None:
    """Ask the query port for a few kept traces and say how to see them."""
    with urllib.request.urlopen(f"{query}/v1/traces?limit=200", timeout=10) as answer:  # noqa: S310 - our own port
        found = json.load(answer)["traces"]
    most = sorted(found, key=lambda trace: -trace["span_count"])[:SHOWN]
    print("\nKept traces:")
    for trace in most:
        print(
            f"  {trace['trace_id']}  {trace['span_count']:>5} spans  {trace['root_service']}: {trace['root_operation']}"
        )
    if most:
        example = most[0]["trace_id"]
        print(f"\nSee one:  {query}/#{example}")
        print(f"          curl -s {query}/v1/traces/{example}")
        program = "spanloom" if shutil.which("spanloom") else sys.argv[0]
        print(f"          {program} trace --url {query} {example}", flush=True)
