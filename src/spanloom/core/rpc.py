"""What a gRPC caller is answered with: one table from our errors to its codes, and the bytes of the details. No IO.

Every code that asks the sender to come back carries RetryInfo: without it the OTLP specification lets exporters drop
what they got RESOURCE_EXHAUSTED for. Sources: google/rpc/code.proto, google/rpc/error_details.proto; OTLP
specification 1.x, "OTLP/gRPC Response".
"""

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import NamedTuple

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from spanloom.core.http_routes import RETRY_AFTER_S
from spanloom.errors import DecodeError, Overloaded, SpanloomError, Unavailable


class RpcCode(IntEnum):
    """The codes of google.rpc.Code that we answer with."""

    OK = 0
    INVALID_ARGUMENT = 3  # never send this again
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class RpcStatus(NamedTuple):
    """How a call ended; `retry_after_s` is 0 where the sender is not asked to come back."""

    code: RpcCode
    message: str = ""
    retry_after_s: int = 0


class RpcAnswer(NamedTuple):
    """A call's response, or why there is none."""

    body: bytes = b""
    status: RpcStatus = RpcStatus(RpcCode.OK)


RpcMethod = Callable[[bytes], Awaitable[RpcAnswer]]  # takes the request message, decompressed and not decoded


def come_back(message: str, code: RpcCode = RpcCode.UNAVAILABLE) -> RpcStatus:
    """The sender is asked to send the same again, soon."""
    return RpcStatus(code, message, RETRY_AFTER_S)


def rpc_status(error: SpanloomError) -> RpcStatus:
    """The status *error* is answered with. One nobody foresaw is raised again."""
    match error:
        case DecodeError():
            return RpcStatus(RpcCode.INVALID_ARGUMENT, str(error))
        case Overloaded():
            return come_back(str(error), RpcCode.RESOURCE_EXHAUSTED)
        case Unavailable():
            return come_back(str(error))
    raise error


def retry_info(status: RpcStatus) -> bytes:
    """google.rpc.RetryInfo, as the trailer `google.rpc.retryinfo-bin` carries it."""
    details: bytes = RetryInfo(retry_delay=Duration(seconds=status.retry_after_s)).SerializeToString()
    return details


def status_details(status: RpcStatus) -> bytes:
    """google.rpc.Status with RetryInfo where it is due, as `grpc-status-details-bin` and OTLP/HTTP bodies carry it."""
    message = Status(code=status.code, message=status.message)
    if status.retry_after_s:
        packed = AnyMessage(type_url="type.googleapis.com/google.rpc.RetryInfo", value=retry_info(status))
        message.details.append(packed)
    details: bytes = message.SerializeToString()
    return details
