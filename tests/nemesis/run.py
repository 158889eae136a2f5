"""A run: faults one after the other, chosen by a seed, and what the checker says of the history."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.nemesis.checker import Checker
from tests.nemesis.faults import FAULTS, KIND_OF, Fault
from tests.nemesis.history import Event, read_history
from tests.nemesis.known import Violation
from tests.nemesis.stage import Options, Stage, conclude, setting

OVERLAPS = 0.2  # the share of faults during which another one begins
SHOWN = 12  # violations of each invariant in the report
COUNTED = ("recv", "call", "ok", "fail", "full", "closed", "begin")


@dataclass
class Report:
    """What a run has shown.

    Attributes:
        counts: Events by their kind.
        faults: How often each fault came.
        notes: What faults told.
        violations: In the order of time.
        seconds: How long it took.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        counted = ", ".join(f"{self.counts[kind]} {kind}" for kind in COUNTED)
        lines = [f"{self.seconds:.0f} s: {counted}", f"{sum(self.faults.values())} faults:"]
        lines += [f"  {count:5} {name}" for name, count in sorted(self.faults.items())]
        lines += [f"  {count:5} {text}" for text, count in sorted(self.notes.items())]
        lines += [f"  {count:5} failed: {text}" for text, count in self.failures.most_common(8)]
        lines.append(f"{len(self.violations)} violations")
        kinds = Counter(violation.invariant for violation in self.violations)
        lines += [f"  {count:5} {invariant}" for invariant, count in sorted(kinds.items())]
        return "\n".join(lines + self.told(SHOWN))

    def told(self, most: int) -> list[str]:
        """Return the first violations of each invariant as lines."""
        lines, kinds = [], Counter[str]()
        for one in self.violations:
            kinds[one.invariant] += 1
            if kinds[one.invariant] <= most:
                lines.append(f"{one.at:.3f} {one.invariant} {one.text}")
        return lines


def run(options: Options, keep: Path | None = None) -> Report:
    """Run, and check; the history stays in `keep`, if given."""
    with tempfile.TemporaryDirectory(prefix="nemesis") as folder:
        place = Path(folder) if keep is None else keep
        place.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with setting(place, options) as stage:
            rage(stage)
            conclude(stage)
        report = read_report(place)
        report.seconds = time.monotonic() - began
        return report


def read_report(folder: Path) -> Report:
    """Check the history in a folder."""
    report, checker = Report(), Checker()
    for event in read_history(folder):
        checker.take(event)
        tally(report, event)
    report.violations = checker.finish()
    return report


def tally(report: Report, event: Event) -> None:
    kind = event["event"]
    report.counts[kind] += 1
    if kind == "fault" and event["phase"] == "begin":
        report.faults[event["name"]] += 1
    elif kind == "note":
        report.notes[event["text"]] += 1
    elif kind == "fail":
        report.failures[event["error"][:100]] += 1


def rage(stage: Stage) -> None:
    """Have faults until the time is over."""
    options = stage.options
    end = time.monotonic() + options.minutes * 60
    for name in choices(options, stage.chance):
        stage.sleep(options.pause * 0.5, options.pause * 1.5)
        if time.monotonic() > end:
            return
        second = other(name, options, stage.chance)
        if second is None or stage.chance.random() > OVERLAPS:
            FAULTS[name](stage)
        else:
            both(stage, FAULTS[name], FAULTS[second])


def choices(options: Options, chance: random.Random) -> Iterator[str]:
    """Choose faults: each once in random order, and again."""
    names = list(options.faults or FAULTS)
    while True:
        yield from chance.sample(names, len(names))


def other(name: str, options: Options, chance: random.Random) -> str | None:
    """Choose a fault that may overlap with another one."""
    names = options.faults or tuple(FAULTS)
    fitting = [one for one in names if KIND_OF[one] != KIND_OF[name]]
    return chance.choice(fitting) if fitting else None


def both(stage: Stage, one: Fault, second: Fault) -> None:
    """Have two faults overlap; a worker may then be away for long enough to lose its sources."""
    failures: list[BaseException] = []

    def act() -> None:
        try:
            second(stage)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=act)
    with stage.fault("overlap", renews=("kind:source",)):
        thread.start()
        stage.sleep(0, 1)
        try:
            one(stage)
        finally:
            thread.join()
    if failures:
        raise failures[0]
