"""Settings into one frozen Config: defaults < YAML file < environment < flags; anything not understood is refused."""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from spanloom.config.kinds import AUTO
from spanloom.config.policies import check_policies, read_policies
from spanloom.config.sections import Config, Described, settings
from spanloom.config.sources import Setting, from_environment, from_yaml
from spanloom.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Struct = TypeVar("Struct", bound="DataclassInstance")

COMMAND_LINE = "command line"
DEFAULT = "default"
_POLICIES = "sampling.policies"

# (lower, upper): each lower setting must not exceed its upper one.
_ORDERED = (
    ("assembly.quiet_s", "assembly.idle_s"),
    ("assembly.idle_s", "assembly.age_max_s"),
    ("assembly.age_max_s", "assembly.remember_s"),
    ("assembly.bytes_max", "assembly.undecided_bytes_max"),
)
_PORTS = ("http.port", "http.query_port", "http.zipkin_port", "grpc.port")


class Effective(NamedTuple):
    """One line of `spanloom explain-config`."""

    key: str
    value: str
    where: str  # "default", "spanloom.yaml:12", "environment SPANLOOM__HTTP__PORT", "command line"


def load(file: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> Config:
    """Read everything once. *overrides* are the flags' texts by dotted key, as `http.port`.

    Raises ConfigError: the key, what was expected, what was found and where it was written.
    """
    written = from_yaml(file, environ) if file is not None else {}
    written |= from_environment(environ)
    written |= {key: Setting(value, COMMAND_LINE) for key, value in overrides.items()}
    known = {described.key: described for described in settings(Config())}
    for key, setting in written.items():
        if key not in known and not (setting.value is None and _is_section(key, known)):
            raise ConfigError(_unknown(key, setting, known))
    if _POLICIES in written:
        written[_POLICIES] = _policies(written[_POLICIES], environ)
    values = {key: _read(known[key], setting) for key, setting in written.items() if key in known}
    config = _assemble(values, {key: written[key].where for key in values})
    _check_together(config)
    return config


def effective(config: Config) -> list[Effective]:
    """Every setting, its value as it could be written, and where it came from."""
    return [
        Effective(key, option.kind.show(value), config.origins.get(key, DEFAULT))
        for key, value, option in settings(config)
    ]


def _read(described: Described, setting: Setting) -> object:
    try:
        return described.option.kind.read(setting.value)
    except ValueError:
        shown = Setting("(hidden)", setting.where) if described.option.kind.secret else setting
        raise ConfigError(_refusal(described.key, described.option.kind.accepts, shown)) from None


def _refusal(key: str, expected: str, setting: Setting) -> str:
    return f"{key}: expected {expected}, found {_found(setting.value)} ({setting.where})"


def _found(value: object) -> str:
    if isinstance(value, tuple):
        return f"a list of {len(value)}" if value else "an empty list"
    return "nothing" if value is None else repr(value)


def _is_section(key: str, known: Iterable[str]) -> bool:
    return any(name.startswith(f"{key}.") for name in known)


def _unknown(key: str, setting: Setting, known: Mapping[str, Described]) -> str:
    if _is_section(key, known):
        inside = ", ".join(name.removeprefix(f"{key}.") for name in known if name.startswith(f"{key}."))
        return _refusal(key, f"a section with {inside}", setting)
    last = key.rpartition(".")[2]
    namesakes = [name for name in known if name.rpartition(".")[2] == last]
    near = namesakes or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else f"; the keys are {', '.join(known)}"
    return f"{key}: unknown key ({setting.where}){hint}"


def _policies(setting: Setting, environ: Mapping[str, str]) -> Setting:
    """The policies, out of their own file where a path was given. What is no list is for `_read` to refuse."""
    written = setting.value
    if isinstance(written, str) and written:
        return Setting(read_policies(Path(written), environ), setting.where)
    if isinstance(written, tuple) and written:
        return Setting(check_policies(written, setting.where), setting.where)
    return setting


def _assemble(values: Mapping[str, object], origins: Mapping[str, str]) -> Config:
    """The defaults with *values* put in their places."""
    config = Config(origins=dict(origins))
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section:
            config = _with(config, section, _with(getattr(config, section), name, value))
        else:
            config = _with(config, name, value)
    return config


def _with(struct: Struct, name: str, value: object) -> Struct:
    """A copy of *struct* with one field changed; its Kind has checked the value's type."""
    changed: Callable[..., Struct] = partial(replace, struct)
    return changed(**{name: value})


def _check_together(config: Config) -> None:
    """What no single value shows: limits in their order, ports apart."""
    shown = {line.key: line for line in effective(config)}
    values = {described.key: described.value for described in settings(config)}
    for lower, upper in _ORDERED:
        low, high = values[lower], values[upper]
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        if low > high and high != AUTO:
            raise ConfigError(
                f"{upper}: expected at least {lower}, which is {shown[lower].value} ({shown[lower].where}), "
                f"found {shown[upper].value} ({shown[upper].where})"
            )
    taken: dict[object, str] = {}
    for key in _PORTS:
        other = taken.setdefault(values[key], key)
        if values[key] and other != key:
            where = shown[key].where
            raise ConfigError(f"{key}: expected another port than {other}, found {values[key]} ({where})")
