"""`spanloom sampling import`: the policies in a Collector's configuration, as a file of ours; what is lost on the way.

References to the environment stay as they are, in the form both read: `${env:NAME}`, `${env:NAME:-default}`. Everything
that is not carried over is named with its line and the reason; a policy of which a part cannot be is left out whole,
because without that part it would mean something else.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from spanloom.config.documents import REFERENCE, Document, Entry, PlainScalars, Steps, pairs_of
from spanloom.core.sampling.written import TYPES, parse_policies
from spanloom.errors import ConfigError, PolicyRefused

TAIL_SAMPLING = "tail_sampling"
WIDTH = 110

# Keys of the processor that are not about which traces are kept, and where the same matter is settled here.
ELSEWHERE = {
    "decision_wait": "assembly.age_max_s is the nearest (of a trace's age); one that is whole is decided once it is "
    "quiet (assembly.quiet_s), one that misses a span once it is idle (assembly.idle_s)",
    "decision_wait_after_root_received": "assembly.quiet_s is the nearest: it runs from the last span of a whole trace",
    "num_traces": "assembly.undecided_bytes_max bounds undecided spans; beyond it reading waits, nothing is evicted",
    "expected_new_traces_per_sec": "nothing is laid out in advance",
    "block_on_overflow": "reading always waits where undecided spans take assembly.undecided_bytes_max",
    "decision_cache": "every verdict stands for assembly.remember_s",
    "sample_on_first_match": "verdicts are the same without; but a rate is charged for what an earlier policy keeps",
    "maximum_trace_size_bytes": "assembly.bytes_max is the nearest: a larger trace is decided at once, not dropped",
    "drop_pending_traces_on_shutdown": "nothing is dropped on shutdown: it is read again",
    "tail_storage": "undecided spans lie in the log of spans",
}
STRATEGY = "sampling_strategy"
STRATEGY_KEPT = "trace-complete"
STRATEGY_LOST = "every trace is decided once, as a whole"

_TEXT_KEYS = frozenset({"key", "values", "hash_salt", "status_codes", "policy", "policy_order", "name", "type"})
_DOLLAR = re.compile(r"\$\$|\$\{([^}]*)\}")
_BARE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Imported(NamedTuple):
    """A file of policies, and what the operator should know of it."""

    text: str
    notes: tuple[str, ...]


class _Lost(Exception):
    """A policy that cannot be carried over: where in it, and why."""

    def __init__(self, path: Steps, why: str) -> None:
        super().__init__(why)
        self.path = path


class _Quoted(str):
    """A text that stays one, whatever the environment puts into it."""

    __slots__ = ()


class _Dumper(PlainScalars, yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - as the class it overrides has it
        return True


def _quote(dumper: yaml.SafeDumper, text: _Quoted) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"')


_Dumper.add_representer(_Quoted, _quote)


def import_policies(file: Path, processor: str | None = None) -> Imported:
    """Carry over what can be. Raises ConfigError where it is not clear which processor is meant, or nothing is left."""
    document = Document(file, None)
    name, block = _processor(document, processor)
    notes = list(_elsewhere(document, block))
    node = _value(block, "policies")
    if not isinstance(node, yaml.SequenceNode):
        where = document.where(node or block)
        raise ConfigError(f"{where}: expected a list of policies in {name}")
    carried: list[object] = []
    for entry in document.entries(node):
        try:
            carried.append(_carry(entry, notes))
        except _Lost as lost:
            notes.append(_left_out(entry, lost))
    if not carried:
        raise ConfigError("\n".join([*notes, f"{document.where(node)}: no policy of {name} can be carried over"]))
    if not any(map(_has_references, carried)):
        parse_policies(carried, version=1)
    title = f"# The policies of {name} in {file.name}, by `spanloom sampling import`.\n"
    body = yaml.dump({"policies": carried}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    return Imported(title + body, tuple(notes))


def _processor(document: Document, wanted: str | None) -> tuple[str, yaml.Node]:
    """Name and settings of the processor that is meant."""
    found = {
        str(name.value): value
        for name, value in pairs_of(_value(document.root, "processors"))
        if name.value == TAIL_SAMPLING or name.value.startswith(f"{TAIL_SAMPLING}/")
    }
    if wanted is None and len(found) == 1:
        return next(iter(found.items()))
    if wanted in found:
        return wanted, found[wanted]
    if not found:
        raise ConfigError(f"{document.file}: expected a processor {TAIL_SAMPLING}, found none")
    all_of_them = ", ".join(f"{name} ({document.where(node)})" for name, node in found.items())
    if wanted is None:
        raise ConfigError(f"{document.file}: expected --processor with one of {all_of_them}")
    raise ConfigError(f"--processor: expected one of {all_of_them}, found {wanted!r}")


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    return next((value for name, value in pairs_of(node) if name.value == key), None)


def _elsewhere(document: Document, block: yaml.Node) -> Iterator[str]:
    """What the processor's other keys say, and where it is said here."""
    for name, value in pairs_of(block):
        key = name.value
        if key == "policies" or (key == STRATEGY and value.value == STRATEGY_KEPT):
            continue
        why = STRATEGY_LOST if key == STRATEGY else ELSEWHERE.get(key, "spanloom does not know it")
        yield f"{document.where(name)}: {key} is not carried over: {why}"


def _left_out(entry: Entry, lost: _Lost) -> str:
    policy = entry.value if isinstance(entry.value, Mapping) else {}
    effect = "what it drops is kept" if policy.get("type") == "drop" else "what only it keeps is dropped"
    name = f"policy {policy['name']!r}" if policy.get("name") else "a policy"
    return f"{entry.place_of(lost.path)}: {name} is left out, {effect}: {lost}"


def _carry(entry: Entry, notes: list[str]) -> object:
    """The policy as we write it. Raises _Lost."""
    carrier = _Carrier(entry, notes)
    carried = carrier.carry(entry.value, ())
    if carrier.references:
        names = ", ".join(dict.fromkeys(carrier.references))
        notes.append(f"{entry.where}: {names} is left as it stands: set it where spanloom runs; not checked yet")
        return carried
    try:
        parse_policies([carried], version=1)
    except PolicyRefused as refused:
        raise _Lost(refused.path[1:], str(refused).partition(": ")[2]) from None
    return carried


class _Carrier:
    """Takes one policy over."""

    def __init__(self, entry: Entry, notes: list[str]) -> None:
        self._entry = entry
        self._notes = notes
        self.references: list[str] = []  # to the environment

    def carry(self, value: object, path: Steps) -> object:
        if isinstance(value, dict):
            kept = self._used(value, path) if "type" in value else value
            return {key: self.carry(inner, (*path, str(key))) for key, inner in kept.items()}
        if isinstance(value, list):
            return [self.carry(inner, (*path, index)) for index, inner in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) else value

    def _used(self, policy: dict[object, object], path: Steps) -> dict[object, object]:
        """The policy without the blocks of other types, which the Collector passes over."""
        kind = policy["type"]
        if kind not in TYPES:
            hint = "there is no OTTL here" if kind == "ottl_condition" else f"the types are {', '.join(TYPES)}"
            raise _Lost((*path, "type"), f"its type is {kind!r}; {hint}")
        for key in policy:
            if key not in ("name", "type", kind):
                where = self._entry.place_of((*path, str(key)))
                self._notes.append(f"{where}: {key} is not carried over: a policy of type {kind} does not read it")
        return {key: inner for key, inner in policy.items() if key in ("name", "type", kind)}

    def _text(self, text: str, path: Steps) -> str:
        """The text with its dollars as we write them."""
        seen: list[str] = []

        def put(match: re.Match[str]) -> str:
            if match[0] == "$$":
                return "$"
            reference = f"${{env:{match[1]}}}" if _BARE_NAME.fullmatch(match[1]) else match[0]
            if not REFERENCE.fullmatch(reference):
                raise _Lost(path, f"{match[0]} is no reference to the environment, and nothing else is looked up here")
            seen.append(reference)
            return reference

        put_in = _DOLLAR.sub(put, text)
        if len(list(REFERENCE.finditer(put_in))) != len(seen):
            raise _Lost(path, f"{text!r} has a reference that is none, and there is no way to write that here")
        self.references.extend(seen)
        key = next((step for step in reversed(path) if isinstance(step, str)), "")
        return _Quoted(put_in) if seen and key in _TEXT_KEYS else put_in


def _has_references(value: object) -> bool:
    return REFERENCE.search(str(value)) is not None
