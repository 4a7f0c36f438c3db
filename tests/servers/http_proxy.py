"""An HTTP proxy between the store and Elasticsearch, which a test tells what goes wrong, request by request.

It can refuse some items of a bulk itself, as an overloaded node would, and let the server have the rest; answer in the
server's place; or cut the connection before or after the server has done its work. Runs in the test's own nursery.
"""

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import NamedTuple

import h11
import trio

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

JSON = "application/vnd.elasticsearch+json;compatible-with=8"


class Request(NamedTuple):
    """What the client asked."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_bulk(self) -> bool:
        """Whether it writes documents."""
        return self.target.startswith("/_bulk")

    @property
    def ids(self) -> list[str]:
        """Of a bulk's documents, in order."""
        return [json.loads(action)["create"]["_id"] for action in self.body.split(b"\n")[:-1:2]]


class Reply(NamedTuple):
    """What the client gets."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one request. The default: nothing."""

    reply: Reply | None = None  # instead of the server's
    items: Mapping[int, tuple[int, str]] = field(default_factory=dict)  # status and error of those it refuses itself
    cut: bool = False  # the connection ends without an answer
    unseen: bool = False  # the server does not get the request


Script = Callable[[Request], Fault]


def nothing_wrong(_: Request) -> Fault:
    """The faithful proxy."""
    return Fault()


class HttpProxy:
    """Carries requests to `127.0.0.1:target_port`; remembers them."""

    def __init__(self, target_port: int, script: Script = nothing_wrong, *, tls: ssl.SSLContext | None = None) -> None:
        """With *tls* it speaks TLS to its clients, and none to the server."""
        self.target_port = target_port
        self.script = script
        self.requests: list[Request] = []
        self.port = 0
        self._tls = tls

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def bulks(self) -> list[Request]:
        """The requests that wrote documents."""
        return [request for request in self.requests if request.is_bulk]

    async def run(self, *, task_status: trio.TaskStatus["HttpProxy"] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started(self)
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, plain: trio.SocketStream) -> None:
        stream: Stream = plain if self._tls is None else trio.SSLStream(plain, self._tls, server_side=True)
        connection = h11.Connection(h11.SERVER)
        try:
            while (request := await _receive(stream, connection)) is not None:
                self.requests.append(request)
                fault = self.script(request)
                reply = fault.reply
                if reply is None and not fault.unseen:
                    reply = await trio.to_thread.run_sync(self._forward, request, fault)
                if fault.cut or reply is None:
                    return
                await _send(stream, connection, reply)
        except (trio.BrokenResourceError, OSError, h11.RemoteProtocolError):  # the last: it died while it was asking
            pass
        finally:
            await trio.aclose_forcefully(stream)

    def _forward(self, request: Request, fault: Fault) -> Reply:
        if not fault.items:
            return self._ask(request)
        lines = request.body.split(b"\n")[:-1]
        pairs = [lines[start : start + 2] for start in range(0, len(lines), 2)]
        kept = [pair for place, pair in enumerate(pairs) if place not in fault.items]
        answered: list[object] = []
        if kept:
            body = b"".join(line + b"\n" for pair in kept for line in pair)
            reply = self._ask(request._replace(body=body))
            if reply.status != 200:
                return reply
            answered = json.loads(reply.body)["items"]
        rest = iter(answered)
        items = [_refusal(*fault.items[place]) if place in fault.items else next(rest) for place in range(len(pairs))]
        return Reply(200, json.dumps({"errors": True, "items": items}).encode())

    def _ask(self, request: Request) -> Reply:
        upstream = HTTPConnection("127.0.0.1", self.target_port, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name in ("content-type", "accept")}
            upstream.request(request.method, request.target, request.body or None, headers)
            answer = upstream.getresponse()
            return Reply(answer.status, answer.read())
        finally:
            upstream.close()


def _refusal(status: int, kind: str) -> dict[str, object]:
    return {"create": {"status": status, "error": {"type": kind, "reason": "the test says so"}}}


async def _receive(stream: Stream, connection: h11.Connection) -> Request | None:
    if connection.our_state is h11.DONE:
        connection.start_next_cycle()
    head: h11.Request | None = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            headers = {name.decode(): value.decode() for name, value in head.headers}
            return Request(head.method.decode(), head.target.decode(), headers, body)
        else:
            return None


async def _send(stream: Stream, connection: h11.Connection, reply: Reply) -> None:
    headers = [("x-elastic-product", "Elasticsearch"), ("content-type", JSON), ("content-length", str(len(reply.body)))]
    for event in (h11.Response(status_code=reply.status, headers=headers), h11.Data(reply.body), h11.EndOfMessage()):
        data = connection.send(event)
        if data:
            await stream.send_all(data)
