"""What a process says of itself in Prometheus' text format."""

import re
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.ASCII)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class MetricSample:
    """One line of it."""

    name: str
    labels: Mapping[str, str]
    value: float


def scrape(url: str) -> list[MetricSample]:
    """Every sample at *url*. Raises OSError where nobody answers."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    found = [_SAMPLE.match(line) for line in text.splitlines()]
    return [MetricSample(one[1], dict(_LABEL.findall(one[2] or "")), float(one[3])) for one in found if one]


def total(samples: Sequence[MetricSample], name: str, **labels: str) -> float:
    """The sum over the samples of that name that have these labels; 0 where there is none."""
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())
