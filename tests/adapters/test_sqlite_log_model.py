"""The SQLite log against the simplest log there is, through any sequence of operations and restarts."""

import random
from pathlib import Path

import pytest

from spanloom.adapters.sqlite import SqliteLedger, SqliteLog
from spanloom.errors import RecordsDeleted
from spanloom.model import Committed, Message, Record
from tests.adapters.test_data_folder import open_folder
from tests.conformance.rigs import Clock

PARTITIONS = 4


class Model:
    """One partition: what must be there."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.end = 0
        self.earliest = 0
        self.committed = Committed(0, b"")


@pytest.mark.parametrize("seed", range(12))
async def test_the_log_does_what_the_model_does(tmp_path: Path, seed: int) -> None:
    """After any appends, reservations, commits, trims and restarts each partition holds exactly the model's records."""
    chance = random.Random(seed)
    clock = Clock()
    models = [Model() for _ in range(PARTITIONS)]
    folder = open_folder(tmp_path)
    log = SqliteLog(folder, SqliteLedger(folder), batch_bytes=chance.choice([50, 1000, 1 << 20]), wall_ms=clock)

    for _ in range(120):
        match chance.choice(["append", "append", "append", "reserve", "commit", "trim", "read", "reopen"]):
            case "append":
                clock.now_ms += chance.randrange(-5, 30)
                batch = [
                    (chance.randrange(PARTITIONS), Message(None, chance.randbytes(chance.choice([0, 5, 300]))))
                    for _ in range(chance.randrange(12))
                ]
                await log.append(batch)
                for partition, message in batch:
                    model = models[partition]
                    model.records.append(Record(model.end, clock.now_ms, *message))
                    model.end += 1
            case "reserve":
                partition = chance.randrange(PARTITIONS)
                offset = models[partition].end + chance.randrange(-3, 5)
                await log.reserve(partition, offset)
                models[partition].end = max(models[partition].end, offset)
            case "commit":
                partition = chance.randrange(PARTITIONS)
                committed = Committed(chance.randrange(models[partition].end + 1), chance.randbytes(3))
                await log.commit(partition, committed)
                if committed.offset >= models[partition].committed.offset:
                    models[partition].committed = committed
            case "trim":
                older_than_ms = clock.now_ms - chance.randrange(100)
                await log.trim(older_than_ms=older_than_ms, below={})
                for partition, model in enumerate(models):
                    await follow_trim(log, partition, model, older_than_ms)
            case "read":
                await compare(log, models, chance)
            case "reopen":
                folder.close()
                folder = open_folder(tmp_path)
                log = SqliteLog(folder, SqliteLedger(folder), wall_ms=clock)

    await compare(log, models, chance)
    folder.close()


async def follow_trim(log: SqliteLog, partition: int, model: Model, older_than_ms: int) -> None:
    """Chunks are deleted whole: all that one append brought is of one age, so the model deletes the same prefix."""
    while model.records and model.records[0].timestamp_ms < older_than_ms:
        model.earliest = model.records.pop(0).offset + 1


async def compare(log: SqliteLog, models: list[Model], chance: random.Random) -> None:
    """Ends, commits, and the records from a random offset on."""
    for partition, model in enumerate(models):
        assert await log.end_offset(partition) == model.end
        assert await log.committed(partition) == model.committed
        if model.earliest:
            with pytest.raises(RecordsDeleted):
                await (await log.read(partition, chance.randrange(model.earliest))).receive()
        if model.records:
            offset = chance.randrange(model.earliest, model.records[-1].offset + 1)
            expected = [record for record in model.records if record.offset >= offset]
            reader = await log.read(partition, offset)
            found: list[Record] = []
            while len(found) < len(expected):
                found += await reader.receive()
            assert found == expected
