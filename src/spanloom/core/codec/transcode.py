"""Any encoding that reaches us as bytes alone, a Kafka record's value say, as OTLP: one table.

The encodings' names are the OpenTelemetry Collector's for its Kafka receiver, `seed_json` beside them.
"""

from collections.abc import Callable, Mapping

from spanloom.core.codec.jaeger import traces_data_from_jaeger_json, traces_data_from_jaeger_proto
from spanloom.core.codec.otlp_json import traces_data_from_json
from spanloom.core.codec.seed_json import traces_data_from_seed
from spanloom.core.codec.transcoded import Transcoded
from spanloom.core.codec.zipkin_json import traces_data_from_zipkin
from spanloom.errors import DecodeError

_ENCODINGS: Mapping[str, Callable[[bytes], Transcoded]] = {
    "otlp_proto": Transcoded,
    "otlp_json": lambda value: Transcoded(traces_data_from_json(value)),
    "jaeger_proto": lambda value: Transcoded(traces_data_from_jaeger_proto(value)),
    "jaeger_json": lambda value: Transcoded(traces_data_from_jaeger_json(value)),
    "zipkin_json": traces_data_from_zipkin,
    "seed_json": traces_data_from_seed,
}

ENCODINGS = tuple(_ENCODINGS)
OTLP_PROTO = "otlp_proto"  # what needs no transcoding


def transcode(encoding: str, value: bytes) -> Transcoded:
    """*value*, in an encoding of ENCODINGS, as OTLP; OTLP protobuf passes unread, for the splitter to judge.

    Raises DecodeError where no span of it can be read. Where some can, the others are counted: their record's bytes
    belong into the dead letters, its spans into the log.
    """
    if encoding not in _ENCODINGS:
        raise DecodeError("encoding", f"one of {', '.join(ENCODINGS)}", encoding[:80])
    return _ENCODINGS[encoding](value)
