"""Several workers on Redis: `python -m benchmarks.redis [--quick] [--only PART]`.

Starts redis-servers of its own on unix sockets, and workers in processes of their own. Prints one
table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

from benchmarks.redis.costs import measure_fanout, measure_storing
from benchmarks.redis.delays import measure_delays
from benchmarks.redis.figures import HEAD, Figure
from benchmarks.redis.receiving import measure_receiving
from benchmarks.redis.space import measure_space
from benchmarks.redis.tabs import measure_tabs
from benchmarks.servers import raise_open_files
from benchmarks.tables import write_row, write_table

PARTS: dict[str, tuple[Callable[[int], Iterator[Figure]], int]] = {
    "fanout": (measure_fanout, 8),
    "storing": (measure_storing, 9),
    "receiving": (measure_receiving, 9),
    "delays": (measure_delays, 9),
    "space": (measure_space, 2),
    "tabs": (measure_tabs, 9),
}
"""What is measured, and in how many turns."""


def measure(parts: list[str], *, quick: bool) -> Iterator[Figure]:
    """Measure; tell on stderr what is under way."""
    for part in parts:
        print(f"measuring redis: {part}", file=sys.stderr)
        function, turns = PARTS[part]
        yield from function(min(turns, 3) if quick else turns)


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redis")
    parser.add_argument("--quick", action="store_true", help="fewer turns: noisier numbers")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure nothing else")
    arguments = parser.parse_args()
    raise_open_files()
    print(write_table(HEAD, []))
    for figure in measure(arguments.only or list(PARTS), quick=arguments.quick):
        print(write_row(figure.row()), flush=True)  # at once: it takes some minutes


if __name__ == "__main__":
    main()
