"""The results as tables in markdown."""

from __future__ import annotations

from statistics import median

from .peers import BASE, NCHAN, SUBJECTS
from .samples import Footprint, Sample, percentile, ratios, tell
from .targets import Target

POLL = "poll"


def write_table(head: list[str], rows: list[list[str]]) -> str:
    """Write a table."""
    rules = ["---"] * len(head)
    return "\n".join(write_row(cells) for cells in (head, rules, *rows))


def write_row(cells: list[str]) -> str:
    """Write one row of a table."""
    return f"| {' | '.join(cells)} |"


def write_targets(targets: list[Target]) -> str:
    """Write the table of what is held against something."""
    rows = [
        [
            target.what,
            f"{'≥' if target.least else '≤'} {target.bound:g}",
            tell(target.found),
            "yes" if target.met else "**no**",
        ]
        for target in targets
    ]
    return write_table(["asgi_comet", "target", "median (quartiles)", "met"], rows)


def write_costs(samples: list[Sample]) -> str:
    """Write the table of messages that were published one at a time.

    Args:
        samples: Of one subject and number of clients.
    """
    single = [s for s in samples if s.messages == 1]
    subject = single[0].subject
    bases = [base for base in (BASE, NCHAN) if any(s.peer == base for s in single)]
    head = ["peer", "µs CPU per delivery", *(f"times {base}" for base in bases)]
    if subject != POLL:
        head += ["p50 ms", "p99 ms"]
    rows = []
    for peer in list_peers(single):
        row = [SUBJECTS[subject][peer].label, f"{cost(single, peer):.2f}"]
        row += [tell(ratios(single, peer, base)) for base in bases]
        if subject != POLL:
            delays = [d * 1e3 for s in single if s.peer == peer for d in s.block.delays]
            row += [f"{percentile(delays, percent):.2f}" for percent in (50, 99)]
        rows.append(row)
    return write_table(head, rows)


def write_bursts(samples: list[Sample]) -> str:
    """Write the table of messages that were published at once; empty where there were none.

    Args:
        samples: Of one subject and number of clients.
    """
    single = [s for s in samples if s.messages == 1]
    burst = [s for s in samples if s.messages > 1]
    if not burst:
        return ""
    messages = burst[0].messages
    head = [
        f"peer, {messages} messages at once",
        "reads per client",
        "µs CPU per delivery",
        "times less than one at a time",
        f"times {BASE}",
    ]
    rows = []
    for peer in list_peers(burst):
        blocks = [s.block for s in burst if s.peer == peer]
        rows.append(
            [
                SUBJECTS[burst[0].subject][peer].label,
                f"{median(b.answers * messages / b.deliveries for b in blocks):.1f}",
                f"{cost(burst, peer):.2f}",
                f"{cost(single, peer) / cost(burst, peer):.1f}",
                tell(ratios(burst, peer, BASE)),
            ]
        )
    return write_table(head, rows)


def write_footprints(footprints: list[Footprint]) -> str:
    """Write the table of memory.

    Args:
        footprints: Of one subject.
    """
    bare = next(f.rss for f in footprints if f.peer == BASE)
    rows = [
        [
            SUBJECTS[f.subject][f.peer].label,
            f"{f.rss:.1f}",
            f"{f.pss:.1f}",
            f"{f.used_rss:.1f}",
            f"{f.rss / bare:.2f}",
        ]
        for f in footprints
    ]
    return write_table(
        ["peer", "KiB per idle listener", "PSS", "after a message", f"times {BASE}"], rows
    )


def cost(samples: list[Sample], peer: str) -> float:
    """Return the median of what a peer's deliveries cost."""
    return median(s.cost for s in samples if s.peer == peer)


def list_peers(samples: list[Sample]) -> list[str]:
    """Return who was measured, in the order of the tables."""
    measured = {s.peer for s in samples}
    return [peer for peer in SUBJECTS[samples[0].subject] if peer in measured]
