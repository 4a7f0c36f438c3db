"""Policy sets as an operator may write them, by seed: every type, nested as deep as they nest.

Keys and values are those that otlp_bytes.Writer puts into spans, so that conditions hold now and then.
"""

from collections.abc import Callable
from random import Random

from spanloom.core.sampling.written import parse_policies
from spanloom.errors import PolicyRefused
from tests.core.otlp_bytes import KEYS, STATE_KEYS, STATE_VALUES, TEXTS

Written = dict[str, object]
KEY_NAMES = tuple(key.decode("utf-8", "replace") for key in KEYS if key)
TEXT_NAMES = tuple(text.decode("utf-8", "replace") for text in TEXTS)
PATTERNS = ("a", "^$", "^tru", "[0-9]+", "", "ä|�", "x{2,}", "(?i)AB")
CONDITIONS = (
    "string_attribute",
    "string_attribute",
    "numeric_attribute",
    "boolean_attribute",
    "latency",
    "trace_state",
)
GATHERING = ("ema_throughput", "ema_throughput", "latency_percentile", "rate_limiting", "bytes_limiting")
GLOBS = ("shop*", "k[äa]se", "p?y", "", "*", "[!s]*")


def _some(random: Random, values: tuple[str, ...], most: int = 3) -> list[str]:
    return random.sample(values, random.randrange(1, most + 1))


def _settings(random: Random) -> dict[str, Callable[[], object]]:
    """The settings of each simple type."""

    def invert() -> bool:
        return random.randrange(4) == 0

    bounds = ((-5, 5), (0, 3), (5, 5), (1, 1 << 62), (-(1 << 63), -1))
    return {
        "always_sample": dict,
        "latency": lambda: {
            "threshold_ms": random.choice((0, 1, 2, 10, -1, 1 << 62)),
            "upper_threshold_ms": random.choice((0, 0, 5, 12)),
        },
        "numeric_attribute": lambda: {
            "key": random.choice(KEY_NAMES),
            **dict(zip(("min_value", "max_value"), random.choice(bounds), strict=True)),
            "invert_match": invert(),
        },
        "string_attribute": lambda: {
            "key": random.choice(KEY_NAMES),
            **(
                {"values": _some(random, TEXT_NAMES)}
                if random.randrange(2)
                else {"values": _some(random, PATTERNS), "enabled_regex_matching": True}
            ),
            "invert_match": invert(),
        },
        "boolean_attribute": lambda: {
            "key": random.choice(KEY_NAMES),
            "value": random.randrange(2) == 0,
            "invert_match": invert(),
        },
        "status_code": lambda: {"status_codes": _some(random, ("OK", "ERROR", "UNSET"))},
        "probabilistic": lambda: {
            "sampling_percentage": random.choice((0, 10, 50, 100)),
            "hash_salt": random.choice(("", "salt")),
        },
        "rate_limiting": lambda: {
            "spans_per_second": random.choice((0, 1, 3, 500_000_000_000)),
            "burst_capacity": random.choice((0, 1, 4, 1_000_000_000_000)),
        },
        "bytes_limiting": lambda: {
            "bytes_per_second": random.choice((0, 50, 300, 500_000_000_000)),
            "burst_capacity": random.choice((0, 100, 400)),
        },
        "span_count": lambda: {"min_spans": random.choice((0, 1, 2)), "max_spans": random.choice((0, 2, 5))},
        "trace_state": lambda: {"key": random.choice(STATE_KEYS), "values": _some(random, STATE_VALUES)},
        "trace_flags": dict,
        "error": dict,
        "latency_percentile": lambda: {
            "percentile": random.choice((50, 99.5)),
            "min_count": random.choice((1, 2)),
            "window_s": random.choice((20, 600)),
            "operations_max": random.choice((3, 100)),
        },
        "service_pattern": lambda: {"services": _some(random, GLOBS)},
        "consistent_probability": lambda: {"sampling_percentage": random.choice((0, 12.5, 33.3, 60, 100))},
        "ema_throughput": lambda: {
            "goal_spans_per_second": random.choice((1, 2, 1_000_000_000)),
            "interval_s": random.choice((1, 2, 15, 3600)),
            "weight": random.choice((0.01, 0.5, 1)),
            "operations_max": random.choice((1, 3, 100)),
        },
    }


def _leaf(random: Random, name: str, kinds: tuple[str, ...] = ()) -> Written:
    settings = _settings(random)
    kind = random.choice(kinds or tuple(settings))
    return {"name": name, "type": kind, kind: settings[kind]()}


def _leaf_or_not(random: Random, name: str) -> Written:
    if random.randrange(4):
        return _leaf(random, name)
    return {"name": name, "type": "not", "not": {"not_sub_policy": _leaf(random, f"{name} not")}}


def _all_of(random: Random, name: str, kind: str, most: int) -> Written:
    subs = [_leaf_or_not(random, f"{name} {number}") for number in range(random.randrange(1, most + 1))]
    return {"name": name, "type": kind, kind: {f"{kind}_sub_policy": subs}}


def _composite(random: Random, name: str) -> Written:
    subs = [
        _all_of(random, f"{name} {number}", "and", 3) if random.randrange(3) == 0 else _leaf(random, f"{name} {number}")
        for number in range(random.choice((1, 2, 3)))
    ]
    shares = [
        {"policy": sub["name"], "percent": random.choice((0, 10, 50, 100))} for sub in subs if random.randrange(4)
    ]
    settings = {
        "max_total_spans_per_second": random.choice((0, 2, 5, 1000)),
        "composite_sub_policy": subs,
        "rate_allocation": shares,
    }
    return {"name": name, "type": "composite", "composite": settings}


def written_policy(random: Random, name: str) -> Written:
    """Any policy."""
    match random.randrange(8):
        case 0:
            return _all_of(random, name, "and", 3)
        case 1:
            return _all_of(random, name, "drop", 3)
        case 2:
            return _composite(random, name)
        case 3:
            return {"name": name, "type": "not", "not": {"not_sub_policy": _leaf(random, f"{name} not")}}
    return _leaf(random, name)


def _conditions(random: Random, name: str) -> Written:
    """One or two conditions on spans."""
    leaves = [_leaf(random, f"{name} {number}", CONDITIONS) for number in range(random.choice((1, 2, 2)))]
    if len(leaves) == 1:
        return {**leaves[0], "name": name}
    return {"name": name, "type": "and", "and": {"and_sub_policy": leaves}}


def written_policies(random: Random) -> list[Written]:
    """A few policies, or many, or more conditions than a word has bits."""
    if random.randrange(12) == 0:
        return [_conditions(random, f"p{number}") for number in range(60)]
    while True:
        made = [written_policy(random, f"p{number}") for number in range(random.choice((1, 1, 2, 3, 5, 12)))]
        if _fits(made):
            return made


def _fits(policies: list[Written]) -> bool:
    """Whether there are votes enough for them."""
    try:
        parse_policies(policies, version=1)
    except PolicyRefused:
        return False
    return True


def gathering_policies(random: Random) -> list[Written]:
    """Policies that gather something from trace to trace."""
    return [_leaf(random, f"p{number}", GATHERING) for number in range(random.randrange(1, 5))]


def changed(random: Random, policies: list[Written], version: int) -> list[Written]:
    """Another version of *policies*: one gone, one new, the order changed, or the same again."""
    after = list(policies)
    match random.randrange(4):
        case 0 if len(after) > 1:
            del after[random.randrange(len(after))]
        case 1:
            after.append(written_policy(random, f"q{version}"))
        case 2:
            random.shuffle(after)
    return after if _fits(after) else policies
