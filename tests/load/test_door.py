"""Traffic straight through a door: everything arrives, and what does not is reported as what it is."""

import trio
import trio.testing

from spanloom.actors.intake import Intake
from spanloom.adapters.memory import MemoryLog
from spanloom.errors import DecodeError, SourceUnavailable
from spanloom.load.door import DoorClient
from spanloom.load.record import Fate
from spanloom.load.run import run_load
from spanloom.load.workload import Workload, requests

EPOCH = 1_700_000_000 * 10**9


async def test_every_span_goes_into_the_log(autojump_clock: trio.testing.MockClock) -> None:
    """What the statistics call acknowledged is what lies in the log; an outage is waited for."""
    outages = iter([1, 0, 1])

    async def faults(place: str) -> None:
        if place == "append:before" and next(outages, 0):
            raise SourceUnavailable("away")

    log = MemoryLog(4, faults=faults)
    client = DoorClient(Intake(log, waiting_bytes_max=1 << 30))
    statistics = await run_load(client, Workload(spans=2000), epoch_unix_ns=EPOCH)

    assert statistics.spans_acknowledged == statistics.spans_sent >= 2000
    assert statistics.retries == 2
    assert sum([await log.end_offset(partition) for partition in range(4)]) > 0


async def test_a_request_has_the_fate_that_the_door_gave_it(autojump_clock: trio.testing.MockClock) -> None:
    """Refused for good, and given up after its time: counted and reported so."""

    class Door:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def accept(self, body: bytes, *, size_bytes: int, encoding: str = "") -> "Receipt":
            await trio.lowlevel.checkpoint()
            raise self.error

    class Receipt:
        accepted, rejected, reason = 1, 0, ""

    for error, fate in ((DecodeError("size", "less", "more"), Fate.REFUSED), (SourceUnavailable(""), Fate.ABANDONED)):
        fates: list[Fate] = []
        client = DoorClient(Door(error), give_up_s=30)
        await client.send(requests(Workload(spans=50), epoch_unix_ns=EPOCH), lambda _, given: fates.append(given))  # noqa: B023
        assert set(fates) == {fate}
        assert client.statistics().requests_sent == len(fates)
