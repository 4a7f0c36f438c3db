"""JSON from outside: parsed within bounds, and complained about by path."""

import json

from spanloom.errors import DecodeError

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None


def parse_json(text: bytes) -> JsonValue:
    """The JSON value of *text*. Raises DecodeError if it is none, or nested beyond what Python's parser takes."""
    try:
        value: JsonValue = json.loads(text)
    except json.JSONDecodeError as exc:
        raise DecodeError("json", "JSON", exc.msg, position=exc.pos) from exc
    except ValueError as exc:  # no UTF-8, or an integer of thousands of digits
        raise DecodeError("json", "JSON", str(exc)) from exc
    except RecursionError as exc:
        raise DecodeError("json", "fewer levels", "more") from exc
    return value


def wrong_json(path: str, expected: str, found: JsonValue) -> DecodeError:
    """The error for a value that is not what belongs at *path*; what was found is named in a few characters."""
    if isinstance(found, dict | list):  # never printed: it may be as large as the request, and as deep
        return DecodeError("json", f"{expected} at {path}", "an object" if isinstance(found, dict) else "an array")
    return DecodeError("json", f"{expected} at {path}", json.dumps(found)[:60])
