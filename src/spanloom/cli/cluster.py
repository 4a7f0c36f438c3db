"""What an operator does to a cluster: make and check topics, look at dead letters and send them again, drain."""

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from spanloom.cli.commands import clustered, read_config

if TYPE_CHECKING:
    from spanloom.adapters.kafka.settings import KafkaSettings
    from spanloom.app.dead_letters import Letter

DRAIN_LOOK_S = 1.0
EXIT_DIFFERENT = 2
EXIT_UNFINISHED = 4


def _settings(args: argparse.Namespace) -> "KafkaSettings":
    from spanloom.app.cluster import kafka_settings

    return kafka_settings(clustered(read_config(args)).kafka, os.environ)


def topics_create(args: argparse.Namespace) -> int:
    """Make the topics that are not there, then say what differs in those that were."""
    from spanloom.adapters.kafka.topics import Topics, plan

    settings = _settings(args)
    topics = Topics(settings)
    replicas = args.replicas or min(3, len(topics.brokers()))
    wanted = plan(settings, spans_partitions=args.spans_partitions, replicas=replicas)
    made = topics.create(wanted, replicas=replicas)
    for one in wanted:
        state = "created" if one.name in made else "was there"
        print(f"{one.name:<24}{one.partitions:>5} partitions, {replicas} replicas: {state}")
    for line in topics.check([one for one in wanted if one.name not in made]):
        print(f"differs: {line}", file=sys.stderr)
    return 0


def topics_check(args: argparse.Namespace) -> int:
    """Say what differs; exit 2 if anything does."""
    from spanloom.adapters.kafka.topics import Topics, plan

    settings = _settings(args)
    topics = Topics(settings)
    replicas = args.replicas or min(3, len(topics.brokers()))
    wanted = plan(settings, spans_partitions=args.spans_partitions, replicas=replicas)
    different = list(topics.check(wanted))
    for line in different:
        print(line)
    if not different:
        print("the topics are as they should be")
    return EXIT_DIFFERENT if different else 0


def dead_letters_list(args: argparse.Namespace) -> int:
    """A line a letter."""
    import trio

    from spanloom.app.dead_letters import open_dead_letters

    async def show() -> int:
        count = 0
        with open_dead_letters(settings) as letters:
            async for letter in letters.read(from_start=args.all):
                print(_line(letter))
                count += 1
        return count

    settings = _settings(args)
    count = trio.run(show)
    print(f"{count} dead letters" + ("" if args.all else " not sent again yet"))
    return 0


def dead_letters_replay(args: argparse.Namespace) -> int:
    """Send the letters again that were not yet; a line each."""
    import trio

    from spanloom.app.dead_letters import open_dead_letters

    async def send() -> int:
        count = 0
        with open_dead_letters(settings) as letters:
            async for letter in letters.replay():
                print(_line(letter))
                count += 1
        return count

    settings = _settings(args)
    print(f"{trio.run(send)} dead letters sent again")
    return 0


def _line(letter: "Letter") -> str:
    when = datetime.fromtimestamp(letter.record.timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds")
    source = "/".join(letter.header(name) for name in ("source-topic", "source-partition", "source-offset"))
    key = (letter.record.key or b"").decode(errors="replace")
    place = f"{letter.partition}@{letter.record.offset}"
    return f"{place:<10}{when}  {source:<20}{key:<34}{len(letter.record.value):>9} B  {letter.header('reason')}"


def drain(args: argparse.Namespace) -> int:
    """Wait until the group has resolved every span there is; exit 4 if it has not in time."""
    from spanloom.app.draining import Drain

    watch = Drain(_settings(args))
    ends = time.monotonic() + args.timeout
    try:
        while undone := watch.undone():
            records = sum(one.records for one in undone)
            print(f"{records} records in {len(undone)} partitions are not done", flush=True)
            if time.monotonic() > ends:
                return EXIT_UNFINISHED
            time.sleep(DRAIN_LOOK_S)
    finally:
        watch.close()
    print("drained: every span is resolved and committed; the partition count may change now, ledger and spans alike")
    return 0
