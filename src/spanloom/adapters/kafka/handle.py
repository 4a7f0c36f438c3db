"""One librdkafka consumer: made from settings, asked things that block, and closed. Its owner keeps calls apart."""

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from spanloom.adapters.kafka.librdkafka import (
    DESTROY_NO_CONSUMER_CLOSE,
    OFFSET_INVALID,
    TYPE_CONSUMER,
    ListPointer,
    explain,
    library,
    new_handle,
)
from spanloom.errors import SourceUnavailable

CALL_TIMEOUT_MS = 5_000  # of a question to the broker; who asked asks again
BELL_S = 0.25  # a bell is edge-triggered: look anyway now and then


class Watermarks(NamedTuple):
    """The earliest offset of a partition, and the one its next record will get."""

    low: int
    high: int


class Place(NamedTuple):
    """A partition of a topic, with an offset where there is one and a commit's metadata."""

    topic: str
    partition: int
    offset: int = OFFSET_INVALID
    metadata: bytes = b""


class Handle:
    """A consumer that belongs to no group until somebody subscribes it."""

    def __init__(self, settings: Mapping[str, str], *, events: int = 0) -> None:
        """Raises ConfigError for a setting that librdkafka refuses."""
        self.lib = library()
        self.pointer: int | None = new_handle(TYPE_CONSUMER, settings, events=events)
        self.lib.rd_kafka_poll_set_consumer(self.pointer)
        self._topics: dict[str, int] = {}  # held, by name

    def close(self) -> None:
        """Stop its threads and free it, without a word to the group. Blocks a moment. May be called again."""
        pointer, self.pointer = self.pointer, None
        if pointer:
            for topic in self._topics.values():
                self.lib.rd_kafka_topic_destroy(topic)
            self.lib.rd_kafka_destroy_flags(pointer, DESTROY_NO_CONSUMER_CLOSE)

    @contextmanager
    def listed(self, places: Iterable[Place]) -> Iterator["ctypes._Pointer[ctypes.Structure]"]:
        """The places as librdkafka's list, freed at the end."""
        places = list(places)
        listed = self.lib.rd_kafka_topic_partition_list_new(len(places))
        try:
            for place in places:
                element = self.lib.rd_kafka_topic_partition_list_add(
                    listed, place.topic.encode(), place.partition
                ).contents
                element.offset = place.offset
                if place.metadata:
                    element.metadata = self.lib.rd_kafka_mem_malloc(self.pointer, len(place.metadata))
                    element.metadata_bytes = len(place.metadata)
                    ctypes.memmove(element.metadata, place.metadata, len(place.metadata))
            yield listed
        finally:
            self.lib.rd_kafka_topic_partition_list_destroy(listed)

    def watermarks(self, topic: str, partition: int) -> Watermarks:
        """Ask the broker. Blocks. Raises SourceUnavailable."""
        self.hold(topic)
        low, high = ctypes.c_int64(), ctypes.c_int64()
        code = self.lib.rd_kafka_query_watermark_offsets(
            self.pointer, topic.encode(), partition, ctypes.byref(low), ctypes.byref(high), CALL_TIMEOUT_MS
        )
        if code:
            raise SourceUnavailable(f"{topic}/{partition}: {explain(code)}")
        return Watermarks(low.value, high.value)

    def hold(self, topic: str) -> None:
        """Be told who leads its partitions, at once and from now on.

        Of a topic that is only asked about librdkafka goes on asking the dead; one that begins to be fetched and is not
        known otherwise it looks up within a second.
        """
        if topic not in self._topics:
            held = self.lib.rd_kafka_topic_new(self.pointer, topic.encode(), None)
            if held and self._topics.setdefault(topic, held) is not held:  # another thread was first
                self.lib.rd_kafka_topic_destroy(held)

    def committed(self, places: Iterable[Place]) -> list[Place]:
        """What the group has committed of them; OFFSET_INVALID where nothing. Blocks. Raises SourceUnavailable."""
        with self.listed(places) as listed:
            code = self.lib.rd_kafka_committed(self.pointer, listed, CALL_TIMEOUT_MS)
            if code:
                raise SourceUnavailable(f"committed offsets: {explain(code)}")
            return places_of(listed)

    def assign(self, place: Place) -> None:
        """Begin to fetch a partition from its offset, beside what is fetched already. Blocks a moment."""
        with self.listed([place]) as listed:
            self.checked(self.lib.rd_kafka_incremental_assign(self.pointer, listed))

    def unassign(self, place: Place) -> None:
        """Fetch it no more. Blocks a moment."""
        with self.listed([place]) as listed:
            self.checked(self.lib.rd_kafka_incremental_unassign(self.pointer, listed))

    def checked(self, error: int | None) -> None:
        """Raise what a rd_kafka_error_t says, and free it."""
        if error:
            text = self.lib.rd_kafka_error_string(error).decode()
            self.lib.rd_kafka_error_destroy(error)
            raise SourceUnavailable(text)


def places_of(listed: "ctypes._Pointer[ctypes.Structure]") -> list[Place]:
    """What stands in a list. Raises SourceUnavailable where an element carries an error."""
    found = []
    partitions = ctypes.cast(listed, ListPointer).contents
    for element in partitions.elements[: partitions.count]:
        if element.err:
            raise SourceUnavailable(f"{element.topic.decode()}/{element.partition}: {explain(element.err)}")
        metadata = ctypes.string_at(element.metadata, element.metadata_bytes) if element.metadata_bytes else b""
        found.append(Place(element.topic.decode(), element.partition, element.offset, metadata))
    return found


class Bell:
    """A file descriptor that librdkafka writes to when a queue stops being empty, and that trio waits on."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring_for(self, handle: Handle, queue: int) -> None:
        """Ring whenever *queue* gets something after having had nothing."""
        one = (1).to_bytes(8, "little")
        handle.lib.rd_kafka_queue_io_event_enable(queue, self.fd, one, len(one))

    def quiet(self) -> None:
        """Forget that it rang."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Give the descriptor up; nobody may ring any more."""
        os.close(self.fd)
