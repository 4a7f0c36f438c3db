"""The verdicts of a real OpenTelemetry Collector: one process, a pipeline for each policy file, one receiver for all.

Each record is one request, sent when the one before it is answered: so every pipeline sees the order that ours sees.
What a pipeline keeps is read back from its file exporter; the rest from its metrics.
"""

import http.client
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from spanloom.core import kernel
from tests.differential.corpus import T0_MS, Corpus
from tests.differential.verdicts import DECISION_WAIT_S, PolicyFile, Verdicts
from tests.integration.process import eventually
from tests.servers.otelcol import Otelcol, running_otelcol

_METRIC = "otelcol_processor_tail_sampling_"
_LENGTH = struct.Struct(">I")  # before each message of the file exporter
_PENDING_MAX_S = 120  # after the last record: it is behind where the machine is busy
_LAG_MAX_S = 2.0  # of a record behind its time, where time matters: meanwhile a bucket may be full


class TooBusyError(Exception):
    """The machine was so slow that what the Collector did shows nothing."""


def their_verdicts(corpus: Corpus, files: Sequence[PolicyFile], folder: Path, *, is_paced: bool) -> dict[str, Verdicts]:
    """By the files' names. *is_paced*: send each record at the time it is stamped with, so that a second is a second.

    Where the machine is too busy it is tried again, with more patience. Raises TooBusyError in the end.
    """
    for decision_wait_s in (DECISION_WAIT_S, 3 * DECISION_WAIT_S):
        try:
            return _verdicts(corpus, files, folder, is_paced=is_paced, decision_wait_s=decision_wait_s)
        except TooBusyError as exc:
            busy = exc
    raise busy


def _verdicts(
    corpus: Corpus, files: Sequence[PolicyFile], folder: Path, *, is_paced: bool, decision_wait_s: int
) -> dict[str, Verdicts]:
    config = _config(files, folder, trace_count=len(corpus.span_counts), decision_wait_s=decision_wait_s)
    with running_otelcol(yaml.safe_dump(config, allow_unicode=True)) as otelcol:
        _send(corpus, otelcol.ports["HTTP_PORT"], is_paced=is_paced)
        expected = len(files) * len(corpus.span_counts)
        eventually(lambda: _decided(otelcol) >= expected, within_s=_PENDING_MAX_S)
        votes = {file.name: _votes(otelcol, file) for file in files}
        undecided = expected - _decided(otelcol) + int(otelcol.metric(_METRIC + "sampling_trace_dropped_too_early"))
        errors = int(otelcol.metric(_METRIC + "sampling_policy_evaluation_error"))
        late = int(otelcol.metric(_METRIC + "sampling_late_span_age_count"))
        if late:
            raise TooBusyError(f"{late} batches came after their trace's verdict")
    # The two counters are the process's: charged to one pipeline where they are not 0.
    return {
        file.name: Verdicts(
            _kept(folder / file.name), votes[file.name], undecided=undecided * (n == 0), errors=errors * (n == 0)
        )
        for n, file in enumerate(files)
    }


def _config(files: Sequence[PolicyFile], folder: Path, *, trace_count: int, decision_wait_s: int) -> dict[str, object]:
    reader = {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": "${env:METRICS_PORT}"}}}}
    names = [file.name for file in files]
    return {
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": "127.0.0.1:${env:HTTP_PORT}"}}}},
        "processors": {
            f"tail_sampling/{file.name}": {
                "decision_wait": f"{decision_wait_s}s",
                "num_traces": trace_count + 1,
                "policies": file.policies,
            }
            for file in files
        },
        "exporters": {f"file/{name}": {"path": str(folder / name), "format": "proto"} for name in names},
        "service": {
            "telemetry": {"metrics": {"level": "detailed", "readers": [reader]}},
            "pipelines": {
                f"traces/{name}": {
                    "receivers": ["otlp"],
                    "processors": [f"tail_sampling/{name}"],
                    "exporters": [f"file/{name}"],
                }
                for name in names
            },
        },
    }


def _send(corpus: Corpus, port: int, *, is_paced: bool) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    started = time.monotonic()
    for record in corpus.records:
        if is_paced:
            _keep_pace(started + (record.timestamp_ms - T0_MS) / 1000)
        connection.request("POST", "/v1/traces", record.value, {"Content-Type": "application/x-protobuf"})
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == 200, f"record {record.offset}: {answer.status} {said!r}"
    connection.close()


def _keep_pace(due: float) -> None:
    ahead = due - time.monotonic()
    if ahead < -_LAG_MAX_S:
        raise TooBusyError(f"{-ahead:.1f} s behind the pace")
    if ahead > 0:
        time.sleep(ahead)


def _decided(otelcol: Otelcol) -> int:
    return int(otelcol.metric(_METRIC + "global_count_traces_sampled"))


def _votes(otelcol: Otelcol, file: PolicyFile) -> Counter[str]:
    """Of each policy: the traces that it would keep, or drops where it is one that drops."""
    votes: Counter[str] = Counter()
    for name in file.policy_names:
        for decision in ("sampled", "dropped"):
            labels = {"policy": f"{file.name}.{name}", "decision": decision}
            votes[name] += int(otelcol.metric(_METRIC + "count_traces_sampled", **labels))
    return votes


def _kept(path: Path) -> dict[bytes, int]:
    """Spans by trace. Reads the file, then removes it: there are gigabytes of them."""
    counts: Counter[bytes] = Counter()
    for message in _messages(path):
        counts.update(span.trace_id for span in kernel.scan(message))
    path.unlink()
    return dict(counts)


def _messages(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while head := file.read(_LENGTH.size):
            yield file.read(_LENGTH.unpack(head)[0])
