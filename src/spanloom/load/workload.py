"""Seeded, realistic traffic: what a shop's services would export, request by request, in the order it would leave.

The same Workload and epoch give the same bytes. Time here is simulated: traces arrive at `spans_per_s`, a span enters
its process's exporter when it ends, and the exporter sends when its batch is full or its timer fires, as the
OpenTelemetry SDKs do (512 spans, 5 s). So a trace's spans leave in several requests, out of order and seconds apart. On
top of that come the irregular ones: late, lost, repeated and conflicting spans.
"""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from random import Random
from typing import NamedTuple

from xxhash import xxh64_intdigest

from spanloom.errors import ConfigError
from spanloom.load.fleet import Process, build_fleet
from spanloom.load.span_template import length_delimited
from spanloom.load.trees import Tree, draw_size, grow

_SLICE_NS = 50_000_000  # spans are put in order within slices of simulated time this long
_REPEAT_SLICES = 40  # a repeated request or span comes at most this much later: 2 s, a client's time-out
_SCHEMA_URL = length_delimited(3, b"https://opentelemetry.io/schemas/1.37.0")

_GOLDEN = 0x9E37_79B9_7F4A_7C15  # 2^64 by the golden ratio: spreads a few random bits over a whole word

SENT_SPAN = struct.Struct("<16s8sBQB")  # trace id, span id, kind, XXH64 of the span's bytes, 1 if its status is ERROR


@dataclass(frozen=True, slots=True)
class Workload:
    """What to generate. Shares lie in [0, 1] and are of spans, but for `error_share`, which is of traces."""

    seed: int = 1
    spans: int = 100_000  # different spans; repeats come on top, lost ones do not count
    services: int = 30
    spans_per_s: float = 20_000.0  # of simulated time
    trace_spans_median: float = 8.0
    trace_spans_sigma: float = 1.0  # of the log-normal body; a few traces come from a power law instead
    trace_spans_max: int = 5_000
    error_share: float = 0.02
    late_share: float = 0.002
    late_delay_s: float = 30.0
    duplicate_share: float = 0.005  # half of it as whole requests sent again, half as single spans
    conflicting_share: float = 0.0001  # one more span of the same id and kind, with other content
    lost_share: float = 0.0005  # never sent: leaves orphans
    batch_delay_s: float = 5.0
    batch_spans_max: int = 512

    def __post_init__(self) -> None:
        for key in ("error_share", "late_share", "duplicate_share", "conflicting_share", "lost_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key}: expected a share between 0 and 1, found {getattr(self, key)}")
        if self.lost_share > 0.9:
            raise ConfigError(f"lost_share: expected at most 0.9, found {self.lost_share}")
        for key in ("spans", "services", "trace_spans_max", "batch_spans_max"):
            if getattr(self, key) < 1:
                raise ConfigError(f"{key}: expected at least 1, found {getattr(self, key)}")
        for key in ("spans_per_s", "trace_spans_median", "batch_delay_s"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"{key}: expected more than 0, found {getattr(self, key)}")
        for key in ("late_delay_s", "trace_spans_sigma"):
            if not getattr(self, key) >= 0:
                raise ConfigError(f"{key}: expected at least 0, found {getattr(self, key)}")

    @property
    def length_s(self) -> float:
        """How long the traffic lasts in simulated time, but for what comes late."""
        return self.spans / self.spans_per_s


class Request(NamedTuple):
    """One ExportTraceServiceRequest as its process sends it."""

    number: int  # from 0, in order of sending
    body: bytes  # OTLP protobuf
    span_count: int
    sent: bytes  # span_count times SENT_SPAN, in the order of the body
    due_unix_ns: int  # when it leaves its process, in simulated time
    repeats: int  # the number of the request this one repeats byte for byte, -1 if none


class _Finished(NamedTuple):
    """A span on its way to its process's exporter."""

    due_unix_ns: int
    process: Process
    scope: int
    framed: bytes  # a field of ScopeSpans
    sent: bytes


def requests(workload: Workload, *, epoch_unix_ns: int) -> Iterator[Request]:
    """Every request of *workload* in order of sending; traces begin at *epoch_unix_ns*.

    Memory is that of `batch_delay_s` and `late_delay_s` worth of spans.
    """
    return _Traffic(workload, epoch_unix_ns).requests()


class _Traffic:
    """Spans that have ended and not yet left, by the slice of simulated time they leave in."""

    def __init__(self, workload: Workload, epoch_unix_ns: int) -> None:
        self._workload = workload
        self._random = Random(workload.seed)
        self._fleet = build_fleet(self._random, workload.services)
        self._epoch_unix_ns = epoch_unix_ns
        self._slices: defaultdict[int, list[_Finished]] = defaultdict(list)
        self._exporters = {
            process.number: _Exporter(process, self._fleet.scopes, workload, epoch_unix_ns)
            for service in self._fleet.services
            for process in service.processes
        }
        self._repeats: defaultdict[int, list[Request]] = defaultdict(list)
        self._made = 0  # spans that will be sent, repeats aside
        self._number = 0

    def requests(self) -> Iterator[Request]:
        workload, random = self._workload, self._random
        now_ns, slice_number = 0, 0
        while self._made < workload.spans:
            size = draw_size(
                random, median=workload.trace_spans_median, sigma=workload.trace_spans_sigma,
                spans_max=min(workload.trace_spans_max, workload.spans - self._made),
            )  # fmt: skip
            tree = grow(random, self._fleet, size, fails=random.random() < workload.error_share)
            self._finish(tree, self._epoch_unix_ns + now_ns)
            now_ns += round(random.expovariate(1.0) * size / workload.spans_per_s * 1e9)
            while slice_number < now_ns // _SLICE_NS:  # nothing to come can end in these slices
                yield from self._leave(slice_number)
                slice_number += 1
        while self._slices or self._repeats or any(exporter.waiting for exporter in self._exporters.values()):
            yield from self._leave(slice_number)
            slice_number += 1

    def _finish(self, tree: Tree, start_unix_ns: int) -> None:
        """Make the spans of one trace and put each where it ends."""
        workload, random, slices, epoch = self._workload, self._random, self._slices, self._epoch_unix_ns
        late_from = workload.lost_share
        odd_share = late_from + workload.late_share + workload.duplicate_share / 2 + workload.conflicting_share
        trace_id = random.randbytes(16)
        ids = random.randbytes(8 * len(tree.parents))
        for index, (operation, parent) in enumerate(zip(tree.operations, tree.parents, strict=True)):
            odd = random.random()
            if odd < late_from:
                continue
            process = tree.processes[index]
            span_id = ids[8 * index : 8 * index + 8]
            error = index in tree.failed
            draw = random.getrandbits(34)
            template = operation.templates(root=parent < 0, error=error)[draw & 3]
            starts = start_unix_ns + tree.starts_ns[index]
            ends = starts + tree.durations_ns[index]
            span = template.render(
                trace_id, span_id, ids[8 * parent : 8 * parent + 8] if parent >= 0 else b"",
                start_unix_ns=starts + process.skew_ns, end_unix_ns=ends + process.skew_ns,
                instance=b"%016x" % (draw * _GOLDEN & 0xFFFF_FFFF_FFFF_FFFF),
            )  # fmt: skip
            sent = SENT_SPAN.pack(trace_id, span_id, template.kind, xxh64_intdigest(span), error)
            finished = _Finished(ends, process, operation.scope, template.frame + span, sent)
            self._made += 1
            if odd < odd_share:
                self._finish_oddly(finished, odd - late_from)
            else:
                slices[(ends - epoch) // _SLICE_NS].append(finished)
            if self._made == workload.spans:
                return

    def _finish_oddly(self, finished: _Finished, odd: float) -> None:
        """A span that comes late, twice, or with a different twin; *odd* says which."""
        workload, random = self._workload, self._random
        slice_number = (finished.due_unix_ns - self._epoch_unix_ns) // _SLICE_NS
        if odd < workload.late_share:
            self._slices[slice_number + round(workload.late_delay_s * 1e9) // _SLICE_NS].append(finished)
            return
        self._slices[slice_number].append(finished)
        other = finished
        if odd >= workload.late_share + workload.duplicate_share / 2:
            if self._made == workload.spans:
                return  # no room for a twin
            other = _twin(finished)
            self._made += 1
        self._slices[slice_number + random.randint(0, _REPEAT_SLICES)].append(other)

    def _leave(self, slice_number: int) -> Iterator[Request]:
        """The requests that leave in a slice of simulated time: full batches first, then by timer, then repeats."""
        now_unix_ns = self._epoch_unix_ns + (slice_number + 1) * _SLICE_NS
        exporters = self._exporters
        for finished in sorted(self._slices.pop(slice_number, ()), key=itemgetter(0)):
            exporter = exporters[finished.process.number]
            exporter.waiting.append(finished)
            if len(exporter.waiting) == self._workload.batch_spans_max:
                yield self._send(exporter, now_unix_ns)
        for exporter in exporters.values():
            if exporter.is_due(now_unix_ns):
                yield self._send(exporter, now_unix_ns)
        for request in self._repeats.pop(slice_number, ()):
            yield request._replace(number=self._take_number(), due_unix_ns=now_unix_ns, repeats=request.number)

    def _send(self, exporter: "_Exporter", now_unix_ns: int) -> Request:
        body, sent = exporter.take(now_unix_ns)
        request = Request(self._take_number(), body, len(sent), b"".join(sent), now_unix_ns, -1)
        if self._random.random() < self._workload.duplicate_share / 2:
            slice_number = (now_unix_ns - self._epoch_unix_ns) // _SLICE_NS  # the next one, so not yet gone
            self._repeats[slice_number + self._random.randrange(_REPEAT_SLICES)].append(request)
        return request

    def _take_number(self) -> int:
        self._number += 1
        return self._number - 1


class _Exporter:
    """One process's batch span processor: ended spans wait until the batch is full or the timer fires."""

    def __init__(self, process: Process, scopes: list[bytes], workload: Workload, epoch_unix_ns: int) -> None:
        self.waiting: list[_Finished] = []
        self._resource = process.resource
        self._scopes = scopes
        self._delay_ns = round(workload.batch_delay_s * 1e9)
        self._timer_unix_ns = epoch_unix_ns + round(process.phase * self._delay_ns)

    def is_due(self, now_unix_ns: int) -> bool:
        """Whether the timer has fired on a batch that is not empty."""
        return bool(self.waiting) and now_unix_ns >= self._timer_unix_ns

    def take(self, now_unix_ns: int) -> tuple[bytes, list[bytes]]:
        """The waiting spans as a request's bytes, and in that order what the record says of each."""
        by_scope: dict[int, list[_Finished]] = {}
        for finished in self.waiting:
            by_scope.setdefault(finished.scope, []).append(finished)
        self.waiting = []
        self._timer_unix_ns = now_unix_ns + self._delay_ns
        scope_spans = [
            length_delimited(2, b"".join([self._scopes[scope], *(each.framed for each in group), _SCHEMA_URL]))
            for scope, group in by_scope.items()
        ]
        body = length_delimited(1, b"".join([self._resource, *scope_spans, _SCHEMA_URL]))
        return body, [each.sent for group in by_scope.values() for each in group]


def _twin(finished: _Finished) -> _Finished:
    """The same span id and kind with one attribute more: an SDK exported a span that its program went on with."""
    length_bytes = next(at for at in range(1, 6) if finished.framed[at] < 0x80)
    span = finished.framed[1 + length_bytes :] + length_delimited(9, length_delimited(1, b"app.retried"))
    trace_id, span_id, kind, _, error = SENT_SPAN.unpack(finished.sent)
    sent = SENT_SPAN.pack(trace_id, span_id, kind, xxh64_intdigest(span), error)
    return finished._replace(framed=length_delimited(2, span), sent=sent)
