"""What takes long starts first, in different workers of pytest-xdist."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.lanes import arrange


class Item:
    """A test, as far as its order goes."""

    def __init__(self, name: str, lane: int | None = None) -> None:
        self.name = name
        self._lane = lane

    def get_closest_marker(self, name: str) -> Any:
        assert name == "long"
        return None if self._lane is None else pytest.mark.long(self._lane)


def arranged(workers: int, tests: int) -> str:
    """Return the names of so many tests and of four long ones, in order."""
    items: list[Any] = [Item(chr(ord("a") + number)) for number in range(tests)]
    items += [Item("X", 0), Item("Y", 1), Item("Z", 1), Item("W", 2)]
    arrange(items, workers)
    return "".join(item.name for item in items)


@pytest.mark.parametrize(
    ("workers", "tests", "expected"),
    [
        (1, 4, "XYZWabcd"),
        (2, 4, "XWabYZcd"),
        (3, 7, "Xab" + "YZcd" + "Wefg"),  # xdist gives the first worker the smallest part
        (4, 8, "Xab" + "YZc" + "Wde" + "fgh"),
        (4, 0, "XYZW"),
    ],
)
def test_each_worker_begins_with_the_tests_of_its_lanes(
    workers: int, tests: int, expected: str
) -> None:
    assert arranged(workers, tests) == expected
