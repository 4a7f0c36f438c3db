"""A part of what `python -m tests.differential` does: few files, few traces."""

import pytest

from tests.core.kernels import BOTH, assembler_class
from tests.differential.corpus import Corpus, corpus
from tests.differential.ours import our_verdicts
from tests.differential.theirs import their_verdicts
from tests.differential.verdicts import (
    RATES,
    Verdicts,
    differences,
    policy_files,
    rate_differences,
    splits,
)
from tests.servers.otelcol import need_otelcol

FILES = ("composite", "drop_not", "everything", "latency_upper", "numeric_invert", "regex_empty", "trace_state_tenant")
RATE_FILE = "rate_and"
TRACES_PER_S = 200
Theirs = tuple[Corpus, dict[str, Verdicts]]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """What the Collector keeps of 3,000 traces."""
    need_otelcol()
    some = corpus(7, 3000, traces_per_s=TRACES_PER_S)
    return some, their_verdicts(some, policy_files(*FILES), tmp_path_factory.mktemp("kept"), is_paced=False)


@pytest.fixture(scope="module")
def theirs_paced(tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """The same, sent at the pace of its stamps, for fifteen seconds."""
    need_otelcol()
    some = corpus(8, 3000, traces_per_s=TRACES_PER_S)
    return some, their_verdicts(some, policy_files(RATE_FILE), tmp_path_factory.mktemp("kept"), is_paced=True)


@pytest.mark.parametrize("kernel", BOTH)
@pytest.mark.parametrize("name", FILES)
def test_verdicts_are_those_of_the_collector(theirs: Theirs, name: str, kernel: str) -> None:
    """Under the Collector's own policies spanloom keeps the very traces that the Collector keeps, vote for vote."""
    some, verdicts = theirs
    (file,) = policy_files(name)
    ours = our_verdicts(assembler_class(kernel), some, file)
    assert splits(ours, len(some.span_counts))
    assert differences(ours, verdicts[name]) == []


@pytest.mark.parametrize("kernel", BOTH)
def test_rates_are_those_of_the_collector(theirs_paced: Theirs, kernel: str) -> None:
    """Under a rate of the Collector's, spanloom keeps as many spans as the Collector, within a tenth."""
    some, verdicts = theirs_paced
    (file,) = policy_files(RATE_FILE)
    assembler = assembler_class(kernel)
    ours = our_verdicts(assembler, some, file)
    by_the_second = our_verdicts(assembler, some.in_whole_seconds(), file)
    assert splits(ours, len(some.span_counts))
    assert rate_differences(ours, by_the_second, verdicts[RATE_FILE]) == []


def test_there_are_forty_files() -> None:
    """Policy files of every type: forty, four of them rates."""
    names = [file.name for file in policy_files()]
    assert len(names) >= 40
    assert {*RATES, *FILES, RATE_FILE} <= {*names}


def test_a_corpus_is_its_seeds() -> None:
    """The same seed gives the same records, and a longer corpus begins with the shorter one."""
    short, long = corpus(3, 160, traces_per_s=100), corpus(3, 320, traces_per_s=100)
    assert short == corpus(3, 160, traces_per_s=100)
    assert long.records[: len(short.records)] == short.records
    assert corpus(4, 160, traces_per_s=100).records != short.records
