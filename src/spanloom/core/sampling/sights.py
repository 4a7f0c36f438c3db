"""What a predicate asks of spans and what it saw there, in words."""

from collections import Counter
from collections.abc import Iterable, Sequence

from spanloom.core._pure.predicates import Asked
from spanloom.core.sampling.program import Predicate, PredicateKind
from spanloom.core.sampling.threshold import members_of

VALUES_MAX = 5  # different ones shown; the rest are counted
TEXT_MAX = 80  # characters of one
STATUS_NAMES = {0: "UNSET", 1: "OK", 2: "ERROR"}

_TYPES = {
    PredicateKind.TEXT: "string_attribute",
    PredicateKind.PATTERN: "string_attribute",
    PredicateKind.INTEGER: "numeric_attribute",
    PredicateKind.BOOLEAN: "boolean_attribute",
    PredicateKind.STATUS: "status_code",
    PredicateKind.STATE: "trace_state",
    PredicateKind.SAMPLED_FLAG: "trace_flags",
    PredicateKind.LATENCY: "latency",
    PredicateKind.SERVICE: "service_pattern",
    PredicateKind.ERROR: "error",
}


def type_of(predicate: Predicate) -> str:
    """The policy type that asks it, as it is written."""
    return _TYPES[predicate.kind]


def wanted(asked: Predicate) -> str:
    """What it takes for it to hold."""
    match asked.kind:
        case PredicateKind.TEXT:
            return f"{asked.key} = {_either(asked.texts)}"
        case PredicateKind.PATTERN:
            return f"{asked.key} matches {_either(asked.texts)}"
        case PredicateKind.INTEGER:
            return f"{asked.key} from {asked.low} to {asked.high}"
        case PredicateKind.BOOLEAN:
            return f"{asked.key} = {_show(bool(asked.low))}"
        case PredicateKind.STATUS:
            return "status " + " or ".join(name for code, name in STATUS_NAMES.items() if asked.low >> code & 1)
        case PredicateKind.STATE:
            return f"tracestate {asked.key} = {_either(asked.texts)}"
        case PredicateKind.SAMPLED_FLAG:
            return "the W3C flag sampled"
        case PredicateKind.LATENCY:
            return f"more than {asked.low} ms" + (f", at most {asked.high} ms" if asked.high else "")
        case PredicateKind.SERVICE:
            return f"a service named {_either(asked.texts)}"
        case PredicateKind.ERROR:
            return "a span of status ERROR or with a true tag error"


def seen(asked: Predicate, spans: Sequence[Asked], holding: Sequence[Asked]) -> str:
    """What the spans had of it; it holds for those *holding*."""
    match asked.kind:
        case PredicateKind.TEXT | PredicateKind.PATTERN | PredicateKind.INTEGER | PredicateKind.BOOLEAN:
            key = asked.key.encode()
            return _listed([value for span in spans for value in span.fields.values(key)], nothing=f"no {asked.key}")
        case PredicateKind.STATUS:
            return _counted(STATUS_NAMES.get(span.fields.status, str(span.fields.status)) for span in spans)
        case PredicateKind.STATE:
            states = (members_of(span.fields.trace_state) or {} for span in spans)
            values = [members[asked.key] for members in states if asked.key in members]
            return _listed(values, nothing=f"no {asked.key} in a tracestate")
        case PredicateKind.SAMPLED_FLAG:
            return f"it in {len(holding)} of {spans_text(len(spans))}"
        case PredicateKind.LATENCY:
            return _lasting(spans, holding)
        case PredicateKind.SERVICE:
            return _listed([span.span.service for span in spans], nothing="no span")
        case PredicateKind.ERROR:
            return _errors(spans, holding)


def spans_text(count: int) -> str:
    """A number of spans."""
    return f"{count} span" if count == 1 else f"{count} spans"


def _lasting(spans: Sequence[Asked], holding: Sequence[Asked]) -> str:
    """Judged with every span that came: what held once is not undone."""
    final = spans[-1].whole_ms if spans else 0
    is_same = not holding or holding[-1].whole_ms == final
    return f"{final} ms" if is_same else f"{holding[0].whole_ms} ms at first, {final} ms with all spans"


def _errors(spans: Sequence[Asked], holding: Sequence[Asked]) -> str:
    where = _listed([asked.span.service + b": " + asked.span.name for asked in holding], nothing="")
    return f"{len(holding) or 'none'} of {spans_text(len(spans))}" + (f": {where}" if where else "")


def _either(texts: Iterable[str]) -> str:
    return _listed(list(texts), nothing="nothing", joint=" or ")


def _counted(names: Iterable[str]) -> str:
    return ", ".join(f"{name} in {spans_text(count)}" for name, count in Counter(names).most_common())


def _listed(values: Sequence[object], *, nothing: str, joint: str = ", ") -> str:
    """The different ones, the first few of them."""
    different = list(dict.fromkeys(map(_show, values)))
    more = [f"{len(different) - VALUES_MAX} more"] if len(different) > VALUES_MAX else []
    return joint.join([*different[:VALUES_MAX], *more]) or nothing


def _show(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case bytes():
            return _show(value.decode("utf-8", "replace"))
        case str():
            return f'"{value[:TEXT_MAX]}{"..." if len(value) > TEXT_MAX else ""}"'
        case None:
            return "a value of another kind"
    return str(value)
