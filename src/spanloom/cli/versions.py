"""Versions of the sampling policies: write the next one, list them, go back to one. Running nodes follow."""

import argparse
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from spanloom.cli.commands import read_config
from spanloom.errors import ConfigError

if TYPE_CHECKING:
    from spanloom.interfaces import PolicyLog
    from spanloom.model import PolicyVersion

Result = TypeVar("Result")


def sampling_apply(args: argparse.Namespace) -> int:
    """Make a file of policies the next version."""
    from spanloom.config import read_policies
    from spanloom.core.sampling.written import parse_policies

    body = parse_policies(read_policies(args.file, os.environ), version=1).body
    return _write(args, lambda _: body, args.comment)


def sampling_rollback(args: argparse.Namespace) -> int:
    """Make an earlier version's policies the next version."""

    def earlier(versions: "list[PolicyVersion]") -> bytes:
        found = next((one.body for one in versions if one.version == args.version), None)
        if found is None:
            raise ConfigError(f"sampling rollback: expected a version of the history, found {args.version}")
        return found

    return _write(args, earlier, args.comment or f"rollback to version {args.version}")


def sampling_history(args: argparse.Namespace) -> int:
    """A line a version, the newest last."""
    from spanloom.core.sampling.versions import changes

    before = b"[]"
    for one in _ask(args, _read):
        written = datetime.fromtimestamp(one.written_unix_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        differs = changes(before, one.body) or "nothing changed"
        comment = f"  # {one.comment}" if one.comment else ""
        print(f"{one.version:>4}  {written}  {one.author}  {differs}{comment}")
        before = one.body
    return 0


async def _read(policy_log: "PolicyLog") -> "list[PolicyVersion]":
    return [*await policy_log.read()]


def _write(args: argparse.Namespace, body_of: "Callable[[list[PolicyVersion]], bytes]", comment: str) -> int:
    from spanloom.actors.policy_watch import write_version
    from spanloom.app.policies import this_author
    from spanloom.core.sampling.versions import changes

    async def write(policy_log: "PolicyLog") -> "tuple[int, str]":
        versions = [*await policy_log.read()]
        body = body_of(versions)
        if versions and versions[-1].body == body:
            return versions[-1].version, ""
        version = await write_version(policy_log, body, comment, author=this_author())
        return version, changes(versions[-1].body if versions else b"[]", body)

    version, differs = _ask(args, write)
    if not differs:
        print(f"version {version} has these policies already", file=sys.stderr)
        return 0
    print(f"version {version}: {differs}")
    return 0


def _ask(args: argparse.Namespace, ask: "Callable[[PolicyLog], Awaitable[Result]]") -> Result:
    import trio

    from spanloom.app.policy_log import open_policy_log

    with open_policy_log(read_config(args)) as policy_log:
        return trio.run(ask, policy_log)
