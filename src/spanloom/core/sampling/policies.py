"""Tail-sampling policies: what an operator writes, checked once and frozen. The kernel judges, `_pure/sampler.py`.

Each is written as the OpenTelemetry Collector writes its `tail_sampling` policies: a name, a type, and a block named
for the type with the type's settings.
"""

import fnmatch
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from spanloom.errors import ConfigError
from spanloom.model import THRESHOLD_UNKNOWN

POLICIES_MAX = 64  # votes travel as a 64-bit set
SERVICE_PATTERNS_MAX = 1000


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """Keep a trace that holds a span with status ERROR."""

    name: str


@dataclass(frozen=True, slots=True)
class LatencyPolicy:
    """Keep a trace that lasted at least this long, from its first start to its last end."""

    name: str
    threshold_ns: int


@dataclass(frozen=True, slots=True)
class LatencyPercentilePolicy:
    """Keep a trace slower than this percentile of its own operation's earlier traces.

    The operation is the root span's service and name. Two spans of time, each half of `window_ns`, are remembered;
    an operation with fewer than `min_count` traces in them has no vote.
    """

    name: str
    percentile_bp: int  # hundredths of a percent, 1 to 9999
    min_count: int
    window_ns: int
    operations_max: int  # a partition; the rest share one sketch


@dataclass(frozen=True, slots=True)
class ServicePatternPolicy:
    """Keep a trace that passes through a service whose name matches one of these globs."""

    name: str
    services: tuple[str, ...]

    def matcher(self) -> Callable[[str], bool]:
        """A function that says whether a service name matches."""
        pattern = re.compile("|".join(fnmatch.translate(glob) for glob in self.services))
        return lambda service: pattern.match(service) is not None


@dataclass(frozen=True, slots=True)
class ConsistentProbabilityPolicy:
    """Keep a trace iff R >= threshold, R being the low 56 bits of its id: every node agrees without talking.

    Source: OpenTelemetry's consistent probability sampling.
    """

    name: str
    threshold: int  # 0 keeps all; THRESHOLD_UNKNOWN, one above every R, keeps none


Policy = ErrorPolicy | LatencyPolicy | LatencyPercentilePolicy | ServicePatternPolicy | ConsistentProbabilityPolicy


@dataclass(frozen=True, slots=True)
class PolicySet:
    """One version of the policies, in the order in which they are asked."""

    version: int
    policies: tuple[Policy, ...]
    body: bytes  # canonical JSON of what was written: two sets with one body are one set


def threshold_of(percentage: float) -> int:
    """OpenTelemetry's rejection threshold T for keeping *percentage* percent: keep iff R >= T."""
    if percentage >= 100:
        return 0
    if percentage <= 0:
        return THRESHOLD_UNKNOWN
    return round((1 - percentage / 100) * (1 << 56))


def parse_policies(written: Sequence[Mapping[str, object]], *, version: int) -> PolicySet:
    """Check what was written. Raises ConfigError: which policy, which key, what was expected, what stood there."""
    if not written:
        raise ConfigError("sampling.policies: expected at least one policy, found none")
    if len(written) > POLICIES_MAX:
        raise ConfigError(f"sampling.policies: expected at most {POLICIES_MAX} policies, found {len(written)}")
    policies = tuple(_parse_policy(entry, index) for index, entry in enumerate(written))
    names = [policy.name for policy in policies]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"sampling.policies: expected a name once, found {name!r} {names.count(name)} times")
    body = json.dumps([dict(entry) for entry in written], sort_keys=True, separators=(",", ":")).encode()
    return PolicySet(version, policies, body)


def policies_from_body(body: bytes, *, version: int) -> PolicySet:
    """The policy set that a CONFIG record carries."""
    return parse_policies(json.loads(body), version=version)


class _Block:
    """A mapping somebody wrote, read key by key; what nobody asked for is an error."""

    def __init__(self, where: str, written: object, keys: tuple[str, ...]) -> None:
        if not isinstance(written, Mapping):
            raise ConfigError(f"{where}: expected a mapping, found {written!r}")
        for key in written:
            if key not in keys:
                raise ConfigError(f"{where}: expected one of {', '.join(keys)}, found {key!r}")
        self.where = where
        self.written = written

    def text(self, key: str) -> str:
        value = self.written.get(key)
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{self.where}.{key}: expected a text, found {value!r}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self.written.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ConfigError(f"{self.where}.{key}: expected a number from {low:g} to {high:g}, found {value!r}")
        return value

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        value = self.written.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
            raise ConfigError(f"{self.where}.{key}: expected a list of texts, found {value!r}")
        if len(value) > most:
            raise ConfigError(f"{self.where}.{key}: expected at most {most} texts, found {len(value)}")
        return tuple(value)


_SETTINGS: dict[str, tuple[str, ...]] = {
    "error": (),
    "latency": ("threshold_ms",),
    "latency_percentile": ("percentile", "min_count", "window_s", "operations_max"),
    "service_pattern": ("services",),
    "consistent_probability": ("sampling_percentage",),
}


def _parse_policy(written: Mapping[str, object], index: int) -> Policy:
    where = f"sampling.policies[{index}]"
    kind = _Block(where, written, tuple(written)).text("type")
    if kind not in _SETTINGS:
        raise ConfigError(f"{where}.type: expected one of {', '.join(_SETTINGS)}, found {kind!r}")
    name = _Block(where, written, ("name", "type", kind)).text("name")
    settings = _Block(f"{where}.{kind}", written.get(kind, {}), _SETTINGS[kind])
    if kind == "error":
        return ErrorPolicy(name)
    if kind == "latency":
        return LatencyPolicy(name, int(settings.number("threshold_ms", 0, 86_400_000) * 1_000_000))
    if kind == "latency_percentile":
        return LatencyPercentilePolicy(
            name,
            percentile_bp=round(settings.number("percentile", 0.01, 99.99, 95) * 100),
            min_count=int(settings.number("min_count", 1, 1_000_000, 100)),
            window_ns=int(settings.number("window_s", 1, 86_400, 600) * 1_000_000_000),
            operations_max=int(settings.number("operations_max", 1, 100_000, 1000)),
        )
    if kind == "service_pattern":
        return ServicePatternPolicy(name, settings.texts("services", SERVICE_PATTERNS_MAX))
    return ConsistentProbabilityPolicy(name, threshold_of(settings.number("sampling_percentage", 0, 100)))
