"""Native twin of spanloom.core._pure.wire, stamping and summary: the same spans, parts, stamps, summaries and faults.

The reading is C (scan.h and below it), the stamping too (stamping.h), and what a summary finds (summary.h).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from cpython.unicode cimport PyUnicode_DecodeUTF8
from crossing cimport bytes_of, id_bytes, key_of, slice_of, span_id_bytes
from kernel_c cimport *
from summary cimport sl_pair, sl_summarise, sl_summarise_head, sl_summary, sl_summary_free

import os

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from spanloom.core._pure.summary import (
    ATTRIBUTE_CHARS_MAX,
    ATTRIBUTES_MAX,
    NAME_CHARS_MAX,
    Summary,
    attribute_text,
    flattened,
    names,
    searchable,
)
from spanloom.core._pure.wire import _FAULTS, FIELD_NUMBER_MAX, ScannedSpan, Split
from spanloom.core.codec.attributes import value_of
from spanloom.errors import DecodeError
from spanloom.model import THRESHOLD_UNKNOWN

cdef sl_key process_key = key_of(os.urandom(16))  # of every hash table here; drawn once, never shown
cdef enum:
    BRIEF_BYTES_MAX = 64 << 10  # read in some 20 µs: to let others run meanwhile would cost more, and wait for them


def decode_error(int kind, position, a, b, c, bytes found):
    """The DecodeError that the pure kernel raises for the same fault; the arguments are sl_fault's fields."""
    if kind == SL_FAULT_TRUNCATED:
        return DecodeError("truncated", f"{a + b} bytes", f"{c}", position)
    if kind == SL_FAULT_OPEN_VARINT:
        return DecodeError("truncated", "a varint", "the end of the message", position)
    if kind == SL_FAULT_LONG_VARINT:
        return DecodeError("varint", "at most 10 bytes", "more", position)
    if kind == SL_FAULT_FIELD_NUMBER:
        return DecodeError("field_number", f"1 to {FIELD_NUMBER_MAX}", f"{a}", position)
    if kind == SL_FAULT_WIRE_TYPE:
        return DecodeError("wire_type", "0, 1, 2 or 5", f"{a}", position)
    if kind == SL_FAULT_OTHER_TYPE:
        return DecodeError("wire_type", f"{b} for field {c}", f"{a}", position)
    reason = _id_reason(kind)
    return DecodeError(reason, _FAULTS[reason], found.hex() or "nothing", position)


cdef str _id_reason(int kind):
    if kind == SL_FAULT_TRACE_ID:
        return "trace_id"
    return "span_id" if kind == SL_FAULT_SPAN_ID else "parent_span_id"


cdef _error_of(const sl_fault *fault):
    return decode_error(fault.kind, fault.position, fault.a, fault.b, fault.c, bytes_of(fault.id))


cdef class _Scan:
    """Owns the scratch of one scan."""

    cdef sl_scan scan
    cdef sl_traces traces
    cdef bytes record  # what the scan borrows from

    def __cinit__(self):
        memset(&self.scan, 0, sizeof(self.scan))
        memset(&self.traces, 0, sizeof(self.traces))

    def __dealloc__(self):
        sl_scan_free(&self.scan)
        sl_traces_free(&self.traces)

    cdef int read(self, bytes record) except -1:
        """Scan the record. Raises DecodeError where its framing is malformed."""
        cdef sl_fault fault
        cdef int status
        cdef sl_slice value = slice_of(record)
        self.record = record
        if value.size <= BRIEF_BYTES_MAX:
            status = sl_scan_record(&self.scan, value, &fault)
        else:
            with nogil:
                status = sl_scan_record(&self.scan, value, &fault)
        if status == SL_MALFORMED:
            raise _error_of(&fault)
        if status != SL_OK:
            raise MemoryError
        return 0

    cdef int group(self) except -1:
        """Chain each trace's spans."""
        cdef size_t i
        cdef int status
        with nogil:
            status = sl_group(&self.traces, &self.scan, &process_key)
            if status == SL_OK:
                for i in range(self.scan.spans.count):
                    sl_chain(&self.traces.list.items[self.scan.spans.items[i].trace], &self.scan, <uint32_t>i)
        if status != SL_OK:
            raise MemoryError
        return 0

    cdef tuple part(self, size_t index):
        """Trace id and TracesData of one trace."""
        cdef sl_trace *trace = &self.traces.list.items[index]
        cdef bytes out = PyBytes_FromStringAndSize(NULL, sl_measure_chain(&self.scan, trace.first))
        sl_write_chain(&self.scan, trace.first, <uint8_t *>PyBytes_AS_STRING(out))
        return id_bytes(trace.id), out


cdef bytes _resource_bytes(const sl_resource *resource):
    """The Resource message, merged where it stands more than once."""
    cdef sl_slice message = resource.message
    cdef sl_reader reader = sl_reader(message.at, message.at, message.at + message.size)
    cdef sl_field field
    cdef sl_fault unused
    parts = []
    while reader.at < reader.end:
        sl_read_field(&reader, &field, &unused)
        if field.number == 1:
            parts.append(bytes_of(sl_slice(field.value, field.stop - field.value)))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def scan(bytes data not None):
    """Every span of a TracesData, in order; raises DecodeError unless all of it can be used (a record is atomic)."""
    cdef _Scan scanned = _Scan()
    cdef const sl_span *span
    cdef const sl_resource *resource
    cdef size_t i
    cdef uint32_t last = UINT32_MAX
    scanned.read(data)
    if scanned.scan.rejected:
        raise _error_of(&scanned.scan.rejection)
    spans = []
    resource_bytes = service = b""
    for i in range(scanned.scan.spans.count):
        span = &scanned.scan.spans.items[i]
        if span.resource != last:
            last = span.resource
            resource = &scanned.scan.resources.items[last]
            resource_bytes, service = _resource_bytes(resource), bytes_of(resource.service)
        spans.append(
            ScannedSpan(
                id_bytes(span.trace_id),
                span_id_bytes(span.span_id),
                span_id_bytes(span.parent) if span.parent else b"",
                bytes_of(span.name),
                span.kind,
                span.start_unix_ns,
                span.end_unix_ns,
                span.error,
                bytes_of(span.body),
                resource_bytes,
                service,
                "",
                span.body.at - <const uint8_t *>PyBytes_AS_STRING(data),
            )
        )
    return spans


def split_by_trace(bytes data not None):
    """Take a TracesData apart by trace, for producers. Raises DecodeError where its framing is malformed."""
    cdef _Scan scanned = _Scan()
    cdef size_t i
    scanned.read(data)
    scanned.group()
    reason = ""
    if scanned.scan.rejected:
        fault = _id_reason(scanned.scan.rejection.kind)
        reason = f"{fault} of the span at byte {scanned.scan.rejection.position}: expected {_FAULTS[fault]}"
    parts = [scanned.part(i) for i in range(scanned.traces.list.count)]
    return Split(parts, scanned.scan.spans.count, scanned.scan.rejected, reason)


def stamp(bytes traces_data not None, threshold):
    """*traces_data* with each span's tracestate as `with_threshold` says; of THRESHOLD_UNKNOWN, without any `th`.

    Raises DecodeError where its framing is malformed.
    """
    cdef uint64_t rejected = min(threshold, THRESHOLD_UNKNOWN)
    cdef sl_slice data = slice_of(traces_data)
    cdef sl_reader reader = sl_reader(data.at, data.at, data.at + data.size)
    cdef sl_bytes stamped
    cdef sl_fault fault
    cdef bint changed
    cdef int status
    memset(&stamped, 0, sizeof(stamped))
    if data.size <= BRIEF_BYTES_MAX:
        status = sl_stamp_traces(&stamped, reader, rejected, &changed, &fault)
    else:
        with nogil:
            status = sl_stamp_traces(&stamped, reader, rejected, &changed, &fault)
    try:
        if status == SL_MALFORMED:
            raise _error_of(&fault)
        if status != SL_OK:
            raise MemoryError
        return bytes_of(sl_slice(stamped.items, stamped.count)) if changed else traces_data
    finally:
        free(stamped.items)


cdef class _Summary:
    """Owns what a summary is made of."""

    cdef sl_summary summary

    def __cinit__(self):
        memset(&self.summary, 0, sizeof(self.summary))

    def __dealloc__(self):
        sl_summary_free(&self.summary)

    cdef dict attributes(self, bytes span, bytes resource):
        """The head's, as text; `span` and `resource` are its messages."""
        cdef int status
        cdef size_t i
        cdef sl_slice span_message = slice_of(span), resource_message = slice_of(resource)
        cdef dict own = {}, shared = {}
        if span_message.size + resource_message.size <= BRIEF_BYTES_MAX:
            status = sl_summarise_head(&self.summary, span_message, resource_message)
        else:
            with nogil:
                status = sl_summarise_head(&self.summary, span_message, resource_message)
        if status != SL_OK:
            raise MemoryError
        if not self.summary.is_plain:
            return searchable(span, resource)
        for i in range(self.summary.pairs.count):
            (own if i < self.summary.own_pairs else shared)[_text(self.summary.pairs.items[i].key)] = _value(
                &self.summary.pairs.items[i]
            )
        return _flattened(own, shared)


cdef str _text(sl_slice text):
    return PyUnicode_DecodeUTF8(<const char *>text.at, text.size, "replace") if text.size else ""


cdef object _value(const sl_pair *pair):
    """The value of a plain attribute: a text, or what has to be made one."""
    cdef uint32_t number = pair.value.number
    cdef double real
    if number == 1:
        return _text(sl_slice(pair.value.value, pair.value.stop - pair.value.value))
    if number == 2:
        return "true" if pair.value.varint else "false"
    if number == 3:
        return str(<int64_t>pair.value.varint)
    if number == 4:
        memcpy(&real, pair.value.value, sizeof(real))
        return attribute_text(real)
    value = value_of(AnyValue.FromString(bytes_of(pair.any)))
    return value if isinstance(value, dict) else attribute_text(value)


cdef dict _flattened(dict own, dict shared):
    """As the pure `flattened`; what is nested is left to that."""
    cdef dict flat = {}
    for attributes in (own, shared):
        for key, text in (<dict>attributes).items():
            if type(text) is not str:
                return flattened(own, shared)
            if len(flat) < ATTRIBUTES_MAX:
                flat.setdefault(
                    key if len(<str>key) <= NAME_CHARS_MAX else key[:NAME_CHARS_MAX],
                    text if len(<str>text) <= ATTRIBUTE_CHARS_MAX else text[:ATTRIBUTE_CHARS_MAX],
                )
    return flat


cdef str _short(sl_slice name):
    cdef str text = _text(name)
    return text if len(text) <= NAME_CHARS_MAX else text[:NAME_CHARS_MAX]


def summarise(bytes traces_data not None):
    """The summary of a fragment. Raises DecodeError as `scan` does."""
    cdef _Scan scanned = _Scan()
    cdef _Summary found = _Summary()
    cdef sl_summary *summary = &found.summary
    cdef const sl_span *head
    cdef size_t i
    cdef int status
    scanned.read(traces_data)
    if scanned.scan.rejected:
        raise _error_of(&scanned.scan.rejection)
    if len(traces_data) <= BRIEF_BYTES_MAX:
        status = sl_summarise(summary, &scanned.scan, &process_key)
    else:
        with nogil:
            status = sl_summarise(summary, &scanned.scan, &process_key)
    if status != SL_OK:
        raise MemoryError
    cdef set services = set(), operations = set()
    for i in range(summary.operations.count):
        services.add(_text(summary.operations.items[i].service))
        operations.add(_short(summary.operations.items[i].service) + "\x1f" + _short(summary.operations.items[i].name))
    root_service, root_operation, attributes = "", "", {}
    if summary.head != UINT32_MAX:
        head = &scanned.scan.spans.items[summary.head]
        root_operation = _short(head.name)
        root_service = _short(scanned.scan.resources.items[head.resource].service)
        attributes = found.attributes(
            bytes_of(head.body), _resource_bytes(&scanned.scan.resources.items[head.resource])
        )
    return Summary(
        root_service, root_operation, names(services), names(operations), summary.start_unix_ns,
        summary.root_duration_ns, summary.error_count, summary.threshold, attributes,
    )
