"""The cost of push for a server, beside others: `python -m benchmarks [--quick] [--only SUBJECT]`.

Prints one report in markdown, and saves it with all samples in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace

from .footprints import weigh
from .nginx import find_nginx
from .peers import SUBJECTS
from .profiling import profile
from .redis.__main__ import PARTS
from .redis.__main__ import measure as measure_redis
from .results import Results, save, write_report
from .servers import raise_open_files
from .turns import Plan, measure

MEMORY = "memory"
REDIS = "redis"
FEW = Plan()
MANY = Plan(clients=8000, repetitions=2, warm_up=3, turns=4, rounds=3, burst_turns=0)
PLANS = {"poll": (FEW,), "sse": (FEW, MANY), "websocket": (FEW, MANY)}
LISTENERS = 8000  # whose memory is weighed


def shorten(plan: Plan) -> Plan:
    """Return what is enough for a noisier number."""
    return replace(plan, repetitions=1, turns=3, burst_turns=min(1, plan.burst_turns))


def run(subjects: list[str], quick: bool) -> Results:
    """Measure, with as many clients as open files permit; tell on stderr what is under way."""
    results = Results()
    for subject in subjects:
        for plan in PLANS.get(subject, ()):
            plan = shorten(plan) if quick else plan  # noqa: PLW2901 - the one that is meant
            plan = replace(plan, clients=raise_open_files(plan.clients))  # noqa: PLW2901
            print(f"measuring {subject} with {plan.clients} clients", file=sys.stderr)
            results.samples.extend(measure(subject, plan))
    if MEMORY in subjects:
        for subject in ("sse", "websocket"):
            print(f"weighing {subject}", file=sys.stderr)
            results.footprints.extend(weigh(subject, raise_open_files(LISTENERS)))
    if REDIS in subjects:
        results.figures.extend(measure_redis(list(PARTS), quick=quick))
    return results


def list_subjects() -> list[str]:
    """Return what can be measured; tell on stderr what cannot."""
    if find_nginx() is None:
        print("nginx with nchan is not installed: skipped", file=sys.stderr)
    if shutil.which("redis-server") is None:
        print("redis-server is not installed: skipped", file=sys.stderr)
        return [*SUBJECTS, MEMORY]
    return [*SUBJECTS, MEMORY, REDIS]


def main() -> None:
    """Print the report, or a profile."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a noisier number")
    parser.add_argument("--only", choices=[*SUBJECTS, MEMORY, REDIS], help="measure nothing else")
    parser.add_argument(
        "--profile", metavar="PEER", help="tell where a peer spends time, by default in poll"
    )
    parser.add_argument("--burst", action="store_true", help="profile messages published at once")
    arguments = parser.parse_args()
    raise_open_files()
    if arguments.profile:
        subject = arguments.only or "poll"
        if subject not in SUBJECTS:
            parser.error("expected --only poll, sse or websocket with --profile")
        profile(subject, arguments.profile, FEW, FEW.burst if arguments.burst else 1)
        return
    results = run([arguments.only] if arguments.only else list_subjects(), arguments.quick)
    report = write_report(results)
    print(report)
    print(f"\nwritten to {save(results, report)}.md and .json", file=sys.stderr)


if __name__ == "__main__":
    main()
