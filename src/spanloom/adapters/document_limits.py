"""What no store of ours can take, however often it is sent: judged alike by all, before writing."""

import math
import re
from collections.abc import Iterator
from typing import cast

from spanloom.errors import StoreRejected
from spanloom.model import AttributeValue, Document

_DAY = re.compile(r"\d{4}\.\d{2}\.\d{2}", re.ASCII)  # it names a file or an index: nothing else gets that far

INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1  # an Elasticsearch long, an SQLite integer
UNSIGNED_MAX = (1 << 64) - 1  # times and durations: OTLP's fixed64
NESTING_MAX = 20  # of a verdict; Elasticsearch's own default for object fields
SPANS_BYTES_MAX = 512 << 20  # SQLite takes at most 10^9 bytes a value; `bytes_max` of a fragment is far below


def rejection_of(document: Document) -> StoreRejected | None:
    """Why *document* can never be stored, or None: it can."""
    if _is_usual(document):
        return None
    for reason in _faults(document):
        return StoreRejected(document.id, reason)
    return None


def _is_usual(document: Document) -> bool:
    """Whether a short look says that there is no fault; if not there may be one, or none."""
    times = (document.start_unix_ns, document.duration_ns, document.root_duration_ns)
    texts = (document.id, document.trace_id, document.root_service, document.root_operation)
    attributes, verdict = document.attributes, document.verdict
    try:  # a lone surrogate has no encoding
        "".join(
            (*texts, *document.services, *document.operations, *attributes, *attributes.values(), *verdict)
        ).encode()
    except UnicodeEncodeError:
        return False
    return (
        min(times) >= 0
        and max(times) <= UNSIGNED_MAX
        and max(document.span_count, document.error_count) <= INTEGER_MAX
        and min(document.span_count, document.error_count) >= INTEGER_MIN
        and len(document.spans) <= SPANS_BYTES_MAX
        and _DAY.fullmatch(document.day) is not None
        and all(map(_is_usual_value, verdict.values()))
    )


def _is_usual_value(value: AttributeValue) -> bool:
    kind = type(value)
    if kind is str:
        return cast(str, value).isascii()
    if kind is int:
        return INTEGER_MIN <= cast(int, value) <= INTEGER_MAX
    if kind is list:
        return all(type(one) is str and one.isascii() for one in cast(list[AttributeValue], value))
    return kind is bool or value is None or (kind is float and math.isfinite(cast(float, value)))


def _faults(document: Document) -> Iterator[str]:
    if not _DAY.fullmatch(document.day):
        yield f"day: expected YYYY.MM.DD, found {document.day!r}"
    if len(document.spans) > SPANS_BYTES_MAX:
        yield f"spans: expected at most {SPANS_BYTES_MAX} bytes, found {len(document.spans)}"
    for name in ("start_unix_ns", "duration_ns", "root_duration_ns"):
        value: int = getattr(document, name)
        if not 0 <= value <= UNSIGNED_MAX:
            yield f"{name}: expected 64 bits without sign, found {value}"
    for name in ("span_count", "error_count"):
        yield from _integer_faults(name, getattr(document, name))
    texts = (document.id, document.trace_id, document.root_service, document.root_operation)
    for text in (*texts, *document.services, *document.operations, *document.attributes, *document.attributes.values()):
        yield from _text_faults("text", text)
    yield from _value_faults("verdict", document.verdict, NESTING_MAX)


def _value_faults(name: str, value: AttributeValue, depth: int) -> Iterator[str]:
    if depth == 0:
        yield f"{name}: nested deeper than {NESTING_MAX}"
        return
    match value:
        case bool() | None:
            pass
        case int():
            yield from _integer_faults(name, value)
        case float():
            if not math.isfinite(value):
                yield f"{name}: expected a finite number, found {value}"
        case str():
            yield from _text_faults(name, value)
        case bytes():
            yield f"{name}: bytes have no JSON form"
        case list():
            for one in value:
                yield from _value_faults(name, one, depth - 1)
        case dict():
            for key, one in value.items():
                yield from _text_faults(name, key)
                yield from _value_faults(f"{name}.{key}", one, depth - 1)


def _integer_faults(name: str, value: int) -> Iterator[str]:
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        yield f"{name}: expected a signed 64-bit integer, found {value}"


def _text_faults(name: str, text: str) -> Iterator[str]:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        yield f"{name}: not UTF-8, a lone surrogate in {text!r}"
