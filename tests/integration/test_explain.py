"""`spanloom explain` asks a running node why a trace was kept or dropped, before and after a restart."""

import json
import subprocess
import sys
from pathlib import Path

from tests.integration.process import QUICK, Process, eventually, running
from tests.spans import Sp, trace_id, traces_data

POLICIES = "- {name: slow, type: latency, latency: {threshold_ms: 500}}\n"


def explain(node: Process, trace: int, *words: str) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "spanloom", "explain", trace_id(trace).hex(), f"--url={node.query}", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_kept_and_dropped_alike_are_explained_in_words_and_json(tmp_path: Path) -> None:
    """Verdict, policy, value seen and version; the same after a restart; a trace nobody sent is exit code 4."""
    (tmp_path / "sampling.yaml").write_text(POLICIES)
    settings = {**QUICK, "sampling.policies": str(tmp_path / "sampling.yaml")}
    with running(tmp_path / "data", settings) as node:
        spans = [Sp(1, 1, ms=700), Sp(1, 2, parent=1), Sp(2, 1, ms=20)]
        assert node.post("/v1/traces", traces_data(spans), "application/x-protobuf")[0] == 200
        node.settled(3)
        assert explain(node, 2).stdout.startswith(f"trace {trace_id(2).hex()}: dropped\n")
        assert node.terminate() == 0
    with running(tmp_path / "data", settings) as node:
        dropped, kept = explain(node, 2).stdout, explain(node, 1).stdout
        assert "no policy kept it" in dropped
        assert "no  slow (latency): more than 500 ms, saw 20 ms" in dropped
        assert kept.startswith(f"trace {trace_id(1).hex()}: kept\n")
        assert "policy version 1: slow was the first to keep it" in kept
        said = json.loads(explain(node, 1, "--json").stdout)
        assert (said["status"], said["decisions"][0]["votes"]) == ("kept", ["slow"])
        near = str(said["decisions"][0]["stream_ns"] // 1_000_000_000)
        assert explain(node, 1, f"--near={near}").stdout == kept
        unknown = explain(node, 3)
        assert (unknown.returncode, "no such trace" in unknown.stderr) == (4, True)
        eventually(lambda: node.get("/live")[0] == 200, 5)
