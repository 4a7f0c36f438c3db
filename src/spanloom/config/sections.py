"""Every setting: its name, default, accepted values and meaning, once. docs/configuration.md is generated from here.

A section is a frozen struct; its docstring and the options' texts are what the reference shows. Names end in a unit.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from spanloom.config.kinds import (
    AUTO,
    Kind,
    one_of,
    path,
    probability,
    seconds,
    secret,
    size_bytes,
    size_bytes_or_auto,
    text,
    text_or_nothing,
    urls,
    whole,
)
from spanloom.core.codec.transcode import ENCODINGS

T = TypeVar("T")

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
YEAR_S = 365 * DAY_S


@dataclass(frozen=True, slots=True)
class Option:
    """What is known of a setting beside its name and default."""

    kind: Kind[object]
    meaning: str


def option(default: T, kind: Kind[T], meaning: str) -> T:
    """A field of a section."""
    return field(default=default, metadata={"option": Option(cast(Kind[object], kind), meaning)})


def secret_option(meaning: str) -> str:
    """A field that no print of the section shows."""
    kind = cast(Kind[object], secret("any text"))
    return field(default="", repr=False, metadata={"option": Option(kind, meaning)})


RawPolicy = dict[str, object]  # one tail policy as it was written; `core.sampling.policies` says what it means


def _read_policies(value: object) -> tuple[RawPolicy, ...]:
    """What `loading` made of a list."""
    if not isinstance(value, tuple) or not value:
        raise ValueError
    return value


def _show_policies(policies: tuple[RawPolicy, ...]) -> str:
    return ", ".join(str(policy.get("name")) for policy in policies)


POLICIES: Kind[tuple[RawPolicy, ...]] = Kind(
    "a list of policies, or the path of a YAML file with one", _read_policies, _show_policies
)


def _read_prefix(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,99}", value, re.ASCII):
        raise ValueError
    return value


# What Elasticsearch takes in an index's name, and nothing that a pattern or a list of names would read otherwise.
INDEX_PREFIX: Kind[str] = Kind("lower-case letters, digits, `-`, `_` and `.`", _read_prefix, str)

# Every error, every trace slower than 95 % of its operation, and a hundredth of the rest so that "normal" can be seen.
DEFAULT_POLICIES: tuple[RawPolicy, ...] = (
    {"name": "errors", "type": "error"},
    {
        "name": "p95",
        "type": "latency_percentile",
        "latency_percentile": {"percentile": 95, "min_count": 100, "window_s": 600},
    },
    {
        "name": "baseline",
        "type": "consistent_probability",
        "consistent_probability": {"sampling_percentage": 1},
    },
)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """The embedded deployment's files."""

    folder: Path = option(
        Path("./spanloom-data"),
        path("the path of a folder"),
        "Holds every file; made if there is none. One process only.",
    )
    durability: str = option(
        "process",
        one_of("process", "power"),
        "What an acknowledged span survives: the death of any process, or a power cut too (slower: all is synced).",
    )
    partitions: int = option(
        4, whole(1, 1000), "Partitions of `spans`, each worked by an actor of its own. Fixed when the folder is made."
    )
    log_retention_s: float = option(
        7 * DAY_S, seconds(MINUTE_S, YEAR_S), "How long resolved spans stay in the log; seven days as in Kafka."
    )
    log_bytes_max: int = option(
        10 * GIB,
        size_bytes(16 * MIB, 1024 * TIB),
        "Disk the log may take. Resolved spans go first; where that is not enough, intake answers 503.",
    )
    store_retention_s: float = option(
        7 * DAY_S, seconds(HOUR_S, 10 * YEAR_S), "How long kept traces can be read; whole days are deleted."
    )


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """The ports, and what senders and readers may take."""

    host: str = option("127.0.0.1", text("a host name or an address"), "Where to listen; 0.0.0.0 lets others in.")
    port: int = option(
        4318, whole(0, 65535), "Intake: OTLP/HTTP and seed JSON. 4318 is OTLP's own; 0 takes a free port."
    )
    query_port: int = option(
        16686, whole(0, 65535), "Queries, health and metrics. 16686 is Jaeger's; 0 takes a free port."
    )
    zipkin_port: int = option(
        9411, whole(0, 65535), "Intake: Zipkin's v2 JSON. 9411 is Zipkin's own; 0 takes a free port."
    )
    body_bytes_max: int = option(
        16 * MIB,
        size_bytes(KIB, 256 * MIB),
        "The largest request body, as sent and decompressed; a larger one gets 413.",
    )
    connections_max: int = option(
        512, whole(1, 100_000), "Connections a port holds open; others wait. Half the usual 1024 file descriptors."
    )
    idle_s: float = option(
        75.0, seconds(1, HOUR_S), "A connection without a request is closed after this; above most proxies' 60 s."
    )


@dataclass(frozen=True, slots=True)
class GrpcConfig:
    """The OTLP/gRPC port, on http.host, and what its senders may take."""

    port: int = option(4317, whole(0, 65535), "Intake: OTLP/gRPC. 4317 is OTLP's own; 0 takes a free port.")
    message_bytes_max: int = option(
        16 * MIB,
        size_bytes(KIB, 256 * MIB),
        "The largest request message, as sent and decompressed; a larger one is refused for good.",
    )
    calls_max: int = option(
        64, whole(1, 10_000), "Calls answered at once, a thread each; the most messages in memory that nobody counts."
    )
    waiting_max: int = option(
        256, whole(0, 100_000), "Calls that wait for a thread, unread; beyond it a caller is told to come back."
    )
    connections_max: int = option(512, whole(1, 100_000), "Connections held open; the next one is closed.")
    idle_s: float = option(
        300.0, seconds(1, DAY_S), "A connection without a call is told to go after this; gRPC clients come again."
    )


@dataclass(frozen=True, slots=True)
class IntakeConfig:
    """What holds for every port that takes spans: HTTP, gRPC and Zipkin's."""

    waiting_bytes_max: int = option(
        64 * MIB,
        size_bytes(MIB, TIB),
        "Request bytes waiting to be in the log; beyond it senders are told to come back.",
    )
    acknowledge: str = option(
        "durable",
        one_of("durable", "accepted"),
        "When senders are answered. accepted: before their spans are in the log; a crash loses what was on its way.",
    )
    tls_certificate: str = option(
        "", text_or_nothing("the path of a PEM file"), "The server's certificate and its chain: only TLS is spoken."
    )
    tls_key: str = option("", text_or_nothing("the path of a PEM file"), "The certificate's key, not encrypted.")
    tls_client_ca: str = option(
        "",
        text_or_nothing("the path of a PEM file"),
        "Senders must show a certificate that one of these has signed (mutual TLS).",
    )
    token_file: str = option(
        "",
        text_or_nothing("the path of a file"),
        "Holds bearer tokens, one a line: senders must show one. Read when the process starts.",
    )


@dataclass(frozen=True, slots=True)
class AssemblyConfig:
    """When a trace is taken to be whole. Times are stream time: they move with the records, not with a clock.

    quiet_s <= idle_s <= age_max_s <= remember_s.
    """

    quiet_s: float = option(
        6.0,
        seconds(0.001, DAY_S),
        "A trace with root and all parents is decided after this silence; SDKs batch for 5 s.",
    )
    idle_s: float = option(15.0, seconds(0.001, DAY_S), "A trace that misses a span is decided after this silence.")
    age_max_s: float = option(60.0, seconds(0.001, DAY_S), "A trace is decided at this age, silent or not.")
    remember_s: float = option(
        300.0, seconds(0.001, DAY_S), "How long a verdict stands for late spans, and duplicates are recognised."
    )
    skew_max_s: float = option(
        600.0, seconds(1, YEAR_S), "A record further ahead of the last one than this does not move stream time."
    )
    spans_max: int = option(
        50_000, whole(1, 10_000_000), "A trace with more spans is decided at once; what follows is a further fragment."
    )
    bytes_max: int = option(
        16 * MIB,
        size_bytes(KIB, GIB),
        "A trace with more span bytes is decided at once; what follows is a further fragment.",
    )
    undecided_bytes_max: int = option(
        AUTO,
        size_bytes_or_auto(MIB, TIB),
        "Span bytes of all undecided traces: above it reading waits, then the oldest are decided early. auto: a "
        "quarter of the memory the process may use, by its control group or the machine.",
    )


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """Which traces are kept."""

    policies: tuple[RawPolicy, ...] = option(
        DEFAULT_POLICIES,
        POLICIES,
        "Tail policies, asked in this order, `drop` first; one vote keeps a trace. Written as in the OpenTelemetry "
        "Collector ([sampling](sampling.md)). "
        "Those of a first start: from then on `spanloom sampling apply` changes them, for all processes at once.",
    )
    mode: str = option(
        "hybrid",
        one_of("head", "tail", "hybrid"),
        "head: the intake drops what head_probability does not keep, errors excepted. Else only the policies drop.",
    )
    head_probability: float = option(
        0.01, probability(), "Of a trace to be kept in mode head; every node keeps the same ones."
    )
    adaptive: str = option(
        "off",
        one_of("off", "cpu", "memory", "both"),
        "The load that sampling bends to. Above 0.8 of it the policies' consistent probabilities are halved, and "
        "again, in mode head head_probability too; from 0.95 on the intake sheds half of all traces, and again. "
        "Below 0.6 (0.8) it comes back. Errors always pass.",
    )


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """The cluster deployment's log and ledger. With brokers set, partitions are shared by all processes of the group.

    Security goes into a file of librdkafka's own properties, one `key=value` a line, so that no secret stands in this
    configuration; `${env:NAME}` in it is the environment's.
    """

    brokers: str = option(
        "", text_or_nothing("host:port, several with commas between"), "Where Kafka is; none: the embedded deployment."
    )
    group: str = option(
        "spanloom",
        text("a group id"),
        "The consumer group whose members share the partitions, and whose offsets count.",
    )
    client_file: str = option(
        "",
        text_or_nothing("the path of a file"),
        "Properties every client is given: `security.protocol`, `sasl.*`, ...",
    )
    consumer: str = option(
        "auto",
        one_of("native", "portable", "auto"),
        "How records are read. portable: by the Python client, which costs more CPU; auto: so where native cannot do.",
    )
    session_s: float = option(
        6.0,
        seconds(1, 600),
        "A member not heard of for this long is dead; 6 s is the least a broker accepts by its defaults.",
    )
    revoke_s: float = option(
        5.0, seconds(0, MINUTE_S), "How long a partition that the group wants back may finish what it has decided."
    )
    spans: str = option("spans", text("a topic"), "Spans, keyed by trace id.")
    ledger: str = option("spanloom-ledger", text("a topic"), "What was decided; as many partitions as the spans have.")
    traces_complete: str = option("traces-complete", text("a topic"), "Kept traces, for other programs.")
    sampling_decisions: str = option(
        "sampling-decisions", text("a topic"), "A record a kept trace, for other programs."
    )
    dead_letters: str = option("spans-dead-letter", text("a topic"), "What cannot be read or stored, as it came.")
    policies: str = option("spanloom-policies", text("a topic"), "Versions of the sampling policies.")


@dataclass(frozen=True, slots=True)
class KafkaIntakeConfig:
    """A topic that others fill, as a door beside the ports: any keys; its spans are split, keyed and put into the log.

    At least once; what comes twice is removed when traces are put together. What cannot be read goes to the dead
    letters. Processes of one group share the partitions; a new group reads from the topic's beginning.
    """

    topic: str = option("", text_or_nothing("a topic"), "Taken from; it must not be one of spanloom's own.")
    encoding: str = option(
        "otlp_proto", one_of(*ENCODINGS), "How its records are written; the names are the OpenTelemetry Collector's."
    )
    group: str = option("spanloom-intake", text("a group id"), "The consumer group, whose offsets count.")
    brokers: str = option(
        "", text_or_nothing("host:port, several with commas between"), "Where the topic is, if not at kafka.brokers."
    )
    client_file: str = option(
        "", text_or_nothing("the path of a file"), "As kafka.client_file, where brokers is given here."
    )


@dataclass(frozen=True, slots=True)
class ElasticsearchConfig:
    """The trace store of the cluster deployment: Elasticsearch 8 or 9, one index a day.

    Shards, replicas and retention go into the index template and the lifecycle policy: they hold for days to come.
    """

    urls: str = option(
        "",
        urls("http", "https"),
        "Where Elasticsearch is, several nodes with commas between; none: traces are kept in the data folder.",
    )
    api_key: str = secret_option("The API key, as Elasticsearch encodes it. Give it by the environment, or by a file:")
    api_key_file: str = option("", text_or_nothing("the path of a file"), "Holds the API key, in place of api_key.")
    ca_file: str = option(
        "", text_or_nothing("the path of a file"), "Certificates to trust in place of the system's, PEM."
    )
    prefix: str = option(
        "spanloom-traces-", INDEX_PREFIX, "What the names of the indices begin with; the day follows, as 2026.01.31."
    )
    shards: int = option(1, whole(1, 100), "Of a day's index. Elastic advises 10 to 50 GB a shard.")
    replicas: int = option(1, whole(0, 10), "Further copies of each shard; 0 on a single node.")
    retention_s: float = option(
        7 * DAY_S, seconds(DAY_S, 10 * YEAR_S), "How long kept traces can be read; whole days are deleted."
    )


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """The cache of the cluster deployment. Whatever becomes of it costs time, never an answer."""

    url: str = option(
        "",
        urls("redis", "rediss"),
        "Where Redis is, as redis://host:6379/0; none: each process has a cache of its own.",
    )
    password: str = secret_option("The password. Give it by the environment, or by a file:")
    password_file: str = option("", text_or_nothing("the path of a file"), "Holds the password, in place of password.")
    ca_file: str = option(
        "", text_or_nothing("the path of a file"), "Certificates to trust in place of the system's, PEM."
    )


@dataclass(frozen=True, slots=True)
class SupervisionConfig:
    """How many crashes of actors are borne before the process gives up and exits."""

    restarts_max: int = option(10, whole(0, 100_000), "Restarts granted within the period; one more ends the process.")
    period_s: float = option(60.0, seconds(0.1, DAY_S), "The period that restarts_max is counted in.")


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is written to standard error."""

    level: str = option(
        "info", one_of("debug", "info", "warning", "error"), "error: a human must look; warning: it heals itself."
    )
    format: str = option("console", one_of("console", "json"), "Lines for people, or one JSON object a line.")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one process, parsed once."""

    data: DataConfig = field(default_factory=DataConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    grpc: GrpcConfig = field(default_factory=GrpcConfig)
    intake: IntakeConfig = field(default_factory=IntakeConfig)
    assembly: AssemblyConfig = field(default_factory=AssemblyConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    kafka: KafkaConfig = field(default_factory=KafkaConfig)
    kafka_intake: KafkaIntakeConfig = field(default_factory=KafkaIntakeConfig)
    elasticsearch: ElasticsearchConfig = field(default_factory=ElasticsearchConfig)
    redis: RedisConfig = field(default_factory=RedisConfig)
    supervision: SupervisionConfig = field(default_factory=SupervisionConfig)
    log: LogConfig = field(default_factory=LogConfig)
    commit_interval_s: float = option(
        1.0, seconds(0.001, HOUR_S), "How often progress is committed; a restart reads again what came after the last."
    )
    drain_s: float = option(
        10.0, seconds(0, HOUR_S), "On SIGTERM: how long to finish what was read. What is not finished is read again."
    )
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)  # of keys that are not defaults


class Described(NamedTuple):
    """One setting of a Config: its dotted key, its value there and what is known of it."""

    key: str
    value: object
    option: Option


def settings(config: Config) -> Iterator[Described]:
    """Every setting of *config*, in the order it is declared in."""
    for outer in fields(config):
        value = getattr(config, outer.name)
        if is_dataclass(value):
            for inner in fields(value):
                yield Described(f"{outer.name}.{inner.name}", getattr(value, inner.name), inner.metadata["option"])
        elif "option" in outer.metadata:
            yield Described(outer.name, value, outer.metadata["option"])
