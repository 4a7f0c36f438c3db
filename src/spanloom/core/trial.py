"""Judges traces that lie in no log: what policies would do with them, had they come alone.

A policy that asks what was before (a percentile, an EMA) has seen nothing; a rate has its whole budget, which is the
fleet's.
"""

from collections.abc import Iterator
from typing import NamedTuple

from spanloom.core._pure.assembler import NS_PER_MS, Assembler
from spanloom.core._pure.wire import scan, split_by_trace
from spanloom.core.assembly import Limits
from spanloom.core.codec.otlp_json import traces_data_from_json
from spanloom.core.explain import Account, spans_asked
from spanloom.core.ledger import decode_decisions
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.program import Node, Op
from spanloom.errors import DecodeError
from spanloom.model import Record

_LIMITS = Limits(spans_max=1 << 30, bytes_max=1 << 40)  # whatever its size, it is judged whole


class Trial(NamedTuple):
    """One trace and how it was judged."""

    trace_id: bytes
    account: Account


def read_traces(content: bytes) -> bytes:
    """TracesData of what a file holds: OTLP protobuf, OTLP/JSON, or a line of OTLP/JSON each. Raises DecodeError."""
    if not content.lstrip().startswith(b"{"):
        return content
    lines = [line for line in content.splitlines() if line.strip()]
    if all(line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}") for line in lines):
        return b"".join(map(traces_data_from_json, lines))
    return traces_data_from_json(content)


def try_traces(traces_data: bytes, policies: PolicySet) -> Iterator[Trial]:
    """Each trace of TracesData by itself. Raises DecodeError where a span cannot be used, or there is none."""
    spans = scan(traces_data)
    if not spans:
        raise DecodeError("empty", "OTLP TracesData with a span at least", "none")
    for trace_id, part in split_by_trace(traces_data).parts:
        yield Trial(trace_id, _try(part, policies))


def _try(part: bytes, policies: PolicySet) -> Account:
    assembler = Assembler(_LIMITS, partition=0, partition_count=1)
    assembler.configure(policies)
    ends_ms = max(span.end_unix_ns for span in scan(part)) // NS_PER_MS
    assembler.feed([Record(0, ends_ms, None, part)])
    harvest = assembler.advance(assembler.stream_ns + _LIMITS.age_max_ns)
    (decision,) = (decision for body in harvest.decisions for decision in decode_decisions(body))
    return Account(decision, policies, 1.0, spans_asked([part]), _of_a_first)


def _of_a_first(node: Node) -> bool | None:
    """What a node says of the first trace it sees: no percentile has a vote, an EMA keeps what it does not know."""
    return node.op is Op.EMA
