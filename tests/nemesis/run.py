"""A run: faults one after the other, chosen by a seed, and what the checker says of the history."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.nemesis.checker import Checker
from tests.nemesis.conclusion import conclude
from tests.nemesis.faults import FAULTS, KIND_OF, OWNED, Fault
from tests.nemesis.history import Event, read_history
from tests.nemesis.known import Violation
from tests.nemesis.people_faults import IN_MEMORY, PEOPLE
from tests.nemesis.stage import Options, Stage, setting

OVERLAPS = 0.2  # the share of faults during which another one begins
SHOWN = 12  # violations of each invariant in the report
COUNTED = ("recv", "call", "ok", "fail", "full", "closed", "begin", "opened", "gone", "forbidden")
LAGGING = ("promotion", "idle-promotion", "promotion-and-people")
REPLICATED = (*LAGGING, "failback", "replica")
INVARIANTS = [f"I{number}" for number in range(1, 17)]
WRONG = ("I1", "I2", "I3")  # a client that goes on as if it had missed nothing, or twice


@dataclass
class Report:
    """What a run has shown.

    Attributes:
        counts: Events by their kind.
        faults: How often each fault came.
        notes: What faults told.
        failures: Why publishes have failed.
        acts: What operators did, and how it was answered.
        violations: In the order of time.
        seconds: How long it took.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        counted = ", ".join(f"{self.counts[kind]} {kind}" for kind in COUNTED)
        lines = [f"{self.seconds:.0f} s: {counted}", f"{sum(self.faults.values())} faults:"]
        lines += [f"  {count:5} {name}" for name, count in sorted(self.faults.items())]
        lines += [f"  {count:5} {text}" for text, count in sorted(self.notes.items())]
        lines += [f"  {count:5} failed: {text}" for text, count in self.failures.most_common(8)]
        lines += [f"  {count:5} {text}" for text, count in sorted(self.acts.items())]
        kinds = Counter(violation.invariant for violation in self.violations)
        lines.append(f"{len(self.violations)} violations; {self._figures(kinds)}")
        lines.append("  " + ", ".join(f"{one} {kinds[one]}" for one in INVARIANTS))
        return "\n".join(lines + self.told(SHOWN))

    def _figures(self, kinds: Counter[str]) -> str:
        a_second = self.counts["recv"] / max(self.seconds, 1.0)
        dropped = sum(n for text, n in self.notes.items() if text.endswith(": came"))
        wrong = sum(kinds[one] for one in WRONG)
        cheap = sum("`full`" in one.text for one in self.violations if one.invariant == "I9")
        return (
            f"{a_second:.0f} deliveries/s, {dropped} replies dropped or held, "
            f"{wrong} wrong continuations, {cheap} `full` beyond I9"
        )

    def told(self, most: int) -> list[str]:
        """Return the first violations of each invariant as lines."""
        lines, kinds = [], Counter[str]()
        for one in self.violations:
            kinds[one.invariant] += 1
            if kinds[one.invariant] <= most:
                lines.append(f"{one.at:.3f} {one.invariant} {one.text}")
        return lines


def run(
    options: Options, keep: Path | None = None, act: Callable[[Stage], None] | None = None
) -> Report:
    """Run, and check.

    Args:
        options: How the run is to be.
        keep: Where the history stays; `None` for nowhere.
        act: What happens; by default faults, until the time is over.
    """
    with tempfile.TemporaryDirectory(prefix="nemesis") as folder:
        place = Path(folder) if keep is None else keep
        place.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        with setting(place, options) as stage:
            (act or rage)(stage)
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
    elif kind == "acted":
        report.acts[f"{event['name']}: {event['status']}"] += 1
    elif kind == "fail":
        report.failures[event["error"][:100]] += 1


def rage(stage: Stage) -> None:
    """Have faults until the time is over."""
    options = stage.options
    end = time.monotonic() + options.minutes * 60
    if options.calm:
        stage.sleep(options.minutes * 60)
        return
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
    names = possible(options)
    lagging = [name for name in names if name in LAGGING]
    while True:
        for name in chance.sample(names, len(names)):
            if options.persistence == "lagging" and lagging:
                yield chance.choice(lagging)
            yield name


def possible(options: Options) -> list[str]:
    """Return the faults that a run can have."""
    names = list(options.faults or FAULTS)
    if options.memory:
        return [name for name in names if name in IN_MEMORY]
    return [name for name in names if options.people or name not in PEOPLE]


def begins(one: str, second: str) -> bool:
    """Tell whether a worker may begin while another fault has attached a replica."""
    return one in REPLICATED and KIND_OF[second] == "worker"


def other(name: str, options: Options, chance: random.Random) -> str | None:
    """Choose a fault that may overlap with another one."""
    fitting = [one for one in possible(options) if KIND_OF[one] != KIND_OF[name]]
    if options.durable:  # then no worker begins while there is a replica
        fitting = [one for one in fitting if not (begins(one, name) or begins(name, one))]
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
    with stage.fault("overlap", renews=OWNED):
        thread.start()
        stage.sleep(0, 1)
        try:
            one(stage)
        finally:
            thread.join()
    if failures:
        raise failures[0]
