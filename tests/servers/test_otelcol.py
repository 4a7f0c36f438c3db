"""The collector that spanloom is held against does what the comparisons rely on."""

import json
import urllib.request
from pathlib import Path

from tests.integration.process import eventually
from tests.servers.otelcol import need_otelcol, running_otelcol
from tests.spans import Sp, trace_id, traces_data

CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:${env:HTTP_PORT}"}}}}
processors:
  tail_sampling:
    decision_wait: 100ms
    policies: [{name: err, type: status_code, status_code: {status_codes: [ERROR]}}]
exporters: {file: {path: "${env:KEPT}"}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: "${env:METRICS_PORT}"}}}}]}}
  pipelines: {traces: {receivers: [otlp], processors: [tail_sampling], exporters: [file]}}
"""
DECIDED = "otelcol_processor_tail_sampling_global_count_traces_sampled"


def test_it_counts_and_writes_what_its_policy_keeps(tmp_path: Path) -> None:
    """The collector keeps the trace with an error alone, counts it, and has written it once it has ended."""
    need_otelcol()
    kept = tmp_path / "kept.json"
    body = traces_data([Sp(1, 1), Sp(2, 1, error=True), Sp(3, 1)])
    with running_otelcol(CONFIG, KEPT=str(kept)) as otelcol:
        url = f"http://127.0.0.1:{otelcol.ports['HTTP_PORT']}/v1/traces"
        request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.status == 200
        eventually(lambda: otelcol.metric(DECIDED) == 3, within_s=30)
        assert otelcol.metric(DECIDED, sampled="true") == 1
        assert otelcol.metric("otelcol_receiver_accepted_spans") == 3
        assert otelcol.cpu_s() >= 0
        assert 0 < otelcol.rss_bytes() <= otelcol.peak_rss_bytes()
        pid = otelcol.pid
    (line,) = kept.read_text().splitlines()
    (resource,) = json.loads(line)["resourceSpans"]
    assert resource["scopeSpans"][0]["spans"][0]["traceId"] == trace_id(2).hex()
    assert not Path(f"/proc/{pid}").exists()
