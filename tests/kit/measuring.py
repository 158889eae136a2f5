"""Which of the programs that tests start are measured by coverage."""

from __future__ import annotations

import os

from tests.kit.programs import ROOT

MEASURED = (
    {"COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml")}
    if "MEASURE_PROGRAMS" in os.environ
    else {}
)
"""The environment of a program that alone runs some lines of the package.

`scripts/test` has them measured. All others are not: that costs half as much again.
"""


def measure_only_tests() -> None:
    """Measure what this worker of pytest-xdist runs, but not what it starts."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
