"""Plants a fault in a copy of the package, and runs a scenario with it.

Owns the copies. Must not know the faults, nor what a scenario does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutation", "Result", "plant", "run", "run_all"]

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "asgi_comet"
AT_ONCE = 2  # scenarios that run at the same time
LIMIT = 60.0  # seconds until a scenario hangs

KEPT, BROKEN = 0, 3  # exit codes of `tests.mutations.playing`


@dataclass(frozen=True, slots=True)
class Mutation:
    """A fault.

    Attributes:
        name: What is wrong.
        file: The file below `asgi_comet`.
        old: A text that is in the file exactly once.
        new: The text in its place.
        scenario: The scenario that meets the fault, a function of `scenarios.py`.
    """

    name: str
    file: str
    old: str
    new: str
    scenario: str


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario.

    Attributes:
        kept: Whether `check()` says that the promise was kept.
        found: Whether `check()` says that it was not.
        said: What `check()` says, or why the scenario could not be played.
    """

    kept: bool
    found: bool
    said: str


def plant(mutation: Mutation, package: Path) -> None:
    """Plant a fault in a copy of the package.

    Raises:
        ValueError: The text to replace is not in the file exactly once.
    """
    path = package / mutation.file
    text = path.read_text("utf-8")
    if (count := text.count(mutation.old)) != 1:
        raise ValueError(
            f"expected {mutation.old!r} once in {mutation.file}, found it {count} times: bring the "
            f"mutation {mutation.name!r} up to date"
        )
    path.write_text(text.replace(mutation.old, mutation.new), "utf-8")


def run(*scenarios: str, mutation: Mutation | None = None) -> Result:
    """Run scenarios in a process of their own, on a copy of the package.

    Args:
        *scenarios: The scenarios.
        mutation: The fault to plant first.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / PACKAGE
        shutil.copytree(ROOT / PACKAGE, package)
        if mutation is not None:
            plant(mutation, package)
        others = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
        done = subprocess.run(
            [sys.executable, "-m", "tests.mutations.playing", folder, *scenarios],
            cwd=folder,  # comes first where Python looks for modules
            env={**others, "PYTHONPATH": os.pathsep.join([folder, str(ROOT)])},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    said = done.stdout.strip() or done.stderr.strip()[-2000:]
    return Result(done.returncode == KEPT, done.returncode == BROKEN, said)


def run_all(mutations: Sequence[Mutation]) -> tuple[Result, list[Result]]:
    """Run the scenario of each mutation, a few at the same time.

    Returns:
        What came of all scenarios without a mutation, and of each with its own.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        clean = pool.submit(run, *{one.scenario: None for one in mutations})
        found = list(pool.map(lambda one: run(one.scenario, mutation=one), mutations))
        return clean.result(), found
