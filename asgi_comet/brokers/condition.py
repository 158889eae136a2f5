"""The condition of a broker, for operators. Holds no logic."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Condition"]


@dataclass(frozen=True, slots=True)
class Condition:
    """How a broker fares in this worker.

    Attributes:
        number: The lowest number that no other living worker had when this one joined the others.
            The number is free again once the worker has left, or the others take the worker for
            dead. `None` until the worker has joined.
        reconnects: How often a connection has followed another one, since the start.
        errors: How often a connection failed, or could not be made.
        lag: How many seconds a frame to this worker itself took at last, through the store.
    """

    number: int | None = None
    reconnects: int = 0
    errors: int = 0
    lag: float = 0.0
