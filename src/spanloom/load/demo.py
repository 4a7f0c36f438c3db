"""What `spanloom demo` shows while it runs: one snapshot of everybody's statistics as a table or as a line."""

from dataclasses import dataclass

_NAME_CELLS = 22
_VALUE_CELLS = 14
_CLEAR_LINE = "\x1b[2K"


@dataclass(frozen=True, slots=True)
class DemoSnapshot:
    """Everything at one moment. Counts are of spans unless their name says traces."""

    elapsed_s: float
    sent: int  # acknowledged to the load generator
    spans_per_s: float  # over the last interval
    received: int
    traces_open: int
    traces_kept: int
    stored: int
    dropped: tuple[tuple[str, int], ...]  # by reason, in the order they are shown
    duplicates: int
    late: int
    moved: int
    dead_lettered: int
    pending: int
    lag: int  # records appended and not yet read
    balance_closes: bool
    restarts: int


def render_table(stats: DemoSnapshot) -> str:
    """The snapshot as a table, the same number of lines for the same reasons; ends with a newline."""
    rows = [
        ("elapsed", f"{stats.elapsed_s:,.0f} s"),
        ("spans/s", f"{stats.spans_per_s:,.0f}"),
        ("sent", f"{stats.sent:,}"),
        ("received", f"{stats.received:,}"),
        ("stored", f"{stats.stored:,}"),
        *((f"dropped: {reason}", f"{count:,}") for reason, count in stats.dropped),
        ("duplicate", f"{stats.duplicates:,}"),
        ("late", f"{stats.late:,}"),
        ("moved", f"{stats.moved:,}"),
        ("dead-lettered", f"{stats.dead_lettered:,}"),
        ("pending", f"{stats.pending:,}"),
        ("balance", _balance(stats)),
        ("traces open", f"{stats.traces_open:,}"),
        ("traces kept", f"{stats.traces_kept:,}"),
        ("lag (records)", f"{stats.lag:,}"),
        ("actor restarts", f"{stats.restarts:,}"),
    ]
    return "".join(f"{name:<{_NAME_CELLS}}{value:>{_VALUE_CELLS}}\n" for name, value in rows)


def render_line(stats: DemoSnapshot) -> str:
    """The snapshot as one line, for logs and pipes; ends with a newline."""
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in stats.dropped) or "none"
    return (
        f"{stats.elapsed_s:.0f} s: {stats.spans_per_s:,.0f} spans/s, received {stats.received:,}, "
        f"stored {stats.stored:,} in {stats.traces_kept:,} traces, dropped ({dropped}), "
        f"duplicate {stats.duplicates:,}, late {stats.late:,}, moved {stats.moved:,}, "
        f"dead-lettered {stats.dead_lettered:,}, pending {stats.pending:,}, lag {stats.lag:,}, "
        f"restarts {stats.restarts}, balance {_balance(stats)}\n"
    )


def redraw(table: str, previous: str) -> str:
    """What to write to a terminal that shows *previous* (empty at first) to make it show *table* in its place."""
    up = previous.count("\n")
    back = f"\x1b[{up}A\r" if up else ""
    leftover = max(0, up - table.count("\n"))
    lines = "".join(_CLEAR_LINE + line for line in table.splitlines(keepends=True))
    return back + lines + (_CLEAR_LINE + "\n") * leftover + (f"\x1b[{leftover}A" if leftover else "")


def _balance(stats: DemoSnapshot) -> str:
    return "closes" if stats.balance_closes else "DOES NOT CLOSE"
