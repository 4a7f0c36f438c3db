"""`spanloom sampling import` and `check`: a Collector's configuration becomes a file of policies of ours."""

from collections.abc import Callable
from pathlib import Path

import pytest

from spanloom.cli import main
from spanloom.config import Imported, import_policies, read_policies
from spanloom.errors import ConfigError

Run = Callable[..., Imported]

CONFIG = """\
receivers:
  otlp: {protocols: {grpc: {endpoint: "0.0.0.0:4317"}}}
processors:
  batch: {}
  tail_sampling:
SETTINGS
    policies:
POLICIES
service: {pipelines: {traces: {receivers: [otlp], processors: [tail_sampling], exporters: [debug]}}}
"""
ALL = "{name: all, type: always_sample}"


def configuration(tmp_path: Path, *policies: str, settings: tuple[str, ...] = ()) -> Path:
    """A Collector's whole configuration; the first policy stands in line 7 and one more for every setting."""
    text = CONFIG.replace("SETTINGS\n", "".join(f"    {line}\n" for line in settings))
    file = tmp_path / "collector.yaml"
    file.write_text(text.replace("POLICIES", "\n".join(f"      - {policy}" for policy in policies)))
    return file


@pytest.fixture
def carry(tmp_path: Path) -> Run:
    """Imports a configuration with these policies; the folder's name is cut out of the notes."""

    def run(*policies: str, settings: tuple[str, ...] = ()) -> Imported:
        imported = import_policies(configuration(tmp_path, *policies, settings=settings))
        return Imported(imported.text, tuple(note.replace(f"{tmp_path}/", "") for note in imported.notes))

    return run


def read_back(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> list[dict[str, object]]:
    file = tmp_path / "sampling.yaml"
    file.write_text(text)
    return list(read_policies(file, environ or {}))


def test_policies_are_carried_over_as_they_are(tmp_path: Path, carry: Run) -> None:
    """Texts that look like numbers or truth stay texts, numbers numbers; nothing is said where nothing is lost."""
    imported = carry(
        ALL,
        '{name: texts, type: string_attribute, string_attribute: {key: k, values: ["1e3", on, "true", 12:30, "0o7"]}}',
        "{name: tenth, type: probabilistic, probabilistic: {sampling_percentage: 0.1}}",
    )
    assert imported.notes == ()
    assert read_back(tmp_path, imported.text) == [
        {"name": "all", "type": "always_sample"},
        {
            "name": "texts",
            "type": "string_attribute",
            "string_attribute": {"key": "k", "values": ["1e3", "on", "true", "12:30", "0o7"]},
        },
        {"name": "tenth", "type": "probabilistic", "probabilistic": {"sampling_percentage": 0.1}},
    ]


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("decision_wait: 10s", "assembly.age_max_s"),
        ("decision_wait_after_root_received: 5s", "assembly.quiet_s"),
        ("num_traces: 100", "assembly.undecided_bytes_max"),
        ("decision_cache: {sampled_cache_size: 1000}", "assembly.remember_s"),
        ("sample_on_first_match: true", "verdicts are the same"),
        ("maximum_trace_size_bytes: 1000", "assembly.bytes_max"),
        ("sampling_strategy: span-ingest", "decided once"),
        ("no_such_key: 1", "does not know it"),
    ],
)
def test_what_is_settled_elsewhere_is_said(carry: Run, setting: str, hint: str) -> None:
    """Every other key of the processor is named with its line and with the key that does the same here."""
    (note,) = carry(ALL, settings=(setting,)).notes
    key = setting.partition(":")[0]
    assert note.startswith(f"collector.yaml:6: {key} is not carried over: ")
    assert hint in note


def test_the_strategy_that_is_ours_needs_no_word(carry: Run) -> None:
    """Deciding on whole traces is what spanloom does."""
    assert carry(ALL, settings=("sampling_strategy: trace-complete",)).notes == ()


@pytest.mark.parametrize(
    ("policy", "why"),
    [
        (
            "{name: lost, type: ottl_condition, ottl_condition: {span: ['true']}}",
            "its type is 'ottl_condition'; there is no OTTL here",
        ),
        ("{name: lost, type: latency, latency: {threshold_ms: fast}}", "expected a whole number, found 'fast'"),
        (
            "{name: lost, type: string_attribute, string_attribute: {key: k, values: ['${file:v}']}}",
            "${file:v} is no reference to the environment, and nothing else is looked up here",
        ),
        (
            "{name: lost, type: string_attribute, string_attribute: {key: k, values: ['$${env:V}']}}",
            "'$${env:V}' has a reference that is none, and there is no way to write that here",
        ),
    ],
)
def test_a_policy_that_cannot_be_carried_over_is_left_out(tmp_path: Path, carry: Run, policy: str, why: str) -> None:
    """It is named with its line, the effect and the reason; the others are carried over."""
    imported = carry(ALL, policy)
    assert imported.notes == (f"collector.yaml:8: policy 'lost' is left out, what only it keeps is dropped: {why}",)
    assert [policy["name"] for policy in read_back(tmp_path, imported.text)] == ["all"]


def test_a_lost_drop_policy_keeps_more(carry: Run) -> None:
    """Without a policy that drops, more is kept: the note says so."""
    (note,) = carry(ALL, "{name: d, type: drop, drop: {drop_sub_policy: [{name: i, type: ottl_condition}]}}").notes
    assert note.startswith("collector.yaml:8: policy 'd' is left out, what it drops is kept: ")


def test_the_line_is_that_of_the_inner_policy(tmp_path: Path) -> None:
    """Where a policy within another is what cannot be carried over, its own line is named."""
    file = configuration(
        tmp_path,
        ALL,
        "name: both\n        type: and\n        and:\n          and_sub_policy:\n"
        "            - {name: errors, type: status_code, status_code: {status_codes: [ERROR]}}\n"
        "            - name: route\n              type: ottl_condition",
    )
    (note,) = import_policies(file).notes
    assert note.startswith(f"{file}:14: policy 'both' is left out")


def test_blocks_that_the_collector_passes_over_are_left_out(tmp_path: Path, carry: Run) -> None:
    """A block that is not of the policy's type is dropped, and named."""
    imported = carry(
        "{name: p, type: probabilistic, probabilistic: {sampling_percentage: 5}, rate_limiting: {spans_per_second: 1}}"
    )
    assert imported.notes == (
        "collector.yaml:7: rate_limiting is not carried over: a policy of type probabilistic does not read it",
    )
    assert read_back(tmp_path, imported.text) == [
        {"name": "p", "type": "probabilistic", "probabilistic": {"sampling_percentage": 5}}
    ]


def test_references_to_the_environment_stay(tmp_path: Path, carry: Run) -> None:
    """They are left for spanloom to fill, said out loud; a text stays a text, a number becomes one."""
    imported = carry(
        "{name: slow, type: latency, latency: {threshold_ms: '${env:SLOW_MS:-500}'}}",
        "{name: code, type: string_attribute, string_attribute: {key: '${KEY}', values: ['${env:CODE}', 'a$$b']}}",
    )
    assert imported.notes == (
        "collector.yaml:7: ${env:SLOW_MS:-500} is left as it stands: set it where spanloom runs; not checked yet",
        "collector.yaml:8: ${env:KEY}, ${env:CODE} is left as it stands: set it where spanloom runs; not checked yet",
    )
    assert read_back(tmp_path, imported.text, {"KEY": "http.status_code", "CODE": "500"}) == [
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}},
        {
            "name": "code",
            "type": "string_attribute",
            "string_attribute": {"key": "http.status_code", "values": ["500", "a$b"]},
        },
    ]


def test_one_of_several_processors_must_be_named(tmp_path: Path) -> None:
    """Where a configuration has several, each is named with its line; the one asked for is taken."""
    file = tmp_path / "collector.yaml"
    file.write_text(
        "processors:\n"
        "  tail_sampling/a: {policies: [{name: a, type: always_sample}]}\n"
        "  tail_sampling/b: {policies: [{name: b, type: always_sample}]}\n"
    )
    with pytest.raises(
        ConfigError, match=r"--processor with one of tail_sampling/a \(.*:2\), tail_sampling/b \(.*:3\)"
    ):
        import_policies(file)
    with pytest.raises(ConfigError, match="found 'tail_sampling/c'"):
        import_policies(file, "tail_sampling/c")
    assert "name: b" in import_policies(file, "tail_sampling/b").text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("processors: {batch: {}}\n", "collector.yaml: expected a processor tail_sampling, found none"),
        ("", "collector.yaml: expected a processor tail_sampling, found none"),
        ("processors:\n  tail_sampling: {num_traces: 5}\n", ":2: expected a list of policies in tail_sampling"),
        (
            "processors:\n  tail_sampling:\n    policies:\n    - {name: o, type: ottl_condition}\n",
            ":4: no policy of tail_sampling can be carried over",
        ),
        (
            "processors:\n  tail_sampling:\n    policies: [{name: a, type: error}, {name: a, type: error}]\n",
            "expected a name that no policy before it has",
        ),
    ],
)
def test_what_holds_no_policies_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A configuration of which nothing can be made says why."""
    file = tmp_path / "collector.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        import_policies(file)
    assert message in str(raised.value)


def test_the_commands_print_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`import` prints the file and, apart, what is lost; `check` says that it is good, or exits with 2 and the line."""
    file = configuration(tmp_path, ALL, settings=("decision_wait: 10s",))
    assert main(["sampling", "import", str(file)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(f"{file}:6: decision_wait")
    ours = tmp_path / "sampling.yaml"
    ours.write_text(printed.out)
    assert main(["sampling", "check", str(ours)]) == 0
    assert capsys.readouterr().out == "1 policies are good: all\n"
    ours.write_text("- {name: slow, type: latency}\n")
    assert main(["sampling", "check", str(ours)]) == 2
    assert f"({ours}:1)" in capsys.readouterr().err
