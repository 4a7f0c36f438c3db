"""How a cluster is reached, and what its topics are called; what all clients of this process share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

FETCHED_BYTES_MAX = 32 << 20  # of all partitions of a process together, about: each has its share
FETCHED_PARTITION_KIB_MIN = 512
FETCH_BYTES = 256 << 10  # of a partition at once, compressed; a larger batch of records comes alone


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """See config.KafkaConfig."""

    brokers: str
    group: str = "spanloom"
    session_ms: int = 6_000
    topics: Mapping[str, str] = field(default_factory=dict)  # the names of ours that differ
    reader: str = "auto"  # native, portable; auto: native where that can do
    client: Mapping[str, str] = field(default_factory=dict, repr=False)  # passed on as they are: security

    def topic(self, name: str) -> str:
        """What the topic that the design calls *name* is called here."""
        return self.topics.get(name, name)

    def connection(self) -> dict[str, str]:
        """What every client is given."""
        return {
            "bootstrap.servers": self.brokers,
            "client.id": "spanloom",
            "socket.keepalive.enable": "true",
            "reconnect.backoff.max.ms": "1000",  # the end of an outage is noticed this soon
            **self.client,
        }

    def consumer(self, partition_count: int) -> dict[str, str]:
        """What a consumer is given that fetches up to so many partitions."""
        share_kib = max(FETCHED_PARTITION_KIB_MIN, FETCHED_BYTES_MAX // 1024 // partition_count)
        return {
            **self.connection(),
            "group.id": self.group,
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
            "auto.offset.reset": "error",
            "allow.auto.create.topics": "false",
            "check.crcs": "true",
            "queued.max.messages.kbytes": str(share_kib),
            "queued.min.messages": "10000000",  # bytes are the bound: a count would be one of throughput
            "fetch.message.max.bytes": str(FETCH_BYTES),
            # A partition just taken over waits for the fetch that is on its way, twice: ledger and spans. When nothing
            # comes, each consumer asks this often; a broker of 100 idle partitions was seen to spend 6 % of a core more
            # than at 100 ms.
            "fetch.wait.max.ms": "20",
            "fetch.queue.backoff.ms": "10",  # a queue that was full is filled again this soon
            "fetch.error.backoff.ms": "100",
            "log_level": "0",
            **self.client,  # once more: the operator has the last word
        }
