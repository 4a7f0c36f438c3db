"""Requests to Elasticsearch from a trio task: bytes out, status and bytes back.

The official client balances over the nodes and keeps the connections; it knows no trio, so each request is a thread's.
Version 8 of it asks for version 8's answers, which servers of version 9 give too. What it raises is translated here and
nowhere else: the server is away (StoreUnavailable), or the settings are wrong (ConfigError).
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import trio
from elasticsearch import ApiError, Elasticsearch, TransportError
from elasticsearch.serializer import Serializer

from spanloom.errors import ConfigError, StoreUnavailable

READS_IN_FLIGHT = 8  # threads; a node answers hundreds of reads a second with that many
JSON = "application/json"
LINES = "application/x-ndjson"
_REASON_CHARS_MAX = 300  # of what a server says: enough to act on, not its stack trace

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ElasticsearchOptions:
    """Where Elasticsearch is and how spanloom uses it."""

    urls: tuple[str, ...]
    api_key: str = ""  # id and key, base64, as Elasticsearch gives it; empty: none is sent
    ca_file: Path | None = None  # None: the certificates the system trusts
    prefix: str = "spanloom-traces-"  # of the indices' names; the day follows
    shards: int = 1  # a day of kept traces fits one: Elastic advises 10 to 50 GB a shard
    replicas: int = 1
    retention_s: float = 7 * 86400.0  # for the servers' own lifecycle management, where there is one
    write_timeout_s: float = 30.0
    read_timeout_s: float = 10.0
    bulks_in_flight: int = 4  # of one process; more would only wait in the servers' queues


class Answer(NamedTuple):
    """What a server said."""

    status: int
    body: bytes

    @property
    def reason(self) -> str:
        """Why it is not a success, in the server's words."""
        return f"{self.status} {self.body[:_REASON_CHARS_MAX].decode(errors='replace')}"


class ElasticsearchClient:
    """Requests to one cluster."""

    def __init__(self, options: ElasticsearchOptions) -> None:
        """Connects nowhere yet. Raises ConfigError: a URL or the CA file is wrong."""
        # The client tells of every failed try, with its stack, in its own words; the store tells of outages in ours.
        logging.getLogger("elastic_transport").setLevel(logging.CRITICAL)
        shown = ", ".join(options.urls)
        try:
            client = partial(
                Elasticsearch,
                list(options.urls),
                api_key=options.api_key or None,
                connections_per_node=options.bulks_in_flight + READS_IN_FLIGHT,
                serializers={kind: _AsItIs(kind) for kind in (JSON, LINES, _versioned(JSON), _versioned(LINES))},
                max_retries=0,  # a write's retries are ours: only what failed is sent again
            )
            trusting = client() if options.ca_file is None else client(ca_certs=_certificates(options.ca_file))
            self._client = trusting.options(ignore_status=range(300, 600))
            # Made once: `options` makes all of the client's namespaces anew, 0.14 ms of CPU a request.
            self._writing = self._client.options(request_timeout=options.write_timeout_s)
            self._reading = self._client.options(request_timeout=options.read_timeout_s, max_retries=2)
        except (ValueError, OSError) as error:
            raise ConfigError(
                f"elasticsearch: expected URLs with scheme, host and port, found {shown}: {error}"
            ) from None
        self._writers = trio.CapacityLimiter(options.bulks_in_flight)
        self._readers = trio.CapacityLimiter(READS_IN_FLIGHT)

    async def write(self, method: str, target: str, body: bytes = b"", *, content: str = JSON) -> Answer:
        """One try. Raises StoreUnavailable: no answer came, the request may have been carried out."""
        return await _in_thread(partial(_request, self._writing, method, target, _Body(body, content)), self._writers)

    async def read(self, method: str, target: str, body: bytes = b"") -> Answer:
        """Try on up to three nodes. Raises StoreUnavailable: no answer came."""
        return await _in_thread(partial(_request, self._reading, method, target, _Body(body, JSON)), self._readers)

    def close(self) -> None:
        """Close every connection that is idle."""
        self._client.close()


class _AsItIs(Serializer):
    """Bodies are bytes on both sides: what they mean is decoded into typed structs elsewhere, once."""

    def __init__(self, mimetype: str) -> None:
        self.mimetype = mimetype  # type: ignore[misc] # a class variable there, and read from the instance

    def loads(self, data: bytes) -> bytes:
        return data

    def dumps(self, data: bytes) -> bytes:
        return data


class _Body(NamedTuple):
    content: bytes
    kind: str


def _versioned(mimetype: str) -> str:
    """The name under which servers answer version 8's clients."""
    return mimetype.replace("application/", "application/vnd.elasticsearch+")


def _certificates(file: Path) -> str:
    if not file.is_file():
        raise ConfigError(f"elasticsearch.ca_file: expected a file of certificates, found {file}")
    return str(file)


async def _in_thread(request: partial[Answer], limiter: trio.CapacityLimiter) -> Answer:
    """A cancelled request is left to its thread, which ends at the time-out; until then it counts in the limit."""
    return await trio.to_thread.run_sync(request, limiter=limiter, abandon_on_cancel=True)


def _request(client: Elasticsearch, method: str, target: str, body: _Body) -> Answer:
    headers = {"accept": JSON} | ({"content-type": body.kind} if body.content else {})
    try:
        answer = client.perform_request(method, target, headers=headers, body=body.content or None)
    except TransportError as error:  # refused, reset, timed out, TLS, an answer that is not JSON
        raise StoreUnavailable(f"Elasticsearch gave no answer: {error}") from error
    except ApiError as error:  # whatever its status: not the answer of an Elasticsearch
        raise StoreUnavailable(f"what answers is not Elasticsearch: {error}") from error
    content = answer.body
    return Answer(answer.meta.status, content if isinstance(content, bytes) else str(content).encode())


def decoded(answer: Answer, decoder: msgspec.json.Decoder[Found]) -> Found:
    """What a successful answer says. Raises StoreUnavailable: it is no success, or cannot be read."""
    if answer.status != 200:
        raise StoreUnavailable(f"Elasticsearch answered {answer.reason}")
    try:
        return decoder.decode(answer.body)
    except msgspec.DecodeError as error:
        raise StoreUnavailable(f"Elasticsearch answered what cannot be read: {error}") from error
