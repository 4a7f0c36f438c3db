"""What otlp.pyx uses of the summary's C."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from kernel_c cimport sl_key, sl_scan, sl_slice


cdef extern from "summary.h" nogil:
    ctypedef struct sl_value_field "sl_field":
        uint32_t number
        const uint8_t *value
        const uint8_t *stop
        uint64_t varint

    ctypedef struct sl_pair:
        sl_slice key
        sl_slice any
        sl_value_field value

    ctypedef struct sl_pairs:
        sl_pair *items
        size_t count

    ctypedef struct sl_named:
        sl_slice service
        sl_slice name

    ctypedef struct sl_nameds:
        sl_named *items
        size_t count

    ctypedef struct sl_summary:
        sl_nameds operations
        sl_pairs pairs
        uint64_t start_unix_ns
        uint64_t root_duration_ns
        uint64_t error_count
        uint64_t threshold
        uint32_t head
        size_t own_pairs
        bint is_plain

    int sl_summarise(sl_summary *summary, const sl_scan *scan, const sl_key *key) noexcept
    int sl_summarise_head(sl_summary *summary, sl_slice span, sl_slice resource) noexcept
    void sl_summary_free(sl_summary *summary) noexcept
