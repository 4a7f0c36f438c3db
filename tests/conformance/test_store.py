"""What every trace store promises."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from spanloom.model import AttributeValue, Document
from tests.conformance.rigs import MemoryRig, SqliteRig
from tests.conformance.server_rigs import ElasticsearchRig, StoreRig
from tests.servers import elasticsearch

U64_MAX = (1 << 64) - 1
SERVERS = {f"elasticsearch-{version}": version for version in (elasticsearch.BASELINE, elasticsearch.NEWEST)}


@pytest.fixture(params=["memory", "sqlite", *SERVERS])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreRig]:
    """The implementation under test: those of every role, and the servers that are a store only."""
    rig: StoreRig
    if request.param in SERVERS:
        if not elasticsearch.can_run(SERVERS[request.param]):
            pytest.skip(f"no Java for {request.param}")
        rig = ElasticsearchRig(elasticsearch.running(SERVERS[request.param]))
    else:
        rig = MemoryRig() if request.param == "memory" else SqliteRig(tmp_path / "data")
    yield rig
    rig.close()


def document(
    name: str = "a", *, trace: int = 1, day: str = "2026.01.02", start: int = 5, services: tuple[str, ...] = ("shop",)
) -> Document:
    """A document of one small trace."""
    return Document(
        id=name,
        trace_id=f"{trace:032x}",
        day=day,
        root_service=services[0] if services else "",
        root_operation="GET /",
        services=services,
        operations=tuple(f"{service}\x1fGET /" for service in services),
        start_unix_ns=start,
        duration_ns=7,
        root_duration_ns=6,
        span_count=2,
        error_count=1,
        attributes={"http.route": "/", "größe": "m"},
        verdict={"policy": "error", "threshold": 0, "probability": 0.1, "reasons": ["idle", None], "late": False},
        spans=b"\x0a\x00",
    )


async def test_a_document_comes_back_as_it_was_written(rig: StoreRig) -> None:
    """Every field survives, types included."""
    store = await rig.store()

    assert list(await store.write([document()])) == []

    assert list(await store.read(f"{1:032x}")) == [document()]


@pytest.mark.parametrize("value", [0, 1, (1 << 63) - 1, 1 << 63, U64_MAX])
async def test_times_of_64_bits_come_back_exactly(rig: StoreRig, value: int) -> None:
    """Start and durations are unsigned: the largest is as good as any."""
    store = await rig.store()
    extreme = dataclasses.replace(document(), start_unix_ns=value, duration_ns=value, root_duration_ns=value)

    await store.write([extreme])

    assert list(await store.read(extreme.trace_id)) == [extreme]


async def test_odd_but_lawful_content_is_stored(rig: StoreRig) -> None:
    """Empty lists, empty spans, NULs, quotes, 64-bit integers and five megabytes come back exactly."""
    store = await rig.store()
    verdict: dict[str, AttributeValue] = {"min": -(1 << 63), "max": (1 << 63) - 1, "e": 1e300, "n": {"'": ["\x00", {}]}}
    odd = dataclasses.replace(
        document("\x00'\"%", services=()), verdict=verdict, attributes={"": ""}, spans=bytes(5_000_000)
    )
    empty = dataclasses.replace(document("b"), operations=(), attributes={}, verdict={}, spans=b"")

    await store.write([odd, empty])

    assert list(await store.read(odd.trace_id)) == [odd, empty]


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": {"votes": 1 << 63}},
        {"verdict": {"deep": [{"votes": -(1 << 63) - 1}]}},
        {"verdict": {"probability": math.nan}},
        {"verdict": {"bytes": b"bytes"}},
        {"span_count": 1 << 63},
        {"start_unix_ns": U64_MAX + 1},
        {"duration_ns": -1},
        {"root_operation": "\ud800"},
        {"attributes": {"key": "\udfff"}},
        {"day": "../../etc"},
        {"day": "2026.1.2"},
    ],
    ids=str,
)
async def test_a_document_that_can_never_be_stored_is_rejected_alone(rig: StoreRig, changes: dict[str, object]) -> None:
    """The impossible document comes back with a reason; its neighbours are stored."""
    store = await rig.store()
    impossible = dataclasses.replace(document("impossible"), **changes)  # type: ignore[arg-type]

    rejected = await store.write([document("a"), impossible, document("z")])

    assert [rejection.document_id for rejection in rejected] == ["impossible"]
    assert rejected[0].reason
    assert [found.id for found in await store.read(f"{1:032x}")] == ["a", "z"]


async def test_a_verdict_nested_without_end_is_rejected(rig: StoreRig) -> None:
    """Nesting beyond any use is refused, not followed."""
    store = await rig.store()
    nested: AttributeValue = []
    for _ in range(100_000):
        nested = [nested]

    rejected = await store.write([dataclasses.replace(document(), verdict={"nested": nested})])

    assert [rejection.document_id for rejection in rejected] == ["a"]
    while isinstance(nested, list) and nested:  # taken apart by hand: comparing or freeing it would recurse
        nested = nested.pop()


async def test_a_second_write_of_an_id_changes_nothing(rig: StoreRig) -> None:
    """Whatever the second one says, the first stays, in every lookup."""
    store = await rig.store()
    second = document("a", trace=2, start=99, services=("other",))

    await store.write([document("a")])
    assert list(await store.write([second, document("b"), dataclasses.replace(document("b"), spans=b"x")])) == []

    assert list(await store.read(f"{1:032x}")) == [document("a"), document("b")]
    assert list(await store.read(second.trace_id)) == []
    assert list(await store.search(service="other")) == []
    assert list(await store.services()) == ["shop"]


async def test_an_empty_write_and_an_unknown_trace_are_nothing(rig: StoreRig) -> None:
    """Writing nothing succeeds; reading what is not there gives nothing."""
    store = await rig.store()

    assert list(await store.write([])) == []
    assert list(await store.read("0" * 32)) == []
    assert list(await store.search()) == []
    assert list(await store.services()) == []


async def test_fragments_of_a_trace_come_in_order_of_day_and_id(rig: StoreRig) -> None:
    """All fragments are found, in whatever days they lie."""
    store = await rig.store()
    places = [("b", "2026.01.03"), ("a", "2026.01.03"), ("z", "2025.12.31"), ("c", "2026.01.02")]

    await store.write([document(name, day=day) for name, day in places])
    await store.write([document("other", trace=2)])

    found = [(fragment.day, fragment.id) for fragment in await store.read(f"{1:032x}")]
    assert found == [("2025.12.31", "z"), ("2026.01.02", "c"), ("2026.01.03", "a"), ("2026.01.03", "b")]


async def test_search_gives_the_newest_first(rig: StoreRig) -> None:
    """By day, then start, then id; also where starts go beyond 63 bits; at most `limit`."""
    store = await rig.store()
    starts = {"a": 1, "b": (1 << 63) - 1, "c": 1 << 63, "d": U64_MAX, "e": 0, "f": 1}
    await store.write([document(name, start=start) for name, start in starts.items()])
    await store.write(
        [document("older", day="2026.01.01", start=U64_MAX), document("newer", day="2026.01.03", start=0)]
    )

    order = ["newer", "d", "c", "b", "f", "a", "e", "older"]
    assert [found.id for found in await store.search()] == order
    for limit in range(1, 9):
        assert [found.id for found in await store.search(limit=limit)] == order[:limit]


async def test_search_finds_the_fragments_of_one_service(rig: StoreRig) -> None:
    """A fragment is found by any service of its spans, once."""
    store = await rig.store()
    await store.write(
        [
            document("a", services=("shop", "cart"), start=1),
            document("b", services=("cart", "cart", "db"), start=2),
            document("c", services=("shop",), start=3, day="2026.01.01"),
        ]
    )

    assert [found.id for found in await store.search(service="cart")] == ["b", "a"]
    assert [found.id for found in await store.search(service="shop")] == ["a", "c"]
    assert list(await store.search(service="unknown")) == []
    assert list(await store.services()) == ["cart", "db", "shop"]


async def test_concurrent_writes_are_all_stored(rig: StoreRig) -> None:
    """Writers at the same time, with ids in common, store every id once."""
    store = await rig.store()

    async def write(first: int) -> None:
        await store.write(
            [document(f"{number:03}", day=f"2026.01.0{number % 3 + 1}") for number in range(first, first + 20)]
        )

    async with trio.open_nursery() as nursery:
        for first in range(0, 100, 10):
            nursery.start_soon(write, first)

    assert sorted(found.id for found in await store.read(f"{1:032x}")) == [f"{number:03}" for number in range(110)]


async def test_retention_drops_whole_days(rig: StoreRig) -> None:
    """Days before the given one are gone, the day itself stays, and a dropped day can be written to again."""
    store = await rig.store()
    days = [f"2026.01.{number:02}" for number in range(1, 13)]
    await store.write([document(day, day=day) for day in days])
    await store.read(f"{1:032x}")

    assert list(await store.drop_days_before("2026.01.11")) == days[:10]
    await store.write([document("again", day=days[9])])
    await store.write([document("and again", day=days[0])])

    assert [found.id for found in await store.read(f"{1:032x}")] == ["and again", "again", *days[10:]]


async def test_documents_outlive_the_process(durable_rig: StoreRig) -> None:
    """What was acknowledged is there when the store is opened again, and still known by its id."""
    await (await durable_rig.store()).write([document("a")])

    store = await durable_rig.store()
    await store.write([dataclasses.replace(document("a"), spans=b"x"), document("b")])

    assert list(await store.read(f"{1:032x}")) == [document("a"), document("b")]
