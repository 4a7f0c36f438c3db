"""What kernel.pyx uses of the C headers."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "frame.h" nogil:
    enum:
        SL_OK
        SL_MALFORMED
        SL_NO_MEMORY
        SL_LENGTH

    ctypedef struct sl_slice:
        const uint8_t *at
        size_t size

    ctypedef struct sl_id:
        uint64_t high
        uint64_t low

    ctypedef enum sl_fault_kind:
        SL_FAULT_NONE
        SL_FAULT_TRUNCATED
        SL_FAULT_OPEN_VARINT
        SL_FAULT_LONG_VARINT
        SL_FAULT_FIELD_NUMBER
        SL_FAULT_WIRE_TYPE
        SL_FAULT_OTHER_TYPE
        SL_FAULT_TRACE_ID
        SL_FAULT_SPAN_ID
        SL_FAULT_PARENT_SPAN_ID
        SL_FAULT_MOVED_TWICE

    ctypedef struct sl_fault:
        sl_fault_kind kind
        size_t position
        uint64_t a
        uint64_t b
        uint64_t c
        sl_slice id

    ctypedef struct sl_reader:
        const uint8_t *base
        const uint8_t *at
        const uint8_t *end

    ctypedef struct sl_field:
        uint32_t number
        const uint8_t *value
        const uint8_t *stop

    ctypedef struct sl_resource:
        sl_slice message
        sl_slice service

    ctypedef struct sl_span:
        sl_slice body
        sl_slice name
        sl_id trace_id
        uint64_t span_id
        uint64_t parent
        uint64_t start_unix_ns
        uint64_t end_unix_ns
        uint32_t resource
        uint32_t trace
        uint8_t kind
        bint error

    ctypedef struct sl_resources:
        sl_resource *items
        size_t count

    ctypedef struct sl_spans:
        sl_span *items
        size_t count

    ctypedef struct sl_scan:
        sl_resources resources
        sl_spans spans
        size_t rejected
        sl_fault rejection

    int sl_read_field(sl_reader *reader, sl_field *field, sl_fault *fault) noexcept
    int sl_scan_record(sl_scan *scan, sl_slice record, sl_fault *fault) noexcept
    void sl_scan_free(sl_scan *scan) noexcept
    size_t sl_measure_chain(sl_scan *scan, uint32_t first) noexcept
    uint8_t *sl_write_chain(sl_scan *scan, uint32_t first, uint8_t *to) noexcept


cdef extern from "stamping.h" nogil:
    ctypedef struct sl_bytes:
        uint8_t *items
        size_t count

    int sl_stamp_traces(sl_bytes *to, sl_reader reader, uint64_t threshold, bint *changed, sl_fault *fault) noexcept


cdef extern from "traces.h" nogil:
    ctypedef struct sl_key:
        uint64_t k0
        uint64_t k1

    ctypedef struct sl_trace:
        sl_id id
        uint32_t first

    ctypedef struct sl_trace_list:
        sl_trace *items
        size_t count

    ctypedef struct sl_traces:
        sl_trace_list list

    uint64_t sl_hash_id(const sl_key *key, sl_id id) noexcept
    int sl_group(sl_traces *traces, sl_scan *scan, const sl_key *key) noexcept
    void sl_chain(sl_trace *trace, sl_scan *scan, uint32_t index) noexcept
    void sl_traces_free(sl_traces *traces) noexcept
    sl_id sl_load_id(const uint8_t *at) noexcept
    bint sl_same_id(sl_id a, sl_id b) noexcept


cdef extern from "sketchstate.h" nogil:
    enum:
        SL_CURRENT
        SL_EARLIER

    uint8_t *sl_store_id(uint8_t *to, sl_id id) noexcept
    uint8_t *sl_store_be64(uint8_t *to, uint64_t value) noexcept

    ctypedef struct sl_bucket:
        uint32_t bucket
        uint32_t count

    ctypedef struct sl_percentiles:
        uint32_t percentile_bp
        uint64_t min_count
        int64_t half_ns
        uint64_t operations_max
        int64_t generation

    void sl_percentiles_free(sl_percentiles *sketches) noexcept
    size_t sl_percentiles_state_size(const sl_percentiles *sketches) noexcept
    int sl_percentiles_store(const sl_percentiles *sketches, uint8_t *to) noexcept
    int sl_percentiles_put(sl_percentiles *sketches, const sl_key *key, int half, uint64_t operation) noexcept
    int sl_percentiles_put_bucket(sl_percentiles *sketches, const sl_key *key, int half, uint64_t operation,
                                  sl_bucket bucket) noexcept
    int sl_percentiles_put_cut(sl_percentiles *sketches, const sl_key *key, uint64_t operation, uint64_t count,
                               uint32_t bucket) noexcept


cdef extern from "sampler.h" nogil:
    enum:
        SL_POLICIES_MAX
        SL_PREDICATES_MAX
        SL_PREDICATE_ERROR
        SL_OP_COMPOSITE
        SL_NONE

    ctypedef struct sl_bits:
        uint64_t words[4]

    ctypedef int (*sl_matcher)(void *context, uint32_t group, const uint8_t *text, size_t size,
                               sl_bits *matches) noexcept

    ctypedef struct sl_matches:
        sl_matcher matcher
        void *context

    ctypedef struct sl_predicates:
        bint asks_rv

    ctypedef enum sl_predicate_kind:
        SL_PREDICATE_TEXT
        SL_PREDICATE_STATE

    int sl_put_predicate(sl_predicates *predicates, sl_predicate_kind kind, sl_slice key, int64_t low, int64_t high,
                         uint32_t *group) noexcept
    int sl_put_text(sl_predicates *predicates, sl_predicate_kind kind, sl_slice key, sl_slice text) noexcept

    ctypedef enum sl_op:
        SL_OP_ALWAYS

    ctypedef struct sl_node:
        sl_op op
        bint inverted
        bint is_chance
        uint32_t predicate
        int64_t low
        int64_t high
        uint64_t threshold
        uint64_t salted
        uint32_t first_state
        uint32_t first_child
        uint32_t child_count

    ctypedef struct sl_nodes:
        size_t count

    ctypedef struct sl_order:
        size_t count

    sl_node *sl_nodes_add(sl_nodes *nodes) noexcept
    uint32_t *sl_order_add(sl_order *order) noexcept

    ctypedef struct sl_token_bucket:
        int64_t level
        int64_t filled_us

    ctypedef struct sl_share:
        uint64_t operation
        uint64_t average
        uint64_t spans
        uint64_t threshold

    ctypedef struct sl_shares:
        uint64_t goal
        int64_t interval_ns
        uint32_t weight
        uint64_t operations_max
        int64_t generation

    sl_token_bucket sl_token_bucket_new(int64_t per_second, int64_t burst, bint by_bytes,
                                        uint32_t partition_count) noexcept
    void sl_shares_free(sl_shares *shares) noexcept
    int sl_shares_put(sl_shares *shares, const sl_key *key, sl_share share) noexcept

    ctypedef enum sl_state_kind:
        SL_STATE_PERCENTILES
        SL_STATE_SHARES
        SL_STATE_BUCKET

    ctypedef union sl_gathered "of":
        sl_percentiles percentiles
        sl_shares shares
        sl_token_bucket bucket

    ctypedef struct sl_state:
        sl_state_kind kind
        uint32_t charge
        sl_gathered of

    ctypedef struct sl_states:
        sl_state **items
        size_t count

    ctypedef struct sl_program:
        sl_predicates predicates
        sl_nodes nodes
        sl_order order
        sl_states states
        uint32_t version

    void sl_program_start(sl_program *program) noexcept
    void sl_program_free(sl_program *program) noexcept
    sl_state *sl_program_add_state(sl_program *program, sl_state_kind kind) noexcept
    void sl_program_take_state(sl_program *program, size_t to, sl_program *before, size_t start) noexcept

    ctypedef struct sl_sampler:
        sl_program program
        double rate
        sl_matches matches

    void sl_sampler_start(sl_sampler *sampler) noexcept
    void sl_sampler_configure(sl_sampler *sampler, sl_program program) noexcept
    uint64_t sl_fnv1a_64(const uint8_t *data, size_t length) noexcept


cdef extern from "samplerstate.h" nogil:
    size_t sl_state_size(const sl_state *state) noexcept
    int sl_state_store(const sl_state *state, uint8_t *to) noexcept


cdef extern from "feed.h" nogil:
    enum:
        SL_OUT_OF_ORDER
        SL_BAD_ENTRY
        SL_DROP
        SL_KEEP
        SL_TRIGGERS
        SL_TALLY_FIELDS

    ctypedef enum sl_count:
        SL_STORED
        SL_MOVED
        SL_DEAD_LETTERED

    ctypedef struct sl_row:
        uint64_t span_id
        uint64_t content
        uint8_t kind

    ctypedef struct sl_spanset:
        uint32_t count
        sl_row rows[0]

    ctypedef struct sl_chunk:
        size_t size
        uint8_t *bytes

    ctypedef struct sl_gathering:
        uint64_t span_bytes
        uint64_t chunk_bytes
        sl_spanset *set

    ctypedef struct sl_decision:
        uint8_t verdict
        uint8_t trigger
        uint8_t policy
        uint8_t flags
        uint32_t version
        uint64_t votes
        uint64_t threshold
        sl_id trace_id
        uint64_t first
        uint64_t cut
        int64_t stream_ns
        int64_t origin_ns
        uint64_t operation
        uint64_t duration_ns
        uint64_t size_bytes
        uint32_t span_count

    ctypedef struct sl_verdict:
        sl_decision decision
        sl_gathering *gathering

    ctypedef struct sl_verdicts:
        sl_verdict *items
        size_t count

    ctypedef struct sl_verdict_queue:
        uint64_t head
        uint64_t tail

    ctypedef struct sl_range:
        size_t start
        size_t stop

    ctypedef struct sl_ranges:
        sl_range *items
        size_t count

    ctypedef struct sl_decided:
        uint8_t *bytes
        sl_ranges bodies

    ctypedef struct sl_reject:
        size_t record
        uint64_t offset
        uint64_t line
        sl_fault fault

    ctypedef struct sl_rejects:
        sl_reject *items
        size_t count

    ctypedef struct sl_part:
        sl_id id
        sl_chunk *chunk

    ctypedef struct sl_move:
        uint64_t offset
        uint64_t line
        uint32_t spans
        sl_part part

    ctypedef struct sl_moves:
        sl_move *items
        size_t count

    ctypedef struct sl_tally:
        uint64_t counts[10]

    ctypedef struct sl_line:
        uint64_t offset
        int64_t stream_ns
        int64_t last_timestamp_ns

    ctypedef struct sl_lines:
        uint64_t head
        uint64_t tail

    ctypedef struct sl_books:
        sl_tally total
        sl_tally settled
        sl_lines lines

    ctypedef struct sl_limits:
        int64_t quiet_ns
        int64_t idle_ns
        int64_t age_max_ns
        int64_t remember_ns
        int64_t skew_max_ns
        uint64_t spans_max
        uint64_t bytes_max
        uint64_t decide_bytes

    ctypedef struct sl_table:
        size_t count

    ctypedef struct sl_known:
        pass

    ctypedef struct sl_memory:
        sl_table known
        uint64_t remembered

    ctypedef struct sl_timers:
        pass

    ctypedef struct sl_blocks:
        pass

    ctypedef struct sl_assembler:
        sl_limits limits
        uint32_t partition
        uint32_t partition_count
        sl_key key
        sl_sampler sampler
        uint64_t start
        uint64_t offset
        int64_t stream_ns
        int64_t last_timestamp_ns
        sl_books books
        sl_table open
        sl_timers timers
        sl_blocks blocks
        sl_memory memory
        sl_verdict_queue awaiting
        uint64_t created
        uint64_t undecided_bytes
        uint64_t storing_bytes
        uint64_t replayed
        uint64_t triggers[5]
        sl_decided decided
        sl_verdicts rebuilt
        sl_rejects rejects
        sl_moves moves

    ctypedef bint (*sl_is_moved)(const void *about) noexcept

    bint sl_was_moved(const void *about) noexcept

    ctypedef struct sl_record:
        sl_slice value
        uint64_t offset
        int64_t timestamp_ns
        sl_is_moved is_moved
        const void *about

    ctypedef struct sl_view:
        const sl_record *records
        size_t count

    void sl_assembler_free(sl_assembler *a) noexcept
    void sl_books_start(sl_books *books, const sl_tally *tally) noexcept
    void sl_books_settle(sl_books *books) noexcept
    void sl_books_resolve(sl_books *books, uint64_t number, sl_count field, uint32_t count) noexcept
    const sl_line *sl_books_first(const sl_books *books) noexcept
    int sl_feed_batch(sl_assembler *a, const sl_record *records, size_t *count) noexcept
    int sl_skip(sl_assembler *a, uint64_t offset, int64_t timestamp_ns) noexcept
    int sl_jump(sl_assembler *a, uint64_t offset) noexcept
    int sl_advance(sl_assembler *a, int64_t stream_ns) noexcept
    int sl_shed(sl_assembler *a, int64_t undecided_bytes) noexcept
    int sl_recall_body(sl_assembler *a, sl_slice body, size_t *at) noexcept
    sl_verdict sl_confirm(sl_assembler *a) noexcept
    sl_verdict *sl_verdict_queue_at(const sl_verdict_queue *queue, uint64_t number) noexcept
    void sl_resolve(sl_assembler *a, const sl_gathering *gathering, sl_count outcome) noexcept
    void sl_decided_reset(sl_decided *decided) noexcept
    int64_t sl_next_deadline(sl_assembler *a) noexcept
    int sl_standing(const sl_assembler *a, sl_id id) noexcept
    void sl_gathering_write(const sl_gathering *gathering, uint8_t *to) noexcept
    void sl_give_chunks(sl_gathering *gathering, sl_blocks *blocks) noexcept
    void sl_gathering_end(sl_gathering *gathering, sl_blocks *blocks) noexcept
