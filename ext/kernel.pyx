"""The native assembler: twin of spanloom.core._pure.assembler, the same names, the same results.

What costs per span is C (feed.h and the headers below it) and runs without the GIL, one stretch a call. Python objects
are made for kept fragments, rejects and moves. A call that runs out of memory raises MemoryError and leaves an
assembler that refuses every further call: it is thrown away, and its successor begins at the committed offset.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_Occurred
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from crossing cimport bytes_of, id_bytes, key_of, read_record, slice_of, span_id_bytes
from kernel_c cimport *
from program cimport put_program, put_state

import os

from spanloom._native.fetch import Batch
from spanloom._native.otlp import decode_error, scan, split_by_trace, stamp  # the last three for core.kernel
from spanloom.core._pure.assembler import TIMESTAMP_MS_MAX as PURE_TIMESTAMP_MS_MAX
from spanloom.core._pure.percentiles import Percentiles
from spanloom.core._pure.rates import Shares, TokenBucket
from spanloom.core._pure.sampler import _STATE_HEADER, STATE_VERSION
from spanloom.core._pure.sampler import Sampler as PureSampler
from spanloom.core.assembly import TALLY_FIELDS, AssemblerStatistics, Harvest, Move, Position, Reject, Tally
from spanloom.core.ledger import decode_decisions
from spanloom.core.sampling.policies import POLICIES_MAX, PREDICATES_MAX
from spanloom.core.sampling.program import Op, PredicateKind
from spanloom.errors import DecodeError
from spanloom.model import MOVED_HEADER, Decision, Fragment, Identity, Trigger, Verdict

assert len(TALLY_FIELDS) == SL_TALLY_FIELDS and TALLY_FIELDS[0] == "received" and TALLY_FIELDS[-1] == "conflicting"
assert len(Trigger) == SL_TRIGGERS
assert POLICIES_MAX == SL_POLICIES_MAX and PREDICATES_MAX == SL_PREDICATES_MAX
assert max(PredicateKind) == SL_PREDICATE_ERROR and max(Op) == SL_OP_COMPOSITE

cdef int64_t TIMESTAMP_MS_MAX = PURE_TIMESTAMP_MS_MAX
cdef int64_t LIMIT_NS_MAX = 200_000_000_000_000_000  # 6 years

_VERDICTS = tuple(Verdict)
_TRIGGERS = tuple(Trigger)
_STATE_KINDS = {Percentiles: SL_STATE_PERCENTILES, Shares: SL_STATE_SHARES, TokenBucket: SL_STATE_BUCKET}

cdef sl_key process_key = key_of(os.urandom(16))  # of every hash table here; drawn once, never shown


cdef class _Kept:
    """Owns a fragment that was handed out and is not resolved."""

    cdef sl_gathering *gathering

    def __dealloc__(self):
        if self.gathering:
            sl_gathering_end(self.gathering, NULL)


cdef _decision(const sl_decision *d):
    """Without its identities, as fragments are handed out."""
    return Decision(
        id_bytes(d.trace_id), _VERDICTS[d.verdict], _TRIGGERS[d.trigger], d.policy, d.version, d.votes, d.threshold,
        d.flags, d.first, d.cut, d.stream_ns, d.origin_ns, d.operation, d.duration_ns, d.span_count, d.size_bytes,
    )


cdef _tally(const sl_tally *tally):
    cdef int i
    return Tally(*[tally.counts[i] for i in range(SL_TALLY_FIELDS)])


cdef int _raise_pending() except -1:
    """Let an exception that is already set go on its way."""
    return -1


cdef int _match(void *context, uint32_t group, const uint8_t *at, size_t size, sl_bits *matches) except -1 with gil:
    """Which predicates of a group match a text."""
    cdef Assembler assembler = <Assembler>context
    cdef uint32_t bit
    text = bytes_of(sl_slice(at, size))
    memset(matches, 0, sizeof(sl_bits))
    for bit, matches_one in assembler._groups[group]:
        if matches_one(text):
            matches.words[bit >> 6] |= <uint64_t>1 << (bit & 63)
    return 0


cdef class _Program:
    """Owns a program until an assembler takes it."""

    cdef sl_program program

    def __cinit__(self):
        sl_program_start(&self.program)

    def __dealloc__(self):
        sl_program_free(&self.program)


cdef class Assembler:
    """One partition's assembler. Use: restore, configure, recall what the ledger says; then feed, confirm, resolve."""

    cdef sl_assembler a
    cdef bint _busy, _broken
    cdef object _policies  # the PolicySet
    cdef dict _numbers  # of the sampler's states, by their key
    cdef list _groups  # (bit, matcher) of the predicates that Python is asked about, by group
    cdef dict _held  # rejected or moving: line and spans, by offset
    cdef dict _storing  # _Kept by trace id and first offset
    cdef list _rejects, _moves

    def __cinit__(self, limits, *, partition, partition_count):
        memset(&self.a, 0, sizeof(self.a))
        assert partition_count > 0, f"partition_count must be positive, not {partition_count}"
        self.a.partition = partition
        self.a.partition_count = partition_count
        self.a.key = process_key
        self.a.last_timestamp_ns = -1
        times_ns = (limits.quiet_ns, limits.idle_ns, limits.age_max_ns, limits.remember_ns, limits.skew_max_ns)
        quiet_ns, idle_ns, age_max_ns, remember_ns, skew_max_ns = (min(ns, LIMIT_NS_MAX) for ns in times_ns)
        self.a.limits = sl_limits(
            quiet_ns, idle_ns, age_max_ns, remember_ns, skew_max_ns,
            limits.spans_max, limits.bytes_max, limits.decide_bytes,
        )
        sl_sampler_start(&self.a.sampler)
        self.a.sampler.matches.matcher = <sl_matcher><void *>_match
        self.a.sampler.matches.context = <void *>self
        self._policies = PureSampler(partition_count).policies
        self._numbers = {}
        self._groups = []
        self._held = {}
        self._storing = {}
        self._rejects = []
        self._moves = []

    def __dealloc__(self):
        sl_assembler_free(&self.a)

    cdef int _enter(self) except -1:
        assert not self._busy, "used by two threads at once"
        if self._broken:
            raise MemoryError("this assembler ran out of memory before")
        self._busy = True
        return 0

    cdef int _leave(self, int status) except -1:
        self._busy = False
        if status == SL_NO_MEMORY:
            self._broken = True
            if PyErr_Occurred():
                _raise_pending()
            raise MemoryError
        return 0

    # Assignment: what is known before the first record.

    def restore(self, start):
        """Begin at *start*, a committed position. Once, before anything is fed."""
        cdef sl_tally tally
        assert not self.a.created, "restored after feeding"
        for i, count in enumerate(start.tally.values()):
            tally.counts[i] = count
        self._enter()
        self.a.start = self.a.offset = start.offset
        self.a.stream_ns = start.stream_ns
        self.a.last_timestamp_ns = start.last_timestamp_ns
        sl_books_start(&self.a.books, &tally)
        self._held = {}
        self._leave(SL_OK)

    def configure(self, policies):
        """Judge by *policies* from here on, open traces included."""
        sampler = PureSampler(self.a.partition_count)
        sampler.configure(policies)
        self._configure(sampler, self._numbers)

    cdef int _configure(self, sampler, dict known) except -1:
        """Judge as a pure sampler would; those of our states that *known* numbers go on in place of its own."""
        cdef _Program made = _Program.__new__(_Program)
        cdef sl_program *program = &made.program
        numbers = {key: number for number, key in enumerate(sampler._states)}
        groups = []
        program.version = sampler.policies.version
        if put_program(program, sampler._program, numbers, groups) != SL_OK:
            raise MemoryError
        for state in sampler._states.values():
            kind = _STATE_KINDS[type(state)]
            if put_state(program, &self.a.key, kind, state, self.a.partition_count) != SL_OK:
                raise MemoryError
        matchers = sampler._predicates._matchers
        groups = [[(bit, matchers[bit]) for bit in group] for group in groups]
        going_on = [(number, known[key]) for key, number in numbers.items() if key in known]
        self._enter()
        for to, number in going_on:
            sl_program_take_state(program, to, &self.a.sampler.program, number)
        sl_sampler_configure(&self.a.sampler, program[0])
        sl_program_start(program)  # it is the sampler's now
        self._policies, self._numbers, self._groups = sampler.policies, numbers, groups
        return self._leave(SL_OK)

    def set_rate(self, rate):
        """Let consistent probabilities keep this part of what they would, from here on."""
        assert 0 <= rate <= 1, f"rate {rate}, expected 0 to 1"
        self._enter()
        self.a.sampler.rate = rate
        self._leave(SL_OK)

    def recall(self, bytes entries not None):
        """Take in a DECIDE body of an earlier owner: its verdicts stand, its effects may not be done yet."""
        cdef size_t at
        cdef int status
        cdef sl_slice body = slice_of(entries)
        self._enter()
        with nogil:
            status = sl_recall_body(&self.a, body, &at)
        self._leave(status)
        if status == SL_BAD_ENTRY:
            for _ in decode_decisions(entries):
                pass  # raises what the pure kernel does
            raise ValueError(f"the decision at byte {at} cannot be read")

    def sampler_state(self):
        """For a CHECKPOINT."""
        cdef sl_state *state
        cdef size_t i
        cdef bytes part
        parts = [_STATE_HEADER.pack(STATE_VERSION, self.a.sampler.rate)]
        for i in range(self.a.sampler.program.states.count):
            state = self.a.sampler.program.states.items[i]
            part = PyBytes_FromStringAndSize(NULL, sl_state_size(state))
            if sl_state_store(state, <uint8_t *>PyBytes_AS_STRING(part)) != SL_OK:
                raise MemoryError
            parts.append(part)
        return b"".join(parts)

    def restore_sampler(self, bytes state not None):
        """From a CHECKPOINT, written under the policies now configured."""
        sampler = PureSampler(self.a.partition_count)
        sampler.configure(self._policies)
        sampler.restore(state)
        self._configure(sampler, {})
        self.a.sampler.rate = sampler.rate

    # Reading.

    def feed(self, records):
        """Read *records*, in offset order, none twice."""
        cdef const sl_view *view
        cdef sl_record *borrowed
        cdef size_t i, count
        if isinstance(records, Batch):
            view = <const sl_view *>PyCapsule_GetPointer(records._view(), "sl_view")
            return self._feed(records, view.records, view.count)
        cdef tuple batch = tuple(records)
        count = len(batch)
        borrowed = <sl_record *>malloc((count + 1) * sizeof(sl_record))
        if not borrowed:
            raise MemoryError
        try:
            for i in range(count):
                read_record(batch[i], &borrowed[i], MOVED_HEADER, TIMESTAMP_MS_MAX)
            return self._feed(batch, borrowed, count)
        finally:
            free(borrowed)

    cdef _feed(self, batch, const sl_record *records, size_t count):
        """The same records twice: as objects, for those that are refused, and as they lie."""
        cdef int status
        self._enter()
        with nogil:
            status = sl_feed_batch(&self.a, records, &count)
        self._leave(status)
        self._take_rejects(batch)
        self._take_moves()
        assert status != SL_OUT_OF_ORDER, f"offset {batch[count].offset} fed at {self.a.offset}"
        return self._harvest()

    def skip(self, record):
        """Pass over a record that the ledger says is dead-lettered."""
        cdef int status
        cdef sl_record borrowed
        read_record(record, &borrowed, MOVED_HEADER, TIMESTAMP_MS_MAX)
        self._enter()
        with nogil:
            status = sl_skip(&self.a, borrowed.offset, borrowed.timestamp_ns)
        self._leave(status)
        assert status != SL_OUT_OF_ORDER, f"offset {record.offset} fed at {self.a.offset}"
        return self._harvest()

    def jump(self, uint64_t offset):
        """Go on from *offset*: retention deleted the records before it, and each counts as one span that is gone."""
        assert offset > self.a.offset, f"jump to {offset} from {self.a.offset}"
        self._enter()
        self._leave(sl_jump(&self.a, offset))
        return self._harvest()

    def advance(self, int64_t stream_ns):
        """A TICK takes effect: stream time is at least *stream_ns*."""
        cdef int status
        self._enter()
        with nogil:
            status = sl_advance(&self.a, stream_ns)
        self._leave(status)
        return self._harvest()

    def shed(self, undecided_bytes):
        """Decide the oldest open traces until at most *undecided_bytes* are left: a last resort, logged as such."""
        cdef int status
        cdef int64_t left = max(-1, min(undecided_bytes, INT64_MAX))
        self._enter()
        with nogil:
            status = sl_shed(&self.a, left)
        self._leave(status)
        return self._harvest()

    # Effects.

    def confirm(self, count):
        """The oldest *count* decisions are read back from the ledger: drops are resolved, keeps handed out to store."""
        cdef sl_verdict verdict
        kept = []
        for _ in range(count):
            if self.a.awaiting.head == self.a.awaiting.tail:
                raise IndexError("confirmed more than was decided")
            verdict = sl_confirm(&self.a)
            if verdict.gathering:
                kept.append(self._hand_out(&verdict))
        return tuple(kept)

    cdef _hand_out(self, sl_verdict *verdict):
        """The fragment as the store takes it; what the books need of it is kept until it is resolved."""
        cdef _Kept kept = _Kept.__new__(_Kept)
        cdef bytes spans
        kept.gathering = verdict.gathering
        spans = PyBytes_FromStringAndSize(NULL, verdict.gathering.chunk_bytes)
        sl_gathering_write(verdict.gathering, <uint8_t *>PyBytes_AS_STRING(spans))
        sl_give_chunks(verdict.gathering, &self.a.blocks)
        decision = _decision(&verdict.decision)
        self._storing[decision.trace_id, decision.first] = kept
        return Fragment(decision, spans)

    def resolve(self, decision, str outcome):
        """A fragment handed out is done: *outcome* is `stored` or `dead_lettered`."""
        cdef _Kept kept
        assert outcome in ("stored", "dead_lettered"), outcome
        kept = self._storing.pop((decision.trace_id, decision.first))
        self.a.storing_bytes -= kept.gathering.span_bytes
        sl_resolve(&self.a, kept.gathering, SL_STORED if outcome == "stored" else SL_DEAD_LETTERED)

    def skipped(self, offset):
        """The rejected record at *offset* is dead-lettered, and the ledger says so."""
        line, count = self._held.pop(offset)
        sl_books_resolve(&self.a.books, line, SL_DEAD_LETTERED, count)

    def moved(self, offset):
        """The misplaced spans of the record at *offset* are in their own partitions."""
        line, count = self._held.pop(offset)
        sl_books_resolve(&self.a.books, line, SL_MOVED, count)

    # Questions.

    @property
    def stream_ns(self):
        """Stream time."""
        return self.a.stream_ns

    @property
    def undecided_bytes(self):
        """Span bytes of open traces."""
        return self.a.undecided_bytes

    @property
    def storing_bytes(self):
        """Span bytes of fragments handed out and not resolved."""
        return self.a.storing_bytes

    def next_deadline(self):
        """The earliest stream time in ns at which a trace may be due; None where none is open."""
        cdef int64_t deadline = sl_next_deadline(&self.a)
        return None if deadline < 0 else deadline

    def safe_position(self):
        """What may be committed."""
        cdef sl_books *books = &self.a.books
        cdef const sl_line *line
        sl_books_settle(books)
        line = sl_books_first(books)
        if not line:
            return Position(self.a.offset, self.a.stream_ns, self.a.last_timestamp_ns, _tally(&books.settled))
        return Position(line.offset, line.stream_ns, line.last_timestamp_ns, _tally(&books.settled))

    def standing(self, bytes trace_id not None):
        """`pending`, `dropped`, `kept`, or None where the trace is not known (any more)."""
        if len(trace_id) != 16:
            return None
        standing = _STANDINGS[sl_standing(&self.a, sl_load_id(<const uint8_t *>PyBytes_AS_STRING(trace_id)))]
        if standing == "kept" and any([key[0] == trace_id for key in self._storing]):
            return "pending"
        return standing

    def statistics(self):
        """A look at it."""
        cdef int i
        return AssemblerStatistics(
            open_traces=self.a.open.count,
            remembered=self.a.memory.remembered,
            undecided_bytes=self.a.undecided_bytes,
            storing_bytes=self.a.storing_bytes,
            stream_ns=self.a.stream_ns,
            offset=self.a.offset,
            tally=_tally(&self.a.books.total),
            replayed=self.a.replayed,
            triggers=tuple([self.a.triggers[i] for i in range(SL_TRIGGERS)]),
        )

    # The harvest.

    cdef _take_rejects(self, batch):
        cdef size_t i
        cdef sl_reject *reject
        for i in range(self.a.rejects.count):
            reject = &self.a.rejects.items[i]
            self._held[reject.offset] = (reject.line, 1)
            self._rejects.append(Reject(batch[reject.record], str(self._reject_error(&reject.fault))))
        self.a.rejects.count = 0

    cdef _reject_error(self, const sl_fault *fault):
        if fault.kind == SL_FAULT_MOVED_TWICE:
            return DecodeError(
                "moved_twice", f"traces of partition {self.a.partition}", id_bytes(sl_id(fault.a, fault.b)).hex()
            )
        return decode_error(fault.kind, fault.position, fault.a, fault.b, fault.c, bytes_of(fault.id))

    cdef _take_moves(self):
        """Gather the parts of each record."""
        cdef size_t i = 0
        cdef sl_move *move
        while i < self.a.moves.count:
            first = &self.a.moves.items[i]
            parts = []
            spans = 0
            while i < self.a.moves.count and self.a.moves.items[i].line == first.line:
                move = &self.a.moves.items[i]
                parts.append((id_bytes(move.part.id), move.part.chunk.bytes[: move.part.chunk.size]))
                spans += move.spans
                i += 1
            self._held[first.offset] = (first.line, spans)
            self._moves.append(Move(first.offset, tuple(parts)))
        for i in range(self.a.moves.count):
            free(self.a.moves.items[i].part.chunk)
        self.a.moves.count = 0

    cdef _harvest(self):
        cdef sl_decided *decided = &self.a.decided
        cdef sl_range *body
        cdef size_t i
        decisions = []
        for i in range(decided.bodies.count):
            body = &decided.bodies.items[i]
            decisions.append(bytes_of(sl_slice(decided.bytes + body.start, body.stop - body.start)))
        sl_decided_reset(decided)
        rebuilt = [self._hand_out(&self.a.rebuilt.items[i]) for i in range(self.a.rebuilt.count)]
        self.a.rebuilt.count = 0
        harvest = Harvest(tuple(decisions), tuple(rebuilt), tuple(self._rejects), tuple(self._moves))
        self._rejects, self._moves = [], []
        return harvest


_STANDINGS = (None, "pending", "dropped", "kept")
