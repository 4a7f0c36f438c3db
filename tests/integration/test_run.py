"""`spanloom run` as a process: what goes in through its ports is assembled, kept or dropped, and accounted for."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.process import QUICK, Process, command, eventually, running
from tests.oracle import Limits, expect, total
from tests.oracle_checks import check_ledger, check_loadgen_record, check_store
from tests.spans import Sp, traces_data

PARTITIONS = 4
POLICIES: list[dict[str, object]] = [
    {"name": "errors", "type": "error"},
    {
        "name": "p95",
        "type": "latency_percentile",
        "latency_percentile": {"percentile": 95, "min_count": 100, "window_s": 600},
    },
    {"name": "baseline", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 1}},
]
NS = 1_000_000_000
ORACLE_LIMITS = Limits(quiet_ns=NS // 2, idle_ns=NS, age_max_ns=10 * NS)
KEEP_ALL = """
sampling:
  policies:
    - {name: all, type: consistent_probability, consistent_probability: {sampling_percentage: 100}}
"""


@pytest.fixture
def keep_all(tmp_path: Path) -> str:
    """The flag of a configuration that keeps every trace."""
    file = tmp_path / "keep-all.yaml"
    file.write_text(KEEP_ALL)
    return f"--config={file}"


def loadgen(node: Process, record: Path, *flags: str) -> None:
    line = [sys.executable, "-m", "spanloom", "loadgen", f"--url={node.intake}/v1/traces", f"--record={record}", *flags]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, timeout=600)


def assert_agrees(folder: Path, record: Path) -> dict[str, int]:
    """The folder holds what the oracle computes from its log; loadgen's record proves that nothing is lost or twice."""
    expected = expect(folder, POLICIES, partition_count=PARTITIONS, limits=ORACLE_LIMITS)
    assert check_ledger(folder, expected) == []
    assert check_store(folder, expected) == []
    assert check_loadgen_record(record, folder) == []
    return dict(total(expected))


def test_the_stored_set_is_what_an_independent_oracle_computes(tmp_path: Path) -> None:
    """Generated spans through a real node: ledger, store and balance sheet equal the oracle's, span for span."""
    folder, record = tmp_path / "data", tmp_path / "sent"
    with running(folder, QUICK) as node:
        loadgen(node, record, "--spans=20000")
        node.settled(20_000)
        metrics = {
            name: node.metric(f"spanloom_spans_{name}_total") for name in ("received", "stored", "duplicate", "dropped")
        }
        assert node.terminate() == 0
    tally = assert_agrees(folder, record)
    assert metrics["received"] == tally["received"]
    assert metrics["stored"] == tally["stored"] > 0
    assert metrics["duplicate"] == tally["duplicate"] > 0
    assert metrics["dropped"] == tally["not_sampled"] + tally.get("late", 0) > 0


def test_a_node_killed_and_started_again_agrees_with_the_oracle(tmp_path: Path) -> None:
    """A node killed in the middle of its work goes on where it was: same verdicts, nothing lost, nothing twice."""
    folder, record = tmp_path / "data", tmp_path / "sent"
    with running(folder, QUICK) as node:
        loadgen(node, record, "--spans=10000")
        node.popen.kill()
    with running(folder, QUICK) as node:
        node.settled(10_000)
        assert node.terminate() == 0
    assert_agrees(folder, record)


def test_a_span_sent_as_seed_json_is_found_by_the_id_it_was_sent_under(tmp_path: Path, keep_all: str) -> None:
    """The seed's own example, posted as it stands there, comes back under its id with its field names."""
    span = {
        "trace_id": "abc123",
        "span_id": "span001",
        "service_name": "order-service",
        "operation_name": "getOrder",
        "start_time": 1705312245000000,
        "duration": 350000000,
        "tags": {"customer": "7"},
    }
    with running(tmp_path / "data", QUICK, keep_all) as node:
        status, body = node.post("/v1/spans", json.dumps(span).encode(), "application/json")
        assert (status, json.loads(body)["accepted"]) == (200, 1)
        assert eventually(lambda: _standing(node, "abc123"), within_s=10) in ("pending", "kept")
        trace = eventually(lambda: _kept(node, "abc123"), within_s=10)
        assert trace["status"] == "kept"
        (found,) = _spans(trace)
        for name in ("service_name", "operation_name", "start_time", "duration", "tags"):
            assert found[name] == span[name]
        assert node.get("/v1/traces/abc124")[0] == 404
        assert node.get("/v1/traces/")[0] == 400


def _standing(node: Process, trace: str) -> str | None:
    """A trace's status; None until its first record has been read."""
    status, body = node.get(f"/v1/traces/{trace}")
    return str(json.loads(body)["status"]) if status == 200 else None


def _kept(node: Process, trace: str) -> dict[str, object] | None:
    status, body = node.get(f"/v1/traces/{trace}")
    found: dict[str, object] = json.loads(body)
    return found if status == 200 and "spans" in found else None


SDK_PROGRAM = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider(resource=Resource.create({"service.name": "checkout"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1])))
tracer = provider.get_tracer("program")
with tracer.start_as_current_span("order") as root:
    with tracer.start_as_current_span("charge") as child:
        child.set_attribute("amount", 12.5)
        try:
            with tracer.start_as_current_span("card"):
                raise ValueError("declined")
        except ValueError:
            pass
    print(format(root.get_span_context().trace_id, "032x"))
provider.shutdown()
"""


def test_a_stock_sdk_program_s_trace_comes_back_whole(tmp_path: Path) -> None:
    """A program with OpenTelemetry's own exporter sends a nested trace with an error; every span of it comes back."""
    with running(tmp_path / "data") as node:
        line = [sys.executable, "-c", SDK_PROGRAM, f"{node.intake}/v1/traces"]
        ran = subprocess.run(line, check=True, capture_output=True, text=True, timeout=60)
        trace = eventually(lambda: _kept(node, ran.stdout.strip()), within_s=15)
    spans = {str(span["operation_name"]): span for span in _spans(trace)}
    assert (trace["status"], sorted(spans)) == ("kept", ["card", "charge", "order"])
    assert spans["card"]["parent_span_id"] == spans["charge"]["span_id"]
    assert spans["charge"]["parent_span_id"] == spans["order"]["span_id"]
    assert (spans["card"]["error"], spans["order"]["error"]) == (True, False)
    assert spans["charge"]["tags"] == {"amount": 12.5}
    verdict = trace["verdict"]
    assert isinstance(verdict, dict)
    assert verdict["policy"] == "errors"


def _spans(trace: dict[str, object]) -> list[dict[str, object]]:
    spans = trace["spans"]
    assert isinstance(spans, list)
    return spans


def test_a_stopped_node_drains_and_the_next_start_takes_up_its_open_traces(tmp_path: Path, keep_all: str) -> None:
    """SIGTERM: what is decided is stored and committed, exit 0; an open trace is finished by the next start."""
    slow = {**QUICK, "assembly.quiet_s": "3s", "assembly.idle_s": "3s"}
    with running(tmp_path / "data", slow, keep_all) as node:
        node.post("/v1/traces", traces_data([Sp(1, 1), Sp(1, 2, parent=1)]), "application/x-protobuf")
        eventually(lambda: node.metric("spanloom_spans_pending") == 2, within_s=10)
        assert node.terminate() == 0
        drained = node.said("drained")
        assert drained is not None
        assert drained["whole"] is True
    with running(tmp_path / "data", slow, keep_all) as node:
        trace = eventually(lambda: _kept(node, Sp(1, 1).trace_id.hex()), within_s=15)
        assert len(_spans(trace)) == 2


def test_a_signal_at_the_moment_of_ready_ends_a_node_in_order(tmp_path: Path) -> None:
    """SIGTERM the instant that `ready` is said: it drains and exits 0."""
    with subprocess.Popen(command(tmp_path / "data"), stderr=subprocess.PIPE, text=True) as popen:
        assert popen.stderr is not None
        while '"ready"' not in popen.stderr.readline():
            assert popen.poll() is None
        popen.send_signal(signal.SIGTERM)
        said = popen.stderr.read()
    assert popen.returncode == 0
    assert '"drained"' in said


def refusal(line: list[str]) -> tuple[int, str]:
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stderr


def test_a_second_start_on_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder in use is refused in one line that names it and the process that holds it; exit 2."""
    with running(tmp_path / "data") as node:
        code, said = refusal(command(tmp_path / "data"))
        assert code == 2
        assert (
            said.strip()
            == f"spanloom: data folder {tmp_path / 'data'}: in use by the process with pid {node.popen.pid}"
        )


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    """A port that somebody has is refused in one line that names it; exit 2."""
    with running(tmp_path / "data") as node:
        port = node.intake.rpartition(":")[2]
        code, said = refusal([*command(tmp_path / "other"), f"--port={port}"])
        assert code == 2
        assert f"spanloom: cannot listen on 127.0.0.1:{port}" in said
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--set=assembly.quiet_s=soon"], "assembly.quiet_s"),
        (["--set=assembly.quite_s=5s"], "did you mean"),
        (["--config=/nowhere/spanloom.yaml"], "/nowhere/spanloom.yaml"),
        (["--data=/proc/spanloom"], "/proc/spanloom"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_a_wrong_start_is_refused_in_one_clear_line(flags: list[str], said: str, tmp_path: Path) -> None:
    """A wrong value, key, policy, file, folder or flag: exit 2, and the last line says which and what was expected."""
    code, printed = refusal([*command(tmp_path / "data"), *flags])
    assert code == 2
    assert said in printed.strip().splitlines()[-1]
    assert "Traceback" not in printed


def test_a_wrong_policy_is_refused_in_one_clear_line(tmp_path: Path) -> None:
    """A policy nobody knows: exit 2, and the line says which policy, what was expected and what stood there."""
    file = tmp_path / "spanloom.yaml"
    file.write_text(KEEP_ALL.replace("type: consistent_probability", "type: consistent"))
    code, printed = refusal([*command(tmp_path / "data"), f"--config={file}"])
    assert code == 2
    assert "policies[0].type: expected one of always_sample" in printed
    assert "found 'consistent'" in printed


WITHOUT_CLUSTER = """
import sys
for name in ("confluent_kafka", "elasticsearch", "redis"):
    sys.modules[name] = None
from spanloom.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_embedded_deployment_needs_no_client_of_a_server(tmp_path: Path) -> None:
    """Without the cluster's packages the demo runs; asked for Kafka, one line says what to install, exit 2."""
    line = [sys.executable, "-c", WITHOUT_CLUSTER]
    demo = [*line, "demo", "--exit", "--spans=300", "--rate=3000", *(f"--set={k}={v}" for k, v in QUICK.items())]
    ran = subprocess.run(demo, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert "balance closes" in ran.stdout
    code, said = refusal([*line, "run", "--set=kafka.brokers=127.0.0.1:1", f"--data={tmp_path}"])
    assert (code, "expected `pip install spanloom[cluster]`, found no confluent_kafka" in said) == (2, True)


def test_another_partition_count_is_refused(tmp_path: Path) -> None:
    """A folder keeps the partition count of its first start; another one is refused."""
    with running(tmp_path / "data") as node:
        assert node.terminate() == 0
    code, said = refusal([*command(tmp_path / "data"), "--partitions=5"])
    assert (code, "expected partition count 4" in said) == (2, True)
