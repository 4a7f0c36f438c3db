"""A YAML file whose every part still knows its line: composed, not yet constructed.

Plain scalars are read as the OpenTelemetry Collector reads them, by YAML 1.2: `on` and `12:30` are texts, `1e3` is a
number. A file for both may so mean the same to both.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from spanloom.errors import ConfigError

REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", re.ASCII)

Steps = tuple[str | int, ...]  # keys and indices that lead into a document


class Entry(NamedTuple):
    """One entry of a list, with its place."""

    value: object
    where: str
    place_of: Callable[[Steps], str]  # of what lies within it


class PlainScalars(yaml.resolver.Resolver):
    """What a scalar without quotes is."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as the class it overrides declares it


for tag, pattern, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*|0[0-7]+|0o[0-7]+|0x[0-9a-fA-F]+)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    PlainScalars.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$", re.ASCII), first)


class _Loader(PlainScalars, yaml.SafeLoader):
    pass


class Document:
    """One file. Raises ConfigError where it cannot be read or is no YAML, with file and line."""

    def __init__(self, file: Path, environ: Mapping[str, str] | None) -> None:
        """*environ* is what references to the environment are replaced from; None leaves them as they are."""
        self.file = file
        self._environ = environ
        self._seen: set[int] = set()  # nodes already expanded: an alias is the same node again
        try:
            self._loader = _Loader(file.read_bytes())
            self.root = self._loader.get_single_node()
        except OSError as exc:
            raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from exc
        except yaml.MarkedYAMLError as exc:
            line = f":{exc.problem_mark.line + 1}" if exc.problem_mark else ""
            raise ConfigError(f"{file}{line}: not YAML: {exc.problem}") from exc
        except yaml.YAMLError as exc:
            raise ConfigError(f"{file}: not YAML: {' '.join(str(exc).split())}") from exc
        if self.root is not None:
            self._expand(self.root)

    def entries(self, node: yaml.SequenceNode) -> tuple[Entry, ...]:
        """A list's entries, constructed."""
        return tuple(map(self._entry, node.value))

    def _entry(self, node: yaml.Node) -> Entry:
        return Entry(self.construct(node), self.where(node), lambda steps: self.place_of(node, steps))

    def construct(self, node: yaml.Node) -> object:
        """The value of a node, as Python has it."""
        try:
            value: object = self._loader.construct_object(node, deep=True)
        except yaml.MarkedYAMLError as exc:
            raise ConfigError(f"{self.where(node)}: {exc.problem}") from exc
        return value

    def where(self, node: yaml.Node) -> str:
        """File and line of a node."""
        return f"{self.file}:{node.start_mark.line + 1}"

    def place_of(self, node: yaml.Node, steps: Steps) -> str:
        """File and line of what *steps* lead to below *node*; where they leave it, of the last that is there."""
        at = node
        for step in steps:
            if isinstance(node, yaml.MappingNode) and (pair := _pair(node, step)):
                at, node = pair
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                at = node = node.value[step]
            else:
                break
        return self.where(at)

    def _expand(self, node: yaml.Node) -> None:
        """Put the environment's values into every scalar below *node*; refuse a key written twice."""
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            self._expand_scalar(node)
        elif isinstance(node, yaml.SequenceNode):
            for entry in node.value:
                self._expand(entry)
        elif isinstance(node, yaml.MappingNode):
            names = set[str]()
            for name, value in node.value:
                if not isinstance(name, yaml.ScalarNode):
                    raise ConfigError(f"{self.where(name)}: expected a text as key")
                if name.value in names:
                    raise ConfigError(f"{self.where(name)}: {name.value} is given twice")
                names.add(name.value)
                self._expand(value)

    def _expand_scalar(self, node: yaml.ScalarNode) -> None:
        if self._environ is None:
            return
        expanded = REFERENCE.sub(lambda match: self._lookup(match, node), node.value)
        if expanded == node.value:
            return
        node.value = expanded
        if node.style is None:  # not quoted: what came in may be a number
            node.tag = self._loader.resolve(yaml.ScalarNode, expanded, (True, False))  # type: ignore[no-untyped-call]

    def _lookup(self, match: re.Match[str], node: yaml.Node) -> str:
        assert self._environ is not None
        name, default = match[1], match[2]
        value = self._environ.get(name, default)
        if value is None:
            raise ConfigError(f"{self.where(node)}: expected {name} in the environment, or a default in {match[0]}")
        return value


def pairs_of(node: yaml.Node | None) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """A mapping's keys and values; of anything else none."""
    if isinstance(node, yaml.MappingNode):
        yield from node.value


def _pair(node: yaml.Node, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    found = [pair for pair in pairs_of(node) if pair[0].value == step]
    return found[-1] if found else None  # what was merged in stands before what overrides it
