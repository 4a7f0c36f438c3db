"""The producer's end: whatever becomes of it, everybody who waits for a report gets one; the next one starts afresh."""

from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from spanloom.adapters.kafka.delivery import Pump
from spanloom.adapters.kafka.native_pump import NativePump
from spanloom.adapters.kafka.portable_pump import PortablePump
from spanloom.adapters.kafka.publisher import Publisher, new_pump
from spanloom.adapters.kafka.selftest import is_sender_sound
from spanloom.core import kernel
from spanloom.errors import ConfigError, SourceUnavailable
from spanloom.model import Message
from tests.servers.ports import free_ports

RECORD = ("spans", 0, Message(None, b"span"))
NATIVE = pytest.param(NativePump, marks=pytest.mark.skipif(kernel.produce is None, reason="there is no native code"))

Open = Callable[..., Publisher]


@pytest.fixture(params=[NATIVE, PortablePump])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Publishers to a broker that is not there; a record is given up after half a second."""
    (port,) = free_ports(1)
    made = []

    def open_publisher(**settings: str) -> Publisher:
        known = {"bootstrap.servers": f"127.0.0.1:{port}", "delivery.timeout.ms": "500"}
        known |= {name.replace("_", "."): value for name, value in settings.items()}
        made.append(Publisher(known, SourceUnavailable, linger_ms=0, make_pump=request.param))
        return made[-1]

    yield open_publisher
    for publisher in made:
        publisher.close()


async def refused(publisher: Publisher, count: int = 1) -> None:
    with pytest.raises(SourceUnavailable):
        await publisher.publish([RECORD] * count)


def pump_of(publisher: Publisher) -> Pump:
    return publisher._pump


async def test_after_a_time_out_the_next_append_has_a_new_producer(opened: Open) -> None:
    """A producer that could not send in time may never send again: it is not asked a second time."""
    publisher = opened()
    first = pump_of(publisher)
    with trio.fail_after(20):
        await refused(publisher)
        assert pump_of(publisher) is first
        await refused(publisher)
    assert pump_of(publisher) is not first
    assert first.reporter.is_retired


async def test_who_waits_for_a_producer_that_is_given_up_is_told(opened: Open) -> None:
    """Appends that began later than the one that timed out are refused too, none waits for ever."""
    publisher = opened()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(refused, publisher)
                await trio.sleep(0.05 if number % 2 else 0)


async def test_who_waits_for_room_in_the_queue_is_told(opened: Open) -> None:
    """Appends that do not fit into the producer's queue end as those before them do, none waits for ever."""
    publisher = opened(queue_buffering_max_messages="3")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(refused, publisher, 5)


async def test_an_append_that_is_cancelled_while_the_queue_is_full_harms_no_other(opened: Open) -> None:
    """What it put into the queue is reported on as ever, the rest is forgotten."""
    publisher = opened(queue_buffering_max_messages="3")
    with trio.move_on_after(0.1) as scope:
        await publisher.publish([RECORD] * 5)
    assert scope.cancelled_caught
    with trio.fail_after(20):
        await refused(publisher)


async def test_closing_ends_who_waits(opened: Open) -> None:
    """A producer that is closed reports on what it has not sent: not appended, as far as it knows."""
    publisher = opened(delivery_timeout_ms="60000")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused, publisher)
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(publisher.close)
        await refused(publisher)


def test_a_setting_that_librdkafka_refuses_is_named(opened: Open) -> None:
    """A wrong value is an operator's mistake, and the message names its key."""
    with pytest.raises(ConfigError, match="compression"):
        opened(compression_type="tar")


def test_native_code_sends_where_it_was_built() -> None:
    """The self-test passes with this librdkafka, so that the cheap way is the one that is taken."""
    assert is_sender_sound() == (kernel.produce is not None)
    pump = new_pump({"bootstrap.servers": "127.0.0.1:1", "log_level": "0"})
    assert isinstance(pump, PortablePump if kernel.produce is None else NativePump)
    pump.reporter.stop()
