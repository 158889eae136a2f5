"""A rolling restart under load: `python -m tests.nemesis.rolling`; ends with 1 if it was noticed.

No client is told `full`, no page closes, nothing is lost and nothing comes twice. A channel of an
iterator that was given at run time ends as failed, because its iterator cannot move.

No two clients read one page: one of them is told `full` if the other has acknowledged a message
meanwhile, whether or not a worker stops.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from tests.nemesis.people_faults import stop_reading
from tests.nemesis.run import Report, run
from tests.nemesis.stage import Options, Stage

NEVER = 1e9  # seconds
NOTICED = ("full", "gone", "forbidden")
"""What no client is told."""


def roll(stage: Stage, times: int) -> None:
    """Restart all workers one after the other, some times."""
    for _ in range(times):
        for worker in stage.workers:
            with stage.fault("restart"):
                stop_reading(stage, worker)
                stage.restart(worker)
            stage.sleep(stage.options.pause)


def restart(
    clients: int,
    *,
    seed: int = 1,
    times: int = 1,
    within: float = 5.0,
    hurries: bool = False,
    keep: Path | None = None,
) -> Report:
    """Restart three workers under load, and check what the clients saw; see `Options`."""
    options = Options(
        clients=clients,
        loaders=max(1, clients // 100),
        seed=seed,
        pause=2,
        within=within,
        hurries=hurries,
        acts=NEVER,
        twice=False,
        fails=False,
    )
    return run(options, keep, partial(roll, times=times))


def noticed(report: Report) -> list[str]:
    """Return what clients have noticed of the restart."""
    found = [f"{report.counts[kind]} were told `{kind}`" for kind in NOTICED if report.counts[kind]]
    late = [one for one in report.violations if " late, " in one.text]
    return found + [str(one) for one in report.violations if one not in late]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis.rolling", description=__doc__)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for the history; short")
    asked = parser.parse_args()
    report = restart(asked.clients, seed=asked.seed, times=asked.times, keep=asked.keep)
    print(report)
    print("\n".join(noticed(report)) or "nothing was noticed")
    return 1 if noticed(report) else 0


if __name__ == "__main__":
    sys.exit(main())
