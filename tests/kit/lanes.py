"""The order of tests in several workers of pytest-xdist: what takes long starts first.

Owns where a lane begins. xdist gives each of its workers an equal part of the list, in order; one
that is done takes over the end of what another one still has. So a long test late in the list would
end alone, and long tests next to each other would wait for each other.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

__all__ = ["arrange"]


def arrange(items: list[pytest.Item], workers: int) -> None:
    """Put the tests of each lane at the beginning of the part of one worker, in place.

    Args:
        items: The tests; their mark `long` names the lane.
        workers: How many workers there are.
    """
    lanes, others = defaultdict[int, list[pytest.Item]](list), list[pytest.Item]()
    for item in items:
        mark = item.get_closest_marker("long")
        (others if mark is None else lanes[mark.args[0] % workers]).append(item)
    left, arranged = len(items), list[pytest.Item]()
    for number in range(workers):
        size = left // (workers - number)  # as xdist divides
        left -= size
        first = lanes[number]
        rest = max(size - len(first), 0)
        arranged += [*first, *others[:rest]]
        del others[:rest]
    items[:] = [*arranged, *others]
