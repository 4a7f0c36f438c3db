"""`spanloom explain-trace`: a file in, verdicts and what the policies saw out; no server."""

import json
from pathlib import Path

import pytest

from spanloom.cli.main import main
from tests.spans import Sp, trace_id, traces_data

POLICIES = """
policies:
  - {name: errors, type: error}
  - {name: slow, type: latency, latency: {threshold_ms: 500}}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A file of two traces and one of policies."""
    (tmp_path / "traces.bin").write_bytes(traces_data([Sp(1, 1, ms=700), Sp(2, 1), Sp(1, 2, parent=1)]))
    (tmp_path / "sampling.yaml").write_text(POLICIES)
    return str(tmp_path / "traces.bin"), str(tmp_path / "sampling.yaml")


def test_each_trace_of_a_file_is_judged_and_explained(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A paragraph a trace: what became of it, which policy spoke, and the value each policy saw."""
    traces, policies = files
    assert main(["explain-trace", traces, "--policies", policies]) == 0
    first, second = capsys.readouterr().out.split(f"trace {trace_id(2).hex()}: dropped")
    assert first.startswith(f"trace {trace_id(1).hex()}: kept\n")
    assert "slow was the first to keep it" in first
    assert "yes slow (latency): more than 500 ms, saw 700 ms" in first
    assert "no  slow (latency): more than 500 ms, saw 10 ms" in second


def test_programs_get_a_json_object_a_line(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """The same, to be read by machines."""
    traces, policies = files
    assert main(["explain-trace", traces, "--policies", policies, "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["status"] for one in said] == ["kept", "dropped"]
    assert said[1]["decisions"][0]["policies"][1] == {
        "name": "slow",
        "type": "latency",
        "asked": True,
        "vote": False,
        "expected": "more than 500 ms",
        "saw": "10 ms",
    }


def test_without_policies_the_configurations_judge(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Those that would run here."""
    assert main(["explain-trace", files[0]]) == 0
    assert "latency_percentile" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"no otlp", "expected"), (b"", "a span at least"), (b'{"resourceSpans": 3}', "$.resourceSpans")],
)
def test_a_file_that_holds_no_trace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, text: str
) -> None:
    """One line says which file and what was expected; the exit code is that of a wrong file."""
    (tmp_path / "wrong").write_bytes(content)
    assert main(["explain-trace", str(tmp_path / "wrong")]) == 2
    complaint = capsys.readouterr().err
    assert str(tmp_path / "wrong") in complaint
    assert text in complaint
