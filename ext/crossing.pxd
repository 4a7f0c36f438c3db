"""Bytes and records, from Python to the C headers and back."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_Occurred
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport int64_t, uint8_t, uint64_t

from kernel_c cimport sl_id, sl_key, sl_record, sl_slice, sl_store_be64, sl_store_id, sl_was_moved


cdef inline sl_key key_of(bytes drawn):
    """The key of hash tables, from 16 random bytes."""
    cdef sl_key key
    key.k0 = int.from_bytes(drawn[:8], "little")
    key.k1 = int.from_bytes(drawn[8:], "little")
    return key


cdef inline bytes bytes_of(sl_slice slice_):
    return PyBytes_FromStringAndSize(<const char *>slice_.at, slice_.size) if slice_.size else b""


cdef inline bytes id_bytes(sl_id id_):
    cdef uint8_t out[16]
    sl_store_id(out, id_)
    return PyBytes_FromStringAndSize(<const char *>out, 16)


cdef inline bytes span_id_bytes(uint64_t id_):
    cdef uint8_t out[8]
    sl_store_be64(out, id_)
    return PyBytes_FromStringAndSize(<const char *>out, 8)


cdef inline sl_slice slice_of(bytes data):
    return sl_slice(<const uint8_t *>PyBytes_AS_STRING(data), len(data))


cdef inline int64_t timestamp_ns(object timestamp_ms, int64_t ms_max) except? -1:
    """In ns; what no clock says is brought into the range that 63 bits hold."""
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(timestamp_ms, &overflow)
    if value == -1 and PyErr_Occurred():
        return -1  # not an integer
    if overflow > 0 or (not overflow and value > ms_max):
        value = ms_max
    elif overflow < 0 or value < -ms_max:
        value = -ms_max
    return value * 1_000_000


@cython.wraparound(False)
cdef inline int read_record(object record, sl_record *to, object moved_header, int64_t ms_max) except -1:
    """Borrow what the kernel needs of a model.Record."""
    if not isinstance(record, tuple) or len(<tuple>record) != 5:
        raise TypeError(f"expected a Record, found {type(record).__name__}")
    offset = (<tuple>record)[0]
    if not isinstance(offset, int):
        raise TypeError(f"expected an offset, found {type(offset).__name__}")
    to.offset = offset
    to.timestamp_ns = timestamp_ns((<tuple>record)[1], ms_max)
    value = (<tuple>record)[3]
    if type(value) is not bytes:
        raise TypeError(f"expected bytes, found {type(value).__name__}")
    to.value = slice_of(<bytes>value)
    headers = (<tuple>record)[4]
    moved = bool(headers) and any([name == moved_header for name, _ in headers])
    to.is_moved = NULL
    to.about = NULL
    if moved:
        to.is_moved = sl_was_moved
    return 0
