"""Where settings come from: a YAML file and the environment, as dotted keys with the place each was written in."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from spanloom.config.documents import Document
from spanloom.errors import ConfigError

ENVIRONMENT_PREFIX = "SPANLOOM__"


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
    document = Document(file, environ)
    found: dict[str, Setting] = {}
    if document.root is not None:
        _flatten(document, document.root, "", found)
    return found


def _flatten(document: Document, node: yaml.Node, prefix: str, into: dict[str, Setting]) -> None:
    """Lay the leaves below *node* into *into*; an empty section is no leaf."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            _flatten(document, value, f"{prefix}.{name.value}" if prefix else str(name.value), into)
    elif not prefix:
        found = document.construct(node)
        raise ConfigError(f"{document.where(node)}: expected a mapping of sections, found {found!r}")
    elif prefix in into:
        raise ConfigError(f"{document.where(node)}: {prefix} is given twice")
    else:
        value = document.entries(node) if isinstance(node, yaml.SequenceNode) else document.construct(node)
        into[prefix] = Setting(value, document.where(node))
