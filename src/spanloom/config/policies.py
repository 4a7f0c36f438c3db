"""Sampling policies out of a file of their own, or out of the configuration: what the parser refuses gets its line."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from spanloom.config.documents import Document, Entry, pairs_of
from spanloom.config.sections import RawPolicy
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import ConfigError, PolicyRefused

KEY = "policies"
IMPORT_HINT = "`spanloom sampling import` makes a file of policies of a Collector's configuration"


def read_policies(file: Path, environ: Mapping[str, str]) -> tuple[RawPolicy, ...]:
    """The policies of a file that is a list of them, or a mapping whose one key, `policies`, has the list.

    They are checked. Raises ConfigError: file, line, what was expected, what stood there.
    """
    document = Document(file, environ)
    node = document.root
    for name, value in pairs_of(document.root):
        if name.value != KEY:
            raise ConfigError(
                f"{document.where(name)}: expected {KEY} and nothing else, found the key {name.value!r}; {IMPORT_HINT}"
            )
        node = value
    if not isinstance(node, yaml.SequenceNode):
        where = document.where(node) if node else file
        raise ConfigError(f"{where}: expected a list of policies, or a mapping with {KEY}")
    return check_policies(document.entries(node), document.where(node))


def check_policies(entries: Sequence[Entry], where: str) -> tuple[RawPolicy, ...]:
    """Let the policies' own parser speak, and add the line that it cannot know. *where* the list stands."""
    try:
        parse_policies([entry.value for entry in entries], version=1)
    except PolicyRefused as refused:
        raise ConfigError(f"{refused} ({_place_of(entries, refused.path) or where})") from None
    bodies = (entry.value for entry in entries)
    return tuple(body for body in bodies if isinstance(body, dict))


def _place_of(entries: Sequence[Entry], path: tuple[str | int, ...]) -> str | None:
    if not path:
        return None
    index, *steps = path
    assert isinstance(index, int)
    return entries[index].place_of(tuple(steps))
