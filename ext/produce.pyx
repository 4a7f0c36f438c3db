"""Records on their way into librdkafka, a batch a call, and the reports on them, a few calls' at once (produce.h).

No Python object a record, and no callback: a call is told once that all of its records have been reported on.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.unicode cimport PyUnicode_AsUTF8
from libc.stdint cimport int32_t, int64_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset


cdef extern from "produce.h" nogil:
    enum:
        SL_SEND_VALUE
        SL_SEND_KEY

    ctypedef struct sl_producing:
        void *produce

    ctypedef struct sl_pending:
        void *owner
        int64_t left
        int32_t error
        sl_pending *next

    ctypedef struct sl_record_out:
        void *of

    bint sl_send_room(sl_record_out *record, size_t headers) noexcept
    void sl_send_to(sl_record_out *record, void *topic, int32_t partition, sl_pending *pending) noexcept
    void sl_send_bytes(sl_record_out *record, int32_t type, const void *at, size_t size) noexcept
    void sl_send_timestamp(sl_record_out *record, int64_t timestamp_ms) noexcept
    void sl_send_header(sl_record_out *record, const char *name, const void *at, size_t size) noexcept
    int32_t sl_send(const sl_producing *kafka, void *producer, const sl_record_out *record) noexcept
    bint sl_pending_less(sl_pending *pending, int64_t count) noexcept
    sl_pending *sl_settle(const sl_producing *kafka, void *queue, int timeout_ms) noexcept


FUNCTIONS = (  # of librdkafka, in the order in which Sender wants their addresses
    "rd_kafka_produceva",
    "rd_kafka_error_code",
    "rd_kafka_error_destroy",
    "rd_kafka_queue_poll",
    "rd_kafka_event_message_next",
    "rd_kafka_event_destroy",
)


cdef class Pending:
    """What is still to be heard of one call's records. Kept alive by C while that is anything."""

    cdef sl_pending pending
    cdef readonly object owner
    cdef readonly int64_t timestamp_ms
    cdef int64_t unsent

    def __cinit__(self, owner, int64_t count, int64_t timestamp_ms):
        """*owner* is what `settle` gives back; there are *count* records. A timestamp of 0 leaves it to the client."""
        assert count > 0, f"nothing would be heard of {count} records"
        self.owner, self.timestamp_ms, self.unsent = owner, timestamp_ms, count
        memset(&self.pending, 0, sizeof(self.pending))
        self.pending.left = count
        self.pending.owner = <void *>self
        Py_INCREF(self)

    def give_up(self):
        """What was not sent so far will not be. May be called again."""
        cdef int64_t count = self.unsent
        self.unsent = 0
        if count and sl_pending_less(&self.pending, count):
            Py_DECREF(self)


cdef int _fill(sl_record_out *record, uintptr_t topic, int32_t partition, message, Pending pending) except -1:
    """What the record borrows from *message* is borrowed until that is gone."""
    cdef bytes value, key, content
    cdef const char *spelled
    key, value, headers = message
    if value is None:
        raise TypeError("expected a value, found None")
    if not sl_send_room(record, len(headers)):
        raise MemoryError
    sl_send_to(record, <void *>topic, partition, &pending.pending)
    sl_send_bytes(record, SL_SEND_VALUE, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if key is not None:
        sl_send_bytes(record, SL_SEND_KEY, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
    if pending.timestamp_ms:
        sl_send_timestamp(record, pending.timestamp_ms)
    for name, content in headers:
        if content is None:
            raise TypeError(f"expected a value of header {name}, found None")
        spelled = PyUnicode_AsUTF8(name)  # kept by the str
        sl_send_header(record, spelled, PyBytes_AS_STRING(content), PyBytes_GET_SIZE(content))
    return 0


cdef class Sender:
    """Sends with one producer of librdkafka."""

    cdef sl_producing kafka
    cdef void *producer
    cdef void *queue

    def __cinit__(self, uintptr_t producer, uintptr_t queue, *addresses):
        """The producer, its main queue, and where each of FUNCTIONS lies. They must outlive this."""
        cdef void *found[6]
        assert len(addresses) == len(FUNCTIONS) == 6, addresses
        for i, address in enumerate(addresses):
            found[i] = <void *><uintptr_t>address
        memcpy(&self.kafka, found, sizeof(self.kafka))
        self.producer, self.queue = <void *>producer, <void *>queue

    def send(self, list batch not None, dict topics not None, Pending pending not None):
        """Hand records over in order: how many were taken, and an error's code where that is not all, else 0.

        *batch* has (topic, partition, model.Message), *topics* the handle of each. It never waits. Whatever it raises
        or gives, `pending` knows what was taken.
        """
        cdef sl_record_out record
        cdef int32_t code
        cdef Py_ssize_t sent = 0
        memset(&record, 0, sizeof(record))
        try:
            for name, partition, message in batch:
                _fill(&record, topics[name], partition, message, pending)
                code = sl_send(&self.kafka, self.producer, &record)
                if code:
                    return sent, code
                sent += 1
                pending.unsent -= 1
            return sent, 0
        finally:
            free(record.of)

    def settle(self, int timeout_ms):
        """Wait for reports, at most so long: (owner, code of the first error or 0) of each call that was told all."""
        cdef sl_pending *ended
        cdef sl_pending *one
        with nogil:
            ended = sl_settle(&self.kafka, self.queue, timeout_ms)
        found = []
        while ended:
            one, ended = ended, ended.next
            found.append(((<Pending>one.owner).owner, one.error))
            Py_DECREF(<Pending>one.owner)
        return found
