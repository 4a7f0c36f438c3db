"""The settings of Elasticsearch and Redis, and how their secrets are kept out of sight."""

from pathlib import Path

import pytest

from spanloom.config import effective, load, secret_of
from spanloom.errors import ConfigError

SECRET = "c2VjcmV0OnNlY3JldA=="


def test_a_secret_comes_by_the_environment_and_is_never_shown() -> None:
    """Neither explain-config nor a print of the configuration repeats it."""
    config = load(
        None,
        {"SPANLOOM__ELASTICSEARCH__API_KEY": SECRET, "SPANLOOM__REDIS__PASSWORD": SECRET},
        {"elasticsearch.urls": "https://a:9200, https://b:9200/es", "redis.url": "rediss://c:6379/1"},
    )

    assert (config.elasticsearch.api_key, config.redis.password) == (SECRET, SECRET)
    assert SECRET not in repr(config)
    shown = {line.key: line.value for line in effective(config)}
    assert shown["elasticsearch.api_key"] == shown["redis.password"] == "(hidden)"
    assert shown["elasticsearch.urls"] == "https://a:9200, https://b:9200/es"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("elasticsearch.urls", "https://user:secret@a:9200"),
        ("elasticsearch.urls", "https://a"),
        ("elasticsearch.urls", "a:9200"),
        ("elasticsearch.urls", "https://a:9200,"),
        ("redis.url", "redis://:secret@a:6379"),
        ("redis.url", "http://a:6379"),
        ("elasticsearch.prefix", "Traces-"),
        ("elasticsearch.prefix", "*"),
        ("elasticsearch.prefix", "a,b"),
        ("elasticsearch.prefix", ""),
    ],
)
def test_what_cannot_be_a_server_is_refused_without_repeating_a_secret(key: str, value: str) -> None:
    """A URL has scheme, host and port, and no password, which has a place of its own."""
    with pytest.raises(ConfigError, match=rf"{key}: expected") as raised:
        load(None, {}, {key: value})

    assert "secret" not in str(raised.value)


def test_a_secret_that_is_no_text_is_refused_unseen(tmp_path: Path) -> None:
    """A number is a mistake in the file, and part of a secret all the same."""
    file = tmp_path / "spanloom.yaml"
    file.write_text("redis:\n  password: 12345\n")

    with pytest.raises(ConfigError, match=r"redis\.password: expected any text") as raised:
        load(file, {}, {})

    assert "12345" not in str(raised.value)


def test_a_secret_comes_by_a_file(tmp_path: Path) -> None:
    """Without the line's end; given twice, missing or empty is the operator's to mend."""
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    assert secret_of("redis.password", "", str(file)) == SECRET
    assert secret_of("redis.password", SECRET, "") == SECRET
    assert secret_of("redis.password", "", "") == ""

    with pytest.raises(ConfigError, match="found both") as raised:
        secret_of("redis.password", SECRET, str(file))
    assert SECRET not in str(raised.value)
    with pytest.raises(ConfigError, match=r"redis\.password_file: .*cannot be read"):
        secret_of("redis.password", "", str(tmp_path / "absent"))
    file.write_text("\n")
    with pytest.raises(ConfigError, match="empty"):
        secret_of("redis.password", "", str(file))
