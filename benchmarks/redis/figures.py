"""Figures, each with its reference and its goal, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from benchmarks.paired import find_interval
from benchmarks.tables import write_table

HEAD = ["figure", "median (95 % interval)", "best", "reference", "goal", "met"]


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, one value per turn.

    Attributes:
        what: In words.
        unit: Of the values.
        found: The values.
        beside: Values of the reference in the same turns; empty without one.
        goal: What the median may be; `None` for none.
        least: Whether more is better, and the goal the least that it may be.
    """

    what: str
    unit: str
    found: list[float]
    beside: list[float] = field(default_factory=list)
    goal: float | None = None
    least: bool = False

    def row(self) -> list[str]:
        """Return the cells of a table."""
        return [
            self.what,
            f"{_tell(self.found)} {self.unit}".strip(),
            _write(max(self.found) if self.least else min(self.found)),
            f"{_tell(self.beside)} {self.unit}".strip() if self.beside else "",
            "" if self.goal is None else f"{'≥' if self.least else '≤'} {self.goal:,g}",
            self._judge(),
        ]

    def _judge(self) -> str:
        if self.goal is None:
            return ""
        found = median(self.found)
        met = found >= self.goal if self.least else found <= self.goal
        return "yes" if met else "**no**"


def write_figures(figures: list[Figure]) -> str:
    """Write the table."""
    return write_table(HEAD, [figure.row() for figure in figures])


def _tell(found: list[float]) -> str:
    if len(found) == 1:
        return _write(found[0])
    low, high = find_interval(found)
    return f"{_write(median(found))} ({_write(low)} to {_write(high)})"


def _write(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
