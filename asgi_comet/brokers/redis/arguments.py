"""The checks of the figures that an operator gives to a broker on Redis.

Owns the types and the lower bounds. Must not know what the figures are for.
"""

from __future__ import annotations

import math

__all__ = ["check_bytes", "check_seconds", "check_truth"]


def check_seconds(**figures: float) -> None:
    """Check that figures are numbers of seconds.

    Raises:
        TypeError: A figure is no number.
        ValueError: A figure is not above 0, or infinite.
    """
    for name, figure in figures.items():
        if isinstance(figure, bool) or not isinstance(figure, int | float):
            raise TypeError(f"expected {name} to be a number of seconds, got {figure!r:.80}")
        if not 0 < figure < math.inf:
            raise ValueError(f"expected {name} to be above 0 and finite, got {figure!r}")


def check_bytes(**figures: int) -> None:
    """Check that figures are numbers of bytes.

    Raises:
        TypeError: A figure is no whole number.
        ValueError: A figure is not above 0.
    """
    for name, figure in figures.items():
        if isinstance(figure, bool) or not isinstance(figure, int):
            raise TypeError(f"expected {name} to be a whole number of bytes, got {figure!r:.80}")
        if figure <= 0:
            raise ValueError(f"expected {name} to be above 0, got {figure!r}")


def check_truth(**values: bool) -> None:
    """Check that values are `True` or `False`.

    Raises:
        TypeError: A value is neither.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"expected {name} to be True or False, got {value!r:.80}")
