"""What the comparison says of its measurements, and what it refuses to say."""

from benchmarks.compare_measure import Sample, rate
from benchmarks.compare_report import Results, Run, against, gathered, markdown, plot
from benchmarks.compare_sides import Look, our_policies, tail_policies

STAMP = {"commit": "abc", "when": "today"}


def run_of(side: str, *, cpu_us: float, kept: int = 10, number: int = 1, exact: bool = True) -> Run:
    """A run of no particular size."""
    return Run(
        traffic="shape",
        side=side,
        store="none" if side == "spanloom" else "",
        round=number,
        spans=1000,
        traces=100,
        exact=exact,
        kept=kept,
        cpu_us=cpu_us,
        cpu_start_us=cpu_us,
        store_cpu_us=0.0,
        spans_s=1000.0 / cpu_us,
        stored_spans_s=0.0,
        peak_rss_bytes=2_000_000,
        rss_before_bytes=1_000_000,
        wire_bytes=400_000,
    )


def results_of(*runs: Run) -> Results:
    """Those runs and nothing else."""
    return Results(stamp=STAMP, runs=list(runs), held=[], latency=[], everything=[], failed=[])


def row_of(text: str, who: str) -> str:
    """The table's row of a side."""
    return next(line for line in text.splitlines() if who in line)


def test_medians_leave_the_warm_up_out() -> None:
    """A figure is the median of the rounds that count, and the ratio that of the medians."""
    ours = [run_of("spanloom", cpu_us=cpu, number=number) for number, cpu in enumerate((99.0, 1.0, 2.0, 6.0))]
    theirs = [run_of("collector", cpu_us=cpu, number=number) for number, cpu in enumerate((1.0, 18.0, 20.0, 22.0))]
    row = row_of(markdown(results_of(*ours, *theirs)), "spanloom, none")
    assert "2.00 (1.00–6.00)" in row
    assert "CPU 10.0, wall 10.0" in row


def test_there_is_no_ratio_where_the_sides_kept_different_traces() -> None:
    """Unequal work is named in the place of a ratio."""
    row = row_of(
        markdown(results_of(run_of("spanloom", cpu_us=1, kept=10), run_of("collector", cpu_us=9, kept=11))),
        "spanloom, none",
    )
    assert "kept counts differ: [10] and [11]" in row
    assert "CPU" not in row


def test_counts_that_chance_draws_may_differ_a_little_and_no_more() -> None:
    """Where both sides draw their own 1 %, five standard deviations are allowed; the table says so."""
    ours = run_of("spanloom", cpu_us=1, kept=10, exact=False)
    near = markdown(results_of(ours, run_of("collector", cpu_us=9, kept=16, exact=False)))
    far = markdown(results_of(ours, run_of("collector", cpu_us=9, kept=19, exact=False)))
    assert "CPU 9.0, wall 9.0, counts equal within chance" in row_of(near, "spanloom, none")
    assert "kept counts differ" in row_of(far, "spanloom, none")


def test_two_commits_are_compared_measure_by_measure() -> None:
    """Each measure has its before, its after and their ratio; so has the ratio to the collector."""
    before = results_of(run_of("spanloom", cpu_us=4), run_of("collector", cpu_us=12))
    after = results_of(run_of("spanloom", cpu_us=1), run_of("collector", cpu_us=10))
    text = against(before, after)
    assert "| shape | spanloom, none | CPU µs a span | 4.00 | 1.00 | 0.25 |" in text
    assert "| shape | spanloom, none | CPU, collector / ours | 3.00 | 10.00 | 3.33 |" in text


def test_the_plot_has_a_bar_for_each_row() -> None:
    """The plot shows what the table shows."""
    results = results_of(run_of("spanloom", cpu_us=4), run_of("collector", cpu_us=12))
    assert plot(results).count("<rect") == 1 + len(gathered(results["runs"]))


def test_the_rate_of_storing_leaves_both_ends_out() -> None:
    """Spans stored a second are counted between a tenth and eight tenths: no start, and no wait for quiet."""
    stored = (0, 0, 100, 300, 500, 800, 900, 1000)
    at_s = (0.0, 5.0, 5.1, 5.3, 5.5, 5.8, 20.0, 30.0)
    samples = [Sample(at, 0.0, 0, 0.0, Look(1000, 0, 0, done)) for at, done in zip(at_s, stored, strict=True)]
    assert round(rate(samples)) == 1000


def test_both_sides_are_given_as_many_policies() -> None:
    """Ours are the collector's, or each has its nearest."""
    policies, same = our_policies(500)
    assert [policy["name"] for policy in policies] == [policy["name"] for policy in tail_policies(500)]
    assert same is (policies == tail_policies(500))
