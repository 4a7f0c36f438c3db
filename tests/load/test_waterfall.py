"""The waterfall shows any trace, however odd, in lines a reader can follow."""

import pytest

from spanloom.errors import DecodeError
from spanloom.load.waterfall import LINES_MAX, duration_text, render_waterfall

START_US = 1_790_000_000_000_000


def span(
    span_id: str, parent: str = "", *, at_us: int = 0, duration_ns: int = 1_000_000, **more: object
) -> dict[str, object]:
    found: dict[str, object] = {
        "trace_id": "ab" * 16, "span_id": span_id, "service_name": "shop", "operation_name": f"op {span_id}",
        "start_time": START_US + at_us, "duration": duration_ns, "tags": {}, "error": False, "kind": "SERVER",
    }  # fmt: skip
    return {**found, **({"parent_span_id": parent} if parent else {}), **more}


def trace(*spans: dict[str, object]) -> dict[str, object]:
    return {
        "trace_id": "ab" * 16, "status": "kept", "reasons": [], "verdict": {"policy": "errors"}, "duration": 10_000_000,
        "start_time": START_US, "span_count": len(spans), "error_count": 0, "spans": list(spans),
    }  # fmt: skip


def lines_of(document: dict[str, object], *, width: int = 100, color: bool = False) -> list[str]:
    return render_waterfall(document, width, color=color).splitlines()


def find(lines: list[str], text: str) -> int:
    return next(number for number, line in enumerate(lines) if text in line)


def test_children_stand_below_their_parent_in_order_of_start() -> None:
    """The tree is drawn by indentation; siblings come by start time."""
    lines = lines_of(trace(span("late", "root", at_us=500), span("root"), span("early", "root", at_us=100)))
    root, early, late = (find(lines, f"op {name}") for name in ("root", "early", "late"))
    assert root < early < late
    assert lines[root].startswith("shop: op root")
    assert lines[early].startswith("├ shop: op early")
    assert lines[late].startswith("└ shop: op late")


def test_bars_lie_where_the_spans_ran() -> None:
    """A span of the second half has its bar in the second half, half as long."""
    lines = lines_of(
        trace(span("root", duration_ns=10_000_000), span("half", "root", at_us=5_000, duration_ns=5_000_000))
    )
    whole = lines[find(lines, "op root")].split("|")[1]
    half = lines[find(lines, "op half")].split("|")[1]
    assert whole == "█" * len(whole)
    assert half == " " * (len(half) // 2) + "█" * (len(half) // 2)


def test_an_error_is_marked_without_colour() -> None:
    """A span in error carries a mark that a pipe keeps."""
    lines = lines_of(trace(span("root"), span("bad", "root", error=True)))
    assert "! shop: op bad" in lines[find(lines, "op bad")]
    assert "\x1b" not in "".join(lines)


def test_colour_is_used_when_asked_for() -> None:
    """With colour a span in error is red and the mark stays."""
    lines = lines_of(trace(span("bad", error=True)), color=True)
    assert lines[find(lines, "op bad")].startswith("\x1b[31m! shop")


def test_orphans_stand_under_their_missing_parent() -> None:
    """Spans whose parent is not there are drawn below a line that names it."""
    lines = lines_of(trace(span("root"), span("lost", "ffff"), span("below", "lost")))
    missing = find(lines, "missing parent ffff")
    assert "op lost" in lines[missing + 1]
    assert "op below" in lines[missing + 2]


def test_parents_in_a_circle_end() -> None:
    """Spans that are each other's parents, or their own, are drawn once each."""
    lines = lines_of(trace(span("a", "b"), span("b", "a"), span("self", "self")))
    assert sum("circle" in line for line in lines) == 2
    for name in ("op a", "op b", "op self"):
        assert sum(name in line for line in lines) == 1


def test_two_spans_of_one_id_are_both_drawn() -> None:
    """A shared or conflicting id hides no span."""
    lines = lines_of(trace(span("same"), span("same", "same", at_us=5), span("child", "same")))
    assert sum("op same" in line for line in lines) == 2
    assert sum("op child" in line for line in lines) == 1


def test_a_very_large_trace_is_cut_with_a_note() -> None:
    """At most LINES_MAX spans are drawn, and the note says how many are not."""
    lines = lines_of(
        trace(span("root"), *(span(f"n{number}", "root", at_us=number) for number in range(LINES_MAX + 9)))
    )
    assert lines[-1] == "... 10 more spans are not drawn"
    assert sum("shop: op" in line for line in lines) == LINES_MAX


@pytest.mark.parametrize("width", [1, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Long names and deep chains are cut, not wrapped."""
    chain = [span(f"{n:x}", f"{n - 1:x}" if n else "", operation_name="long " * 60) for n in range(300)]
    lines = lines_of(trace(*chain), width=width)
    assert max(map(len, lines)) <= max(width, 60)


def test_names_cannot_move_the_cursor() -> None:
    """Control characters of a trace do not reach the terminal."""
    text = render_waterfall(trace(span("a", operation_name="x\x1b[2J\r\n\x07")), 100, color=False)
    assert not set("\x1b\r\x07") & set(text)


def test_absurd_times_are_shown() -> None:
    """Times of the year 60,000 and a negative duration do not stop the drawing."""
    lines = lines_of({**trace(span("a", at_us=2**60, duration_ns=-5), span("b")), "start_time": 2**62})
    assert find(lines, "op a")
    assert find(lines, "µs after 1970")


def test_a_trace_without_spans_has_its_heading() -> None:
    """A dropped trace is told by its heading alone."""
    lines = lines_of({**trace(), "status": "dropped", "reasons": ["late_error"]})
    assert "dropped" in lines[0]
    assert any("late_error" in line for line in lines)


def test_the_heading_says_why_the_trace_was_kept() -> None:
    """Status with its reasons, and of the verdict what people ask first."""
    verdict = {"verdict": "keep", "policy": "slow", "trigger": "idle", "votes": ["slow", "some"], "threshold": None}
    lines = lines_of({**trace(span("a")), "status": "partial", "reasons": ["idle", "late"], "verdict": verdict})
    assert lines[0].endswith("partial: idle, late")
    assert lines[2] == "verdict keep, policy slow, trigger idle, votes slow and some"


def test_something_else_is_refused() -> None:
    """A document that is no trace is a decoding error."""
    with pytest.raises(DecodeError, match="trace_id"):
        render_waterfall({"error": "not found"}, 80, color=False)


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [(0, "0 ns"), (999, "999 ns"), (1_500, "1.50 µs"), (12_340_000, "12.3 ms"), (123_400_000, "123 ms"),
     (61_000_000_000, "61.0 s")],
)  # fmt: skip
def test_durations_read_well(duration_ns: int, text: str) -> None:
    """Three digits and a unit."""
    assert duration_text(duration_ns) == text
