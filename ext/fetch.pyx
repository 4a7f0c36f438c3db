"""Records as librdkafka hands them over, where they lie, a batch at a time, without the GIL.

A Batch is a sequence of model.Record; the records themselves are made when somebody asks for one. The native assembler
does not: it reads the batch's memory (`_view`), and so costs no object and no copy a record.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.pycapsule cimport PyCapsule_New
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from kernel_c cimport SL_NO_MEMORY, sl_record, sl_slice, sl_view

from collections.abc import Sequence

from spanloom.core._pure.assembler import TIMESTAMP_MS_MAX
from spanloom.model import MOVED_HEADER, Record


cdef extern from "fetch.h" nogil:
    ctypedef struct sl_message:
        int32_t error
        int32_t partition
        void *payload
        size_t payload_bytes
        void *key
        size_t key_bytes
        int64_t offset

    ctypedef struct sl_kafka:
        void *consume_batch
        void *timestamp
        void *headers
        void *header
        void *error_text
        void *destroy

    ctypedef struct sl_headers:
        pass

    ctypedef struct sl_fetch_rules:
        sl_kafka kafka
        const char *moved_name
        int64_t ms_max

    ctypedef struct sl_held:
        sl_message *message
        int64_t timestamp_ms
        const sl_fetch_rules *rules

    ctypedef struct sl_fetched:
        sl_record *records
        sl_held *held
        size_t count

    ctypedef struct sl_problem:
        int32_t code
        char *text

    int sl_fetch(void *queue, sl_message **slots, size_t most, int64_t first, const sl_fetch_rules *rules,
                 sl_fetched *to, sl_problem *problem) noexcept
    void sl_fetched_release(sl_fetched *fetched) noexcept
    const sl_headers *sl_headers_of(const sl_held *held) noexcept
    bint sl_header_at(const sl_kafka *kafka, const sl_headers *headers, size_t index, const char **name,
                      sl_slice *value) noexcept


FUNCTIONS = (  # of librdkafka, in the order in which Taker wants their addresses
    "rd_kafka_consume_batch_queue",
    "rd_kafka_message_timestamp",
    "rd_kafka_message_headers",
    "rd_kafka_header_get_all",
    "rd_kafka_message_errstr",
    "rd_kafka_message_destroy",
)

cdef bytes moved_name = MOVED_HEADER.encode()


cdef class Taker  # further down


@cython.no_gc  # nothing that it holds comes back to it, and its taker must outlive it
cdef class Memory:
    """Owns the messages that a batch and its slices look into."""

    cdef sl_fetched fetched
    cdef Taker _taker  # its rules are the records'
    cdef object __weakref__

    def __dealloc__(self):
        with nogil:
            sl_fetched_release(&self.fetched)

    def release(self):
        """Give the messages back, whoever still has a batch of them: librdkafka is about to end."""
        with nogil:
            sl_fetched_release(&self.fetched)


cdef bytes _copied(const void *at, size_t size):
    return PyBytes_FromStringAndSize(<const char *>at, size)


cdef tuple _headers(const sl_held *held):
    cdef const sl_headers *headers = sl_headers_of(held)
    cdef const char *name
    cdef sl_slice value
    cdef size_t index = 0
    found = []
    while headers and sl_header_at(&held.rules.kafka, headers, index, &name, &value):
        found.append(((<bytes>name).decode("utf-8", "replace"), _copied(value.at, value.size)))
        index += 1
    return tuple(found)


cdef class Batch:
    """A Sequence of Record, in offset order. A slice shares its memory."""

    cdef readonly Memory memory
    cdef size_t _start, _count
    cdef sl_view view  # what _view points to

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if not isinstance(index, slice):
            at = index + self._count if index < 0 else index
            if not 0 <= at < self._count:
                raise IndexError(f"record {index} of {self._count}")
            return self._record(self._start + <size_t>at)
        start, stop, step = index.indices(self._count)
        if step != 1:
            return tuple([self[at] for at in range(start, stop, step)])
        return _batch(self.memory, self._start + <size_t>start, max(0, stop - start))

    cdef int _look(self) except -1:
        """It may be looked into."""
        if self._start + self._count > self.memory.fetched.count:
            raise ValueError("the records are gone: their consumer is closed")
        return 0

    cdef _record(self, size_t at):
        self._look()
        cdef const sl_record *record = &self.memory.fetched.records[at]
        cdef const sl_held *held = &self.memory.fetched.held[at]
        cdef const sl_message *message = held.message
        key = _copied(message.key, message.key_bytes) if message.key else None
        value = _copied(record.value.at, record.value.size)
        return Record(record.offset, held.timestamp_ms, key, value, _headers(held))

    @property
    def end(self):
        """The offset after the last record; there is one."""
        assert self._count, "an empty batch ends nowhere"
        self._look()
        return self.memory.fetched.records[self._start + self._count - 1].offset + 1

    def within(self, size_t most_bytes):
        """How many records from the first on have at most that many bytes of value together; one at least."""
        cdef size_t i, size = 0
        self._look()
        for i in range(self._count):
            size += self.memory.fetched.records[self._start + i].value.size
            if size > most_bytes and i:
                return i
        return self._count

    def size_bytes(self):
        """Bytes of all values."""
        cdef size_t i, size = 0
        self._look()
        for i in range(self._count):
            size += self.memory.fetched.records[self._start + i].value.size
        return size

    def _view(self):
        """For the native assembler: where the records lie, while the batch lives."""
        self._look()
        return PyCapsule_New(&self.view, "sl_view", NULL)


Sequence.register(Batch)


cdef Batch _batch(Memory memory, size_t start, size_t count):
    cdef Batch batch = Batch.__new__(Batch)
    batch.memory, batch._start, batch._count = memory, start, count
    batch.view.records = memory.fetched.records
    batch.view.count = count
    if count:
        batch.view.records += start
    return batch


cdef class Taker:
    """Takes out of the queues of one librdkafka. Any thread may, of different queues at once."""

    cdef sl_fetch_rules rules

    def __cinit__(self, *addresses):
        """Where each of FUNCTIONS lies."""
        cdef void *found[6]
        assert len(addresses) == len(FUNCTIONS) == 6, addresses
        for i, address in enumerate(addresses):
            found[i] = <void *><uintptr_t>address
        memcpy(&self.rules.kafka, found, sizeof(self.rules.kafka))
        self.rules.moved_name = moved_name
        self.rules.ms_max = TIMESTAMP_MS_MAX

    def take(self, uintptr_t queue, size_t most, int64_t first):
        """Take at most *most* messages, without waiting: the records from offset *first* on, and what ended them.

        That is None or an error's (code, text); what came after the error is dropped. Raises MemoryError, and then the
        records are lost to the queue.
        """
        cdef sl_problem problem
        cdef int status
        cdef Memory memory = Memory.__new__(Memory)
        memory._taker = self
        cdef sl_message **slots = <sl_message **>malloc(most * sizeof(sl_message *) + 1)
        if not slots:
            raise MemoryError
        with nogil:
            status = sl_fetch(<void *>queue, slots, most, first, &self.rules, &memory.fetched, &problem)
        free(slots)
        if status == SL_NO_MEMORY:
            raise MemoryError
        ended = (problem.code, (<bytes>problem.text).decode("utf-8", "replace")) if problem.code else None
        return _batch(memory, 0, memory.fetched.count), ended


def fields_of(uintptr_t message):
    """What C sees in the rd_kafka_message_t there: error, partition, payload, key, offset. For the self-test."""
    cdef const sl_message *at = <const sl_message *>message
    payload = PyBytes_FromStringAndSize(<const char *>at.payload, at.payload_bytes)
    key = PyBytes_FromStringAndSize(<const char *>at.key, at.key_bytes)
    return at.error, at.partition, payload, key, at.offset
