"""HTTP/1.1 requests out of bytes, by llhttp: fed what arrives, it gives heads, bodies and ends, in order. No IO.

llhttp is strict where requests are smuggled (lengths twice, length beside chunks, bare line feeds, folded lines); what
it leaves open is refused here: no Host or two, transfer codings but `chunked`, versions but 1.0 and 1.1, tunnels. A
wish to upgrade is not heard, as RFC 9110 (section 7.8) lets a server do: clients that would rather speak HTTP/2 ask so
at their first request. Sources: RFC 9110, RFC 9112.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import httptools

PREFACE = b"PRI "  # what HTTP/2 begins with


class End(Enum):
    """A request is whole."""

    END = "end"


@dataclass(frozen=True, slots=True)
class Fault:
    """From here on the bytes mean nothing: answer this, close."""

    status: int
    reason: str


class Head(NamedTuple):
    """A request line and its headers; of a name that repeats the values are joined (RFC 9110, section 5.3)."""

    method: str
    target: str
    headers: dict[str, str]
    keeps_alive: bool  # another request may follow


Event = Head | bytes | End | Fault  # bytes: a piece of the body


class RequestReader:
    """One connection's requests."""

    def __init__(self, *, head_bytes_max: int) -> None:
        """*head_bytes_max* bounds a head, and everything else that is neither body nor its framing."""
        self._head_bytes_max = head_bytes_max
        self._events: deque[Event] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._begun = b""  # the connection's first bytes
        self._quiet_bytes = 0  # since a head, or a piece of a body, was last whole
        self._target: list[bytes] = []
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._in_head = True
        self._faulty = False
        self.is_idle = True  # between two requests: nothing of the next one is here

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if self._faulty:
            return
        if len(self._begun) < len(PREFACE):
            self._begun += data[: len(PREFACE)]
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as wish:
            self._go_on_without_upgrade(data[wish.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(error)
        if self._quiet_bytes > self._head_bytes_max and not self.is_idle:
            self._fault(431, f"more than {self._head_bytes_max} bytes of headers")

    @property
    def has_more(self) -> bool:
        """Something of a next request is here."""
        return bool(self._events) or not self.is_idle

    def next_event(self) -> Event | None:
        """The next thing that is whole; None until more is fed."""
        return self._events.popleft() if self._events else None

    def _refuse(self, error: Exception) -> None:
        if self._begun[: len(PREFACE)] == PREFACE:
            self._fault(505, "only HTTP/1.1 is spoken here; gRPC has a port of its own")
        else:
            self._fault(400, f"malformed request: {error}")

    def _fault(self, status: int, reason: str) -> None:
        if not self._faulty:
            self._faulty = True
            self._events.append(Fault(status, reason))

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the same head again, its wish left out: the body and what follows are HTTP still."""
        if self._faulty:
            return
        while self._events and not isinstance(self._events.pop(), Head):
            pass
        lines = [b"%s %s HTTP/1.1" % (self._parser.get_method(), b"".join(self._target))]
        lines += [b"%s: %s" % header for header in self._headers if header[0].lower() != b"upgrade"]
        self._parser = httptools.HttpRequestParser(self)
        self.feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    # What llhttp calls. Nothing is raised in here: it would come out as an error of another kind.

    def on_message_begin(self) -> None:
        self._target, self._headers, self._head_bytes = [], [], 0
        self._in_head, self.is_idle = True, False

    def on_url(self, url: bytes) -> None:
        self._target.append(url)
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # a trailer is left out
            self._headers.append((name, value or b""))
            self._head_bytes += len(name) + len(value or b"") + 4

    def on_headers_complete(self) -> None:
        self._in_head, self._quiet_bytes = False, 0
        if self._faulty:
            return
        version, method = self._parser.get_http_version(), self._parser.get_method().decode("latin-1")
        headers = _joined(self._headers)
        fault = _fault_of(method, version, headers, self._headers)
        if self._head_bytes > self._head_bytes_max:
            fault = Fault(431, f"more than {self._head_bytes_max} bytes of headers")
        if fault is not None:
            self._fault(fault.status, fault.reason)
            return
        target = b"".join(self._target).decode("latin-1")
        self._events.append(Head(method, target, headers, version == "1.1" and self._parser.should_keep_alive()))

    def on_body(self, piece: bytes) -> None:
        self._quiet_bytes = 0
        if not self._faulty:
            self._events.append(piece)

    def on_message_complete(self) -> None:
        self.is_idle, self._quiet_bytes = True, 0
        if not self._faulty:
            self._events.append(End.END)


def _fault_of(
    method: str, version: str, headers: Mapping[str, str], written: Sequence[tuple[bytes, bytes]]
) -> Fault | None:
    """What llhttp lets pass and we do not."""
    if version not in ("1.0", "1.1"):
        return Fault(400 if version == "0.9" else 505, "only HTTP/1.1 is spoken here")
    if method == "CONNECT":
        return Fault(501, "no tunnels lead through here")
    if headers.get("transfer-encoding", "chunked").lower() != "chunked":
        return Fault(501, "only the transfer coding `chunked` is read here")
    hosts = sum(name.lower() == b"host" for name, _ in written)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return Fault(400, f"malformed request: expected one Host header, found {hosts}")
    return None


def _joined(written: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for raw_name, raw_value in written:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
