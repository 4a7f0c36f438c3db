"""Where settings come from: a YAML file and the environment, as dotted keys with the place each was written in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from spanloom.errors import ConfigError

ENVIRONMENT_PREFIX = "SPANLOOM__"
REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", re.ASCII)


class Entry(NamedTuple):
    """One entry of a list, with its place."""

    value: object
    where: str


class Setting(NamedTuple):
    """A value somebody wrote, and where; a list is a tuple of Entry."""

    value: object
    where: str


def from_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    """SPANLOOM__HTTP__PORT=1 as http.port."""
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).replace("__", ".").lower(): Setting(value, f"environment {name}")
        for name, value in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }


def from_yaml(file: Path, environ: Mapping[str, str]) -> dict[str, Setting]:
    """Every leaf of the file's mappings under its dotted key. Raises ConfigError naming file and line."""
    document = _Document(file, environ)
    found: dict[str, Setting] = {}
    if document.root is not None:
        document.flatten(document.root, "", found)
    return found


def list_from_yaml(file: Path, environ: Mapping[str, str], keys: tuple[str, ...]) -> tuple[Entry, ...]:
    """The list that a file is, or holds below *keys*, of which those not there are skipped."""
    document = _Document(file, environ)
    node = document.root
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            node = next((value for name, value in node.value if name.value == key), node)
    if not isinstance(node, yaml.SequenceNode):
        raise ConfigError(f"{file}: expected a list, or a mapping with {keys[-1]}")
    return document.entries(node)


class _Document:
    """One YAML file, composed but not yet constructed, so that every node still knows its line."""

    def __init__(self, file: Path, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._seen: set[int] = set()  # nodes already expanded: an alias is the same node again
        try:
            self._loader = yaml.SafeLoader(file.read_bytes())
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

    def flatten(self, node: yaml.Node, prefix: str, into: dict[str, Setting]) -> None:
        """Lay the leaves below *node* into *into*; an empty section is no leaf."""
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                self.flatten(value, f"{prefix}.{name.value}" if prefix else str(name.value), into)
        elif not prefix:
            raise ConfigError(f"{self._where(node)}: expected a mapping of sections, found {self._construct(node)!r}")
        elif prefix in into:
            raise ConfigError(f"{self._where(node)}: {prefix} is given twice")
        else:
            value = self.entries(node) if isinstance(node, yaml.SequenceNode) else self._construct(node)
            into[prefix] = Setting(value, self._where(node))

    def entries(self, node: yaml.SequenceNode) -> tuple[Entry, ...]:
        return tuple(Entry(self._construct(entry), self._where(entry)) for entry in node.value)

    def _construct(self, node: yaml.Node) -> object:
        try:
            value: object = self._loader.construct_object(node, deep=True)
        except yaml.MarkedYAMLError as exc:
            raise ConfigError(f"{self._where(node)}: {exc.problem}") from exc
        return value

    def _where(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"

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
                    raise ConfigError(f"{self._where(name)}: expected a text as key")
                if name.value in names:
                    raise ConfigError(f"{self._where(name)}: {name.value} is given twice")
                names.add(name.value)
                self._expand(value)

    def _expand_scalar(self, node: yaml.ScalarNode) -> None:
        expanded = REFERENCE.sub(lambda match: self._lookup(match, node), node.value)
        if expanded == node.value:
            return
        node.value = expanded
        if node.style is None:  # not quoted: what came in may be a number
            node.tag = self._loader.resolve(yaml.ScalarNode, expanded, (True, False))  # type: ignore[no-untyped-call]

    def _lookup(self, match: re.Match[str], node: yaml.Node) -> str:
        name, default = match[1], match[2]
        value = self._environ.get(name, default)
        if value is None:
            raise ConfigError(f"{self._where(node)}: expected {name} in the environment, or a default in {match[0]}")
        return value
