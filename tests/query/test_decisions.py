"""Why a trace was kept or dropped: found in the ledger, its spans read again, told in words and JSON."""

import json
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
import trio.testing

from spanloom.adapters.memory import MemoryLedger, MemoryLog
from spanloom.core.http_routes import Router
from spanloom.core.ledger import COUNT, Config, Decide, Fence, Rate, Tick, encode, encode_decision
from spanloom.core.lookup import TraceSearch
from spanloom.core.partitioning import partition_of
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Decision, HttpRequest, LedgerRecord, Trigger, Verdict
from spanloom.query import decisions
from spanloom.query.decisions import DecisionReader, Unknown
from spanloom.query.traces import TraceReader
from spanloom.query.v1 import query_routes
from tests.actors.test_partition import Town, eventually
from tests.query.fakes import FakeCache, FakeStandings, FakeStore
from tests.spans import T0_MS, S, Sp, trace_id

T0_NS = T0_MS * 1_000_000
REMEMBER_NS = 300 * S
POLICIES = parse_policies(
    [
        {"name": "errors", "type": "error"},
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}},
        {"name": "few", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 0}},
    ],
    version=3,
)
Told = dict[str, Any]


def reader(town: Town, body_of: Callable[[int], bytes | None] = lambda _: None) -> DecisionReader:
    return DecisionReader(
        town.ledger,
        town.log,
        town.board,
        partition_count=town.log.partition_count,
        remember_ns=REMEMBER_NS,
        body_of=body_of,
    )


async def told(town: Town, trace: int, near_ns: int | None = None) -> Told:
    found = await reader(town).explain(trace_id(trace), near_ns=near_ns)
    assert not isinstance(found, Unknown)
    return cast(Told, found)


def town_of(policies: object = POLICIES, partitions: int = 2) -> Town:
    town = Town(partitions)
    assert isinstance(policies, type(POLICIES))
    town.settings.orders.policies = policies
    return town


async def _is_decided(town: Town, trace: int) -> bool:
    return town.board.standing(trace_id(trace)) in ("kept", "dropped")


async def test_a_dropped_trace_is_explained_by_what_each_policy_saw(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing of it is stored; verdict, votes and the values come from the ledger and from its spans in the log."""
    town = town_of()
    async with town.at_work():
        await town.send(Sp(1, 1, ms=120), Sp(1, 2, parent=1, service="pay"), Sp(2, 1), Sp(1, 3, parent=1))
        await eventually(lambda: _is_decided(town, 1))
    found = await told(town, 1)
    assert (found["status"], found["late_fragments"], len(found["decisions"])) == ("dropped", 0, 1)
    (decision,) = found["decisions"]
    assert (decision["verdict"], decision["trigger"], decision["policy"]) == ("drop", "complete", None)
    assert (decision["policy_version"], decision["span_count"], decision["adjusted_count"]) == (3, 3, None)
    assert (decision["missing_parents"], decision["spans_read_again"]) == ([], True)
    assert [(policy["name"], policy["vote"], policy["saw"]) for policy in decision["policies"][:2]] == [
        ("errors", False, "none of 3 spans"),
        ("slow", False, "120 ms"),
    ]
    assert f"trace {trace_id(1).hex()}: dropped" in found["explanation"]


async def test_a_kept_trace_and_its_late_spans_are_explained(autojump_clock: trio.testing.MockClock) -> None:
    """The policy that kept it, what a span misses, and the fragment that came afterwards and followed it."""
    town = town_of()
    async with town.at_work():
        await town.send(Sp(1, 1, ms=700), Sp(1, 2, parent=9))
        await eventually(lambda: _is_decided(town, 1))
        await town.send(Sp(1, 3, parent=1), Sp(1, 4, parent=1))
        await trio.sleep(60)
    found = await told(town, 1)
    assert (found["status"], found["late_fragments"], found["late_spans"]) == ("partial", 1, 2)
    first, late = found["decisions"]
    assert (first["verdict"], first["trigger"], first["policy"], first["votes"]) == ("keep", "idle", "slow", ["slow"])
    assert (first["missing_parents"], first["adjusted_count"], first["rate"]) == (["0000000000000009"], 1, 1)
    assert (late["inherited"], late["policies"], late["spans_read_again"]) == (True, [], True)


async def test_late_errors_of_a_dropped_trace_are_explained(autojump_clock: trio.testing.MockClock) -> None:
    """What was dropped stays dropped; the error that came later was kept, and both are told."""
    town = town_of()
    async with town.at_work():
        await town.send(Sp(1, 1))
        await eventually(lambda: _is_decided(town, 1))
        await town.send(Sp(1, 2, parent=1, error=True), Sp(1, 3, parent=1))
        await trio.sleep(60)
    found = await told(town, 1)
    assert (found["status"], [one["verdict"] for one in found["decisions"]]) == ("partial", ["drop", "late_error"])
    assert [one["span_count"] for one in found["decisions"]] == [1, 1]
    assert any("late errors of a dropped trace" in line for line in found["explanation"])


async def test_the_rate_that_load_left_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """A bent probability is shown as it was in force, with what it was bent from."""
    half = parse_policies(
        [{"name": "h", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 50}}],
        version=1,
    )
    town = town_of(half)
    town.settings.orders.rate = 0.25
    async with town.at_work():
        await town.send(Sp(1, 1))
        await eventually(lambda: _is_decided(town, 1))
    (decision,) = (await told(town, 1))["decisions"]
    assert decision["rate"] == 0.25
    assert "12.5 %" in decision["policies"][0]["expected"]
    assert "bent from 80000000000000 (50 %)" in decision["policies"][0]["expected"]


async def test_an_open_trace_is_pending(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is decided yet: that is the answer, and what was decided of it before is told with it."""
    town, open_here = town_of(), FakeStandings({trace_id(1): "pending"})
    asked = DecisionReader(town.ledger, town.log, open_here, partition_count=2, remember_ns=REMEMBER_NS)
    found = cast(Told, await asked.explain(trace_id(1)))
    assert (found["status"], found["decisions"]) == ("pending", [])
    async with town.at_work():
        await town.send(Sp(1, 1, ms=700))
        await eventually(lambda: _is_decided(town, 1))
    found = cast(Told, await asked.explain(trace_id(1)))
    assert (found["status"], len(found["decisions"])) == ("pending", 1)


async def test_where_the_spans_are_gone_the_votes_remain(autojump_clock: trio.testing.MockClock) -> None:
    """Retention takes what policies saw, not what they said."""
    town = town_of()
    async with town.at_work():
        await town.send(Sp(1, 1, ms=700))
        await eventually(lambda: _is_decided(town, 1))
    await town.log.trim(older_than_ms=1 << 50, below={})
    found = await told(town, 1)
    (decision,) = found["decisions"]
    assert decision["spans_read_again"] is False
    assert [(policy["vote"], policy["saw"]) for policy in decision["policies"]] == [
        (False, None),
        (True, None),
        (False, None),
    ]


async def test_a_trace_nobody_knows_is_told_apart(autojump_clock: trio.testing.MockClock) -> None:
    """The answer says since when nothing was decided of it, in an empty ledger too."""
    town = town_of()
    assert await reader(town).explain(trace_id(1)) == Unknown(None)
    async with town.at_work():
        await town.send(Sp(1, 1))
        await eventually(lambda: _is_decided(town, 1))
    others = [n for n in range(2, 50) if partition(n, 2) == partition(1, 2)]
    unknown = await reader(town).explain(trace_id(others[0]))
    assert isinstance(unknown, Unknown)
    assert unknown.looked_from_ns is not None


def partition(trace: int, count: int) -> int:
    return partition_of(trace_id(trace).hex().encode(), count)


# A long ledger.


def decision(trace: int, at_ns: int, **changed: object) -> Decision:
    fields: dict[str, object] = {
        "trace_id": trace_id(trace),
        "verdict": Verdict.DROP,
        "trigger": Trigger.COMPLETE,
        "policy": 255,
        "policy_version": 3,
        "votes": 0,
        "threshold": 1 << 56,
        "flags": 0,
        "first": 0,
        "cut": 0,
        "stream_ns": at_ns,
        "origin_ns": at_ns,
        "operation": 0,
        "duration_ns": 0,
        "span_count": 1,
    }
    return Decision(**(fields | changed))  # type: ignore[arg-type]


def decide(*entries: Decision) -> Decide:
    return Decide(COUNT.pack(len(entries)) + b"".join(map(encode_decision, entries)))


class Archive:
    """A ledger partition with a decision every ten seconds, days of them, read by nobody but us."""

    def __init__(self, entries: int) -> None:
        self.ledger = MemoryLedger(1)
        self.read = 0
        bodies = [encode(0, 1, Fence(b"o" * 16, 0)), encode(0, 1, Config(0, 3, POLICIES.body))]
        for number in range(entries):
            bodies.append(encode(0, 1, decide(decision(1000 + number, T0_NS + number * 10 * S))))
            if number % 100 == 50:
                bodies.append(encode(0, 1, Tick(0, T0_NS + number * 10 * S)))
        self.bodies = bodies
        self.ledger._entries[0] = [LedgerRecord(place, body) for place, body in enumerate(bodies)]
        self.ledger._tails.publish([len(bodies)])

    async def explain(self, trace: int, near_ns: int | None = None) -> Told | Unknown:
        found = await DecisionReader(
            _Counting(self), MemoryLog(1), FakeStandings(), partition_count=1, remember_ns=REMEMBER_NS
        ).explain(trace_id(trace), near_ns=near_ns)
        return found if isinstance(found, Unknown) else cast(Told, found)


class _Counting:
    """A ledger that counts the records taken from it, a hundred at most at once."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    async def append(self, partition: int, bodies: object) -> None:
        raise NotImplementedError

    async def end(self, partition: int) -> int:
        return await self._archive.ledger.end(partition)

    async def read(self, partition: int, position: int) -> "_CountingReader":
        return _CountingReader(self._archive, position)


class _CountingReader:
    def __init__(self, archive: Archive, position: int) -> None:
        self._archive = archive
        self._position = position

    async def receive(self) -> list[LedgerRecord]:
        await trio.lowlevel.checkpoint()
        found = self._archive.ledger._entries[0][self._position : self._position + 100]
        self._position += len(found)
        self._archive.read += len(found)
        if not found:
            await trio.sleep_forever()
        return found

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("number", [0, 5, 4_000, 19_990, 19_999])
async def test_a_time_finds_an_old_trace_without_reading_the_ledger(
    autojump_clock: trio.testing.MockClock, number: int
) -> None:
    """With a hint some minutes off, a few pages of two days of ledger are read."""
    archive = Archive(20_000)
    found = await archive.explain(1000 + number, T0_NS + number * 10 * S + 200 * S)
    assert not isinstance(found, Unknown)
    assert found["decisions"][0]["stream_ns"] == T0_NS + number * 10 * S
    assert archive.read < 4_000


async def test_a_wrong_time_finds_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """What lies hours from the hint is not looked for there."""
    archive = Archive(20_000)
    assert isinstance(await archive.explain(1000 + 4_000, T0_NS + 12_000 * 10 * S), Unknown)
    assert archive.read < 4_000


async def test_without_a_time_the_ledger_is_read_back_slowly(autojump_clock: trio.testing.MockClock) -> None:
    """From the end back, at most so many bytes a second."""
    archive = Archive(20_000)
    began = trio.current_time()
    found = await archive.explain(1000 + 100)
    assert not isinstance(found, Unknown)
    size = sum(map(len, archive.bodies))
    assert trio.current_time() - began >= 0.9 * size / decisions.SCAN_BYTES_PER_S


async def test_reading_back_ends_at_a_bound(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question costs no more than a fixed part of the ledger; the answer says how far that went."""
    monkeypatch.setattr(decisions, "SCAN_BYTES_MAX", 300_000)
    archive = Archive(20_000)
    unknown = await archive.explain(1000 + 100)
    assert isinstance(unknown, Unknown)
    assert unknown.looked_from_ns is not None
    assert T0_NS + 150_000 * S < unknown.looked_from_ns < T0_NS + 199_000 * S
    found = await archive.explain(1000 + 19_900)
    assert not isinstance(found, Unknown)


async def test_what_a_fenced_owner_wrote_is_no_decision(autojump_clock: trio.testing.MockClock) -> None:
    """A record of a stale epoch is passed over, as everywhere."""
    search = TraceSearch(trace_id(1), 0)
    bodies = [
        encode(0, 2, Fence(b"o" * 16, 0)),
        encode(0, 1, decide(decision(1, T0_NS, span_count=9))),
        encode(0, 2, Rate(0, 0.5, 0)),
        encode(0, 2, decide(decision(1, T0_NS))),
    ]
    search.read([LedgerRecord(place, body) for place, body in enumerate(bodies)])
    assert [(found.decision.span_count, found.rate) for found in search.found] == [(1, 0.5)]


# The route.


async def test_the_route_tells_and_refuses(autojump_clock: trio.testing.MockClock) -> None:
    """GET /v1/traces/{id}/decision: 200 with the explanation, 404 with what to try, 400 for what is no time."""
    town = town_of()
    store = FakeStore()
    traces = TraceReader(store, FakeCache(), FakeStandings(), random=lambda: 0.5)
    async with town.at_work():
        await town.send(Sp(1, 1))
        await eventually(lambda: _is_decided(town, 1))
    router = Router(query_routes(store, traces, reader(town)))

    async def get(trace: int, **query: str) -> tuple[int, Told]:
        path = f"/v1/traces/{trace_id(trace).hex()}/decision"
        answer = await router.handle(HttpRequest("GET", path, query, {}, b""))
        return answer.status, json.loads(answer.body)

    status, found = await get(1)
    assert (status, found["trace_id"]) == (200, trace_id(1).hex())
    assert (await get(1, near=str(T0_MS // 1000)))[0] in (200, 404)
    status, found = await get(99)
    assert status == 404
    assert "near=TIME" in found["error"] or "nothing has been decided" in found["error"]
    assert (await get(1, near="yesterday"))[0] == 400
