"""A kept fragment as the document the store keeps: summary fields that can be searched, and the bytes as they are.

Pure: the same fragment makes the same document, whoever builds it and whenever, because a store that already has the
id is taken to have the bytes (design, section 7). Its spans are the fragment's, stamped with the threshold that they
were kept under: here and nowhere else, so that the store and `traces-complete` have the same.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from spanloom.core import kernel
from spanloom.core.sampling.threshold import adjusted_count
from spanloom.model import (
    FLAG_CONFLICTING,
    FLAG_ERROR,
    FLAG_LATE,
    FLAG_ORPHANS,
    FLAG_ROOT,
    NO_POLICY,
    THRESHOLD_UNKNOWN,
    AttributeValue,
    Decision,
    Document,
    Fragment,
)

NS_PER_DAY = 86_400 * 1_000_000_000
SECONDS_A_DAY = 86_400
I64_MAX = (1 << 63) - 1  # SQLite's integers and Elasticsearch's date_nanos and long end here; OTLP's times do not

_FLAGS = {
    "late": FLAG_LATE,
    "root": FLAG_ROOT,
    "error": FLAG_ERROR,
    "conflicting": FLAG_CONFLICTING,
    "orphans": FLAG_ORPHANS,
}


def build_document(fragment: Fragment, *, incarnation: str, partition: int, policy_names: Sequence[str]) -> Document:
    """The document of *fragment*. `policy_names` are those of the decision's policy version, in order."""
    decision = fragment.decision
    summary = kernel.summarise(fragment.spans)
    trace_id = decision.trace_id.hex()
    verdict = verdict_of(decision, policy_names)
    if decision.threshold < summary.threshold:  # unknown stays unknown: it is above all others
        verdict["adjusted_count"] = adjusted_count(summary.threshold)
    return Document(
        id=f"{trace_id}.{incarnation}.{partition}.{decision.first}",
        trace_id=trace_id,
        day=_day_of(decision.origin_ns // NS_PER_DAY),
        root_service=summary.root_service,
        root_operation=summary.root_operation,
        services=summary.services,
        operations=summary.operations,
        start_unix_ns=min(summary.start_unix_ns, I64_MAX),
        duration_ns=min(decision.duration_ns, I64_MAX),
        root_duration_ns=min(summary.root_duration_ns, I64_MAX),
        span_count=decision.span_count,
        error_count=summary.error_count,
        attributes=summary.attributes,
        verdict=verdict,
        spans=kernel.stamp(fragment.spans, decision.threshold),
    )


@lru_cache(maxsize=16)
def _day_of(days: int) -> str:
    """The day so many days after 1970 began, UTC."""
    return datetime.fromtimestamp(days * SECONDS_A_DAY, UTC).strftime("%Y.%m.%d")


def verdict_of(decision: Decision, policy_names: Sequence[str]) -> dict[str, AttributeValue]:
    """Everything a decision says but its identities, for people: names for numbers, flags as booleans.

    `adjusted_count` is what the decision alone gives; the spans may have been sampled before.
    """
    exact = decision.threshold < THRESHOLD_UNKNOWN
    verdict: dict[str, AttributeValue] = {
        "verdict": decision.verdict.name.lower(),
        "trigger": decision.trigger.name.lower(),
        "policy": None if decision.policy == NO_POLICY else _policy_name(decision.policy, policy_names),
        "policy_version": decision.policy_version,
        "votes": [
            _policy_name(bit, policy_names)
            for bit in range(len(policy_names) or 64)  # bits above the policies say which inner rates were charged
            if decision.votes >> bit & 1
        ],
        "threshold": f"{decision.threshold:014x}" if exact else None,
        "adjusted_count": adjusted_count(decision.threshold),
        "first": decision.first,
        "cut": decision.cut,
        "stream_ns": decision.stream_ns,
        "origin_ns": decision.origin_ns,
        "operation": f"{decision.operation:016x}",
        "duration_ns": decision.duration_ns,
        "span_count": decision.span_count,
    }
    return verdict | {name: bool(decision.flags & flag) for name, flag in _FLAGS.items()}


def _policy_name(index: int, policy_names: Sequence[str]) -> str:
    """A version this process has never seen may have more policies than it can name."""
    return policy_names[index].lower() if index < len(policy_names) else f"policy {index}"
