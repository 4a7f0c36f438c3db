"""The one table of metrics, and Prometheus' text format for what is measured of them.

A metric that is not in the table cannot be rendered, so the table is the documentation. Counters start at zero with
the process, or go on from the committed offset's metadata where the books say so. Source: Prometheus text exposition
format 0.0.4.
"""

import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Kind(StrEnum):
    """How a metric moves."""

    COUNTER = "counter"  # only up
    GAUGE = "gauge"


class Metric(NamedTuple):
    """A line of the table."""

    name: str
    kind: Kind
    unit: str
    help: str
    labels: tuple[str, ...] = ()


class Sample(NamedTuple):
    """One value of a metric; `labels` has just the table's."""

    name: str
    value: float
    labels: Mapping[str, str] = {}


_PARTITION = ("partition",)

METRICS = {
    metric.name: metric
    for metric in (
        # The balance sheet (design, section 1): received = everything after it, summed, but `conflicting`.
        Metric("spanloom_spans_received_total", Kind.COUNTER, "spans", "Spans read from the log", _PARTITION),
        Metric("spanloom_spans_stored_total", Kind.COUNTER, "spans", "Spans in the trace store", _PARTITION),
        Metric(
            "spanloom_spans_dropped_total",
            Kind.COUNTER,
            "spans",
            "Spans not kept: not_sampled by the policies, late (their trace was dropped), pressure (memory)",
            ("partition", "reason"),
        ),
        Metric("spanloom_spans_duplicate_total", Kind.COUNTER, "spans", "Spans that were already there", _PARTITION),
        Metric("spanloom_spans_moved_total", Kind.COUNTER, "spans", "Spans sent on to their own partition", _PARTITION),
        Metric("spanloom_spans_dead_lettered_total", Kind.COUNTER, "spans", "Spans that cannot be read", _PARTITION),
        Metric(
            "spanloom_spans_lost_to_retention_total",
            Kind.COUNTER,
            "spans",
            "Records the log deleted before they were read",
            _PARTITION,
        ),
        Metric("spanloom_spans_pending", Kind.GAUGE, "spans", "Spans read whose fate is still open", _PARTITION),
        Metric(
            "spanloom_spans_conflicting_total",
            Kind.COUNTER,
            "spans",
            "Spans kept beside another one of the same id and kind",
            _PARTITION,
        ),
        Metric("spanloom_traces_open", Kind.GAUGE, "traces", "Traces being put together", _PARTITION),
        Metric("spanloom_traces_remembered", Kind.GAUGE, "traces", "Decided traces still recognised", _PARTITION),
        Metric("spanloom_undecided_bytes", Kind.GAUGE, "bytes", "Span bytes held for open traces", _PARTITION),
        Metric("spanloom_lag_records", Kind.GAUGE, "records", "Records in the log not yet read", _PARTITION),
        Metric(
            "spanloom_actor_restarts_total", Kind.COUNTER, "restarts", "Crashed actors put back to work", ("child",)
        ),
        Metric("spanloom_ledger_appends_total", Kind.COUNTER, "records", "Ledger records appended", _PARTITION),
        Metric(
            "spanloom_policy_version", Kind.GAUGE, "version", "Version of the sampling policies in force", _PARTITION
        ),
        Metric(
            "spanloom_sampling_rate",
            Kind.GAUGE,
            "ratio",
            "What load has left of the policies' consistent probabilities: 1 where nothing is bent",
            _PARTITION,
        ),
        Metric("spanloom_store_writes_total", Kind.COUNTER, "documents", "Documents the store made durable"),
        Metric("spanloom_store_rejected_total", Kind.COUNTER, "documents", "Documents the store will never accept"),
        Metric(
            "spanloom_cache_lookups_total",
            Kind.COUNTER,
            "lookups",
            "What the cache was asked for: trace (by the query service), sampled (in mode head, by the intake); hit, "
            "miss (or not what was asked for), failure (the cache is away)",
            ("cache", "result"),
        ),
        # The intake's own: accepted = produced + dropped_head + dropped_shed + refused + waiting.
        Metric("spanloom_intake_spans_accepted_total", Kind.COUNTER, "spans", "Spans sent to us that could be read"),
        Metric(
            "spanloom_intake_spans_total",
            Kind.COUNTER,
            "spans",
            "What became of them: produced (in the log), dropped_head (not sampled), dropped_shed (not sampled because "
            "of the load), refused (come back later); beside them rejected (never accepted: not readable, a bad id)",
            ("outcome",),
        ),
        Metric(
            "spanloom_intake_sampling_factor",
            Kind.GAUGE,
            "ratio",
            "What load has left of the intake's sampling: 1 where nothing is bent",
        ),
        Metric("spanloom_intake_spans_waiting", Kind.GAUGE, "spans", "Accepted spans on their way into the log"),
        Metric("spanloom_intake_waiting_bytes", Kind.GAUGE, "bytes", "Request bytes on their way into the log"),
        Metric(
            "spanloom_intake_requests_total",
            Kind.COUNTER,
            "requests",
            "Requests with spans: accepted, rejected (malformed), refused (come back later)",
            ("outcome",),
        ),
        Metric(
            "spanloom_feed_records_total",
            Kind.COUNTER,
            "records",
            "Records of the Kafka door's topic: taken, dead_lettered (not all can be read), lost (deleted unread)",
            ("outcome",),
        ),
        Metric("spanloom_http_responses_total", Kind.COUNTER, "responses", "Answers sent", ("route", "status")),
        Metric("spanloom_http_connections_open", Kind.GAUGE, "connections", "Open HTTP connections"),
        Metric("spanloom_http_connections_total", Kind.COUNTER, "connections", "HTTP connections accepted"),
        Metric("spanloom_http_refused_total", Kind.COUNTER, "requests", "Requests malformed, too large or too slow"),
        Metric(
            "spanloom_grpc_calls_total",
            Kind.COUNTER,
            "calls",
            "gRPC calls: answered, refused (before the method saw them), slow (their message did not come), crashed",
            ("outcome",),
        ),
        Metric("spanloom_http_crashes_total", Kind.COUNTER, "requests", "Requests that met a bug; each is in the log"),
    )
}


def render(samples: Iterable[Sample]) -> str:
    """*samples* as Prometheus reads them, grouped in the table's order. One that is not in the table is a bug."""
    groups: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for sample in samples:
        assert sample.name in METRICS, f"{sample.name} is not in the table of metrics"
        expected = METRICS[sample.name].labels
        assert set(sample.labels) == set(expected), f"{sample.name} has labels {expected}, not {tuple(sample.labels)}"
        groups[sample.name].append(sample)
    lines: list[str] = []
    for name, group in groups.items():
        if group:
            metric = METRICS[name]
            lines += [f"# HELP {name} {metric.help} ({metric.unit}).", f"# TYPE {name} {metric.kind}"]
            lines += [_line(sample) for sample in group]
    return "\n".join([*lines, ""])


def _line(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escaped(sample.labels[name])}"' for name in METRICS[sample.name].labels)
    return f"{sample.name}{{{labels}}} {_number(sample.value)}" if labels else f"{sample.name} {_number(sample.value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if isinstance(value, int) or math.isfinite(value):
        return str(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
