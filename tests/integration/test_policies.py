"""Policies changed while a node runs: `spanloom sampling apply`, `history`, `rollback` on the embedded deployment."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.process import QUICK, eventually, running
from tests.judged import judged

SPANS = 1_000_000  # more than there is time for: the sender is killed
PARTITIONS = 4
ALL = "- {name: all, type: always_sample}\n"
HALF = "- {name: half, type: consistent_probability, consistent_probability: {sampling_percentage: 50}}\n"


def sampling(*words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "spanloom", "sampling", *words, f"--data={folder}"]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def applied(folder: Path, policies: str, *words: str) -> str:
    file = folder.parent / "sampling.yaml"
    file.write_text(policies)
    return sampling("apply", str(file), *words, folder=folder).stdout


def ledger(folder: Path, partition: int) -> list[bytes]:
    query = "SELECT body FROM entry WHERE partition = ? ORDER BY position"
    with closing(sqlite3.connect(f"{(folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as database:
        return [body for (body,) in database.execute(query, (partition,))]


def test_policies_are_switched_under_load_without_a_restart(tmp_path: Path) -> None:
    """Versions applied to a running node hold from a place in each ledger on: no trace is judged by two of them."""
    folder = tmp_path / "data"
    with running(folder) as node:
        line = [sys.executable, "-m", "spanloom", "loadgen", f"--url={node.intake}/v1/traces", f"--spans={SPANS}"]
        with subprocess.Popen([*line, "--rate=1500"], stdout=subprocess.DEVNULL) as sending:
            for version, policies in ((2, ALL), (3, HALF), (4, ALL + HALF)):
                so_far = node.metric("spanloom_spans_received_total")
                eventually(lambda: node.metric("spanloom_spans_received_total") > so_far + 1500, 30)  # noqa: B023
                assert applied(folder, policies, "--comment=why").startswith(f"version {version}: ")
                eventually(lambda: node.metric("spanloom_policy_version") == version * PARTITIONS, 30)  # noqa: B023
            so_far = node.metric("spanloom_spans_received_total")
            eventually(lambda: node.metric("spanloom_spans_received_total") > so_far + 3000, 30)
            sending.kill()
        eventually(lambda: node.metric("spanloom_spans_pending") == 0, 60)
        assert node.terminate() == 0
    outcome = [judged(ledger(folder, partition), partition) for partition in range(PARTITIONS)]
    assert [versions for versions, _ in outcome] == [[1, 2, 3, 4]] * PARTITIONS
    assert {decision.policy_version for _, decisions in outcome for decision in decisions} == {1, 2, 3, 4}


def test_a_restart_with_another_configuration_keeps_what_was_applied(tmp_path: Path) -> None:
    """The folder's highest version wins over whatever a start brings, which is said in the log."""
    folder, file = tmp_path / "data", tmp_path / "mine.yaml"
    file.write_text(HALF)
    with running(folder, QUICK) as node:
        assert node.terminate() == 0
    applied(folder, ALL)
    with running(folder, {**QUICK, "sampling.policies": str(file)}) as node:
        assert node.metric("spanloom_policy_version") == 2 * PARTITIONS
        assert node.said("policies differ from the configuration")


def test_the_history_is_listed_and_gone_back_in(tmp_path: Path) -> None:
    """A line a version with what changed and why; an old one becomes the next; a bad file changes nothing."""
    folder = tmp_path / "data"
    assert applied(folder, ALL, "--comment=to begin with") == "version 1: +all\n"
    assert applied(folder, HALF) == "version 2: +half -all\n"
    assert sampling("rollback", "1", folder=folder).stdout == "version 3: +all -half\n"
    assert sampling("rollback", "1", folder=folder).stderr == "version 3 has these policies already\n"
    history = sampling("history", folder=folder).stdout.splitlines()
    assert [line.split("  ")[-1] for line in history] == ["# to begin with", "+half -all", "# rollback to version 1"]
    for words, text in ((("rollback", "9"), "found 9"), (("apply", str(tmp_path / "none.yaml")), "none.yaml")):
        refused = sampling(*words, folder=folder)
        assert (refused.returncode, text in refused.stderr) == (2, True)
    (tmp_path / "bad.yaml").write_text("- {name: x, type: latency, latency: {threshold_ms: soon}}\n")
    refused = sampling("apply", str(tmp_path / "bad.yaml"), folder=folder)
    assert refused.returncode == 2
    assert "bad.yaml:1" in refused.stderr
    assert len(sampling("history", folder=folder).stdout.splitlines()) == 3


@pytest.mark.parametrize("starts", [4])
def test_first_starts_and_applies_at_once_leave_one_order(tmp_path: Path, starts: int) -> None:
    """Processes that write at the same moment end in one history that all of them read."""
    folder = tmp_path / "data"
    (tmp_path / "sampling.yaml").write_text(ALL)
    lines = [
        [sys.executable, "-m", "spanloom", "sampling", "apply", str(tmp_path / f"{n}.yaml"), f"--data={folder}"]
        for n in range(starts)
    ]
    for n in range(starts):
        (tmp_path / f"{n}.yaml").write_text(f"- {{name: of {n}, type: always_sample}}\n")
    writers = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for line in lines]
    said = [writer.communicate(timeout=60)[0] for writer in writers]
    assert sorted(text.split(":")[0] for text in said) == [f"version {n}" for n in range(1, starts + 1)]
    assert len(sampling("history", folder=folder).stdout.splitlines()) == starts
