"""The targets, with the measured values."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from .peers import BASE, NCHAN, SUBJECTS
from .samples import Footprint, Sample, ratios

OURS = "ours"
BURST_FACTOR = 10.0  # how many times less a message costs of a hundred at once
MOST_KIB = 16.0  # of memory per idle listener of server-sent events
MOST_TIMES = 1.5  # what a bare server takes for one

RATIOS = (
    ("poll", 1000, BASE, "cost", 1.3),
    ("sse", 1000, NCHAN, "cost", 0.9),
    ("sse", 1000, "sse-starlette", "cost", 0.35),
    ("sse", 8000, NCHAN, "cost", 1.3),
    ("websocket", 1000, BASE, "cost", 1.15),
    ("websocket", 1000, "litestar", "cost", 0.9),
    ("sse", 1000, "sse-starlette", "late", 1.0),
    ("websocket", 1000, "litestar", "late", 1.0),
)
"""Subject, clients, whom ours is compared with, in what, and how many times that is allowed."""

FIGURES = {"cost": "CPU per delivery", "late": "p99 latency"}
TITLES = {"poll": "long poll", "sse": "SSE", "websocket": "WebSocket"}


@dataclass(frozen=True, slots=True)
class Target:
    """A bound, and what is held against it.

    Attributes:
        what: In words.
        bound: What the median of `found` may be.
        found: One number per turn, repetition or machine.
        least: Whether the bound is the least it may be, not the most.
    """

    what: str
    bound: float
    found: list[float]
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is within the bound."""
        middle = median(self.found)
        return middle >= self.bound if self.least else middle <= self.bound


def list_targets(samples: list[Sample], footprints: list[Footprint]) -> list[Target]:
    """Return all targets for which something was measured."""
    targets = [*_list_ratios(samples), *_list_bursts(samples), *_list_footprints(footprints)]
    return [target for target in targets if target.found]


def _list_ratios(samples: list[Sample]) -> list[Target]:
    targets = []
    for subject, clients, base, figure, bound in RATIOS:
        chosen = [s for s in samples if (s.subject, s.clients, s.messages) == (subject, clients, 1)]
        what = f"{TITLES[subject]}, {clients:,}: {FIGURES[figure]}, times"
        targets.append(
            Target(
                f"{what} {SUBJECTS[subject][base].label}",
                bound,
                ratios(chosen, OURS, base, figure),
            )
        )
    return targets


def _list_bursts(samples: list[Sample]) -> list[Target]:
    """Compare messages at once with messages one at a time, repetition by repetition."""
    costs: dict[tuple[int, bool], list[float]] = {}
    for s in samples:
        if (s.subject, s.peer, s.clients) == ("sse", OURS, 1000):
            costs.setdefault((s.repetition, s.messages > 1), []).append(s.cost)
    found = [
        median(costs[number, False]) / median(burst)
        for (number, many), burst in costs.items()
        if many
    ]
    return [
        Target("SSE, burst: times less per message than one at a time", BURST_FACTOR, found, True)
    ]


def _list_footprints(footprints: list[Footprint]) -> list[Target]:
    sizes = {f.peer: f.rss for f in footprints if f.subject == "sse"}
    if OURS not in sizes:
        return []
    label = SUBJECTS["sse"][BASE].label
    return [
        Target("SSE, memory per idle listener: KiB", MOST_KIB, [sizes[OURS]]),
        Target(
            f"SSE, memory per idle listener, times {label}", MOST_TIMES, [sizes[OURS] / sizes[BASE]]
        ),
    ]
