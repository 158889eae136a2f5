"""`python -m tests.nemesis`: faults for minutes, then the violations; ends with 1 if any."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import fields
from pathlib import Path
from types import FrameType

from tests.nemesis.faults import FAULTS
from tests.nemesis.names import KINDS
from tests.nemesis.run import read_report, run
from tests.nemesis.stage import APPEND_ONLY, Options


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=1.0)
    add("--seed", type=int, default=1)
    add("--persistence", choices=sorted(APPEND_ONLY), default="none")
    add("--durable", action="store_true", help="the broker is told that no write is ever lost")
    add("--memory", action="store_true", help="one worker, with the broker in memory")
    add("--no-people", dest="people", action="store_false", help="channels of the site only")
    add("--no-notifiers", dest="notifiers", action="store_false")
    add("--fault", nargs="+", choices=sorted(FAULTS), default=(), metavar="NAME")
    add("--kinds", nargs="+", choices=sorted(KINDS), default=tuple(KINDS), help="of channels")
    add("--clients", type=int, default=60)
    add("--loaders", type=int, default=1, help="processes that the clients are divided among")
    add("--calm", action="store_true", help="no faults")
    add("--pause", type=float, default=5.0, help="seconds between two faults")
    add("--linger", type=float, default=0.0, help="seconds that members have to end")
    add("--within", type=float, default=5.0, help="seconds in which a message arrives")
    add("--rate", type=float, default=0.3, help="seconds between two bursts of a publisher")
    add("--acts", type=float, default=1.0, help="seconds between two acts of an operator")
    add("--keep", type=Path, help="a folder for the history and the logs; short")
    add("--check", type=Path, help="only check the history in a folder")
    add("--list", action="store_true", help="list the faults")
    return parser.parse_args()


def options_of(asked: argparse.Namespace) -> Options:
    words = {
        **vars(asked),
        "faults": tuple(asked.fault),
        "kinds": tuple(asked.kinds),
        "trials": 0,
        "fails": True,
        "twice": True,
        "hurries": False,
    }
    return Options(**{one.name: words[one.name] for one in fields(Options)})


def end(number: int, frame: FrameType | None) -> None:
    """End as after an exception, so that no process is left."""
    raise SystemExit(128 + number)


def main() -> int:
    asked = parse()
    if asked.list:
        print("\n".join(f"{name}: {fault.__doc__ or ''}" for name, fault in FAULTS.items()))
        return 0
    signal.signal(signal.SIGTERM, end)
    report = read_report(asked.check) if asked.check else run(options_of(asked), asked.keep)
    print(report)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
