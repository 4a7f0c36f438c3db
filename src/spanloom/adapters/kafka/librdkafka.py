"""librdkafka's C API, as it lies inside the confluent-kafka wheel: what its Python face does not show.

Reached through the extension module's own handle (dlopen, dlsym), so that there is one librdkafka in the process. Used
for what a Python Consumer cannot do: a queue for each partition, which is read when there is room and left alone when
there is none; rebalances as events instead of callbacks on a foreign thread; a file descriptor that trio waits on.

Layouts are those of rdkafka.h, which promises to keep them; `library()` refuses a version that it does not know.
"""

import ctypes
from collections.abc import Iterable, Mapping
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from functools import cache

import confluent_kafka.cimpl

from spanloom.errors import ConfigError

VERSION_MIN, VERSION_MAX = 0x02_05_00_00, 0x03_00_00_00  # the second is not included

OFFSET_END = -1
OFFSET_INVALID = -1001  # of `committed`: there is none

EVENT_NONE = 0x0
EVENT_DELIVERY = 0x1
EVENT_ERROR = 0x8
EVENT_REBALANCE = 0x10
EVENT_OFFSET_COMMIT = 0x20

ERR_ASSIGN_PARTITIONS = -175
ERR_QUEUE_FULL = -184
ERR_TIMED_OUT = -192  # of a record: it was not acknowledged in time
ERR_FATAL = -150
ERR_PURGED = -152  # taken out of the producer's queue
ERR_AUTO_OFFSET_RESET = -140  # the offset is not in the log, and `auto.offset.reset` is `error`

CONF_OK = 0
DESTROY_NO_CONSUMER_CLOSE = 0x8
TYPE_PRODUCER = 0
TYPE_CONSUMER = 1
MESSAGE_IS_COPIED = 0x2
PURGE_QUEUED = 0x1
PURGE_IN_FLIGHT = 0x2
ERROR_TEXT_BYTES = 512


class TopicPartition(ctypes.Structure):
    """rd_kafka_topic_partition_t."""

    _fields_ = (
        ("topic", c_char_p),
        ("partition", c_int32),
        ("offset", c_int64),
        ("metadata", c_void_p),
        ("metadata_bytes", c_size_t),
        ("opaque", c_void_p),
        ("err", c_int),
        ("_private", c_void_p),
    )


class TopicPartitions(ctypes.Structure):
    """rd_kafka_topic_partition_list_t."""

    _fields_ = (("count", c_int), ("size", c_int), ("elements", POINTER(TopicPartition)))


ListPointer = POINTER(TopicPartitions)

# name -> result, parameters; one line each, as rdkafka.h declares them
_FUNCTIONS: dict[str, tuple[object, tuple[object, ...]]] = {
    "rd_kafka_version": (c_int, ()),
    "rd_kafka_err2str": (c_char_p, (c_int,)),
    "rd_kafka_error_code": (c_int, (c_void_p,)),
    "rd_kafka_error_string": (c_char_p, (c_void_p,)),
    "rd_kafka_error_destroy": (None, (c_void_p,)),
    "rd_kafka_mem_malloc": (c_void_p, (c_void_p, c_size_t)),
    # handles
    "rd_kafka_conf_new": (c_void_p, ()),
    "rd_kafka_conf_destroy": (None, (c_void_p,)),
    "rd_kafka_conf_set": (c_int, (c_void_p, c_char_p, c_char_p, c_char_p, c_size_t)),
    "rd_kafka_conf_set_events": (None, (c_void_p, c_int)),
    "rd_kafka_new": (c_void_p, (c_int, c_void_p, c_char_p, c_size_t)),
    "rd_kafka_destroy_flags": (None, (c_void_p, c_int)),
    "rd_kafka_poll_set_consumer": (c_int, (c_void_p,)),
    "rd_kafka_query_watermark_offsets": (
        c_int,
        (c_void_p, c_char_p, c_int32, POINTER(c_int64), POINTER(c_int64), c_int),
    ),
    # queues
    "rd_kafka_queue_new": (c_void_p, (c_void_p,)),
    "rd_kafka_queue_get_consumer": (c_void_p, (c_void_p,)),
    "rd_kafka_queue_get_partition": (c_void_p, (c_void_p, c_char_p, c_int32)),
    "rd_kafka_queue_forward": (None, (c_void_p, c_void_p)),
    "rd_kafka_queue_io_event_enable": (None, (c_void_p, c_int, c_char_p, c_size_t)),
    "rd_kafka_queue_poll": (c_void_p, (c_void_p, c_int)),
    "rd_kafka_queue_destroy": (None, (c_void_p,)),
    # the producer's
    "rd_kafka_topic_new": (c_void_p, (c_void_p, c_char_p, c_void_p)),
    "rd_kafka_topic_destroy": (None, (c_void_p,)),
    "rd_kafka_produceva": (c_void_p, (c_void_p, c_void_p, c_size_t)),
    "rd_kafka_outq_len": (c_int, (c_void_p,)),
    "rd_kafka_fatal_error": (c_int, (c_void_p, c_char_p, c_size_t)),
    # the self-test's
    "rd_kafka_produce": (
        c_int,
        (c_void_p, c_int32, c_int, c_char_p, c_size_t, c_char_p, c_size_t, c_void_p),
    ),
    "rd_kafka_purge": (c_int, (c_void_p, c_int)),
    "rd_kafka_queue_get_main": (c_void_p, (c_void_p,)),
    "rd_kafka_event_message_next": (c_void_p, (c_void_p,)),
    # lists of partitions
    "rd_kafka_topic_partition_list_new": (ListPointer, (c_int,)),
    "rd_kafka_topic_partition_list_add": (POINTER(TopicPartition), (ListPointer, c_char_p, c_int32)),
    "rd_kafka_topic_partition_list_destroy": (None, (ListPointer,)),
    # the group
    "rd_kafka_subscribe": (c_int, (c_void_p, ListPointer)),
    "rd_kafka_incremental_assign": (c_void_p, (c_void_p, ListPointer)),
    "rd_kafka_incremental_unassign": (c_void_p, (c_void_p, ListPointer)),
    "rd_kafka_assign": (c_int, (c_void_p, ListPointer)),
    "rd_kafka_assignment_lost": (c_int, (c_void_p,)),
    "rd_kafka_pause_partitions": (c_int, (c_void_p, ListPointer)),
    "rd_kafka_committed": (c_int, (c_void_p, ListPointer, c_int)),
    "rd_kafka_commit_queue": (c_int, (c_void_p, ListPointer, c_void_p, c_void_p, c_void_p)),
    "rd_kafka_consumer_close_queue": (c_void_p, (c_void_p, c_void_p)),
    "rd_kafka_consumer_closed": (c_int, (c_void_p,)),
    # events
    "rd_kafka_event_type": (c_int, (c_void_p,)),
    "rd_kafka_event_error": (c_int, (c_void_p,)),
    "rd_kafka_event_error_string": (c_char_p, (c_void_p,)),
    "rd_kafka_event_topic_partition_list": (ListPointer, (c_void_p,)),
    "rd_kafka_event_destroy": (None, (c_void_p,)),
}


@cache
def library() -> ctypes.CDLL:
    """The loaded library with every function's types set. Raises ConfigError where it is not one we know."""
    loaded = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    try:
        for name, (result, parameters) in _FUNCTIONS.items():
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, parameters
    except AttributeError as exc:
        raise ConfigError(f"confluent-kafka: expected a wheel with librdkafka inside, found none: {exc}") from exc
    version = loaded.rd_kafka_version()
    if not VERSION_MIN <= version < VERSION_MAX:
        raise ConfigError(f"confluent-kafka: expected librdkafka 2.5 or newer, below 3, found {version:#x}")
    return loaded


def addresses_of(names: Iterable[str]) -> list[int]:
    """Where functions lie, for native code to call. Raises ConfigError where one is missing."""
    try:
        return [ctypes.cast(getattr(library(), name), c_void_p).value or 0 for name in names]
    except AttributeError as exc:
        raise ConfigError(f"confluent-kafka: expected a wheel with librdkafka inside: {exc}") from exc


def explain(code: int) -> str:
    """An error code's text."""
    return str(library().rd_kafka_err2str(code).decode())


def new_handle(kind: int, settings: Mapping[str, str], *, events: int) -> int:
    """A consumer or producer, to be destroyed by the caller. Raises ConfigError for a setting that is refused."""
    lib = library()
    text = ctypes.create_string_buffer(ERROR_TEXT_BYTES)
    conf = lib.rd_kafka_conf_new()
    for name, value in settings.items():
        if lib.rd_kafka_conf_set(conf, name.encode(), value.encode(), text, ERROR_TEXT_BYTES) != CONF_OK:
            lib.rd_kafka_conf_destroy(conf)
            raise ConfigError(f"kafka: {text.value.decode()}")
    lib.rd_kafka_conf_set_events(conf, events)
    pointer: int | None = lib.rd_kafka_new(kind, conf, text, ERROR_TEXT_BYTES)
    if not pointer:
        lib.rd_kafka_conf_destroy(conf)
        raise ConfigError(f"kafka: {text.value.decode()}")
    return pointer
