"""The figures as text: each with its type, its labels, and the values of labels that are fixed.

    python -m tests.figures > tests/figures.txt

writes the list that operators rely on, which `tests/admin/test_metrics.py` compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric

from asgi_comet import Comet, Settings
from asgi_comet.prometheus import CometCollector
from asgi_comet.testing import join

FILE = Path(__file__).with_suffix(".txt")
OPEN = {"broker", "channel", "python", "version", "worker"}
"""The labels whose values depend on the application or the installation."""


def describe_figures() -> str:
    """Describe the figures of a worker that shares a broker, and has every limit."""
    settings = Settings(max_virtual_channels=1)
    comet = Comet("k" * 32, broker=join(1)[0], settings=settings)
    comet.family("room:{room}", type=str)
    return "".join(f"{line}\n" for line in sorted(map(describe, CometCollector(comet).collect())))


def describe(family: Metric) -> str:
    """Describe one figure."""
    name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
    return " ".join([name, family.type, *(_label(family, label) for label in labels)])


def _label(family: Metric, label: str) -> str:
    values = sorted({sample.labels[label] for sample in family.samples})
    return label if label in OPEN else f"{label}({','.join(values)})"


def names() -> Iterator[str]:
    """Return the names of the list."""
    return (line.partition(" ")[0] for line in FILE.read_text().splitlines())


if __name__ == "__main__":
    sys.stdout.write(describe_figures())
