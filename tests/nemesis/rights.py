"""Trials of rights: `python -m tests.nemesis.rights`; ends with 1 if a message came too late.

Operators log in, log out and take rights away, one after the other, through any worker, while
publishers publish in a loop. Nothing that is published after such a call has returned reaches a
client that it must not reach.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.nemesis.run import Report, run
from tests.nemesis.stage import Options, Stage

A_TRIAL = 2.0  # seconds that a trial takes at most
STARTED = 60.0  # seconds until the first one
LOADERS = 1


def try_rights(stage: Stage) -> None:
    """Wait until all operators are done."""
    seconds = STARTED + A_TRIAL * stage.options.trials
    for loader in stage.loaders:
        done = stage.until(lambda one=loader: "done" in one.log(), seconds)  # type: ignore[misc]
        assert done, f"the trials take too long:\n{loader.log()}"


def attempt(
    trials: int,
    *,
    seed: int = 1,
    memory: bool = False,
    hurries: bool = False,
    keep: Path | None = None,
) -> Report:
    """Try to get messages after a right was taken away, and check what the clients saw."""
    options = Options(
        clients=12,
        loaders=LOADERS,
        seed=seed,
        memory=memory,
        hurries=hurries,
        kinds=("guarded",),
        rate=0.02,
        acts=0.05,
        trials=trials,
        fails=False,
    )
    return run(options, keep, try_rights)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis.rights", description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="one worker, the broker in memory")
    parser.add_argument("--keep", type=Path, help="a folder for the history; short")
    asked = parser.parse_args()
    report = attempt(asked.trials, seed=asked.seed, memory=asked.memory, keep=asked.keep)
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
