"""Settings: where they come from, how they are written, and how what is wrong is refused."""

import re
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.config import Config, effective, load, reference
from spanloom.config.kinds import AUTO, seconds, show_bytes, show_seconds, size_bytes
from spanloom.config.sources import from_yaml
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import ConfigError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a text as the configuration file."""

    def written(text: str) -> Path:
        file = tmp_path / "spanloom.yaml"
        file.write_text(text)
        return file

    return written


def refusal(file: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> str:
    """The one line the operator gets, with the file's folder cut away."""
    with pytest.raises(ConfigError) as raised:
        load(file, environ, overrides)
    text = str(raised.value)
    assert "\n" not in text
    return text.replace(f"{file.parent}/", "") if file else text


def origin(config: Config, key: str) -> str:
    return next(line.where for line in effective(config) if line.key == key)


def test_nothing_written_gives_the_defaults() -> None:
    """With no file, no environment and no flag every setting is its default and says so."""
    config = load(None, {"PATH": "/bin", "SPANLOOM_PURE": "1"}, {})
    assert config == Config()
    assert {line.where for line in effective(config)} == {"default"}


@pytest.mark.parametrize(("written", "size"), [("auto", AUTO), ("1GiB", 1 << 30)])
def test_the_undecided_budget_is_a_size_or_auto(written: str, size: int) -> None:
    """`auto` leaves it to the memory there is, and is shown as it is written."""
    config = load(None, {}, {"assembly.undecided_bytes_max": written})
    assert config.assembly.undecided_bytes_max == size
    assert {line.key: line.value for line in effective(config)}["assembly.undecided_bytes_max"] == written


def test_the_defaults_are_the_design_s_numbers() -> None:
    """The limits of assembly are those the design settled."""
    limits = Config().assembly
    assert (limits.quiet_s, limits.idle_s, limits.age_max_s, limits.remember_s, limits.skew_max_s) == (
        6,
        15,
        60,
        300,
        600,
    )
    assert (limits.spans_max, limits.bytes_max, limits.undecided_bytes_max) == (50_000, 16 << 20, AUTO)


def test_each_source_overrides_the_one_before_it(write: Write) -> None:
    """Defaults give way to the file, the file to the environment, the environment to the flags."""
    file = write("http:\n  port: 1\n  query_port: 2\n  idle_s: 3\n")
    config = load(file, {"SPANLOOM__HTTP__PORT": "10", "SPANLOOM__HTTP__QUERY_PORT": "20"}, {"http.port": "100"})
    assert (config.http.port, config.http.query_port, config.http.idle_s, config.http.host) == (
        100,
        20,
        3.0,
        "127.0.0.1",
    )
    assert origin(config, "http.port") == "command line"
    assert origin(config, "http.query_port") == "environment SPANLOOM__HTTP__QUERY_PORT"
    assert origin(config, "http.idle_s") == f"{file}:4"
    assert origin(config, "http.host") == "default"


def test_a_config_cannot_be_changed() -> None:
    """What was parsed once stays as it is."""
    config = Config()
    with pytest.raises(FrozenInstanceError):
        config.http.port = 1  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        config.drain_s = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "# nothing\n", "http:\n", "http:\n  # port: 1\nlog: {}\n"])
def test_an_empty_file_or_section_changes_nothing(write: Write, text: str) -> None:
    """A file or a section whose lines are all comments is as good as none."""
    assert load(write(text), {}, {}) == Config()


@pytest.mark.parametrize(
    ("written", "size"),
    [("16MiB", 16 << 20), ("1 GiB", 1 << 30), ("1.5KiB", 1536), ("2kB", 2000), ("4096", 4096), ("4096B", 4096)],
)
def test_a_size_carries_a_unit_or_is_bytes(written: str, size: int) -> None:
    """Binary and decimal units, fractions that are whole bytes, and plain bytes are all understood."""
    assert size_bytes(0, 1 << 40).read(written) == size


@pytest.mark.parametrize(
    ("written", "time_s"),
    [("250ms", 0.25), ("5s", 5.0), ("2m", 120.0), ("1h", 3600.0), ("0.5 h", 1800.0), ("7.25", 7.25)],
)
def test_a_time_carries_a_unit_or_is_seconds(written: str, time_s: float) -> None:
    """Milliseconds to hours, and plain seconds, are all understood."""
    assert load(None, {}, {"drain_s": written}).drain_s == time_s


@given(count=st.integers(0, 1 << 50))
def test_a_size_shown_reads_back_as_itself(count: int) -> None:
    """explain-config shows sizes in a form that can be written back without loss."""
    assert size_bytes(0, 1 << 50).read(show_bytes(count)) == count


@given(time_ms=st.integers(0, 10**10))
def test_a_time_shown_reads_back_as_itself(time_ms: int) -> None:
    """explain-config shows times in a form that can be written back without loss."""
    assert seconds(0, 10**7).read(show_seconds(time_ms / 1000)) == time_ms / 1000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"http.port": "abc"}, "http.port: expected a whole number from 0 to 65535, found 'abc' (command line)"),
        ({"http.port": "65536"}, "http.port: expected a whole number from 0 to 65535, found '65536' (command line)"),
        ({"http.port": "-1"}, "http.port: expected a whole number from 0 to 65535, found '-1' (command line)"),
        ({"http.host": ""}, "http.host: expected a host name or an address, found '' (command line)"),
        ({"drain_s": "5 parsecs"}, "drain_s: expected a time from 0s to 1h, found '5 parsecs' (command line)"),
        ({"drain_s": "nan"}, "drain_s: expected a time from 0s to 1h, found 'nan' (command line)"),
        ({"drain_s": "2h"}, "drain_s: expected a time from 0s to 1h, found '2h' (command line)"),
        (
            {"assembly.bytes_max": "0.3KiB"},
            "assembly.bytes_max: expected a size from 1KiB to 1GiB, found '0.3KiB' (command line)",
        ),
        ({"data.durability": "maybe"}, "data.durability: expected process or power, found 'maybe' (command line)"),
    ],
)
def test_a_wrong_value_is_refused_by_name(overrides: dict[str, str], message: str) -> None:
    """A wrong type, range or word names the key, what is accepted, what was given, and by whom."""
    assert refusal(None, {}, overrides) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http:\n  port: x\n", "http.port: expected a whole number from 0 to 65535, found 'x' (spanloom.yaml:2)"),
        ("http:\n  port: true\n", "http.port: expected a whole number from 0 to 65535, found True (spanloom.yaml:2)"),
        ("http:\n  port: 1.5\n", "http.port: expected a whole number from 0 to 65535, found 1.5 (spanloom.yaml:2)"),
        ("http:\n  port:\n", "http.port: expected a whole number from 0 to 65535, found nothing (spanloom.yaml:2)"),
        (
            "http:\n  port: [1]\n",
            "http.port: expected a whole number from 0 to 65535, found a list of 1 (spanloom.yaml:2)",
        ),
        ("drain_s: .inf\n", "drain_s: expected a time from 0s to 1h, found inf (spanloom.yaml:1)"),
        ("drain_s: true\n", "drain_s: expected a time from 0s to 1h, found True (spanloom.yaml:1)"),
        ("log: 5\n", "log: expected a section with level, format, found 5 (spanloom.yaml:1)"),
        ("- http\n", "spanloom.yaml:1: expected a mapping of sections, found ['http']"),
        ("http:\n  port: 1\n  port: 2\n", "spanloom.yaml:3: port is given twice"),
        ("http.port: 1\nhttp: {port: 2}\n", "spanloom.yaml:2: http.port is given twice"),
        ("? [a]\n: 1\n", "spanloom.yaml:1: expected a text as key"),
        ("http: {port: 1\n", "spanloom.yaml:2: not YAML: expected ',' or '}', but got '<stream end>'"),
        ("http: !!python/name:os.system\n", "could not determine a constructor"),
    ],
)
def test_a_wrong_line_of_the_file_is_refused_with_its_number(write: Write, text: str, message: str) -> None:
    """What is wrong in the file is told with the file's name and the line."""
    assert message in refusal(write(text), {}, {})


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """A missing file is one clear line, and so is one that is no text."""
    assert refusal(tmp_path / "no.yaml", {}, {}) == "no.yaml: cannot be read: No such file or directory"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    assert refusal(tmp_path / "binary.yaml", {}, {}).startswith("binary.yaml: not YAML: ")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("http.prot", "did you mean http.port?"),
        ("htp.port", "did you mean http.port?"),
        ("port", "did you mean http.port?"),
        ("http.quiet_s", "did you mean assembly.quiet_s?"),
        ("drains", "did you mean drain_s?"),
        ("zzzzz", "the keys are data.folder, "),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(key: str, hint: str) -> None:
    """A key nobody knows is an error that names the likely one, or else all of them."""
    with pytest.raises(ConfigError, match=re.escape(f"{key}: unknown key (command line); {hint}")):
        load(None, {}, {key: "1"})


def test_an_unknown_key_is_refused_from_the_file_and_the_environment(write: Write) -> None:
    """No source may name a key that does not exist, the environment included."""
    assert (
        refusal(write("http:\n  prot: 1\n"), {}, {})
        == "http.prot: unknown key (spanloom.yaml:2); did you mean http.port?"
    )
    assert (
        refusal(None, {"SPANLOOM__HTTP__PROT": "1"}, {})
        == "http.prot: unknown key (environment SPANLOOM__HTTP__PROT); did you mean http.port?"
    )


@pytest.mark.parametrize(
    ("written", "port"),
    [("${env:PORT}", 77), ("${env:PORT:-5}", 77), ("${env:NONE:-5}", 5), ("7${env:DIGIT}", 78), ("'${env:PORT}'", 77)],
)
def test_the_file_takes_values_from_the_environment(write: Write, written: str, port: int) -> None:
    """${env:NAME:-default} gives the variable, or the default where it is not set, as if it were written there."""
    config = load(write(f"http:\n  port: {written}\n"), {"PORT": "77", "DIGIT": "8"}, {})
    assert config.http.port == port


def test_a_variable_that_is_not_set_and_has_no_default_is_refused(write: Write) -> None:
    """A reference to nothing names the variable and the line."""
    message = "spanloom.yaml:2: expected NONE in the environment, or a default in ${env:NONE}"
    assert refusal(write("http:\n  port: ${env:NONE}\n"), {}, {}) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"assembly.quiet_s": "20"},
            "assembly.idle_s: expected at least assembly.quiet_s, which is 20s (command line), found 15s (default)",
        ),
        (
            {"assembly.idle_s": "2m"},
            "assembly.age_max_s: expected at least assembly.idle_s, which is 2m (command line), found 1m (default)",
        ),
        (
            {"assembly.remember_s": "9"},
            "assembly.remember_s: expected at least assembly.age_max_s, which is 1m (default), found 9s (command line)",
        ),
        (
            {"assembly.undecided_bytes_max": "1MiB"},
            (
                "assembly.undecided_bytes_max: expected at least assembly.bytes_max, which is 16MiB (default), "
                "found 1MiB (command line)"
            ),
        ),
        (
            {"http.query_port": "4318"},
            "http.query_port: expected another port than http.port, found 4318 (command line)",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: dict[str, str], message: str) -> None:
    """Limits out of their order, or one port for two things, name both settings and where each came from."""
    assert refusal(None, {}, overrides) == message


def test_equal_limits_and_two_free_ports_are_allowed() -> None:
    """The order of limits allows equality, and port 0 is never a clash."""
    same = dict.fromkeys(("assembly.quiet_s", "assembly.idle_s", "assembly.age_max_s", "assembly.remember_s"), "5")
    config = load(None, {}, {**same, "http.port": "0", "http.query_port": "0"})
    assert config.assembly.quiet_s == config.assembly.remember_s == 5.0


POLICIES = """\
- name: slow
  type: latency
  latency: {threshold_ms: 500}
- {name: errors, type: error}
"""
SLOW = {"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}}
ERRORS = {"name": "errors", "type": "error"}


def test_policies_come_out_as_they_were_written(write: Write) -> None:
    """Policies written in the file keep their order and their every word."""
    file = write("sampling:\n  policies:\n" + "".join(f"    {line}\n" for line in POLICIES.splitlines()))
    assert load(file, {}, {}).sampling.policies == (SLOW, ERRORS)


def test_the_default_policies_are_good() -> None:
    """Errors, the slow and a hundredth of the rest: what the policies' own parser accepts."""
    names = [policy.name for policy in parse_policies(Config().sampling.policies, version=1).policies]
    assert names == ["errors", "p95", "baseline"]


@pytest.mark.parametrize(
    "wrapped",
    [
        POLICIES,
        "policies:\n" + POLICIES,
    ],
)
def test_policies_may_have_a_file_of_their_own(tmp_path: Path, wrapped: str) -> None:
    """A path stands for the list in that file: bare, or under its key."""
    file = tmp_path / "policies.yaml"
    file.write_text(wrapped)
    config = load(None, {"SPANLOOM__SAMPLING__POLICIES": str(file)}, {})
    assert config.sampling.policies == (SLOW, ERRORS)
    assert ("sampling.policies", "slow, errors", "environment SPANLOOM__SAMPLING__POLICIES") in effective(config)


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        (
            "[]",
            "sampling.policies: expected a list of policies, or the path of a YAML file with one, found an empty list",
        ),
        ("7", "sampling.policies: expected a list of policies, or the path of a YAML file with one, found 7"),
        ("[error]", "sampling.policies[0]: expected a mapping with name and type, found 'error' (spanloom.yaml:2)"),
        ("[{name: a}]", "sampling.policies[0].type: expected a text, found nothing (spanloom.yaml:2)"),
        (
            "\n  - {name: a, type: error}\n  - {name: a, type: eror}",
            "sampling.policies[1].type: expected one of always_sample, latency",
        ),
        (
            "\n  - {name: a, type: error}\n  - {name: b, type: eror}",
            "found 'eror'; did you mean error? (spanloom.yaml:4)",
        ),
        ("[{name: a, type: b, type: c}]", "spanloom.yaml:2: type is given twice"),
        ("nowhere/at/all.yaml", "nowhere/at/all.yaml: cannot be read: No such file or directory"),
    ],
)
def test_policies_that_are_none_are_refused(write: Write, policies: str, message: str) -> None:
    """An empty list, an entry that is no policy, or a file that is not there is refused at start."""
    assert message in refusal(write(f"sampling:\n  policies: {policies}\n"), {}, {})


def test_a_policies_file_without_a_list_is_refused(tmp_path: Path) -> None:
    """A file that holds no list says what it should hold."""
    file = tmp_path / "policies.yaml"
    file.write_text("policies: 5\n")
    message = f"{file}:1: expected a list of policies, or a mapping with policies"
    assert refusal(None, {}, {"sampling.policies": str(file)}) == message


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("policies:\n" + POLICIES + "decision_wait: 10s\n", 6, "decision_wait"),
        ("tail_sampling:\n  policies: []\n", 1, "tail_sampling"),
        ("receivers: {}\nprocessors:\n  tail_sampling: {}\n", 1, "receivers"),
    ],
)
def test_a_collector_s_configuration_is_for_import(tmp_path: Path, text: str, line: int, key: str) -> None:
    """What surrounds the policies in a Collector's configuration is refused by line, and import is pointed at."""
    file = tmp_path / "policies.yaml"
    file.write_text(text)
    message = refusal(None, {}, {"sampling.policies": str(file)})
    assert message.startswith(f"{file}:{line}: expected policies and nothing else, found the key '{key}'; ")
    assert "spanloom sampling import" in message


@pytest.mark.parametrize(
    ("written", "meant"),
    [("on", "on"), ("12:30", "12:30"), ("2026-01-31", "2026-01-31"), ("yes", "yes"), ("09", 9.0), ("1e3", 1000.0)],
)
def test_scalars_mean_what_they_mean_to_the_collector(tmp_path: Path, written: str, meant: object) -> None:
    """A scalar without quotes is read by YAML 1.2: words that look like truth or time are texts."""
    file = tmp_path / "any.yaml"
    file.write_text(f"drain_s: {written}\n")
    assert from_yaml(file, {})["drain_s"].value == meant


def test_the_reference_is_current() -> None:
    """docs/configuration.md says what the code does; `./dev docs` writes it."""
    page = Path(__file__).parent.parent / "docs" / "configuration.md"
    assert page.read_text() == reference()


def test_the_reference_names_every_setting_once() -> None:
    """No setting is missing from the reference, and none is told twice."""
    page = reference()
    for line in effective(Config()):
        assert page.count(f"| `{line.key}` |") == 1
