"""Samples and the figures computed from them: costs, ratios turn by turn, quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles

from .memory import KIB, Memory


@dataclass(frozen=True, slots=True)
class Block:
    """The cost of some rounds.

    Attributes:
        cpu: Seconds of the server's user and system time.
        answers: How often a client read something whole.
        deliveries: How many messages were in that.
        delays: Seconds from asking to publish until a client had read all, per client and round.
    """

    cpu: float
    answers: int
    deliveries: int
    delays: list[float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one peer.

    Attributes:
        subject: `poll`, `sse` or `websocket`.
        clients: How many.
        peer: Which.
        messages: How many were published at once.
        repetition: Of the servers.
        turn: In the repetition.
        block: What it cost.
    """

    subject: str
    clients: int
    peer: str
    messages: int
    repetition: int
    turn: int
    block: Block

    @property
    def cost(self) -> float:
        """Microseconds of CPU per delivered message."""
        return self.block.cpu / self.block.deliveries * 1e6

    @property
    def late(self) -> float:
        """Milliseconds until 99 of 100 clients had read all."""
        return percentile(self.block.delays, 99) * 1e3


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory of a server with listeners.

    Attributes:
        subject: `sse` or `websocket`.
        peer: Which.
        listeners: How many came between `before` and the others.
        before: With few listeners, which have had messages.
        idle: With those that came, which have not.
        used: When they have had one.
    """

    subject: str
    peer: str
    listeners: int
    before: Memory
    idle: Memory
    used: Memory

    @property
    def rss(self) -> float:
        """KiB per idle listener."""
        return (self.idle.rss - self.before.rss) / self.listeners / KIB

    @property
    def pss(self) -> float:
        """The same, which also varies with who else runs and shares pages."""
        return (self.idle.pss - self.before.pss) / self.listeners / KIB

    @property
    def used_rss(self) -> float:
        """KiB per listener that has had a message."""
        return (self.used.rss - self.before.rss) / self.listeners / KIB


def percentile(values: list[float], percent: int) -> float:
    """Return the value that so many of a hundred do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def ratios(samples: list[Sample], peer: str, base: str, figure: str = "cost") -> list[float]:
    """Return how many times what another peer took a peer took, turn by turn.

    Args:
        samples: Of one subject and number of clients, with the same messages at once.
        peer: Which.
        base: The other; where it was not measured nothing is returned.
        figure: `cost` or `late`.
    """
    bases = {(s.repetition, s.turn): getattr(s, figure) for s in samples if s.peer == base}
    own = [s for s in samples if s.peer == peer]
    return [getattr(s, figure) / bases[s.repetition, s.turn] for s in own] if bases else []


def tell(found: list[float], form: str = ".2f") -> str:
    """Write a median and, of more than one, the quartiles."""
    if not found:
        return ""
    if len(found) == 1:
        return f"{found[0]:{form}}"
    low, _, high = quantiles(found, n=4)
    return f"{median(found):{form}} ({low:{form}} to {high:{form}})"
