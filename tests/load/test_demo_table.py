"""The demo's table and line say what the statistics say."""

import dataclasses

from spanloom.load.demo import DemoSnapshot, redraw, render_line, render_table

SNAPSHOT = DemoSnapshot(
    elapsed_s=12.4, sent=123_456, spans_per_s=10_000.4, received=120_000, traces_open=31, traces_kept=44, stored=1_600,
    dropped=(("not_sampled", 98_000), ("late", 12)), duplicates=601, late=12, moved=0, dead_lettered=3, pending=19_784,
    lag=5, balance_closes=True, restarts=1,
)  # fmt: skip


def test_the_table_shows_every_number() -> None:
    """Every field of the snapshot has a row."""
    table = render_table(SNAPSHOT)
    for text in ("12 s", "123,456", "10,000", "120,000", "31", "44", "1,600", "98,000", "601", "19,784", "closes"):
        assert any(line.endswith(text) for line in table.splitlines())
    assert "dropped: not_sampled" in table


def test_a_balance_that_does_not_close_cannot_be_missed() -> None:
    """The table and the line say so in capitals."""
    broken = dataclasses.replace(SNAPSHOT, balance_closes=False)
    assert "DOES NOT CLOSE" in render_table(broken)
    assert "DOES NOT CLOSE" in render_line(broken)


def test_a_line_is_one_line_without_control_codes() -> None:
    """What goes to a file or a pipe is plain."""
    line = render_line(SNAPSHOT)
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert "late 12" in line


def test_redrawing_goes_back_over_what_was_there() -> None:
    """The first drawing moves nothing; the next goes up by as many lines, and clears what is no longer there."""
    first = render_table(SNAPSHOT)
    shorter = render_table(dataclasses.replace(SNAPSHOT, dropped=()))
    assert "A\r" not in redraw(first, "")
    again = redraw(shorter, first)
    assert again.startswith(f"\x1b[{first.count(chr(10))}A")
    assert again.count("\n") == first.count("\n")
    assert again.endswith("\x1b[2A")
