"""Hostile input on every door of a real node: an answer to each, and the service goes on.

What single bytes do to a server's insides is tested in tests/adapters; here the doors are tried as a stranger would.
"""

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import grpc
import pytest
import zstandard
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanloom.collector.otlp_grpc import EXPORT
from tests.integration.process import QUICK, Process, running
from tests.spans import Sp, traces_data

MIB = 1 << 20
PROTOBUF, JSON = "application/x-protobuf", "application/json"
SETTINGS = {
    **QUICK,
    "http.body_bytes_max": "4MiB",
    "grpc.message_bytes_max": "4MiB",
    "intake.waiting_bytes_max": "16MiB",
    "drain_s": "2s",
}
GOOD = traces_data([Sp(1, 1), Sp(1, 2, parent=1, error=True)])
GOOD_JSON = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%s","spanId":"%s","name":"op"}]}]}]}' % (
    b"0a" * 16,
    b"0b" * 8,
)
GOOD_SEED = json.dumps(
    {"trace_id": "a", "span_id": "1", "service_name": "s", "operation_name": "o", "start_time": 1, "duration": 1}
).encode()
GOOD_ZIPKIN = b'[{"traceId":"a","id":"b","name":"op","timestamp":1,"duration":1,"tags":{"a":"b"}}]'
FUZZED = 150  # bodies a door


class Doors:
    """Every way into one node; each answers (code, text), HTTP's or gRPC's."""

    def __init__(self, node: Process) -> None:
        self.node = node
        self.channel = grpc.insecure_channel(node.grpc)
        self.all: dict[str, tuple[Callable[[bytes], int], bytes]] = {
            "otlp grpc": (self.by_grpc, GOOD),
            "otlp http": (lambda body: self.by_http("/v1/traces", body, PROTOBUF), GOOD),
            "otlp json": (lambda body: self.by_http("/v1/traces", body, JSON), GOOD_JSON),
            "seed": (lambda body: self.by_http("/v1/spans", body, JSON), GOOD_SEED),
            "zipkin": (self.by_zipkin, GOOD_ZIPKIN),
        }

    def by_grpc(self, body: bytes, compression: grpc.Compression = grpc.Compression.NoCompression) -> int:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(EXPORT)
        try:
            method(body, timeout=30, compression=compression)
        except grpc.RpcError as error:
            code: int = error.code().value[0]  # what a channel raises is a Call too
            return code
        return 0

    def by_http(self, path: str, body: bytes, content_type: str, **headers: str) -> int:
        return self.node.post(path, body, content_type, **headers)[0]

    def by_zipkin(self, body: bytes, **headers: str) -> int:
        intake, self.node.intake = self.node.intake, self.node.zipkin
        try:
            return self.by_http("/api/v2/spans", body, JSON, **headers)
        finally:
            self.node.intake = intake

    def assert_in_service(self) -> None:
        """Each door takes a good request, and nothing has crashed."""
        for name, (door, good) in self.all.items():
            assert door(good) in (0, 200, 202), name
        lines = self.node.get("/metrics")[1].decode().splitlines()
        crashes = {line.rsplit(" ", 1)[1] for line in lines if "crash" in line and not line.startswith("#")}
        assert crashes == {"0"}

    def memory_bytes(self) -> int:
        """The node's resident memory at its highest."""
        status = Path(f"/proc/{self.node.popen.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) * 1024


def many_attributes(count: int) -> bytes:
    data = TracesData.FromString(GOOD)
    for number in range(count):
        data.resource_spans[0].scope_spans[0].spans[0].attributes.add(key=str(number)).value.int_value = number
    return data.SerializeToString()


def nested_attribute(depth: int) -> bytes:
    """A span with a list in a list in a list..., built from the inside, as no library would let us."""
    value = b"\x0a\x01x"
    for _ in range(depth):
        value = nested(0x2A, nested(0x0A, value))
    attribute = nested(0x4A, b"\x0a\x01k" + nested(0x12, value))
    span = nested(0x0A, b"\x07" * 16) + nested(0x12, b"\x07" * 8) + attribute
    return nested(0x0A, nested(0x12, nested(0x12, span)))


def nested(tag: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while size >= 0x80:
        size, length = size >> 7, length + bytes((size & 0x7F | 0x80,))
    return bytes((tag,)) + length + bytes((size,)) + body


def fuzzed(good: bytes, random: Random) -> bytes:
    """*good* with a few bytes changed, lost, repeated or inserted."""
    out = bytearray(good)
    for _ in range(random.randrange(1, 5)):
        at = random.randrange(len(out) + 1)
        match random.randrange(4):
            case 0:
                out[at:] = out[at + random.randrange(1, 20) :]
            case 1:
                out[at:at] = random.randbytes(random.randrange(1, 9))
            case 2:
                out[at:at] = out[at : at + random.randrange(1, 40)]
            case _ if at < len(out):
                out[at] = random.randrange(256)
    return bytes(out)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """One node for the whole module: what one test leaves behind, the next one meets."""
    with running(tmp_path_factory.mktemp("hostile") / "data", SETTINGS) as node:
        found = Doors(node)
        yield found
        found.channel.close()


REFUSALS = {400, 413, 415, 3, 8}  # HTTP's; INVALID_ARGUMENT, RESOURCE_EXHAUSTED


@pytest.mark.parametrize("door", ["otlp grpc", "otlp http", "otlp json", "seed", "zipkin"])
def test_a_fuzzed_corpus_is_taken_or_refused(doors: Doors, door: str) -> None:
    """Good bodies with bytes changed, lost, repeated or inserted: each is answered, none crashes anything."""
    send, good = doors.all[door]
    random = Random(door)
    answers = {send(fuzzed(good, random)) for _ in range(FUZZED)}
    assert answers <= {0, 200, 202, 400, 3}
    assert answers & REFUSALS
    doors.assert_in_service()


@pytest.mark.parametrize("door", ["otlp grpc", "otlp http", "otlp json", "seed", "zipkin"])
def test_a_body_over_the_limit_is_refused(doors: Doors, door: str) -> None:
    """One byte more than is allowed is not read, on any door."""
    assert doors.all[door][0](b" " * (4 * MIB + 1)) in (413, 8)
    doors.assert_in_service()


def test_a_bomb_is_put_out(doors: Doors) -> None:
    """A small body that becomes a quarter of a gigabyte is refused by every encoding's decoder, in little memory."""
    before = doors.memory_bytes()
    zeros = bytes(MIB)
    gzipper, deflater, zstd = zlib.compressobj(9, wbits=31), zlib.compressobj(9, wbits=15), zstandard.ZstdCompressor()
    with_zstd = zstd.compressobj()
    bombs = {
        "gzip": b"".join([*(gzipper.compress(zeros) for _ in range(256)), gzipper.flush()]),
        "deflate": b"".join([*(deflater.compress(zeros) for _ in range(256)), deflater.flush()]),
        "zstd": b"".join([*(with_zstd.compress(zeros) for _ in range(256)), with_zstd.flush()]),
    }
    for encoding, bomb in bombs.items():
        assert len(bomb) < MIB
        headers = {"Content-Encoding": encoding}
        assert doors.by_http("/v1/traces", bomb, PROTOBUF, **headers) == 413
        assert doors.by_zipkin(bomb, **headers) == 413
    assert doors.by_grpc(bombs["gzip"]) == 3  # as a sender whose library compresses by itself
    assert doors.by_grpc(bombs["deflate"]) == 3
    assert doors.by_grpc(bytes(200 * MIB), grpc.Compression.Gzip) == 3
    assert doors.memory_bytes() - before < 100 * MIB
    doors.assert_in_service()


def test_a_hundred_thousand_attributes_are_just_bytes(doors: Doors) -> None:
    """A span is bounded by its request's size, not by what it holds; its trace can be read back."""
    body = many_attributes(100_000)
    assert doors.by_grpc(body) == 0
    assert doors.by_http("/v1/traces", body, PROTOBUF) == 200
    doors.node.settled(2)
    assert doors.node.get(f"/v1/traces/{Sp(1, 1).trace_id.hex()}")[0] == 200
    doors.assert_in_service()


def test_nesting_beyond_any_decoder_harms_nobody(doors: Doors) -> None:
    """Deep protobuf is carried as the bytes it is; deep JSON is refused."""
    deep = nested_attribute(5_000)
    assert doors.by_grpc(deep) == 0
    assert doors.by_http("/v1/traces", deep, PROTOBUF) == 200
    for door in ("otlp json", "seed", "zipkin"):
        assert doors.all[door][0](b"[" * 200_000) == 400
    assert doors.by_http("/v1/traces", b'{"resourceSpans":' * 100_000, JSON) == 400
    doors.node.settled(2)
    doors.assert_in_service()


def test_a_wrong_content_type_is_named(doors: Doors) -> None:
    """Each HTTP door says what it reads."""
    assert doors.by_http("/v1/traces", GOOD, "application/x-thrift") == 415
    assert doors.by_http("/v1/traces", gzip.compress(GOOD), PROTOBUF, **{"Content-Encoding": "br"}) == 415
    doors.assert_in_service()


def test_half_open_connections_do_not_keep_others_out(doors: Doors) -> None:
    """Hundreds of connections that say nothing, or half of something, on every port: the others are served."""
    ports = [doors.node.intake, doors.node.zipkin, f"http://{doors.node.grpc}"]
    halves = [b"", b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nContent-Le", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00"]
    with ExitStack() as held:
        for number in range(300):
            port = int(ports[number % 3].rpartition(":")[2])
            connection = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(halves[number // 3 % 3])
        doors.assert_in_service()
    doors.assert_in_service()
