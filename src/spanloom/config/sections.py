"""Every setting: its name, default, accepted values and meaning, once. docs/configuration.md is generated from here.

A section is a frozen struct; its docstring and the options' texts are what the reference shows. Names end in a unit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

from spanloom.config.kinds import Kind, one_of, path, seconds, size_bytes, text, whole

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
    body_bytes_max: int = option(
        16 * MIB,
        size_bytes(KIB, 256 * MIB),
        "The largest request body, as sent and decompressed; a larger one gets 413.",
    )
    waiting_bytes_max: int = option(
        64 * MIB, size_bytes(MIB, TIB), "Request bytes waiting to be in the log; beyond it requests get 503."
    )
    connections_max: int = option(
        512, whole(1, 100_000), "Connections a port holds open; others wait. Half the usual 1024 file descriptors."
    )
    idle_s: float = option(
        75.0, seconds(1, HOUR_S), "A connection without a request is closed after this; above most proxies' 60 s."
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
        512 * MIB, size_bytes(MIB, TIB), "Span bytes of all undecided traces; beyond it reading is held back."
    )


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """Which traces are kept."""

    policies: tuple[RawPolicy, ...] = option(
        DEFAULT_POLICIES,
        POLICIES,
        "Tail policies, asked in this order; one vote keeps a trace. Written as in the OpenTelemetry Collector.",
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
    assembly: AssemblyConfig = field(default_factory=AssemblyConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
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
