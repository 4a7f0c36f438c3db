"""Versions of the policies: the one source that every process of a fleet judges by.

A version is a record in a log that only grows. What was written first counts: a record whose version is not above all
before it says nothing, so of two that write one version at once everybody follows the same one. Each record has a mark
of its own, by which its writer tells whether it was the first, and under which a compacted topic keeps every one.

A record is a JSON object: version, written_unix_ms, author, comment, mark, policies (the list as it was written).
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from spanloom.core.codec.json_text import JsonValue, parse_json, wrong_json
from spanloom.errors import DecodeError
from spanloom.model import PolicyVersion

VERSION_MAX = (1 << 32) - 1  # what a DECIDE entry holds
COMMENT_MAX = 1000  # characters


def encode_version(written: PolicyVersion) -> bytes:
    """Its record, on one line."""
    fields = {
        "version": written.version,
        "written_unix_ms": written.written_unix_ms,
        "author": written.author,
        "comment": written.comment[:COMMENT_MAX],
        "mark": written.mark,
        "policies": json.loads(written.body),
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_version(record: bytes) -> PolicyVersion:
    """What a record says. Raises DecodeError."""
    fields = parse_json(record)
    if not isinstance(fields, dict):
        raise wrong_json("$", "an object", fields)
    policies = fields.get("policies")
    if not isinstance(policies, list):
        raise wrong_json("$.policies", "a list", policies)
    version = _number(fields, "version")
    if not 0 < version <= VERSION_MAX:
        raise wrong_json("$.version", f"1 to {VERSION_MAX}", version)
    return PolicyVersion(
        version,
        body=json.dumps(policies, sort_keys=True, separators=(",", ":")).encode(),
        author=_text(fields, "author"),
        written_unix_ms=_number(fields, "written_unix_ms"),
        comment=_text(fields, "comment"),
        mark=_text(fields, "mark"),
    )


def _number(fields: Mapping[str, JsonValue], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_json(f"$.{name}", "a whole number", value)
    return value


def _text(fields: Mapping[str, JsonValue], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise wrong_json(f"$.{name}", "a text", value)
    return value


def those_that_count(records: Iterable[bytes], *, above: int = 0) -> list[PolicyVersion]:
    """The versions in force one after another, of records in the log's order; *above* is the highest one before them.

    A record that cannot be read counts for nothing: whoever wrote it, no reader of any release can follow it.
    """
    found: list[PolicyVersion] = []
    for record in records:
        try:
            written = decode_version(record)
        except DecodeError:
            continue
        if written.version > above:
            found.append(written)
            above = written.version
    return found


def changes(before: bytes, after: bytes) -> str:
    """What two bodies differ in: +added -removed ~changed, or `order`; empty where they are the same."""
    old, new = _by_name(before), _by_name(after)
    added = [f"+{name}" for name in new if name not in old]
    removed = [f"-{name}" for name in old if name not in new]
    changed = [f"~{name}" for name in new if name in old and new[name] != old[name]]
    words = [*added, *removed, *changed]
    if not words and list(old) != list(new):
        return "order"
    return " ".join(words)


def _by_name(body: bytes) -> dict[str, JsonValue]:
    policies: Sequence[JsonValue] = json.loads(body)
    return {str(policy["name"]): policy for policy in policies if isinstance(policy, dict) and "name" in policy}
