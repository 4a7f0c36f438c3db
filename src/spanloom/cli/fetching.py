"""Asks a node's query port."""

import json
import sys
import urllib.error
import urllib.request

from spanloom.core.codec.json_text import JsonValue

ANSWER_S = 10.0


def fetch_json(url: str, *, timeout_s: float = ANSWER_S) -> dict[str, JsonValue] | None:
    """The JSON object at *url*; None, said on standard error, where there is none or nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - the operator's own URL
            found = json.load(answer)
    except urllib.error.HTTPError as exc:
        print(f"spanloom: {url}: {exc.code} {_reason(exc.read())}", file=sys.stderr)
        return None
    except (urllib.error.URLError, OSError, ValueError) as exc:
        print(f"spanloom: {url}: {getattr(exc, 'reason', exc)}", file=sys.stderr)
        return None
    return found if isinstance(found, dict) else None


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
