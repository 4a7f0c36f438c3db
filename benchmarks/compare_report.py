"""What `compare.py` writes: medians as a Markdown table, a plot, and two commits beside each other.

Works on the raw JSON alone, so that a table can be made again from it. The rule: no ratio where the two sides did not
do the same work, which shows in how many traces they kept.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypedDict

OURS, THEIRS = "spanloom", "collector"
MB = 1e6
_WIRE_FACTOR, _FIXED_BYTES, _REMEMBERED_BYTES = 1.3, 200e6, 24  # the memory that is promised


class Run(TypedDict):
    """One process over one topic."""

    traffic: str
    side: str
    store: str
    round: int  # 0 is the warm-up
    spans: int
    traces: int
    exact: bool  # whether both sides must keep just as many
    kept: int
    cpu_us: float
    cpu_start_us: float
    store_cpu_us: float
    spans_s: float
    stored_spans_s: float
    peak_rss_bytes: int
    rss_before_bytes: int
    wire_bytes: int


class Paced(TypedDict):
    """One run at half load."""

    side: str
    traffic: str
    asked_spans_s: float
    offered_spans_s: float
    cpu_cores: float
    verdicts: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class Results(TypedDict):
    """Everything a comparison found."""

    stamp: dict[str, str]
    runs: list[Run]
    held: list[Run]  # nothing decided yet: memory
    latency: list[Paced]
    everything: list[Run]  # every trace kept, into Elasticsearch
    failed: list[str]


class Key(NamedTuple):
    """What runs are gathered by."""

    traffic: str
    side: str
    store: str

    @property
    def who(self) -> str:
        return self.side if self.side == THEIRS else f"{self.side}, {self.store}"


class Cell(NamedTuple):
    """The median of some runs, and their range."""

    middle: float
    low: float
    high: float

    def show(self, digits: int = 1) -> str:
        spread = f" ({self.low:,.{digits}f}–{self.high:,.{digits}f})" if self.low != self.high else ""
        return f"{self.middle:,.{digits}f}{spread}"


def load(path: Path) -> Results:
    """What an earlier comparison found."""
    found: Results = json.loads(path.read_text())
    return found


def gathered(runs: Sequence[Run]) -> dict[Key, list[Run]]:
    """Runs by what was run, without the warm-up, in order of first appearance."""
    found: dict[Key, list[Run]] = {}
    for run in runs:
        if run["round"]:
            found.setdefault(Key(run["traffic"], run["side"], run["store"]), []).append(run)
    return found


def cell(values: Sequence[float]) -> Cell:
    """Median and range."""
    return Cell(median(values), min(values), max(values))


def disagreement(ours: Sequence[Run], theirs: Sequence[Run]) -> str:
    """Why the two cannot be compared; empty where they can.

    Where chance is drawn differently on both sides, or late spans meet a clock and are documents of their own with us,
    the counts may differ by five standard deviations of a 1 % draw and a fiftieth of what is kept.
    """
    a, b = [run["kept"] for run in ours], [run["kept"] for run in theirs]
    if ours[0]["exact"]:
        equal = set(a) == set(b) and len(set(a)) == 1
        return "" if equal else f"kept counts differ: {sorted(set(a))} and {sorted(set(b))}"
    allowed = 5 * math.sqrt(2 * 0.01 * ours[0]["traces"]) + max(a + b) / 50
    equal = max(a + b) - min(a + b) <= allowed
    return "" if equal else f"kept counts differ: {sorted(set(a))} and {sorted(set(b))}, allowed are {allowed:.0f}"


# Markdown.


def markdown(results: Results) -> str:
    """The whole report."""
    lines = ["# spanloom and the OpenTelemetry Collector, same topic, same machine, in turns", ""]
    lines += [f"- {key}: {value}" for key, value in results["stamp"].items()]
    lines += ["", *_main_table(results)]
    for title, rows in (
        ("Memory with everything undecided", list(_held_table(results["held"]))),
        ("Verdict latency at half load", list(_latency_table(results["latency"]))),
        ("Every trace kept, one document a trace, into Elasticsearch", list(_everything_table(results["everything"]))),
    ):
        if rows:
            lines += ["", f"## {title}", "", *rows]
    if results["failed"]:
        lines += ["", "## Failed", "", *(f"- {line}" for line in results["failed"])]
    return "\n".join([*lines, ""])


def _main_table(results: Results) -> Iterator[str]:
    yield "Medians, in brackets the range. CPU is of the side's process alone; wall ends when every span is taken in."
    yield ""
    yield "| traffic | side, store | CPU µs a span | its store's | spans/s, wall | peak RSS, MB | kept | better by |"
    yield "|---|---|---|---|---|---|---|---|"
    groups = gathered(results["runs"])
    for key, runs in groups.items():
        theirs = groups.get(Key(key.traffic, THEIRS, ""))
        ratio = _ratio(runs, theirs) if theirs and key.side == OURS else ""
        cells = [
            key.traffic,
            key.who,
            cell([run["cpu_us"] for run in runs]).show(2),
            f"{median(run['store_cpu_us'] for run in runs):.2f}" if key.store == "elasticsearch" else "",
            cell([run["spans_s"] for run in runs]).show(0),
            cell([run["peak_rss_bytes"] / MB for run in runs]).show(0),
            ", ".join(str(kept) for kept in sorted({run["kept"] for run in runs})),
            ratio,
        ]
        yield f"| {' | '.join(cells)} |"


def _ratio(ours: Sequence[Run], theirs: Sequence[Run]) -> str:
    why = disagreement(ours, theirs)
    if why:
        return why
    cpu = median(run["cpu_us"] for run in theirs) / median(run["cpu_us"] for run in ours)
    wall = median(run["spans_s"] for run in ours) / median(run["spans_s"] for run in theirs)
    about = "" if ours[0]["exact"] else ", counts equal within chance"
    return f"CPU {cpu:.1f}, wall {wall:.1f}{about}"


def _held_table(runs: Sequence[Run]) -> Iterator[str]:
    groups = gathered(runs)
    if groups:
        yield "| traffic | side | spans | wire MB | RSS before, MB | peak RSS, MB | RSS a span, bytes | promised, MB |"
        yield "|---|---|---|---|---|---|---|---|"
    for key, same in groups.items():
        run = same[0]
        peak = median(one["peak_rss_bytes"] for one in same)
        a_span = median((one["peak_rss_bytes"] - one["rss_before_bytes"]) / one["spans"] for one in same)
        bound = (_FIXED_BYTES + _WIRE_FACTOR * run["wire_bytes"] + _REMEMBERED_BYTES * run["traces"]) / MB
        promised = f"{bound:,.0f}" if key.side == OURS else ""
        before = median(one["rss_before_bytes"] for one in same) / MB
        yield (
            f"| {key.traffic} | {key.side} | {run['spans']:,} | {run['wire_bytes'] / MB:,.0f} | {before:,.0f} "
            f"| {peak / MB:,.0f} | {a_span:,.0f} | {promised} |"
        )


def _latency_table(runs: Sequence[Paced]) -> Iterator[str]:
    if runs:
        yield "Milliseconds after the quiet period (ours: every verdict, durable; theirs: kept traces, exported)."
        yield ""
        yield "| traffic | side | half of its spans/s | offered | its cores | verdicts | p50 | p99 | max |"
        yield "|---|---|---|---|---|---|---|---|---|"
    for run in runs:
        yield (
            f"| {run['traffic']} | {run['side']} | {run['asked_spans_s']:,.0f} | {run['offered_spans_s']:,.0f} "
            f"| {run['cpu_cores']:.2f} | {run['verdicts']:,} | {run['p50_ms']:,.0f} | {run['p99_ms']:,.0f} "
            f"| {run['max_ms']:,.0f} |"
        )


def _everything_table(runs: Sequence[Run]) -> Iterator[str]:
    groups = gathered(runs)
    if groups:
        yield "After a warm-up, which is left out: Elasticsearch's JVM compiles itself then."
        yield ""
        yield "| traffic | stored spans/s | our CPU µs a span | Elasticsearch's | peak RSS, MB |"
        yield "|---|---|---|---|---|"
    for key, same in groups.items():
        stored = cell([run["stored_spans_s"] for run in same]).show(0)
        cpu = cell([run["cpu_us"] for run in same]).show(1)
        store = cell([run["store_cpu_us"] for run in same]).show(1)
        peak = median(run["peak_rss_bytes"] for run in same) / MB
        yield f"| {key.traffic} | {stored} | {cpu} | {store} | {peak:,.0f} |"


# Two commits.


def against(before: Results, after: Results) -> str:
    """What has changed from one to the other; the ratio to the collector is what the machine's mood moves least."""
    a, b = gathered(before["runs"]), gathered(after["runs"])
    lines = [f"# {before['stamp']['commit']} and {after['stamp']['commit']}", ""]
    lines += ["| traffic | side, store | measure | before | after | after / before |", "|---|---|---|---|---|---|"]
    for key in a:
        if key in b:
            for name, one, other in _measures(key, a, b):
                lines.append(f"| {key.traffic} | {key.who} | {name} | {one:,.2f} | {other:,.2f} | {other / one:.2f} |")
    return "\n".join([*lines, ""])


def _measures(
    key: Key, a: Mapping[Key, Sequence[Run]], b: Mapping[Key, Sequence[Run]]
) -> Iterator[tuple[str, float, float]]:
    def pair(name: str, value: str) -> tuple[str, float, float]:
        one, other = (median(run[value] for run in side[key]) for side in (a, b))  # type: ignore[literal-required]
        return name, float(one), float(other)

    yield pair("CPU µs a span", "cpu_us")
    yield pair("spans/s, wall", "spans_s")
    yield pair("peak RSS, bytes", "peak_rss_bytes")
    theirs = Key(key.traffic, THEIRS, "")
    if key.side == OURS and all(theirs in side and not disagreement(side[key], side[theirs]) for side in (a, b)):
        ratios = [
            median(run["cpu_us"] for run in side[theirs]) / median(run["cpu_us"] for run in side[key])
            for side in (a, b)
        ]
        yield "CPU, collector / ours", ratios[0], ratios[1]


# The plot.

_BAR, _LEFT, _WIDE = 18, 300, 560
_COLOURS = {THEIRS: "#8c8c8c", OURS: "#2a6f97"}


def plot(results: Results) -> str:
    """CPU a span as bars, one a row of the table; an SVG."""
    rows = [(key, median(run["cpu_us"] for run in runs)) for key, runs in gathered(results["runs"]).items()]
    most = max((value for _, value in rows), default=1.0)
    height = _BAR * len(rows) + 40
    size = f'width="{_LEFT + _WIDE + 70}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="8" y="18" font-weight="bold">CPU µs a span</text>',
    ]
    for place, (key, value) in enumerate(rows):
        y, wide = 30 + place * _BAR, value / most * _WIDE
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 12}" text-anchor="end">{key.traffic}: {key.who}</text>')
        lines.append(f'<rect x="{_LEFT}" y="{y}" width="{wide:.1f}" height="{_BAR - 4}" fill="{_COLOURS[key.side]}"/>')
        lines.append(f'<text x="{_LEFT + wide + 5:.1f}" y="{y + 12}">{value:.2f}</text>')
    return "\n".join([*lines, "</svg>", ""])
