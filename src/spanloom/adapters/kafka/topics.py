"""Our topics: how they are made, what differs from how they should be, and what a member must know at its start.

Message limits fit the largest trace the defaults allow: a fragment of `assembly.bytes_max` and one record more.
Everything here blocks; it is called at a start, or by a command.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource, NewTopic, ResourceType

from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.errors import ConfigError, SourceUnavailable
from spanloom.model import DEAD_LETTERS, LEDGER, POLICIES, SAMPLING_DECISIONS, SPANS, TRACES_COMPLETE

Result = TypeVar("Result")

ANSWER_S = 8.0
RESULT_S = ANSWER_S + 5  # librdkafka has the first word
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MIB = 1 << 20
FOREVER = -1  # of a retention
# What librdkafka says of nowhere but in its log: a listener that speaks TLS, or wants a name, closes on who does not.
CUT_OFF = " (brokers close our connections: is `security.protocol` in kafka.client_file what they speak there?)"
STUCK_MS = 60_000  # a process that alive does not look at the group for this long is thrown out
REPLICAS_SAFE = 3  # from here on two must have a record before it is acknowledged


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """How one topic should be."""

    name: str
    partitions: int
    config: Mapping[str, str]
    at_least: tuple[str, ...] = ("max.message.bytes", "retention.ms", "min.insync.replicas")  # more is as good


def plan(settings: KafkaSettings, *, spans_partitions: int, replicas: int) -> list[TopicPlan]:
    """Every topic of ours (design, section 3)."""
    insync = "2" if replicas >= REPLICAS_SAFE else "1"

    def topic(name: str, partitions: int, *, keep_ms: int, message_mib: int, **more: str) -> TopicPlan:
        config = {
            "cleanup.policy": "delete",
            "retention.ms": str(keep_ms),
            "retention.bytes": str(FOREVER),
            "max.message.bytes": str(message_mib * MIB),
            "min.insync.replicas": insync,
            **{key.replace("_", "."): value for key, value in more.items()},
        }
        return TopicPlan(settings.topic(name), partitions, config)

    spans_ms = 7 * DAY_MS
    return [
        topic(SPANS, spans_partitions, keep_ms=spans_ms, message_mib=20, message_timestamp_type="LogAppendTime"),
        topic(LEDGER, spans_partitions, keep_ms=spans_ms + DAY_MS, message_mib=32),
        topic(TRACES_COMPLETE, 20, keep_ms=DAY_MS, message_mib=40),
        topic(SAMPLING_DECISIONS, 10, keep_ms=DAY_MS, message_mib=1),
        topic(DEAD_LETTERS, 10, keep_ms=7 * DAY_MS, message_mib=48),
        TopicPlan(settings.topic(POLICIES), 1, {"cleanup.policy": "compact", "min.insync.replicas": insync}),
    ]


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a member must know of `spans`."""

    incarnation: str
    partition_count: int


class Topics:
    """Asks and tells a cluster about topics."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connects by and by. Raises ConfigError for a property that librdkafka refuses."""
        self._settings = settings
        self._trouble = ""  # what a connection said first, which a time-out does not say
        client: dict[str, object] = {**settings.connection(), "log_level": "0", "error_cb": self._note}
        try:
            self._admin = AdminClient(client)  # type: ignore[arg-type] # its stubs know no callbacks
        except KafkaException as exc:
            raise ConfigError(f"kafka: {exc.args[0].str()}") from exc

    def _note(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - its only name
            self._trouble = self._trouble or CUT_OFF  # who does not answer at all was said before
        elif self._trouble in ("", CUT_OFF):
            self._trouble = f" ({error.str()})"

    def _unavailable(self, text: str) -> SourceUnavailable:
        self._admin.poll(0)
        return SourceUnavailable(text + self._trouble)

    def brokers(self) -> list[int]:
        """The ids of those that are up. Raises SourceUnavailable."""
        return sorted(self._translated(lambda: self._admin.list_topics(timeout=ANSWER_S)).brokers)

    def create(self, plans: list[TopicPlan], *, replicas: int) -> list[str]:
        """Make those that are not there; their names."""
        made = self._admin.create_topics(
            [NewTopic(one.name, one.partitions, replicas, config=dict(one.config)) for one in plans],
            operation_timeout=ANSWER_S,
        )
        return [name for name, future in made.items() if _is_made(future)]

    def check(self, plans: list[TopicPlan]) -> Iterator[str]:
        """What differs, a line each."""
        for one in plans:
            found = self.describe(one.name)
            if found is None:
                yield f"{one.name}: is not there"
                continue
            if found.partition_count != one.partitions:
                yield f"{one.name}: expected {one.partitions} partitions, found {found.partition_count}"
            config = self.config(ResourceType.TOPIC, one.name)
            for key, value in one.config.items():
                if not _is_enough(key, value, config.get(key, ""), one.at_least):
                    more = "at least " if key in one.at_least else ""
                    yield f"{one.name}: {key}: expected {more}{value}, found {config.get(key, 'nothing')}"

    def describe(self, name: str) -> TopicFacts | None:
        """A topic's id and partition count; None where there is none. Raises SourceUnavailable."""
        (future,) = self._admin.describe_topics(TopicCollection([name]), request_timeout=ANSWER_S).values()
        try:
            found = future.result(RESULT_S)
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            raise self._unavailable(f"{name}: {exc.args[0].str()}") from exc
        except TimeoutError as exc:  # we were frozen, or starved: librdkafka had no chance to say so itself
            raise self._unavailable(f"{name}: no answer within {RESULT_S:g} s") from exc
        return TopicFacts(str(found.topic_id), len(found.partitions))

    def config(self, kind: ResourceType, name: str) -> dict[str, str]:
        """The settings of a topic or a broker, as they are in force. Raises SourceUnavailable."""
        (future,) = self._admin.describe_configs([ConfigResource(kind, name)], request_timeout=ANSWER_S).values()
        entries: Mapping[str, ConfigEntry] = self._translated(lambda: future.result(RESULT_S))
        return {key: entry.value for key, entry in entries.items() if entry.value is not None}

    def _translated(self, ask: Callable[[], Result]) -> Result:
        try:
            return ask()
        except KafkaException as exc:
            raise self._unavailable(exc.args[0].str()) from exc
        except TimeoutError as exc:
            raise self._unavailable(f"no answer within {RESULT_S:g} s") from exc

    def look(self) -> TopicFacts:
        """What a start needs to know. Raises ConfigError where the topics cannot do, SourceUnavailable."""
        names = {name: self._settings.topic(name) for name in (SPANS, LEDGER, POLICIES)}
        facts = {name: self.describe(names[name]) for name in names}
        spans, ledger = facts[SPANS], facts[LEDGER]
        if spans is None or ledger is None or facts[POLICIES] is None:
            absent = next(names[name] for name in names if facts[name] is None)
            raise ConfigError(f"kafka: expected a topic {absent}, found none; `spanloom topics create` makes it")
        if spans.partition_count != ledger.partition_count:
            raise ConfigError(
                f"kafka: expected {names[LEDGER]} to have as many partitions as {names[SPANS]}: "
                f"{spans.partition_count}, found {ledger.partition_count}"
            )
        self._check_retention(names[SPANS], names[LEDGER])
        return spans

    def _check_retention(self, spans: str, ledger: str) -> None:
        """A recovery that finds spans must find what was decided of them."""
        keeps = {name: self.config(ResourceType.TOPIC, name) for name in (spans, ledger)}
        for key in ("retention.ms", "retention.bytes"):
            wanted = keeps[spans].get(key, str(FOREVER)) if key == "retention.ms" else str(FOREVER)
            found = keeps[ledger].get(key, str(FOREVER))
            if not _is_enough(key, wanted, found, (key,)):
                raise ConfigError(f"kafka: {ledger}: {key}: expected at least {wanted}, found {found}")

    def group_protocol(self) -> dict[str, str]:
        """A member's settings: the new protocol where it notices a death as soon, else the classic one."""
        session_ms = self._settings.session_ms
        broker = self.config(ResourceType.BROKER, str(self.brokers()[0]))
        if is_new_protocol_as_fast(broker, session_ms):
            return {"group.protocol": "consumer", "max.poll.interval.ms": str(STUCK_MS)}
        return {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": str(session_ms),
            "heartbeat.interval.ms": str(session_ms // 4),
            "max.poll.interval.ms": str(max(STUCK_MS, session_ms)),
        }


def is_new_protocol_as_fast(broker: Mapping[str, str], session_ms: int) -> bool:
    """Whether KIP-848 groups of this broker end a dead member's session within *session_ms*."""
    protocols = broker.get("group.coordinator.rebalance.protocols", "")
    session = broker.get("group.consumer.session.timeout.ms", "")
    return "consumer" in protocols.split(",") and session.isdecimal() and int(session) <= session_ms


def _is_enough(key: str, wanted: str, found: str, at_least: tuple[str, ...]) -> bool:
    if key not in at_least or not found.lstrip("-").isdecimal():
        return found == wanted
    if key.startswith("retention.") and FOREVER in (int(wanted), int(found)):
        return int(found) == FOREVER
    return int(found) >= int(wanted)


def _is_made(future: "Future[None]") -> bool:
    try:
        future.result(RESULT_S)
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise ConfigError(f"kafka: {exc.args[0].str()}") from exc
    except TimeoutError as exc:
        raise SourceUnavailable(f"no answer within {RESULT_S:g} s: the topic may be there or not") from exc
    return True
