"""What a sampler made of a corpus, in words that both sides have, and where two of them differ."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import yaml

POLICIES = Path(__file__).with_name("policies")
DECISION_WAIT_S = 6  # between a trace's first span and its verdict, on both sides
RATES = ("bytes_limiting", "composite_rates", "rate_and", "rate_limiting")
"""Files whose verdicts hang on the clock. There it is the wall's, and what a second brought is judged together, in the
order in which a map of Go is walked, which is none. Here it is stream time, and each trace is judged at its own. So not
each verdict is compared but how much is kept."""

SPAN_TOLERANCE = 0.1  # of the spans kept under a rate
TRACE_TOLERANCE = 0.2  # of the traces, where ours are judged a second at a time too; two runs there differ by 0.07
SPLIT = 0.1  # of the traces at least are kept, and dropped; else a file shows nothing


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A file of the folder `policies`."""

    name: str
    policies: list[dict[str, object]]  # the block as the Collector takes it

    @property
    def policy_names(self) -> tuple[str, ...]:
        """As they are written."""
        return tuple(str(policy["name"]) for policy in self.policies)


def policy_files(*names: str) -> list[PolicyFile]:
    """Those of these names; all of them without any."""
    wanted = names or sorted(path.stem for path in POLICIES.glob("*.yaml"))
    return [PolicyFile(name, yaml.safe_load((POLICIES / f"{name}.yaml").read_text())["policies"]) for name in wanted]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One sampler's, of one file's policies over one corpus."""

    kept: dict[bytes, int]  # trace id -> its spans that came out
    votes: Counter[str] = field(default_factory=Counter)  # traces for which a policy spoke, by its name
    undecided: int = 0  # traces that went without a verdict
    errors: int = 0  # policies that could not be asked

    @property
    def span_count(self) -> int:
        """Spans kept."""
        return sum(self.kept.values())


def differences(ours: Verdicts, theirs: Verdicts, *, shown_max: int = 5) -> list[str]:
    """Each a line; none where the verdicts are the same, trace by trace."""
    found = []
    for word, more, less in (("only ours keeps", ours, theirs), ("only theirs keeps", theirs, ours)):
        odd = sorted(more.kept.keys() - less.kept.keys())
        if odd:
            found.append(f"{word} {len(odd)} traces: {' '.join(trace_id.hex() for trace_id in odd[:shown_max])}")
    torn = [i.hex() for i in ours.kept.keys() & theirs.kept.keys() if ours.kept[i] != theirs.kept[i]]
    if torn:
        found.append(f"{len(torn)} traces kept with other span counts: {' '.join(sorted(torn)[:shown_max])}")
    found += [
        f"policy {name} spoke for {ours.votes[name]} traces here, {theirs.votes[name]} there"
        for name in sorted(ours.votes.keys() | theirs.votes.keys())
        if ours.votes[name] != theirs.votes[name]
    ]
    for word in ("undecided", "errors"):
        here, there = getattr(ours, word), getattr(theirs, word)
        if here != there:
            found.append(f"{word}: {here} here, {there} there")
    return found


def rate_differences(ours: Verdicts, by_the_second: Verdicts, theirs: Verdicts) -> list[str]:
    """Each a line; none where as much is kept, within the tolerances. *by_the_second*: ours of whole seconds.

    Traces are compared of the latter alone: a bucket that is asked whenever it has a little lets smaller ones pass.
    """
    found = []
    for word, here, there, tolerance in (
        ("spans", ours.span_count, theirs.span_count, SPAN_TOLERANCE),
        ("spans by the second", by_the_second.span_count, theirs.span_count, SPAN_TOLERANCE),
        ("traces by the second", len(by_the_second.kept), len(theirs.kept), TRACE_TOLERANCE),
    ):
        if abs(here / max(1, there) - 1) > tolerance:
            found.append(f"{here} {word} here, {there} there")
    for word in ("undecided", "errors"):
        here, there = getattr(ours, word), getattr(theirs, word)
        if here != there:
            found.append(f"{word}: {here} here, {there} there")
    return found


def splits(verdicts: Verdicts, trace_count: int) -> bool:
    """Whether it keeps enough and drops enough of so many traces."""
    return SPLIT <= len(verdicts.kept) / trace_count <= 1 - SPLIT
