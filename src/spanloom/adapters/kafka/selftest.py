"""Whether native code and the loaded librdkafka agree on what a message is, asked before the first is read.

A record is put into a producer that has no broker and taken out again: it comes back in a message, which C must see as
it was written. Nothing leaves the process; it takes a few milliseconds.
"""

import ctypes
from functools import cache
from typing import TYPE_CHECKING

import structlog

from spanloom.adapters.kafka.librdkafka import (
    CONF_OK,
    ERR_PURGED,
    ERROR_TEXT_BYTES,
    EVENT_DELIVERY,
    MESSAGE_IS_COPIED,
    OFFSET_INVALID,
    PURGE_QUEUED,
    TYPE_PRODUCER,
    addresses_of,
    library,
    new_handle,
)
from spanloom.core import kernel
from spanloom.errors import ConfigError
from spanloom.model import Message

if TYPE_CHECKING:
    from spanloom._native.fetch import Taker

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

ANSWER_MS = 5_000
TIMESTAMP_MS = 1_790_000_000_000  # some time or other
PARTITION, PAYLOAD, KEY = 7, b"a payload\x00with a zero", b"a key"
EXPECTED = (ERR_PURGED, PARTITION, PAYLOAD, KEY, OFFSET_INVALID)


@cache
def native_taker() -> "Taker":
    """What takes records out of librdkafka's queues. Raises ConfigError where it must not be used, with the reason."""
    if kernel.fetch is None:
        raise ConfigError("kafka.consumer: native: the native code is not built, or SPANLOOM_PURE=1 is set")
    found = _sent_and_purged(kernel.fetch)
    if found != EXPECTED:
        raise ConfigError(f"librdkafka {library().rd_kafka_version():#x}: expected a message {EXPECTED}, found {found}")
    return kernel.fetch.Taker(*addresses_of(kernel.fetch.FUNCTIONS))


@cache
def is_sender_sound() -> bool:
    """Whether native code may send: a record it sends and one that is purged end a count as they should."""
    if kernel.produce is None:
        return False
    lib = library()
    producer = new_handle(TYPE_PRODUCER, {"log_level": "0"}, events=EVENT_DELIVERY)
    topic, queue = lib.rd_kafka_topic_new(producer, b"self-test", None), lib.rd_kafka_queue_get_main(producer)
    try:
        sender = kernel.produce.Sender(producer, queue, *addresses_of(kernel.produce.FUNCTIONS))
        pending = kernel.produce.Pending("a call", 2, TIMESTAMP_MS)
        record = ("self-test", PARTITION, Message(KEY, PAYLOAD, (("a header", b"\x00"),)))
        sent = sender.send([record, record], {"self-test": topic}, pending)
        lib.rd_kafka_purge(producer, PURGE_QUEUED)
        heard = sender.settle(ANSWER_MS)
    finally:
        lib.rd_kafka_queue_destroy(queue)
        lib.rd_kafka_topic_destroy(topic)
        lib.rd_kafka_destroy_flags(producer, 0)
    if (sent, heard) == ((2, 0), [("a call", ERR_PURGED)]):
        return True
    log.warning("sending through the portable producer, which costs several times the CPU", sent=sent, heard=heard)
    return False


def _sent_and_purged(fetch: kernel.Fetch) -> tuple[int, int, bytes, bytes, int] | None:
    """The record's message as C sees it; None where it did not come back."""
    lib = library()
    text = ctypes.create_string_buffer(ERROR_TEXT_BYTES)
    conf = lib.rd_kafka_conf_new()
    assert lib.rd_kafka_conf_set(conf, b"log_level", b"0", text, ERROR_TEXT_BYTES) == CONF_OK, text.value
    lib.rd_kafka_conf_set_events(conf, EVENT_DELIVERY)
    producer = lib.rd_kafka_new(TYPE_PRODUCER, conf, text, ERROR_TEXT_BYTES)
    if not producer:
        lib.rd_kafka_conf_destroy(conf)
        raise ConfigError(f"librdkafka: {text.value.decode()}")
    topic = lib.rd_kafka_topic_new(producer, b"self-test", None)
    queue = lib.rd_kafka_queue_get_main(producer)
    try:
        lib.rd_kafka_produce(topic, PARTITION, MESSAGE_IS_COPIED, PAYLOAD, len(PAYLOAD), KEY, len(KEY), None)
        lib.rd_kafka_purge(producer, PURGE_QUEUED)
        event = lib.rd_kafka_queue_poll(queue, ANSWER_MS)
        message = lib.rd_kafka_event_message_next(event) if event else None
        found = fetch.fields_of(message) if message else None
        lib.rd_kafka_event_destroy(event)
        return found
    finally:
        lib.rd_kafka_queue_destroy(queue)
        lib.rd_kafka_topic_destroy(topic)
        lib.rd_kafka_destroy_flags(producer, 0)
