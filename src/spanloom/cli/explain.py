"""What explains a verdict: of a trace that went through, and of one in a file that would."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spanloom.cli.commands import EXIT_ABSENT, read_config
from spanloom.errors import ConfigError

if TYPE_CHECKING:
    from spanloom.core.sampling.policies import PolicySet


def explain(args: argparse.Namespace) -> int:
    """Say what was decided of a trace, and why."""
    import urllib.parse

    from spanloom.cli.fetching import fetch_json

    near = f"?near={urllib.parse.quote(args.near, safe='')}" if args.near else ""
    url = f"{args.url.rstrip('/')}/v1/traces/{urllib.parse.quote(args.id, safe='')}/decision{near}"
    found = fetch_json(url, timeout_s=args.timeout)
    if found is None:
        return EXIT_ABSENT
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        lines = found["explanation"]
        print("\n".join(map(str, lines)) if isinstance(lines, list) else lines)
    return 0


def explain_trace(args: argparse.Namespace) -> int:
    """Judge the traces of a file under policies, and say how."""
    from spanloom.core.explain import explanation_json, explanation_lines, status_of
    from spanloom.core.trial import read_traces, try_traces
    from spanloom.errors import DecodeError

    policies = _policies(args)
    try:
        trials = list(try_traces(read_traces(_content(args.file)), policies))
    except DecodeError as fault:
        raise ConfigError(f"{args.file}: {fault}") from fault
    for number, trial in enumerate(trials):
        status, accounts = status_of([trial.account.decision]), [trial.account]
        if args.json:
            print(json.dumps(explanation_json(trial.trace_id, None, status, accounts)))
            continue
        if number:
            print()
        print("\n".join(explanation_lines(trial.trace_id, None, status, accounts)))
    return 0


def _policies(args: argparse.Namespace) -> "PolicySet":
    """Those of --policies, else the configuration's."""
    from spanloom.config import read_policies
    from spanloom.core.sampling.written import parse_policies

    if args.policies is not None:
        return parse_policies(read_policies(args.policies, os.environ), version=1)
    return parse_policies(read_config(args).sampling.policies, version=1)


def _content(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{file}: cannot be read: {exc.strerror}") from exc
