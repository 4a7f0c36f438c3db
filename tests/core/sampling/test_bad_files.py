"""Files of policies that are refused: `bad/*.yaml`, each with what is said of it in its first line."""

from pathlib import Path

import pytest

from spanloom.config import read_policies
from spanloom.errors import ConfigError

BAD = sorted(Path(__file__).parent.joinpath("bad").glob("*.yaml"))


def test_there_are_bad_files() -> None:
    """Thirty ways of getting a file of policies wrong, and a few more."""
    assert len(BAD) >= 30


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_bad_file_is_refused_with_its_line(file: Path) -> None:
    """The operator reads which file and line, which key, what was expected there and what stood there."""
    expected = file.read_text().splitlines()[0].removeprefix("# ")
    with pytest.raises(ConfigError) as raised:
        read_policies(file, {})
    said = str(raised.value).replace(f"{file.parent}/", "")
    assert said == expected
    assert f"{file.name}:" in said
