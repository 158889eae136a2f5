"""The live figures of the machine: counters in, one figure per channel out.

Owns the measurements, and how two samples give a rate.
Knows nothing of channels being written, of HTTP or of the page.
"""

import time
from dataclasses import dataclass
from typing import Any

import psutil

CHANNELS = ("cpu", "memory", "network", "machine")
"""Names of the channels of `figures`."""

UNREADABLE = (psutil.Error, OSError)
"""The errors of `take_sample`."""


@dataclass(frozen=True, slots=True)
class CoreTimes:
    """Seconds a core has been busy, of the seconds that were accounted for, since boot."""

    busy: float
    total: float


@dataclass(frozen=True, slots=True)
class Sample:
    """The machine at one instant: counters that only grow, and levels."""

    at: float
    """Monotonic seconds."""
    cores: tuple[CoreTimes, ...]
    received: int
    """Bytes since boot, over all interfaces. The loopback counts: an idle machine shows the page's
    own traffic."""
    sent: int
    memory_used: int
    memory_total: int
    load: tuple[float, float, float]
    processes: int
    uptime: float
    """Seconds since boot."""


def take_sample() -> Sample:
    """Read the machine's counters. Blocks for some milliseconds: call it in a thread."""
    memory = psutil.virtual_memory()
    interfaces = psutil.net_io_counters(pernic=True).values()
    return Sample(
        at=time.monotonic(),
        cores=tuple(_core_times(core) for core in psutil.cpu_times(percpu=True)),
        received=sum(interface.bytes_recv for interface in interfaces),
        sent=sum(interface.bytes_sent for interface in interfaces),
        memory_used=memory.total - memory.available,
        memory_total=memory.total,
        load=psutil.getloadavg(),
        processes=len(psutil.pids()),
        uptime=time.time() - psutil.boot_time(),
    )


def figures(before: Sample, now: Sample, *, posts: int) -> dict[str, dict[str, Any]]:
    """Return the value of each of `CHANNELS`, with rates over the time between two samples.

    Args:
        before: The earlier sample.
        now: The later one.
        posts: Number of the newest post on the wall: how a page notices that it missed one.
    """
    at = round(now.at, 1)  # a page that misses one draws a hole
    return {
        "cpu": {"at": at, **_cpu(before, now)},
        "memory": {"at": at, "used": now.memory_used, "total": now.memory_total},
        "network": {"at": at, **_network(before, now)},
        "machine": {
            "load": [round(load, 2) for load in now.load],
            "processes": now.processes,
            "uptime": int(now.uptime),
            "posts": posts,
        },
    }


def _core_times(core: Any) -> CoreTimes:
    # Linux counts the guests' time inside `user` and `nice`, and again on its own.
    total = sum(core) - getattr(core, "guest", 0.0) - getattr(core, "guest_nice", 0.0)
    return CoreTimes(busy=total - core.idle - getattr(core, "iowait", 0.0), total=total)


def _cpu(before: Sample, now: Sample) -> dict[str, Any]:
    # psutil's own cpu_percent remembers the last call per thread, and ours come from a pool.
    cores = [_percent(a, b) for a, b in zip(before.cores, now.cores, strict=False)]
    return {"total": round(sum(cores) / len(cores), 1) if cores else 0.0, "cores": cores}


def _percent(before: CoreTimes, now: CoreTimes) -> float:
    passed = now.total - before.total
    if passed <= 0:
        return 0.0
    return round(min(max((now.busy - before.busy) / passed, 0.0), 1.0) * 100, 1)


def _network(before: Sample, now: Sample) -> dict[str, int]:
    passed = now.at - before.at
    if passed <= 0:
        return {"in": 0, "out": 0}
    # Counters fall when an interface goes away; a rate never does.
    return {
        "in": round(max(now.received - before.received, 0) / passed),
        "out": round(max(now.sent - before.sent, 0) / passed),
    }
