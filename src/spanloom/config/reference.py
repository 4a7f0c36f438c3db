"""docs/configuration.md, generated from the sections: `./dev docs` writes it, a test holds it current."""

import inspect
from collections.abc import Iterable
from dataclasses import fields, is_dataclass

from spanloom.config.sections import Config, Described, settings
from spanloom.config.sources import ENVIRONMENT_PREFIX

_HEAD = f"""# Configuration

Generated from `src/spanloom/config/sections.py` by `./dev docs`; do not edit.

A setting is looked for in four places, the later ones win: its default, the YAML file given with `--config`, the
environment (`{ENVIRONMENT_PREFIX}HTTP__PORT=4318` sets `http.port`), the command line. In the file:

```yaml
http:
  port: ${{env:INTAKE_PORT:-4318}}   # the variable, or the default after `:-`
assembly:
  quiet_s: 6s
```

Times are written as `250ms`, `5s`, `2m`, `1h`, `7d` or as plain seconds, sizes as `16MiB`, `1GB` or as plain bytes. An
unknown key, a wrong type or a value out of range is refused at start with exit status 2. `spanloom check-config` only
checks; `spanloom explain-config` lists every value and where it came from.
"""


def reference() -> str:
    """The whole page, Markdown."""
    config = Config()
    known = list(settings(config))
    parts = [_HEAD]
    for outer in fields(config):
        section = getattr(config, outer.name)
        if is_dataclass(section):
            parts.append(f"## {outer.name}\n\n{inspect.getdoc(section)}\n")
            parts.append(_table(setting for setting in known if setting.key.startswith(f"{outer.name}.")))
    parts.append("## Outside any section\n")
    parts.append(_table(setting for setting in known if "." not in setting.key))
    return "\n".join(parts)


def _table(rows: Iterable[Described]) -> str:
    lines = ["| key | default | accepted | |", "|---|---|---|---|"]
    for key, value, option in rows:
        shown, accepts = option.kind.show(value), option.kind.accepts
        lines.append(f"| `{key}` | `{shown}` | {accepts} | {option.meaning} |")
    return "\n".join(lines) + "\n"
