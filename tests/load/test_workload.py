"""The generated traffic is what it says: seeded, realistic, and as irregular as asked for."""

import dataclasses
import itertools
from collections import Counter, defaultdict

import pytest
import xxhash
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanloom.errors import ConfigError
from spanloom.load.workload import SENT_SPAN, Request, Workload, requests

EPOCH_UNIX_NS = 1_790_000_000_000_000_000
SMOOTH = Workload(
    seed=3, spans=4_000, spans_per_s=2_000, late_share=0, duplicate_share=0, conflicting_share=0, lost_share=0
)


def generate(workload: Workload) -> list[Request]:
    return list(requests(workload, epoch_unix_ns=EPOCH_UNIX_NS))


def spans_of(request: Request) -> list[Span]:
    parsed = ExportTraceServiceRequest.FromString(request.body)
    return [span for resource in parsed.resource_spans for scope in resource.scope_spans for span in scope.spans]


def spans_by_trace(batch: list[Request]) -> dict[bytes, list[Span]]:
    traces: dict[bytes, list[Span]] = defaultdict(list)
    for request in batch:
        for span in spans_of(request):
            traces[span.trace_id].append(span)
    return traces


def test_the_same_seed_gives_the_same_bytes() -> None:
    """A workload can be generated again, byte for byte."""
    workload = Workload(seed=7, spans=3_000)
    assert generate(workload) == generate(workload)


def test_another_seed_gives_other_bytes() -> None:
    """Seeds matter."""
    assert generate(Workload(seed=7, spans=500)) != generate(Workload(seed=8, spans=500))


def test_a_workload_holds_as_many_spans_as_asked_for() -> None:
    """Without repeats every span is sent once and their number is exact."""
    batch = generate(SMOOTH)
    assert sum(request.span_count for request in batch) == SMOOTH.spans
    sent = [each for request in batch for each in SENT_SPAN.iter_unpack(request.sent)]
    assert len(set(sent)) == SMOOTH.spans


def test_what_is_recorded_of_a_span_is_what_was_sent() -> None:
    """Ids, kind, content hash and error flag of the record are those of the serialised span, in the same order."""
    for request in generate(dataclasses.replace(SMOOTH, spans=600, error_share=0.5)):
        assert request.span_count == len(spans_of(request))
        for span, sent in zip(spans_of(request), SENT_SPAN.iter_unpack(request.sent), strict=True):
            content = xxhash.xxh64_intdigest(span.SerializeToString())
            assert sent == (span.trace_id, span.span_id, span.kind, content, span.status.code == 2)


def test_traces_are_whole_trees() -> None:
    """Every trace has one root, every parent was sent, and no span ends before it starts."""
    for spans in spans_by_trace(generate(SMOOTH)).values():
        ids = {span.span_id for span in spans}
        assert sum(not span.parent_span_id for span in spans) == 1
        assert all(span.parent_span_id in ids for span in spans if span.parent_span_id)
        assert all(span.end_time_unix_nano >= span.start_time_unix_nano >= EPOCH_UNIX_NS - 10**8 for span in spans)


def test_trace_sizes_are_heavy_tailed_and_capped() -> None:
    """Most traces are small, some are very large, none is larger than the cap."""
    workload = dataclasses.replace(SMOOTH, spans=60_000, spans_per_s=20_000, trace_spans_max=700)
    sizes = sorted(len(spans) for spans in spans_by_trace(generate(workload)).values())
    assert 6 <= sizes[len(sizes) // 2] <= 10
    assert 300 < sizes[-1] <= 700


def test_services_are_unequally_popular() -> None:
    """One service has many times the spans of the median one, and every request comes from one process."""
    counts: Counter[str] = Counter()
    for request in generate(dataclasses.replace(SMOOTH, spans=20_000)):
        resources = ExportTraceServiceRequest.FromString(request.body).resource_spans
        assert len(resources) == 1
        attributes = {entry.key: entry.value.string_value for entry in resources[0].resource.attributes}
        assert {"service.name", "service.version", "host.name", "telemetry.sdk.language"} <= attributes.keys()
        counts[attributes["service.name"]] += request.span_count
    assert len(counts) > 20
    assert counts.most_common(1)[0][1] > 8 * sorted(counts.values())[len(counts) // 2]


def test_a_span_is_as_large_as_a_real_one() -> None:
    """With the conventions' attributes a span takes 400 to 500 bytes on average."""
    batch = generate(SMOOTH)
    assert 400 < sum(len(request.body) for request in batch) / SMOOTH.spans < 510


def test_batches_are_bounded_and_mix_traces() -> None:
    """A request holds at most the exporter's batch, of many traces."""
    batch = generate(dataclasses.replace(SMOOTH, spans=20_000, spans_per_s=20_000, batch_spans_max=100))
    assert max(request.span_count for request in batch) == 100
    assert max(len({span.trace_id for span in spans_of(request)}) for request in batch) > 10


def test_requests_leave_in_order_of_time_and_traces_are_spread_over_it() -> None:
    """Simulated time never goes back, and a trace's spans leave seconds apart."""
    batch = generate(dataclasses.replace(SMOOTH, spans=8_000))
    assert [request.number for request in batch] == list(range(len(batch)))
    assert all(one.due_unix_ns <= next_one.due_unix_ns for one, next_one in itertools.pairwise(batch))
    left: dict[bytes, list[int]] = defaultdict(list)
    for request in batch:
        for span in spans_of(request):
            left[span.trace_id].append(request.due_unix_ns)
            assert span.end_time_unix_nano <= request.due_unix_ns + 10**8
    assert any(max(times) - min(times) > 3 * 10**9 for times in left.values())


def test_late_spans_leave_their_delay_after_they_ended() -> None:
    """A late span is held back for the configured delay; others leave within the exporter's own."""
    workload = dataclasses.replace(SMOOTH, late_share=0.05, late_delay_s=40.0)
    late = 0
    for request in generate(workload):
        for span in spans_of(request):
            delay_s = (request.due_unix_ns - span.end_time_unix_nano) / 1e9
            late += delay_s > 39
            assert delay_s < 46
            assert delay_s < 6 or delay_s > 39
    assert 0.03 * workload.spans < late < 0.07 * workload.spans


def test_duplicates_are_whole_requests_and_single_spans() -> None:
    """Repeats come on top, byte for byte: as requests that name the one they repeat, and as single spans."""
    batch = generate(dataclasses.replace(SMOOTH, spans=20_000, duplicate_share=0.1))
    repeats = [request for request in batch if request.repeats >= 0]
    assert repeats
    for request in repeats:
        assert request.repeats < request.number
        assert request.body == batch[request.repeats].body
    first_time = Counter(
        each for request in batch if request.repeats < 0 for each in SENT_SPAN.iter_unpack(request.sent)
    )
    assert len(first_time) == 20_000
    assert 0.03 < sum(count > 1 for count in first_time.values()) / 20_000 < 0.07


def test_conflicting_spans_share_id_and_kind_but_not_content() -> None:
    """A twin has its other's trace id, span id and kind, and different bytes that parse."""
    batch = generate(dataclasses.replace(SMOOTH, conflicting_share=0.05))
    contents: dict[tuple[bytes, bytes, int], set[int]] = defaultdict(set)
    for request in batch:
        spans_of(request)
        for trace_id, span_id, kind, content, _ in SENT_SPAN.iter_unpack(request.sent):
            contents[trace_id, span_id, kind].add(content)
    twins = sum(len(twins) > 1 for twins in contents.values())
    assert 0.03 * len(contents) < twins < 0.07 * len(contents)
    assert sum(map(len, contents.values())) == SMOOTH.spans


def test_lost_spans_leave_orphans() -> None:
    """Where spans are lost some others name a parent that never comes."""
    traces = spans_by_trace(generate(dataclasses.replace(SMOOTH, lost_share=0.2)))
    orphans = sum(
        bool(span.parent_span_id) and span.parent_span_id not in {other.span_id for other in spans}
        for spans in traces.values()
        for span in spans
    )
    assert orphans > 100


def test_errors_rise_from_where_they_happened() -> None:
    """The asked share of traces fails, and a failed span's caller fails often but not always."""
    workload = dataclasses.replace(SMOOTH, spans=20_000, error_share=0.3)
    traces = spans_by_trace(generate(workload))
    failed = [spans for spans in traces.values() if any(span.status.code == 2 for span in spans)]
    assert 0.25 < len(failed) / len(traces) < 0.35
    callers: Counter[bool] = Counter()
    for spans in failed:
        codes = {span.span_id: span.status.code for span in spans}
        callers.update(
            codes[span.parent_span_id] == 2 for span in spans if span.status.code == 2 and span.parent_span_id
        )
    assert callers[True] > callers[False] > 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("spans", 0), ("services", 0), ("error_share", 1.1), ("late_share", -0.1), ("spans_per_s", 0), ("lost_share", 1.0),
     ("late_delay_s", float("nan"))],
)  # fmt: skip
def test_nonsense_is_refused_with_its_key(key: str, value: float) -> None:
    """A workload that cannot be generated is a configuration error that names its key."""
    with pytest.raises(ConfigError, match=key):
        Workload(**{key: value})  # type: ignore[arg-type]
