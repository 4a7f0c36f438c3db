"""One rig for each implementation: every test of this folder runs on all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from spanloom.core import kernel
from tests.conformance.kafka_rig import KafkaRig
from tests.conformance.rigs import MemoryRig, Rig, SqliteRig
from tests.servers import need_servers
from tests.servers.kafka import running


@pytest.fixture(params=["memory", "sqlite", "kafka", "kafka, portable"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """The implementation under test."""
    rig: Rig
    match request.param:
        case "memory":
            rig = MemoryRig()
        case "sqlite":
            rig = SqliteRig(tmp_path / "data")
        case "kafka":
            need_servers()
            if kernel.fetch is None:
                pytest.skip("without native code the portable consumer reads")
            rig = KafkaRig(running(), reader="native")
        case _:
            need_servers()
            rig = KafkaRig(running(), reader="portable")
    yield rig
    rig.close()


@pytest.fixture
def own_disk(rig: Rig) -> None:
    """The test is for an implementation that manages its disk and its offsets itself."""
    if not rig.own_disk:
        pytest.skip("a server manages them")


@pytest.fixture
def durable_rig(rig: Rig) -> Rig:
    """The implementation under test, where it outlives its process."""
    if not rig.durable:
        pytest.skip("promises nothing across a restart")
    return rig
