"""All that was measured as one report in markdown, and as a file in JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from statistics import median
from typing import Any

from .nginx import tell_version
from .redis.figures import Figure, write_figures
from .samples import Footprint, Sample, percentile
from .servers import ROOT
from .tables import write_bursts, write_costs, write_footprints, write_targets
from .targets import TITLES, list_targets

RESULTS = "benchmarks/results"
SOFTWARE = (
    "asgi-comet",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "starlette",
    "fastapi",
    "sse-starlette",
    "litestar",
    "python-socketio",
)


@dataclass
class Results:
    """The results so far."""

    samples: list[Sample] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def write_report(results: Results) -> str:
    """Write all tables, those of targets first."""
    parts = [f"Measured on {', '.join(f'{k} {v}' for k, v in list_software().items() if v)}."]
    targets = list_targets(results.samples, results.footprints)
    if targets:
        parts += ["## Targets", write_targets(targets)]
    for (subject, clients), samples in _group(results.samples):
        title = f"{TITLES[subject]}, {clients:,} clients"
        parts += [f"## {title[0].upper()}{title[1:]}", write_costs(samples), write_bursts(samples)]
    for subject in TITLES:
        weighed = [f for f in results.footprints if f.subject == subject]
        if weighed:
            title = f"{TITLES[subject]}, memory of {weighed[0].listeners:,} listeners"
            parts += [f"## {title}", write_footprints(weighed)]
    if results.figures:
        parts += ["## Many workers on Redis", write_figures(results.figures)]
    return "\n\n".join(part for part in parts if part)


def save(results: Results, report: str) -> str:
    """Save the report and everything it was made from; return where, without the endings."""
    now = datetime.now(UTC)
    found = {
        "time": now.isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "software": list_software(),
        "targets": [
            {**asdict(t), "median": median(t.found), "met": t.met}
            for t in list_targets(results.samples, results.footprints)
        ],
        "samples": [_simplify(sample) for sample in results.samples],
        "footprints": [asdict(footprint) for footprint in results.footprints],
        "redis": [asdict(figure) for figure in results.figures],
    }
    path = f"{RESULTS}/{now:%Y%m%dT%H%M%SZ}"
    (ROOT / RESULTS).mkdir(exist_ok=True)
    (ROOT / f"{path}.json").write_text(json.dumps(found, indent=1) + "\n")
    (ROOT / f"{path}.md").write_text(report + "\n")
    return path


def list_software() -> dict[str, str | None]:
    """Return versions; `None` for what is not installed."""
    found: dict[str, str | None] = {
        "Linux": platform.release(),
        "Python": platform.python_version(),
    }
    return {**found, **{name: version(name) for name in SOFTWARE}, "nginx": tell_version()}


def _group(samples: list[Sample]) -> Iterator[tuple[tuple[str, int], list[Sample]]]:
    for key in dict.fromkeys((s.subject, s.clients) for s in samples):
        yield key, [s for s in samples if (s.subject, s.clients) == key]


def _simplify(sample: Sample) -> dict[str, Any]:
    """Write delays as percentiles: there is one per client and round."""
    found = asdict(sample)
    delays = found["block"].pop("delays")
    percentiles = {f"p{n}_ms": percentile(delays, n) * 1e3 for n in (50, 99)}
    return {**found, **percentiles, "cost_us": sample.cost}
