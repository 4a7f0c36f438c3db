"""Secrets, by the environment or by a file; neither is ever printed."""

from pathlib import Path

from spanloom.errors import ConfigError


def secret_of(key: str, value: str, file: str) -> str:
    """The setting *key*, which is *value*, or what *file* (the setting of that name with `_file`) holds; empty: none.

    Raises ConfigError: both are given, or the file cannot be read or is empty.
    """
    if not file:
        return value
    if value:
        raise ConfigError(f"{key}: expected this or {key}_file, found both")
    try:
        held = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}_file: {file}: cannot be read: {error}") from None
    if not held:
        raise ConfigError(f"{key}_file: expected a secret, found {file} empty")
    return held
