"""Two revisions side by side: `python -m benchmarks.paired REVISION [--only SUBJECT]`.

Each pair starts a server of the revision and one of the working tree, alternates between them, and
gives one ratio of CPU time per delivery. Prints the median ratio and its 95 % interval.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import comb
from pathlib import Path
from statistics import median

from .load_process import LoadProcess, load_process
from .peers import SUBJECTS
from .servers import ROOT, Served, raise_open_files, server

OURS = "ours"
WARM_UP = 20  # rounds
TURNS = 6
ROUNDS = 40  # publishes per turn


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Check a revision out into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", folder, revision], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run([*git, "remove", "--force", folder], check=True)


def measure_pair(subject: str, before: Path, clients: int, swap: bool) -> float:
    """Return how many times what a delivery cost before it costs in the working tree."""
    peer = SUBJECTS[subject][OURS]
    roots = [before, ROOT]
    with ExitStack() as stack:
        loads: list[LoadProcess] = []
        for root in reversed(roots) if swap else roots:
            port = stack.enter_context(server(peer.app, {}, grace=1, root=root))
            load = stack.enter_context(load_process(peer.dialect, Served(port)))
            load.open(clients)
            load.run(WARM_UP, 1)
            loads.append(load)
        costs: list[list[float]] = [[], []]
        for _ in range(TURNS):
            for cost, load in zip(costs, loads, strict=True):
                block = load.run(ROUNDS, 1)
                cost.append(block.cpu / block.deliveries)
    first, second = (median(cost) for cost in costs)
    return first / second if swap else second / first


def find_interval(ratios: list[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median, by order statistics."""
    count, ordered = len(ratios), sorted(ratios)
    rank, outside = 0, 0.0
    while rank < count // 2:
        outside += comb(count, rank) / 2**count
        if outside > 0.025:
            break
        rank += 1
    low = max(rank - 1, 0)
    return ordered[low], ordered[count - 1 - low]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired")
    parser.add_argument("revision", help="what the working tree is held against")
    parser.add_argument("--only", choices=[*SUBJECTS], help="measure nothing else")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--clients", type=int, default=1000)
    arguments = parser.parse_args()
    clients = raise_open_files(arguments.clients)
    with checked_out(arguments.revision) as before:
        for subject in [arguments.only] if arguments.only else SUBJECTS:
            found = []
            for n in range(arguments.pairs):
                found.append(measure_pair(subject, before, clients, swap=bool(n % 2)))
                print(f"{subject} {n + 1}: {found[-1]:.3f}", file=sys.stderr)
            low, high = find_interval(found)
            print(
                f"{subject}, {clients} clients, {len(found)} pairs: {median(found):.3f} times "
                f"{arguments.revision} (95 % interval {low:.3f} to {high:.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
