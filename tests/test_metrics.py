"""The table of metrics and its text."""

import math
import re

import pytest

from spanloom.metrics import METRICS, Kind, Sample, render


def test_samples_are_rendered_as_prometheus_reads_them() -> None:
    """Help and type come once a metric, in the table's order, then a line a sample."""
    text = render(
        [
            Sample("spanloom_http_connections_open", 2),
            Sample("spanloom_store_writes_total", 7),
            Sample("spanloom_intake_spans_total", 1 << 60, {"outcome": "refused"}),
            Sample("spanloom_spans_moved_total", 3, {"partition": "1"}),
            Sample("spanloom_spans_moved_total", 4, {"partition": "2"}),
            Sample("spanloom_http_responses_total", 1, {"route": 'a"b\\c\nd', "status": "200"}),
        ]
    )
    assert text.splitlines() == [
        "# HELP spanloom_spans_moved_total Spans sent on to their own partition (spans).",
        "# TYPE spanloom_spans_moved_total counter",
        'spanloom_spans_moved_total{partition="1"} 3',
        'spanloom_spans_moved_total{partition="2"} 4',
        "# HELP spanloom_store_writes_total Documents the store made durable (documents).",
        "# TYPE spanloom_store_writes_total counter",
        "spanloom_store_writes_total 7",
        f"# HELP spanloom_intake_spans_total {METRICS['spanloom_intake_spans_total'].help} (spans).",
        "# TYPE spanloom_intake_spans_total counter",
        f'spanloom_intake_spans_total{{outcome="refused"}} {1 << 60}',
        "# HELP spanloom_http_responses_total Answers sent (responses).",
        "# TYPE spanloom_http_responses_total counter",
        r'spanloom_http_responses_total{route="a\"b\\c\nd",status="200"} 1',
        "# HELP spanloom_http_connections_open Open HTTP connections (connections).",
        "# TYPE spanloom_http_connections_open gauge",
        "spanloom_http_connections_open 2",
    ]
    assert text.endswith("\n")


@pytest.mark.parametrize(("value", "text"), [(1.5, "1.5"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")])
def test_numbers_of_every_kind(value: float, text: str) -> None:
    """Infinities and NaN have Prometheus' names."""
    assert render([Sample("spanloom_http_connections_open", value)]).splitlines()[-1].endswith(f" {text}")


@pytest.mark.parametrize(
    "sample",
    [
        Sample("spanloom_made_up_total", 1),
        Sample("spanloom_spans_received_total", 1),
        Sample("spanloom_spans_received_total", 1, {"partition": "0", "color": "red"}),
    ],
)
def test_a_sample_that_is_not_in_the_table_is_a_bug(sample: Sample) -> None:
    """Neither a name nor a label can be made up on the way."""
    with pytest.raises(AssertionError, match=r"table of metrics|has labels"):
        render([sample])


def test_the_tables_names_follow_the_rules() -> None:
    """Counters end in _total and nothing else does; names are Prometheus' own."""
    for name, metric in METRICS.items():
        assert re.fullmatch(r"spanloom_[a-z_]+", name)
        assert name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.help
        assert metric.unit


def test_nothing_measured_is_nothing_said() -> None:
    """A metric without a sample has no help line either."""
    assert render([]) == ""
