"""The assembler decides what the oracle expects, on logs made to be awkward: two readings of the rules, one outcome."""

from collections.abc import Sequence
from random import Random

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanloom.core import kernel
from spanloom.core.assembly import Harvest
from spanloom.core.assembly import Limits as AssemblerLimits
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Fragment, Record
from tests.oracle import COUNTERS, DROP, ExpectedPartition, Limits, Replay
from tests.oracle_checks import decision_differences, reframed
from tests.oracle_files import LoggedDecision, LogRecord, Tick, decide_entries, parse_record
from tests.oracle_folder import span, traces
from tests.oracle_policies import Policies

MS = 10**6
S = 10**9
PARTITIONS = 2
POLICIES: Policies = [
    {"name": "errors", "type": "error"},
    {"name": "slow", "type": "latency", "latency": {"threshold_ms": 9}},
    {
        "name": "p90", "type": "latency_percentile",
        "latency_percentile": {"percentile": 90, "min_count": 5, "window_s": 40, "operations_max": 3},
    },
    {"name": "cart", "type": "service_pattern", "service_pattern": {"services": ["c?rt"]}},
    {"name": "tag", "type": "string_attribute", "string_attribute": {"key": "service.name", "values": ["cart"]}},
    {"name": "seven", "type": "numeric_attribute",
     "numeric_attribute": {"key": "k", "min_value": -7, "max_value": 7, "invert_match": False}},
    {"name": "short", "type": "latency", "latency": {"threshold_ms": 4, "upper_threshold_ms": 5}},
    {"name": "ok", "type": "status_code", "status_code": {"status_codes": ["OK"]}},
    {"name": "some", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 10}},
]  # fmt: skip
RATES: Policies = [
    {"name": "rate", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 1, "burst_capacity": 9}},
    {"name": "errors", "type": "error"},
    {"name": "bytes", "type": "bytes_limiting", "bytes_limiting": {"bytes_per_second": 20, "burst_capacity": 600}},
    {"name": "many", "type": "span_count", "span_count": {"min_spans": 4, "max_spans": 5}},
]
LIMITS = Limits(
    quiet_ns=6 * S, idle_ns=15 * S, age_max_ns=40 * S, remember_ns=60 * S, skew_max_ns=30 * S, spans_max=6,
    bytes_max=700,
)  # fmt: skip


class AwkwardLog:
    """Few traces and few span ids, so that everything collides; timestamps that stand, jump and go back."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.trace_ids = [self.random.randbytes(16) for _ in range(8)]
        self.sent: list[Span] = []
        self.records: list[Record] = []
        self.ticks: list[Tick] = []
        self.time_ms = 1_790_000_000_000

    def write(self, count: int) -> None:
        for offset in range(count):
            if offset and self.random.random() < 0.05:
                self.time_ms += self.random.choice([1_000, 6_000, 15_000])
                self.ticks.append(Tick(offset, self.time_ms * MS))
            self.time_ms += self.random.choice([0, 0, 1, 500, 2_000, 6_000])
            wild_ms = self.random.choice([-20_000, 29_000, 40_000]) if self.random.random() < 0.04 else 0
            headers = (("moved", b"1"),) if self.random.random() < 0.1 else ()
            self.records.append(Record(offset, self.time_ms + wild_ms, None, self.value(), headers))

    def value(self) -> bytes:
        parts = [
            traces(*(self.span() for _ in range(self.random.choice([1, 1, 2, 4]))), service=self.service())
            for _ in range(self.random.choice([0, 1, 1, 1, 2]))
        ]
        value = b"".join(parts)
        if value and self.random.random() < 0.06:
            at = self.random.randrange(len(value))
            value = value[:at] + self.random.randbytes(self.random.choice([0, 1])) + value[at + 1 :]
        return value

    def span(self) -> Span:
        if self.sent and self.random.random() < 0.2:
            return self.random.choice(self.sent)
        trace_id = self.random.choice(self.trace_ids)
        number = self.random.randint(1, 5)
        made = span(
            trace_id,
            number,
            self.random.choice([0, max(0, number - 1), self.random.randint(0, 5)]),
            error=self.random.random() < 0.1,
            kind=self.random.choice([1, 2, 3]),
            name=self.random.choice("abcde"),
        )
        made.start_time_unix_nano = self.random.choice([0, *[1] * 9]) and self.time_ms * MS + self.random.randint(0, 3)
        made.end_time_unix_nano = self.random.choice([0, 1, 2]) and self.time_ms * MS + self.random.randint(0, 10 * MS)
        if self.random.random() < 0.06:
            self.tag(made)
        self.sent.append(made)
        return made

    def tag(self, made: Span) -> None:
        """Attributes that policies look at: of every kind, wrong, double or cut off."""
        for _ in range(self.random.choice([1, 1, 2])):
            value = made.attributes.add(key=self.random.choice(["k", "k", "error", "service.name"])).value
            match self.random.randrange(5):
                case 0:
                    value.string_value = self.random.choice(["", "true", "cart"])
                case 1:
                    value.bool_value = self.random.choice([True, False])
                case 2:
                    value.int_value = self.random.choice([1, 7, 8, -7, -(2**63)])
                case 3:
                    value.double_value = 7.0
        if self.random.random() < 0.1:
            made.status.code = made.status.STATUS_CODE_OK

    def service(self) -> str:
        return self.random.choice(["shop", "shop", "shop", "cart", ""])


def decided_by_oracle(log: AwkwardLog, partition: int, policies: Policies = POLICIES) -> ExpectedPartition:
    replay = Replay(partition, policies, partition_count=PARTITIONS, limits=LIMITS)
    records = [LogRecord(each.offset, each.timestamp_ms, dict(each.headers), each.value) for each in log.records]
    return replay.run(records, log.ticks)


def decided_by_kernel(
    log: AwkwardLog, partition: int, policies: Policies
) -> tuple[list[LoggedDecision], list[Fragment], dict[str, int]]:
    """Decisions, kept fragments, counters; everything is read back, stored, skipped and moved at once."""
    limits = AssemblerLimits(**{name: getattr(LIMITS, name) for name in LIMITS.__slots__})
    assembler = kernel.Assembler(limits, partition=partition, partition_count=PARTITIONS)
    assembler.configure(parse_policies(policies, version=1))
    decisions: list[LoggedDecision] = []
    kept: list[Fragment] = []

    def carry_out(harvest: Harvest) -> None:
        for body in harvest.decisions:
            entries = list(decide_entries(body))
            decisions.extend(entries)
            for fragment in assembler.confirm(len(entries)):
                kept.append(fragment)
                assembler.resolve(fragment.decision, "stored")
        for reject in harvest.rejects:
            assembler.skipped(reject.record.offset)
        for move in harvest.moves:
            assembler.moved(move.offset)

    ticks = list(log.ticks)
    for record in log.records:
        while ticks and ticks[0].offset <= record.offset:
            carry_out(assembler.advance(ticks.pop(0).stream_ns))
        carry_out(assembler.feed([record]))
    for tick in ticks:
        carry_out(assembler.advance(tick.stream_ns))
    tally = assembler.statistics().tally
    return decisions, kept, {name: getattr(tally, name) for name in COUNTERS}


def bytes_of(places: Sequence[tuple[int, int]], records: Sequence[Record]) -> bytes:
    offsets = sorted({offset for offset, _ in places})
    return b"".join(
        reframed(parse_record(records[at].value), {place for offset, place in places if offset == at}) for at in offsets
    )


@pytest.mark.parametrize("policies", [POLICIES, RATES], ids=["conditions", "rates"])
@pytest.mark.parametrize("seed", range(60))
def test_the_assembler_decides_what_the_oracle_expects(seed: int, policies: Policies) -> None:
    """Same decisions in the same order, same counters, same bytes of every kept fragment."""
    log = AwkwardLog(seed)
    log.write(120)
    for partition in range(PARTITIONS):
        expected = decided_by_oracle(log, partition, policies)
        decisions, kept, counters = decided_by_kernel(log, partition, policies)
        assert [(each.trace_id, each.first) for each in decisions] == [
            (each.trace_id, each.first) for each in expected.decisions
        ]
        for wanted, found in zip(expected.decisions, decisions, strict=True):
            assert list(decision_differences(wanted, found)) == []
        assert counters == {name: expected.counters[name] for name in COUNTERS}
        wanted_kept = [each for each in expected.decisions if each.verdict != DROP]
        assert [each.spans for each in kept] == [bytes_of(each.places, log.records) for each in wanted_kept]


def test_the_awkward_logs_are_awkward_enough() -> None:
    """Over all seeds every verdict, every trigger and every counter of the rules occurs many times."""
    verdicts, triggers, flags = set(), set(), 0
    counters = dict.fromkeys(COUNTERS, 0)
    for seed in range(60):
        log = AwkwardLog(seed)
        log.write(120)
        expected = decided_by_oracle(log, 0)
        verdicts |= {each.verdict for each in expected.decisions}
        triggers |= {each.trigger for each in expected.decisions}
        for each in expected.decisions:
            flags |= each.flags
        counters = {name: counters[name] + expected.counters[name] for name in COUNTERS}
    assert verdicts == {0, 1, 2}
    assert triggers == {0, 1, 2, 3}
    assert flags == 31
    assert min(counters.values()) > 100, counters
