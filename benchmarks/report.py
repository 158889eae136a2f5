"""What was measured, as tables in markdown and as a file in JSON."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median, quantiles

from .dialects import DIALECTS
from .load import Block
from .servers import ROOT

BASE = "bare"
TARGETS = {"ours": 1.3}  # times what `BASE` takes
SOFTWARE = ("uvicorn", "uvloop", "httptools", "starlette", "python-socketio")
RESULTS = "benchmarks/results"


@dataclass(frozen=True)
class Sample:
    """One turn of one peer.

    Attributes:
        peer: Which.
        messages: How many were published at once.
        repetition: Of the servers.
        turn: In the repetition.
        block: What it cost.
    """

    peer: str
    messages: int
    repetition: int
    turn: int
    block: Block

    @property
    def cost(self) -> float:
        """Microseconds of CPU per delivered message."""
        return self.block.cpu / self.block.deliveries * 1e6


def ratios(samples: list[Sample], peer: str) -> list[float]:
    """Return how many times what `BASE` took a peer took, turn by turn."""
    base = {(s.repetition, s.turn): s.cost for s in samples if s.peer == BASE}
    return [s.cost / base[s.repetition, s.turn] for s in samples if s.peer == peer]


def make_table(samples: list[Sample]) -> str:
    """Return the table of messages that were published one at a time."""
    single = [s for s in samples if s.messages == 1]
    lines = [
        "| peer | µs CPU per delivery | times bare, median (quartiles) | target |",
        "|---|---|---|---|",
    ]
    for peer in DIALECTS:
        target = f"≤ {TARGETS[peer]}" if peer in TARGETS else ""
        lines.append(
            f"| {DIALECTS[peer].label} | {_cost(single, peer):.1f} | {_ratio(single, peer)} "
            f"| {target} |"
        )
    return "\n".join(lines)


def make_burst_table(samples: list[Sample]) -> str:
    """Return the table of messages that were published in one turn of the loop."""
    single = [s for s in samples if s.messages == 1]
    burst = [s for s in samples if s.messages > 1]
    messages = burst[0].messages
    lines = [
        f"| peer, {messages} messages at once | answers per client | µs CPU per delivery "
        "| of one at a time | times bare, median (quartiles) |",
        "|---|---|---|---|---|",
    ]
    for peer in DIALECTS:
        blocks = [s.block for s in burst if s.peer == peer]
        answers = median(b.answers * messages / b.deliveries for b in blocks)
        cost = _cost(burst, peer)
        lines.append(
            f"| {DIALECTS[peer].label} | {answers:.2f} | {cost:.2f} "
            f"| {cost / _cost(single, peer):.1%} | {_ratio(burst, peer)} |"
        )
    return "\n".join(lines)


def write_results(samples: list[Sample]) -> str:
    """Write all samples, and on what they were measured; return where."""
    now = datetime.now(UTC)
    found = {
        "time": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "software": {name: version(name) for name in SOFTWARE},
        "ratios": {
            "one at a time": _medians([s for s in samples if s.messages == 1]),
            "at once": _medians([s for s in samples if s.messages > 1]),
        },
        "samples": [{**asdict(s), "cost": s.cost} for s in samples],
    }
    path = f"{RESULTS}/poll-{now:%Y%m%dT%H%M%SZ}.json"
    (ROOT / RESULTS).mkdir(exist_ok=True)
    (ROOT / path).write_text(json.dumps(found, indent=1) + "\n")
    return path


def _medians(samples: list[Sample]) -> dict[str, float]:
    return {peer: round(median(ratios(samples, peer)), 3) for peer in DIALECTS}


def _cost(samples: list[Sample], peer: str) -> float:
    return median(s.cost for s in samples if s.peer == peer)


def _ratio(samples: list[Sample], peer: str) -> str:
    found = ratios(samples, peer)
    if len(found) < 2:
        return f"{found[0]:.2f}"
    low, _, high = quantiles(found, n=4)
    return f"{median(found):.2f} ({low:.2f} to {high:.2f})"
