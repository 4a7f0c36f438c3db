"""A trace's verdict, explained: from what the ledger has of it, and from its spans where they can still be read.

One account is one decision; a trace has several where spans came late, or came again after it was forgotten. The same
explanation is given as JSON for programs and as lines for people.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from spanloom.core._pure.predicates import Asked, walk
from spanloom.core._pure.sampler import Features
from spanloom.core.codec.json_text import JsonValue
from spanloom.core.codec.seed_json import json_object
from spanloom.core.document import verdict_of
from spanloom.core.query import DROPPED, KEPT, PARTIAL
from spanloom.core.sampling.explaining import Finding, Judged, findings_of
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.program import Node
from spanloom.core.sampling.sights import spans_text
from spanloom.core.sampling.threshold import adjusted_count, format_threshold, randomness_of
from spanloom.errors import DecodeError
from spanloom.model import FLAG_LATE, FLAG_ORPHANS, NO_POLICY, THRESHOLD_UNKNOWN, Decision, Trigger, Verdict

NS_PER_S = 1_000_000_000

_TRIGGERS = {
    Trigger.COMPLETE: "it was whole and no more came",
    Trigger.IDLE: "no more came, although a span was missing",
    Trigger.AGE: "it had grown too old to wait for",
    Trigger.SIZE: "it had grown too large to wait for",
    Trigger.PRESSURE: "memory was short",
}


class Where(NamedTuple):
    """What a trace's offsets count in; of a trace that lies in no log there is none."""

    partition: int


@dataclass(frozen=True, slots=True)
class Account:
    """One decision, and what is known around it."""

    decision: Decision
    policies: PolicySet | None = None  # of its version; None: not known any more
    rate: float | None = None  # that load had left of probabilities; None: not known
    spans: tuple[Asked, ...] | None = None  # None: they are gone, or too far apart to be read again
    recall: Callable[[Node], bool | None] = lambda _: None

    @property
    def is_inherited(self) -> bool:
        """Late spans follow the verdict that their trace has: no policy is asked again."""
        return bool(self.decision.flags & FLAG_LATE)


def spans_asked(traces_data: Sequence[bytes]) -> tuple[Asked, ...]:
    """A fragment's spans, for an Account."""
    return tuple(walk([*traces_data]))


def status_of(decisions: Sequence[Decision]) -> str:
    """What became of a trace with these decisions, the last life's in ledger order: at least one."""
    begun = max((at for at, decision in enumerate(decisions) if not decision.flags & FLAG_LATE), default=0)
    life = decisions[begun:]
    if all(decision.verdict is Verdict.DROP for decision in life):
        return DROPPED
    whole = len(life) == 1 and life[0].trigger is Trigger.COMPLETE and life[0].verdict is Verdict.KEEP
    return KEPT if whole else PARTIAL


def explanation_json(
    trace_id: bytes, where: Where | None, status: str, accounts: Sequence[Account]
) -> dict[str, JsonValue]:
    """Everything that is known of the trace; `explanation` says it in words."""
    late = [account.decision for account in accounts if account.is_inherited]
    lines: list[JsonValue] = [*explanation_lines(trace_id, where, status, accounts)]
    return {
        "trace_id": trace_id.hex(),
        "status": status,
        "partition": where.partition if where else None,
        "decisions": [_account_json(account) for account in accounts],
        "late_fragments": len(late),
        "late_spans": sum(decision.span_count for decision in late),
        "explanation": lines,
    }


def _account_json(account: Account) -> dict[str, JsonValue]:
    names = [policy.name for policy in account.policies.policies] if account.policies else []
    missing = _missing_parents(account)
    listed: list[JsonValue] | None = None if missing is None else [*missing]
    return {
        **json_object(verdict_of(account.decision, names)),
        "adjusted_count": _adjusted(account),
        "rate": account.rate,
        "inherited": account.is_inherited,
        "missing_parents": listed,
        "spans_read_again": account.spans is not None,
        "policies": [_finding_json(finding) for finding in findings(account)],
    }


def _finding_json(finding: Finding) -> JsonValue:
    said: dict[str, JsonValue] = {
        "name": finding.name,
        "type": finding.type,
        "asked": finding.asked,
        "vote": finding.keeps,
        "expected": finding.wants,
        "saw": finding.saw or None,
    }
    if finding.parts:
        said["policies"] = [_finding_json(part) for part in finding.parts]
    return said


def findings(account: Account) -> tuple[Finding, ...]:
    """What each policy said; nothing where none was asked, or they are not known any more."""
    decision, policies = account.decision, account.policies
    if account.is_inherited or policies is None:
        return ()
    features = Features(
        decision.trace_id,
        decision.duration_ns,
        decision.operation,
        decision.span_count,
        decision.size_bytes,
        decision.stream_ns,
    )
    judged = Judged(decision.votes, features, account.rate, account.spans, account.recall)
    return findings_of(policies, judged)


def _adjusted(account: Account) -> float | None:
    """Of a kept trace; None for a dropped one, which stands for nothing."""
    decision = account.decision
    if decision.verdict is Verdict.DROP or decision.threshold >= THRESHOLD_UNKNOWN:
        return None
    upstream = (randomness_of(span.fields.trace_state).th or 0 for span in account.spans or ())
    return adjusted_count(max(decision.threshold, *upstream, 0))


def _missing_parents(account: Account) -> tuple[str, ...] | None:
    """The ids that its spans name and none has; None where that cannot be seen any more."""
    if not account.decision.flags & FLAG_ORPHANS:
        return ()
    if account.spans is None:
        return None
    present = {asked.span.span_id for asked in account.spans}
    parents = {asked.span.parent_span_id for asked in account.spans} - {b""}
    return tuple(sorted(parent.hex() for parent in parents - present))


# In words.


def explanation_lines(trace_id: bytes, where: Where | None, status: str, accounts: Sequence[Account]) -> Iterator[str]:
    """The same for people, a line each."""
    yield f"trace {trace_id.hex()}: {status}"
    for account in accounts:
        yield from _account_lines(account, where)


def _account_lines(account: Account, where: Where | None) -> Iterator[str]:
    decision = account.decision
    yield ""
    yield f"{_outcome(account)} at {time_text(decision.stream_ns)}: {_TRIGGERS[decision.trigger]}"
    found = f", offsets {decision.first} to {decision.cut} of partition {where.partition}" if where else ""
    yield f"  {spans_text(decision.span_count)}, {decision.duration_ns / 1e6:.3f} ms{found}"
    if account.is_inherited:
        yield f"  late spans: they follow what policy version {decision.policy_version} decided of their trace"
    else:
        yield f"  policy version {decision.policy_version}: {_decider(account)}"
    yield from _threshold_lines(account)
    yield from _gap_lines(account)
    for finding in findings(account):
        yield from _finding_lines(finding, "  ")


def _outcome(account: Account) -> str:
    match account.decision.verdict:
        case Verdict.DROP:
            return "dropped"
        case Verdict.LATE_ERROR:
            return "kept, as late errors of a dropped trace,"
    return "kept"


def _decider(account: Account) -> str:
    decision, policies = account.decision, account.policies
    if decision.policy == NO_POLICY:
        return "no policy kept it"
    name = policies.policies[decision.policy].name if policies else f"policy {decision.policy}"
    return f"{name} dropped it" if decision.verdict is Verdict.DROP else f"{name} was the first to keep it"


def _threshold_lines(account: Account) -> Iterator[str]:
    decision = account.decision
    if decision.verdict is Verdict.DROP:
        return
    count = _adjusted(account)
    if count is None:
        yield "  how many traces it stands for is not known: chance had a part that no threshold tells"
    else:
        yield f"  threshold {format_threshold(decision.threshold)}; it stands for {count:.6g}"


def _gap_lines(account: Account) -> Iterator[str]:
    missing = _missing_parents(account)
    if missing is None:
        yield "  spans miss their parents"
    elif missing:
        yield f"  missing parents: {', '.join(missing)}"
    if account.spans is None and not account.is_inherited:
        yield "  its spans could not be read again: what the policies saw is not known, what they said is"
    if account.policies is None:
        yield "  this version of the policies is not known any more"


def _finding_lines(finding: Finding, indent: str) -> Iterator[str]:
    saw = f", saw {finding.saw}" if finding.saw else ""
    said = {True: "yes", False: "no", None: "-" if finding.asked is False else "?"}[finding.keeps]
    yield f"{indent}{said:<4}{finding.name} ({finding.type}): {finding.wants}{saw}"
    for part in finding.parts:
        yield from _finding_lines(part, f"{indent}    ")


def time_text(stream_ns: int) -> str:
    """A time as `time_ns_of` reads it."""
    return (
        datetime.fromtimestamp(stream_ns // 1_000_000 / 1000, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def time_ns_of(text: str) -> int:
    """A time as people write it, ISO 8601 (UTC where it says no zone) or seconds since 1970. Raises DecodeError."""
    try:
        if text.replace(".", "", 1).isdecimal():
            return int(float(text) * NS_PER_S)
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as exc:
        raise DecodeError("time", "2026-01-31T12:00:00Z, or seconds since 1970", text[:40]) from exc
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * NS_PER_S)
