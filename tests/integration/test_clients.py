"""Stock clients against a real node: what it acknowledged it has, through restarts and kills."""

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import pytest

from spanloom.collector.otlp_grpc import EXPORT
from tests.adapters.test_tls import Papers
from tests.integration.kills import CLIENTS, FOR_KILLS, Address, client, kill_again_and_again, missing
from tests.integration.process import command, eventually, running
from tests.spans import Sp, traces_data

KILLS = 5


def test_stock_exporters_lose_nothing_through_a_restart(tmp_path: Path) -> None:
    """gRPC and HTTP exporters, plain and gzip, try again while the node is away; all they sent is in the log."""
    folder, address = tmp_path / "data", Address()
    with ExitStack() as stack:
        with running(folder, FOR_KILLS, *address.flags()) as node:
            clients = [stack.enter_context(client(address, *each, spans=2000, spans_per_s=500)) for each in CLIENTS]
            eventually(lambda: all(each.acknowledged for each in clients), within_s=30)
            assert node.terminate() == 0
        with running(folder, FOR_KILLS, *address.flags()) as node:
            for each in clients:
                each.finish(within_s=90)
            assert node.terminate() == 0
    assert {each.name: len(set(each.acknowledged)) for each in clients} == {each.name: 2000 for each in clients}
    assert all(each.retries >= 1 for each in clients), {each.name: each.said for each in clients}
    assert missing(clients, folder) == []


def test_what_is_acknowledged_survives_kill_minus_nine(tmp_path: Path) -> None:
    """A node killed under load again and again has every span that any client was told it has, and none twice."""
    outcome = kill_again_and_again(tmp_path / "data", KILLS, alive_s=0.5)
    assert outcome.lost == []
    assert min(outcome.acknowledged.values()) > 0
    assert min(outcome.retries.values()) >= 1
    for door, counts in outcome.in_flight.items():
        assert min(counts) >= 1, f"no request was in flight at a kill, {door}: {counts}"


def test_a_locked_node_lets_in_who_has_certificate_and_token(tmp_path: Path) -> None:
    """With TLS, a client CA and a token file, spans come in over HTTPS and gRPC from who has both, from nobody else."""
    papers = Papers.issue(tmp_path)
    (tmp_path / "tokens").write_text("old\ns3cret\n")
    files = papers.server(mutual=True)
    settings = {
        **FOR_KILLS,
        "intake.tls_certificate": str(files.certificate),
        "intake.tls_key": str(files.key),
        "intake.tls_client_ca": str(papers.ca_file),
        "intake.token_file": str(tmp_path / "tokens"),
    }
    body = traces_data([Sp(1, 1)])
    with running(tmp_path / "data", settings) as node:
        url = node.intake.replace("http:", "https:") + "/v1/traces"
        headers = {"Content-Type": "application/x-protobuf", "Authorization": "Bearer s3cret"}
        trusted = papers.client_context(shows_certificate=True)
        with urlopen(Request(url, body, headers), context=trusted, timeout=10) as answer:
            assert answer.status == 200
        with pytest.raises(HTTPError, match="401"):
            urlopen(Request(url, body, {**headers, "Authorization": "Bearer guess"}), context=trusted, timeout=10)
        with pytest.raises(OSError, match=r"."):
            urlopen(Request(url, body, headers), context=papers.client_context(shows_certificate=False), timeout=10)
        credentials = papers.client_credentials(shows_certificate=True)
        with grpc.secure_channel(node.grpc, credentials) as channel:
            export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)
            assert export(body, timeout=10, metadata=(("authorization", "Bearer old"),)) == b""
            with pytest.raises(grpc.RpcError):
                export(body, timeout=10)
        assert node.metric("spanloom_intake_spans_accepted_total") == 2


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("intake.tls_key=server.key", "intake.tls_certificate, intake.tls_key: expected both or none"),
        ("intake.tls_client_ca=ca.pem", "intake.tls_client_ca: expected intake.tls_certificate"),
        ("intake.token_file=/nowhere/tokens", "intake.token_file: expected a file of tokens"),
        ("sampling.head_probability=1.5", "sampling.head_probability: expected a number from 0 to 1"),
        ("sampling.mode=front", "sampling.mode: expected head or tail or hybrid"),
        ("grpc.port=4318", "grpc.port: expected another port than http.port"),
    ],
)
def test_a_wrong_door_is_refused_in_one_clear_line(setting: str, said: str, tmp_path: Path) -> None:
    """Exit 2, and the last line says which setting and what was expected."""
    line = [*command(tmp_path / "data"), f"--set={setting}", "--port=4318"]
    ran = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, said in ran.stderr.strip().splitlines()[-1]) == (2, True), ran.stderr


def test_a_zipkin_span_is_found_by_its_id(tmp_path: Path) -> None:
    """An erroneous span posted to Zipkin's port comes back as a kept trace."""
    span = {
        "traceId": "5af7183fb1d4cf5f",
        "id": "352bff9a74ca9ad2",
        "name": "get /api",
        "timestamp": 1556604172355737,
        "duration": 1431,
        "kind": "SERVER",
        "localEndpoint": {"serviceName": "backend"},
        "tags": {"error": "timeout"},
    }
    with running(tmp_path / "data") as node:
        node.intake = node.zipkin
        assert node.post("/api/v2/spans", json.dumps([span]).encode(), "application/json") == (202, b"")

        def kept() -> dict[str, object] | None:
            status, body = node.get("/v1/traces/5af7183fb1d4cf5f")
            found: dict[str, object] = json.loads(body)
            return found if status == 200 and "spans" in found else None

        spans = eventually(kept, within_s=15)["spans"]
        assert node.metric("spanloom_intake_spans_accepted_total") == 1
    assert isinstance(spans, list)
    assert (spans[0]["service_name"], spans[0]["operation_name"], spans[0]["error"]) == ("backend", "get /api", True)


def test_head_sampling_drops_at_the_door_and_says_so(tmp_path: Path) -> None:
    """In mode head with probability 0 only errors go in; the books name the others."""
    settings = {**FOR_KILLS, "sampling.mode": "head", "sampling.head_probability": "0"}
    span = {"trace_id": "a", "service_name": "s", "operation_name": "o", "start_time": 1, "duration": 1}
    spans = [{**span, "span_id": str(number), "error": number == 1} for number in (1, 2, 3)]
    with running(tmp_path / "data", settings) as node:
        status, answer = node.post("/v1/spans", json.dumps(spans).encode(), "application/json")
        assert (status, json.loads(answer)["accepted"]) == (200, 3)
        lines = node.get("/metrics")[1].decode().splitlines()
    counts = dict(line.rsplit(" ", 1) for line in lines if line.startswith("spanloom_intake_spans_total"))
    assert counts['spanloom_intake_spans_total{outcome="produced"}'] == "1"
    assert counts['spanloom_intake_spans_total{outcome="dropped_head"}'] == "2"


def test_a_node_that_bends_to_its_load_takes_spans_and_says_how_far(tmp_path: Path) -> None:
    """With adaptive sampling the factor is a metric, and what is accepted is produced or shed, nothing else."""
    settings = {**FOR_KILLS, "sampling.adaptive": "both"}
    with running(tmp_path / "data", settings) as node:
        assert node.post("/v1/traces", traces_data([Sp(1, 1), Sp(2, 2)]), "application/x-protobuf")[0] == 200
        assert 1 / 64 <= node.metric("spanloom_intake_sampling_factor") <= 1
        assert node.metric("spanloom_intake_spans_total") == node.metric("spanloom_intake_spans_accepted_total") == 2
