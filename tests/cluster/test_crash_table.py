"""Every row of the crash table (design, section 6) on a real Kafka, Elasticsearch and Redis, then the oracle's recount.

A member dies at an instant that is named (core/failpoints.py), or something between it and a server breaks; then
another or the same one finishes. Lost 0, twice 0, verdicts as the oracle has them, books balanced.
"""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from spanloom.core.failpoints import Failpoint
from tests.cluster.crash import DECIDE, SKIP, TICK, WITHIN_S, Scene, Wreck, served
from tests.cluster.members import Cluster, owned
from tests.integration.process import eventually
from tests.servers import elasticsearch, kafka, need_servers, redis
from tests.servers.http_proxy import Fault, HttpProxy, Reply, Request
from tests.servers.tcp_proxy import Mood, TcpProxy
from tests.spans import Sp, traces_data

TRACES = 40


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A group of one partition, its traffic in the log, nobody there to read it."""
    need_servers()
    cluster = Cluster(kafka.running().brokers, tmp_path, partitions=1)
    server = elasticsearch.running()
    settings = {
        "elasticsearch__urls": server.url,
        "elasticsearch__prefix": cluster.index_prefix,
        "elasticsearch__replicas": "0",
    }
    scene = Scene(cluster, server, settings)
    scene.cluster.make_topics()
    scene.send(1, TRACES)
    return scene


# A row, where a process dies, for how manieth time there, and what it must have left behind for the row to be hit.
Hit = Callable[[Wreck], bool]
ROWS: dict[str, tuple[Failpoint, int, Hit]] = {
    "before DECIDE is appended": (Failpoint.BEFORE_DECIDE, 1, lambda wreck: not wreck.entries[DECIDE]),
    "DECIDE appended, acknowledgement unknown": (
        Failpoint.DECIDE_APPENDED,
        1,
        lambda wreck: wreck.kept > 0 and wreck.entries[DECIDE] > 0,
    ),
    "acknowledged, before the store": (
        Failpoint.BEFORE_STORE,
        1,
        lambda wreck: wreck.kept > 0 and wreck.stored == 0,
    ),
    "bulk sent, partial": (Failpoint.STORE_HALF_DONE, 1, lambda wreck: 0 < wreck.stored < wreck.kept),
    "bulk sent, answer lost": (
        Failpoint.STORE_UNANSWERED,
        1,
        lambda wreck: wreck.stored > 0 and wreck.committed < 2 * TRACES,
    ),
    "stored, before commit": (Failpoint.BEFORE_COMMIT, 1, lambda wreck: wreck.stored > 0),
    "committed, not known": (Failpoint.COMMITTED, 25, lambda wreck: wreck.committed > 0),
    "between assignment and FENCE": (Failpoint.BEFORE_FENCE, 1, lambda wreck: not wreck.entries),
    "FENCE appended, not read back": (Failpoint.FENCE_APPENDED, 1, lambda wreck: wreck.entries.total() == 1),
    "TICK appended, not applied": (Failpoint.TICK_APPENDED, 1, lambda wreck: wreck.entries[TICK] == 1),
}


@pytest.mark.parametrize("row", ROWS)
def test_killed_there_nothing_is_lost_or_twice(scene: Scene, row: str) -> None:
    """kill -9 at the row's instant, more spans while nobody is there: whoever comes next finishes, without a fault."""
    failpoint, passes, is_hit = ROWS[row]
    wreck = scene.die_at(failpoint, passes)
    assert is_hit(wreck), wreck
    scene.send(1001, 20)
    with scene.member() as heir:
        scene.finish(heir)
    tally = scene.assert_nothing_lost_or_twice()
    assert tally["duplicate"] > 0


def impatient(scene: Scene) -> str:
    """The path of a file that makes Kafka's clients give up soon."""
    file = scene.cluster.folder / "client.properties"
    file.write_text("delivery.timeout.ms=4000\nrequest.timeout.ms=3000\nsocket.timeout.ms=4000\n")
    return str(file)


def test_the_answer_to_an_append_is_lost_and_the_same_process_follows_the_ledger(scene: Scene) -> None:
    """A DECIDE is in the ledger and its sender hears nothing: it fences again, with a higher epoch, and follows."""
    node = kafka.running().nodes[0]
    proxy = TcpProxy(node.behind_port)
    ledger = scene.topic("ledger").encode()
    is_produce = b"\x00\x00"  # the first two bytes after a request's length: its kind

    def is_append(asked: bytes) -> bool:
        return asked[4:6] == is_produce and ledger in asked

    with served(proxy.run, node.proxy_port):
        scene.cluster.brokers = f"127.0.0.1:{node.proxy_port}"
        with scene.member(kafka__client_file=impatient(scene)) as member:
            scene.cluster.brokers = kafka.running().brokers
            eventually(lambda: member.said("assigned"), WITHIN_S)
            proxy.unanswered, proxy.mood = is_append, Mood.PICKY
            scene.send(1001, 20)
            eventually(lambda: member.said("assignment given up"), WITHIN_S)
            proxy.mood = Mood.DEAF
            time.sleep(0.2)
            proxy.mood = Mood.FAITHFUL
            scene.finish(member)
            epochs = [int(str(line["epoch"])) for line in member.log if line["event"] == "assigned"]
    assert len(epochs) > 1
    assert epochs == sorted(set(epochs))
    scene.assert_nothing_lost_or_twice()


@pytest.mark.parametrize("mood", [Mood.DEAF, Mood.STALLED])
def test_connections_to_kafka_break_or_hang(scene: Scene, mood: Mood) -> None:
    """Cut, or half open beyond the session: the member goes on when Kafka is back, from what is committed."""
    node = kafka.running().nodes[0]
    proxy = TcpProxy(node.behind_port)
    with served(proxy.run, node.proxy_port):
        scene.cluster.brokers = f"127.0.0.1:{node.proxy_port}"
        with scene.member(kafka__client_file=impatient(scene)) as member:
            scene.cluster.brokers = kafka.running().brokers
            eventually(lambda: member.said("first records"), WITHIN_S)
            proxy.mood = mood
            scene.send(1001, 20)
            time.sleep(3)  # above the session
            proxy.mood = Mood.FAITHFUL if mood is Mood.DEAF else Mood.DEAF
            time.sleep(0.2)
            proxy.mood = Mood.FAITHFUL
            scene.send(2001, 20)
            scene.finish(member)
    scene.assert_nothing_lost_or_twice()


def test_a_store_that_refuses_any_part_of_a_bulk_or_does_not_answer_gets_the_rest_again(scene: Scene) -> None:
    """429 for all, 429 and 503 for some, done without an answer, lost on the way: each document is there once."""
    faults = [
        Fault(reply=Reply(429, b'{"error":{"type":"es_rejected_execution_exception","reason":"test"},"status":429}')),
        Fault(cut=True),
        Fault(cut=True, unseen=True),
        Fault(items={0: (429, "es_rejected_execution_exception"), 2: (503, "unavailable_shards_exception")}),
        Fault(cut=True),
    ]

    def script(request: Request) -> Fault:
        return faults.pop() if request.is_bulk and faults else Fault()

    proxy = HttpProxy(scene.elasticsearch.port, script)
    with served(proxy.run):
        scene.settings["elasticsearch__urls"] = proxy.url
        with scene.member() as member:
            eventually(lambda: not faults, WITHIN_S)
            scene.finish(member)
    ids = [identity for request in proxy.bulks for identity in request.ids]
    assert len(ids) > len(set(ids))  # what was not answered was sent again
    scene.assert_nothing_lost_or_twice()


def test_a_document_that_is_refused_for_good_is_in_the_dead_letters(scene: Scene) -> None:
    """400 for one item: that fragment is dead-lettered and counted as such, every other one is stored."""
    refused: list[str] = []

    def script(request: Request) -> Fault:
        if not request.is_bulk or (refused and refused[0] not in request.ids):
            return Fault()
        refused[:] = refused or request.ids[:1]
        return Fault(items={request.ids.index(refused[0]): (400, "document_parsing_exception")})

    proxy = HttpProxy(scene.elasticsearch.port, script)
    with served(proxy.run):
        scene.settings["elasticsearch__urls"] = proxy.url
        with scene.member() as member:
            scene.finish(member)
            assert member.said("dead letter")
    recount = scene.recount()
    (difference,) = recount.differences.pop("store")
    assert difference.endswith("kept but not stored")
    assert refused[0].split(".")[0] in difference
    books = recount.differences.pop("books")
    assert len(books) == 2  # so many less are stored, and so many dead-lettered
    assert not any(recount.differences.values())


def test_an_old_owner_that_thaws_after_its_partitions_went_to_another_stops(scene: Scene) -> None:
    """SIGSTOP beyond the session with work in hand, SIGCONT: its records are stale, its documents equal, it stops."""
    with scene.member() as frozen, scene.member() as heir:
        eventually(lambda: owned(frozen) or owned(heir), WITHIN_S)
        owner, other = (frozen, heir) if owned(frozen) else (heir, frozen)
        scene.send(1001, 20)
        eventually(lambda: owner.metric("spanloom_spans_received_total") >= scene.sent, WITHIN_S)
        owner.popen.send_signal(signal.SIGSTOP)
        eventually(lambda: owned(other), WITHIN_S)
        scene.send(2001, 20)
        owner.popen.send_signal(signal.SIGCONT)
        eventually(lambda: owner.said("partitions lost") or owner.said("fenced"), WITHIN_S)
        scene.finish(owner, other)
    scene.assert_nothing_lost_or_twice()


POISON = b"\xff\xff no spans"


def test_killed_between_a_dead_letter_and_its_skip(scene: Scene) -> None:
    """A record nobody can read: dead-lettered, the process dies, dead-lettered again, skipped once, counted once."""
    scene.send_records([(b"poison", POISON)], partition=0)
    scene.sent += 1
    scene.die_at(Failpoint.BEFORE_SKIP)
    with scene.member() as heir:
        scene.finish(heir)
    assert scene.wreck().entries[SKIP] == 1
    assert scene.assert_nothing_lost_or_twice()["dead_lettered"] == 1


def test_while_the_dead_letter_topic_is_away_the_record_s_offset_is_held(scene: Scene) -> None:
    """No dead letter can be written: nothing from the poison on is committed; once it can be, all goes on."""
    admin = AdminClient({"bootstrap.servers": scene.cluster.brokers})

    def limit(size: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, scene.topic("dead_letters"), incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(30)

    limit(200)
    (before,) = (held.end for held in scene.books().values())
    scene.send_records([(b"poison", POISON * 50)], partition=0)
    scene.send(1001, 10)
    scene.sent += 1
    with scene.member() as member:
        eventually(lambda: any(line.get("what") == "dead letter" for line in member.log), WITHIN_S)
        time.sleep(1)  # some commits' time
        assert scene.wreck().committed <= before
        limit(1_000_000)
        scene.finish(member)
    assert scene.assert_nothing_lost_or_twice()["dead_lettered"] == 1


def test_killed_after_spans_were_moved_and_before_they_are_resolved(tmp_path: Path, scene: Scene) -> None:
    """Spans in the wrong partition are moved twice, stored once."""
    scene.cluster = Cluster(kafka.running().brokers, tmp_path, partitions=2)
    scene.cluster.make_topics()
    scene.sent = 0
    scene.send(1, 10)
    spans = [Sp(trace, 1, error=True) for trace in range(5001, 5011)]
    for partition in (0, 1):
        scene.send_records([(b"any", traces_data([span])) for span in spans[5 * partition :][:5]], partition=partition)
    scene.sent += len(spans)
    scene.settings["elasticsearch__prefix"] = scene.cluster.index_prefix
    scene.die_at(Failpoint.MOVE_APPENDED, 2)
    with scene.member() as heir:
        scene.finish(heir)
    assert scene.assert_nothing_lost_or_twice()["moved"] > 0


def test_a_record_that_kills_every_process_is_skipped_and_the_rest_goes_on(scene: Scene) -> None:
    """Native code that dies of a record: after a few deaths at one offset it is dead-lettered, loudly."""
    from spanloom.core.deaths import ACCUSATIONS_MAX, DEATHS_MAX
    from tests.killing.deadly import MARKER

    scene.send_records([(b"deadly", traces_data([Sp(9001, 1, error=True, name=MARKER.decode())]))], partition=0)
    scene.send(1001, 10)
    deaths = 0
    while deaths <= DEATHS_MAX + ACCUSATIONS_MAX:
        with scene.member(program=("-m", "tests.killing.deadly")) as member:
            eventually(lambda member=member: member.popen.poll() is not None or scene.is_settled(), WITHIN_S)  # type: ignore[misc]
            if member.popen.poll() is None:
                assert member.said("dead letter")
                assert member.terminate() == 0
                break
            deaths += 1
    assert DEATHS_MAX <= deaths <= DEATHS_MAX + ACCUSATIONS_MAX
    assert scene.wreck().entries[SKIP] == 1
    recount = scene.recount()
    trace = Sp(9001, 1).trace_id.hex()
    assert all(trace in text for text in recount.differences["verdicts"] + recount.differences["store"])
    assert len(recount.differences["store"]) == 1  # it alone is not stored
    assert not recount.differences["traces-complete"]


def test_records_that_retention_deleted_unread_are_counted_as_lost_and_the_rest_goes_on(scene: Scene) -> None:
    """The committed offset is gone: it is said loudly, the books name the gap, and what is still there is stored."""
    with scene.member() as member:
        scene.finish(member)
    (committed,) = (held.committed for held in scene.books().values())
    scene.send(1001, 10)
    (end,) = (held.end for held in scene.books().values())
    gap = end - committed
    place = TopicPartition(scene.topic("spans"), 0, end)
    admin = AdminClient({"bootstrap.servers": scene.cluster.brokers})
    admin.delete_records([place])[place].result(30)
    scene.sent = 0
    scene.send(2001, 20)
    with scene.member() as member:
        scene.finish(member)
        deleted = member.said("records deleted unread")
    assert deleted is not None
    assert (deleted["wanted"], deleted["earliest"]) == (committed, end)
    (held,) = scene.books().values()
    assert held.counters["lost_to_retention"] == gap
    assert held.counters["received"] == held.resolved == committed + gap + scene.sent
    stored = {document.id.split(".")[0] for document in scene.documents()}
    assert stored >= {Sp(trace, 1).trace_id.hex() for trace in range(1, 41) if trace % 3 == 0}
    assert stored >= {Sp(trace, 1).trace_id.hex() for trace in range(2001, 2021) if trace % 3 == 0}
    assert not stored & {Sp(trace, 1).trace_id.hex() for trace in range(1001, 1011)}


def test_an_actor_that_crashes_is_restarted_alone_and_reads_again_at_once(tmp_path: Path, scene: Scene) -> None:
    """An exception in one partition's actor: it begins anew from its commit, the other one does not stop."""
    scene.cluster = Cluster(kafka.running().brokers, tmp_path, partitions=2)
    scene.cluster.make_topics()
    scene.settings["elasticsearch__prefix"] = scene.cluster.index_prefix
    scene.sent = 0
    scene.send(1, TRACES)
    with scene.member(f"{Failpoint.BEFORE_STORE}:2", program=("-m", "tests.cluster.crashing")) as member:
        scene.finish(member)
        crashed = member.said("child crashed")
        assigned = [int(str(line["partition"])) for line in member.log if line["event"] == "assigned"]
    assert crashed is not None
    assert sorted(assigned) in ([0, 0, 1], [0, 1, 1])
    scene.assert_nothing_lost_or_twice()


def test_clocks_that_jump_and_records_that_repeat_change_no_verdict(tmp_path: Path, scene: Scene) -> None:
    """Timestamps minutes ahead and back, a lone one an hour, records twice, a kill: as the oracle has it."""
    scene.cluster = Cluster(kafka.running().brokers, tmp_path, partitions=1)
    scene.cluster.make_topics(spans={"message.timestamp.type": "CreateTime"})
    scene.settings["elasticsearch__prefix"] = scene.cluster.index_prefix
    scene.sent = 0
    now_ms = time.time_ns() // 1_000_000
    scene.send(1, 20, at_ms=now_ms)
    scene.send_records([(b"any", traces_data([Sp(901, 1, error=True)]))], at_ms=now_ms + 3_600_000)
    scene.sent += 1
    for first, skew_ms in ((101, 200_000), (201, -60_000), (1, 100)):
        scene.send(first, 20, at_ms=now_ms + skew_ms)
    scene.die_at(Failpoint.BEFORE_COMMIT)
    scene.send(401, 20, at_ms=now_ms + 5_000)
    with scene.member() as heir:
        scene.finish(heir)
    tally = scene.assert_nothing_lost_or_twice()
    assert tally["duplicate"] + tally["late"] >= 40  # the repeats, of kept traces and of dropped ones


def test_elasticsearch_and_redis_away_for_long_hold_the_commit_and_lose_nothing(scene: Scene) -> None:
    """Both frozen while spans come in: received, not committed; Redis is wiped; when they are back all is stored."""
    server, cache = scene.elasticsearch, redis.running()
    scene.settings["redis__url"] = cache.url
    with scene.member() as member:
        eventually(lambda: member.said("first records"), WITHIN_S)
        try:
            server.signal(signal.SIGSTOP)
            cache.signal(signal.SIGSTOP)
            for first in (1001, 2001, 3001):
                scene.send(first, 20)
                time.sleep(1)
            eventually(lambda: member.metric("spanloom_spans_received_total") >= scene.sent, WITHIN_S)
            assert not scene.is_settled()
        finally:
            server.signal(signal.SIGCONT)
            cache.signal(signal.SIGCONT)
        cache.say("FLUSHALL")
        scene.finish(member)
    scene.assert_nothing_lost_or_twice()
