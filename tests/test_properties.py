"""A client's own properties: where they come from, and what is not the operator's to set."""

from pathlib import Path

import pytest

from spanloom.config import client_properties
from spanloom.errors import ConfigError


def test_properties_are_read_with_their_secrets_from_the_environment(tmp_path: Path) -> None:
    """key=value lines, comments and blanks left out, `${env:NAME}` and its default filled in, `=` allowed in values."""
    file = tmp_path / "client.properties"
    file.write_text(
        "# how we get in\nsecurity.protocol = SASL_SSL\n\n"
        "sasl.username=${env:WHO:-spanloom}\nsasl.password=${env:PASSWORD}\n"
    )
    assert client_properties(str(file), {"PASSWORD": "a=b c"}) == {
        "security.protocol": "SASL_SSL",
        "sasl.username": "spanloom",
        "sasl.password": "a=b c",
    }
    assert client_properties("", {}) == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sasl.password", "1: expected key=value"),
        ("=value", "1: expected key=value"),
        ("sasl.password=${env:PASSWORD}", "1: expected PASSWORD in the environment"),
        ("enable.idempotence=false", "1: enable.idempotence is spanloom's own to set"),
        ("acks=1", "acks is spanloom's own to set"),
        ("auto.offset.reset=latest", "auto.offset.reset is spanloom's own to set"),
        ("group.id=other", "group.id is spanloom's own to set"),
    ],
)
def test_what_the_promises_hang_on_cannot_be_set(line: str, said: str, tmp_path: Path) -> None:
    """A line that is none, a variable that is not there, a property of ours: refused with file and line."""
    file = tmp_path / "client.properties"
    file.write_text(line)
    with pytest.raises(ConfigError) as refused:
        client_properties(str(file), {})
    assert said in str(refused.value)


def test_a_refusal_names_no_secret(tmp_path: Path) -> None:
    """What stands behind the equals sign is never repeated."""
    file = tmp_path / "client.properties"
    file.write_text("acks=hunter2")
    with pytest.raises(ConfigError) as refused:
        client_properties(str(file), {})
    assert "hunter2" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """The key and the path, in one line."""
    with pytest.raises(ConfigError, match=r"kafka\.client_file: /nowhere/client"):
        client_properties("/nowhere/client", {})
