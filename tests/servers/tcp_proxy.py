"""A TCP proxy between a client and a server, which goes wrong on demand. Runs in the test's own nursery."""

import ssl
from collections.abc import Callable
from enum import Enum, auto

import trio


class Mood(Enum):
    """How the proxy treats what it carries."""

    FAITHFUL = auto()
    STALLED = auto()  # takes everything, passes nothing on
    DEAF = auto()  # resets what connects and what is connected
    TRICKLING = auto()  # an answer a byte at a time, slowly
    LYING = auto()  # answers with `lie`, whatever is asked
    PICKY = auto()  # as FAITHFUL, but a connection that asked something of `unanswered` gets no answer any more


Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

TRICKLE_S = 0.015  # below a client's socket time-out, so that no single wait is too long


class TcpProxy:
    """Carries bytes to `127.0.0.1:target_port`. Set `mood` at any time; it holds for open connections too."""

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        """With *tls* it speaks TLS to its clients, and none to the server."""
        self._target_port = target_port
        self._tls = tls
        self.mood = Mood.FAITHFUL
        self.lie: Callable[[], bytes] = lambda: b""
        self.unanswered: Callable[[bytes], bool] = lambda asked: False
        self.port = 0

    async def run(self, port: int = 0, *, task_status: trio.TaskStatus["TcpProxy"] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started(self)
        await trio.serve_listeners(self._carry, listeners)

    async def _carry(self, plain: trio.SocketStream) -> None:
        client: Stream = plain if self._tls is None else trio.SSLStream(plain, self._tls, server_side=True)
        try:
            if self.mood is not Mood.DEAF:
                async with (
                    await trio.open_tcp_stream("127.0.0.1", self._target_port) as server,
                    trio.open_nursery() as nursery,
                ):
                    muted = trio.Event()
                    nursery.start_soon(self._pass_on, client, server, muted)
                    await self._answer(server, client, muted)
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        finally:
            await trio.aclose_forcefully(client)

    async def _pass_on(self, client: Stream, server: trio.SocketStream, muted: trio.Event) -> None:
        """From the client to the server."""
        async for data in client:
            match self.mood:
                case Mood.DEAF:
                    break
                case Mood.LYING:
                    await client.send_all(self.lie())
                case Mood.STALLED:
                    pass
                case _:
                    if self.mood is Mood.PICKY and self.unanswered(bytes(data)):
                        muted.set()
                    await server.send_all(data)
        await trio.aclose_forcefully(server)

    async def _answer(self, server: trio.SocketStream, client: Stream, muted: trio.Event) -> None:
        """From the server to the client."""
        async for data in server:
            match self.mood:
                case Mood.DEAF:
                    return
                case Mood.STALLED | Mood.LYING:
                    pass
                case Mood.TRICKLING:
                    for byte in data:
                        await client.send_all(bytes([byte]))
                        await trio.sleep(TRICKLE_S)
                case Mood.FAITHFUL | Mood.PICKY:
                    if not muted.is_set():
                        await client.send_all(data)
