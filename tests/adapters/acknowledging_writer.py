"""Writes to every role of a data folder for ever and prints what was acknowledged: to be killed by test_sqlite_kill."""

import sys
from pathlib import Path

import trio

from spanloom.adapters.sqlite import DataFolder, SqliteLedger, SqliteLog, SqliteStore
from spanloom.model import Committed, Document, Message


async def append(log: SqliteLog, writer: int, first: int) -> None:
    """Append numbered records, a few at a time, to two partitions; print the last number when they are in."""
    number = first
    while True:
        batch = [((number + place) % 2, Message(b"%d" % writer, b"%d" % (number + place))) for place in range(10)]
        await log.append(batch)
        number += 10
        print("log", writer, number - 1, flush=True)


async def decide(log: SqliteLog, ledger: SqliteLedger, store: SqliteStore, first: int) -> None:
    """Ledger, store, commit, in that order; print the number when each is in."""
    number = first
    while True:
        await ledger.append(3, [b"%d" % number])
        print("ledger", 0, number, flush=True)
        text = f"{number}"
        await store.write([Document(text, text, "2026.01.02", "", "", (), (), number, 0, 0, 0, 0, {}, {}, bytes(500))])
        print("store", 0, number, flush=True)
        await log.commit(3, Committed(number, b"%d" % number))
        print("commit", 0, number, flush=True)
        number += 1


async def main(path: Path, first: int) -> None:
    """Run until killed."""
    folder = DataFolder.open(path, partition_count=4)
    ledger = SqliteLedger(folder)
    log = SqliteLog(folder, ledger)
    async with trio.open_nursery() as nursery:
        for writer in range(4):
            nursery.start_soon(append, log, writer, first)
        nursery.start_soon(decide, log, ledger, SqliteStore(folder), first)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
