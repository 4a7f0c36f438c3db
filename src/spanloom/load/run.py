"""One load from end to end: generate, send, record."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from spanloom.load.client import LoadStatistics, Report
from spanloom.load.record import Fate, LoadRecorder
from spanloom.load.workload import Request, Workload, requests


class Sender(Protocol):
    """A LoadClient or a DoorClient."""

    async def send(self, requests: Iterable[Request], report: Report, *, spans_per_s: float | None = None) -> None:
        """See LoadClient."""

    def statistics(self) -> LoadStatistics:
        """See LoadClient."""


async def run_load(
    client: Sender,
    workload: Workload,
    *,
    epoch_unix_ns: int,
    record: Path | None = None,
    spans_per_s: float | None = None,
) -> LoadStatistics:
    """Send *workload* and, where *record* is given, write down what became of each request.

    With *spans_per_s* simulated time is real time: give the present as the epoch. Without it the traffic goes out as
    fast as it can; `workload.length_s` before the present is then the epoch that leaves no span in the future.
    Raises ConfigError where *record* exists already.
    """
    if spans_per_s is not None:
        workload = replace(workload, spans_per_s=spans_per_s)
    traffic = requests(workload, epoch_unix_ns=epoch_unix_ns)
    if record is None:
        await client.send(traffic, _forget, spans_per_s=spans_per_s)
    else:
        with LoadRecorder(record) as recorder:

            def report(request: Request, fate: Fate) -> None:
                recorder.append(request.number, fate, request.sent)

            await client.send(traffic, report, spans_per_s=spans_per_s)
    return client.statistics()


def _forget(_request: Request, _fate: Fate) -> None:
    """Nobody asked."""
