"""The producer's end: whatever becomes of it, everybody who waits for a report gets one; the next one starts afresh."""

from collections.abc import Iterator

import pytest
import trio

from spanloom.adapters.kafka.publisher import Publisher
from spanloom.errors import SourceUnavailable
from spanloom.model import Message
from tests.servers.ports import free_ports

RECORD = ("spans", 0, Message(None, b"span"))


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """Of a broker that is not there; a record is given up after half a second."""
    (port,) = free_ports(1)
    settings = {"bootstrap.servers": f"127.0.0.1:{port}", "delivery.timeout.ms": "500"}
    made = Publisher(settings, SourceUnavailable, linger_ms=0)
    yield made
    made.close()


async def refused(publisher: Publisher) -> None:
    with pytest.raises(SourceUnavailable):
        await publisher.publish([RECORD])


async def test_after_a_time_out_the_next_append_has_a_new_producer(publisher: Publisher) -> None:
    """A producer that could not send in time may never send again: it is not asked a second time."""
    first = publisher._pump
    with trio.fail_after(20):
        await refused(publisher)
        assert publisher._pump is first
        await refused(publisher)
    assert publisher._pump is not first
    assert first.is_retired


async def test_who_waits_for_a_producer_that_is_given_up_is_told(publisher: Publisher) -> None:
    """Appends that began later than the one that timed out are refused too, none waits for ever."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(refused, publisher)
                await trio.sleep(0.05 if number % 2 else 0)
