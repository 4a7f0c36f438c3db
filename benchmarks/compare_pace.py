"""Produces at a steady rate: `python -m benchmarks.compare_pace BROKERS TOPIC SHAPE SPANS_A_SECOND SECONDS`.

Everything is made first; then it says `made`, waits for a line, produces, and says how many spans it sent and from when
to when, in unix ms. What it falls behind it makes up for as fast as it can, so the rate it reached is what counts.
"""

import sys
import time
from collections.abc import Iterator
from functools import partial
from random import Random

from confluent_kafka import Producer

from benchmarks.compare_traffic import (
    NS,
    PARTITIONS,
    SHAPES,
    STREAM_SPANS_A_SECOND,
    TRACE_SPANS,
    Sent,
    Traffic,
    producer_settings,
    shaped,
)
from spanloom.core import kernel
from spanloom.core.partitioning import partition_of

TRACES = 20_000  # made once; copies of them under other ids fill the time
PAUSE_S = 0.002
FLUSH_S = 120


def copies(traffic: Traffic, count: int) -> Iterator[Sent]:
    """The traffic *count* times over, one after another, each time with other trace ids."""
    random = Random(2)
    length_ns = traffic.traces * TRACE_SPANS * NS // STREAM_SPANS_A_SECOND
    for number in range(count):
        ids = {key: random.randbytes(16) for key in {record.key for record in traffic.records}}
        for at_ns, _, key, value in traffic.records:
            trace_id = ids[key]
            new_key = trace_id.hex().encode()
            partition = partition_of(new_key, PARTITIONS, hashes=kernel.hashes)
            new_value = value.replace(bytes.fromhex(key.decode()), trace_id)
            yield Sent(number * length_ns + at_ns, partition, new_key, new_value)


def produce(producer: Producer, topic: str, records: list[Sent], slower: float) -> None:
    """Send each when it is due."""
    began_s = time.monotonic()
    for at_ns, partition, key, value in records:
        due_s = at_ns * slower / NS
        while time.monotonic() - began_s < due_s:
            producer.poll(0)
            time.sleep(PAUSE_S)
        while True:
            try:
                producer.produce(topic, value, key, partition=partition)
                break
            except BufferError:
                producer.poll(0.01)


def main(brokers: str, topic: str, shape: str, spans_s: str, lasts_s: str) -> None:
    """See the module."""
    say = partial(print, flush=True)
    assert shape in SHAPES, shape
    traffic = shaped(shape, TRACES)
    wanted = float(spans_s) * float(lasts_s)
    records = sorted(copies(traffic, round(wanted / traffic.spans + 1)), key=lambda record: record.at_ns)
    del records[round(wanted / traffic.spans_a_record) :]
    spans = sum(value.count(bytes.fromhex(key.decode())) for _, _, key, value in records)  # a span holds its id once
    producer = Producer(producer_settings(brokers))
    say("made")
    sys.stdin.readline()
    began_ms = time.time_ns() // 1_000_000
    produce(producer, topic, records, STREAM_SPANS_A_SECOND / float(spans_s))
    assert producer.flush(FLUSH_S) == 0, "not everything could be sent"
    ended_ms = time.time_ns() // 1_000_000
    say(f"{spans} {began_ms} {ended_ms}")


if __name__ == "__main__":
    main(*sys.argv[1:])
