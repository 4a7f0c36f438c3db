"""A client's own properties, as Kafka's tools read them: `key=value` lines. Secrets lie here, and are never printed."""

import re
from collections.abc import Mapping
from pathlib import Path

from spanloom.config.documents import REFERENCE
from spanloom.errors import ConfigError

OURS = re.compile(  # what the promises hang on is not the operator's to change
    r"bootstrap\.servers|group\..*|client\.id|enable\..*|acks|auto\..*|partition.*|isolation\.level|session\..*|.*_cb"
)


def client_properties(file: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What the file says; nothing where no file is named. Raises ConfigError, naming file and line but no value."""
    if not file:
        return {}
    try:
        lines = Path(file).read_text().splitlines()
    except OSError as exc:
        raise ConfigError(f"kafka.client_file: {file}: cannot be read: {exc.strerror}") from exc
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not key:
            raise ConfigError(f"{file}:{number}: expected key=value")
        if OURS.fullmatch(key):
            raise ConfigError(f"{file}:{number}: {key} is spanloom's own to set")
        found[key] = REFERENCE.sub(lambda match: _lookup(match, environ, f"{file}:{number}"), value)  # noqa: B023
    return found


def _lookup(match: re.Match[str], environ: Mapping[str, str], where: str) -> str:
    value = environ.get(match[1], match[2])
    if value is None:
        raise ConfigError(f"{where}: expected {match[1]} in the environment, or a default in {match[0]}")
    return value
