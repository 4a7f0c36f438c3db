"""A door to hand spans to, for tests."""

from dataclasses import dataclass, field

from spanloom.core.codec.transcode import OTLP_PROTO, transcode
from spanloom.core.kernel import split_by_trace
from spanloom.errors import SpanloomError


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request's spans."""

    accepted: int
    rejected: int
    reason: str


@dataclass
class FakeDoor:
    """Keeps what it is given, split as the real one splits; or raises what it is told to."""

    failure: SpanloomError | None = None
    requests: list[bytes] = field(default_factory=list)

    async def accept(self, body: bytes, *, size_bytes: int, encoding: str = OTLP_PROTO) -> Taken:
        assert size_bytes == len(body)
        if self.failure:
            raise self.failure
        transcoded = transcode(encoding, body)
        split = split_by_trace(transcoded.traces_data)
        self.requests.append(b"".join(part for _, part in split.parts))
        rejected = split.rejected + transcoded.rejected
        return Taken(split.span_count, rejected, transcoded.reason or split.reason)
