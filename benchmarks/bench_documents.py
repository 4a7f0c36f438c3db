"""Measures kept traces: microseconds of CPU a kept span, from a fragment to what leaves, step by step.

    python -m benchmarks.bench_documents [TRACES]                   20,000 where none is said
    SPANLOOM_PURE=1 python -m benchmarks.bench_documents [TRACES]   the same with the pure kernel; a tenth of them

The input is seeded: traces of ten spans of six attributes, from four services, near 4 KB each; the root's resource has
four attributes. `document` is the summary and the stamped spans, `elasticsearch` the lines of a bulk with all that is
checked before, `sqlite` the rows, `messages` what `traces-complete` and `sampling-decisions` get. Nothing is sent. Each
figure is the least of five turns.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from spanloom.actors.writer import _complete, _decision
from spanloom.adapters.document_limits import rejection_of
from spanloom.adapters.elasticsearch.documents import bulk_lines, refusal_of
from spanloom.adapters.sqlite.store_files import _row
from spanloom.core.document import build_document
from spanloom.core.kernel import KERNEL
from spanloom.model import FLAG_ROOT, Decision, Document, Fragment, Trigger, Verdict

TRACES = 20_000
PURE_SHARE = 10
TRACE_SPANS = 10
SERVICES = 4
TURNS = 5
T0_NS = 1_790_000_000_000_000_000
POLICIES = ("errors", "slow", "base")
ATTRIBUTES = (
    ("http.request.method", "GET"),
    ("http.route", "/api/v1/things/{id}"),
    ("server.address", "shop.example.com"),
    ("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
)
RESOURCE = (
    ("service.version", "1.12.3"),
    ("host.name", "node-7-a91f3c"),
    ("telemetry.sdk.language", "python"),
)


def fragments(traces: int) -> list[Fragment]:
    """So many kept traces."""
    random = Random(1)
    return [Fragment(_decision_of(trace_id := random.randbytes(16), number), _spans(random, trace_id))
            for number in range(traces)]  # fmt: skip


def _decision_of(trace_id: bytes, number: int) -> Decision:
    return Decision(
        trace_id=trace_id, verdict=Verdict.KEEP, trigger=Trigger.COMPLETE, policy=2, policy_version=1, votes=0b100,
        threshold=0, flags=FLAG_ROOT, first=4 * number, cut=4 * number + 3, stream_ns=T0_NS, origin_ns=T0_NS,
        operation=1 << 63 | number, duration_ns=200_000_000, span_count=TRACE_SPANS,
    )  # fmt: skip


def _spans(random: Random, trace_id: bytes) -> bytes:
    """TracesData as an assembler leaves it: each record's resource again."""
    data = TracesData()
    ids = [random.randbytes(8) for _ in range(TRACE_SPANS)]
    for start in range(0, TRACE_SPANS, TRACE_SPANS // SERVICES + 1):
        resource = data.resource_spans.add()
        service = random.randrange(20)
        for key, text in (("service.name", f"service-{service}"), *RESOURCE):
            resource.resource.attributes.add(key=key).value.string_value = text
        scope = resource.scope_spans.add()
        scope.scope.name = "bench"
        for place in range(start, min(start + TRACE_SPANS // SERVICES + 1, TRACE_SPANS)):
            scope.spans.append(_span(random, trace_id, ids, place))
    return data.SerializeToString()


def _span(random: Random, trace_id: bytes, ids: Sequence[bytes], place: int) -> Span:
    start_ns = T0_NS + random.randrange(100_000_000)
    span = Span(trace_id=trace_id, span_id=ids[place], name="GET /api/v1/things/{id}", kind=Span.SPAN_KIND_SERVER)
    span.parent_span_id = ids[random.randrange(place)] if place else b""
    span.start_time_unix_nano, span.end_time_unix_nano = start_ns, start_ns + random.randrange(100_000_000)
    for key, text in (*ATTRIBUTES, ("url.full", f"https://shop.example.com/api/v1/things/{random.randrange(10**9)}")):
        span.attributes.add(key=key).value.string_value = text
    span.attributes.add(key="http.response.status_code").value.int_value = 200
    return span


def document_of(fragment: Fragment) -> Document:
    """As the writer makes it."""
    return build_document(fragment, incarnation="0123456789abcdef01234567", partition=3, policy_names=POLICIES)


def to_elasticsearch(documents: Sequence[Document]) -> None:
    """All that is done before a bulk is sent."""
    for document in documents:
        assert refusal_of(document) is None
        bulk_lines(document, "spanloom-traces-")


def to_sqlite(documents: Sequence[Document]) -> None:
    """All that is done before the statements."""
    for document in documents:
        assert rejection_of(document) is None
        _row(document)


def to_topics(documents: Sequence[Document]) -> None:
    """What the topics get."""
    for document in documents:
        _complete(document)
        _decision(document)


def least_us(run: Callable[[], object], spans: int) -> float:
    """CPU a span, the least of some turns."""
    turns = []
    for _ in range(TURNS):
        began_ns = time.process_time_ns()
        run()
        turns.append(time.process_time_ns() - began_ns)
    return min(turns) / spans / 1000


def main() -> None:
    """One table."""
    traces = int(sys.argv[1]) if len(sys.argv) > 1 else TRACES
    kept = fragments(traces if KERNEL == "native" else traces // PURE_SHARE)
    spans = len(kept) * TRACE_SPANS
    documents = [document_of(fragment) for fragment in kept]
    print(f"{KERNEL} kernel, {len(kept):,} traces of {TRACE_SPANS} spans, {len(documents[0].spans):,} bytes each")
    steps: dict[str, Callable[[], object]] = {
        "document": lambda: [document_of(fragment) for fragment in kept],
        "elasticsearch": partial(to_elasticsearch, documents),
        "sqlite": partial(to_sqlite, documents),
        "messages": partial(to_topics, documents),
    }
    for name, run in steps.items():
        print(f"{name:14} {least_us(run, spans):6.2f} µs a span", flush=True)


if __name__ == "__main__":
    main()
