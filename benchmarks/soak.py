"""Connections that come and go for a long time: `python -m benchmarks.soak [--seconds 600]`.

Two rounds against one server. In each, visitors of all transports fill it up, a share of them is
replaced every second while messages are published, and all leave. Prints what is left of them,
which must be nothing, and how memory moved; the exit code says whether that is so.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import uvloop

from .faults_server import SIZE
from .held import ask
from .servers import raise_open_files, server
from .visitors import Visitor, arrive, depart

APP = "benchmarks.faults_server:app"
ENVIRON = {  # so that what is left goes soon
    "COMET_PROCESS_TIMEOUT": "5",
    "COMET_LINGER": "1",
    "KEEP_ALIVE": "5",
}
AT_ONCE = 250  # connections opened at a time
WARM_UP = 400  # visitors before the first figures: what is made once is made then
PATIENCE = 60.0  # seconds until everything has to be gone
SAMPLES = 40  # of memory in each round
RATIO = 1.1  # memory after the second round to that after the first, at most


@dataclass
class Round:
    """The results of one round; memory in bytes, `slope` in shares of it per hour."""

    figures: dict[str, Any] = field(default_factory=dict)
    lag: dict[str, float] = field(default_factory=dict)
    full: int = 0
    replaced: int = 0
    seconds: float = 0.0
    slope: float = 0.0


class Crowd:
    """Visitors of one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._visitors: list[Visitor] = []
        self._number = 0

    async def come(self, count: int) -> None:
        """Connect that many more."""
        for start in range(0, count, AT_ONCE):
            numbers = range(self._number, self._number + min(AT_ONCE, count - start))
            self._number = numbers.stop
            self._visitors += await asyncio.gather(*(arrive(self._port, n) for n in numbers))

    async def go(self, count: int) -> None:
        """Disconnect that many random visitors; every second connection is reset."""
        random.shuffle(self._visitors)
        leaving, self._visitors = self._visitors[:count], self._visitors[count:]
        for start in range(0, count, AT_ONCE):
            batch = leaving[start : start + AT_ONCE]
            gone = (depart(self._port, v, reset=n % 2 == 0) for n, v in enumerate(batch))
            await asyncio.gather(*gone)

    async def empty(self) -> None:
        """Disconnect all visitors."""
        await self.go(len(self._visitors))

    async def ask(self, method: str, path: str) -> Any:
        """Ask the server."""
        return await asyncio.to_thread(ask, self._port, method, path)

    async def churn(self, found: Round, count: int, seconds: float) -> None:
        """Replace that many a second, and take samples of the memory."""
        samples: list[tuple[float, float]] = []
        await self.ask("GET", "/lag")
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            await asyncio.gather(self.go(count), self.ask("POST", "/publish"))
            await self.come(count)
            found.replaced += count
            if passed >= len(samples) * seconds / SAMPLES:
                samples.append((passed, await self.ask("GET", "/memory")))
            await asyncio.sleep(max(0.0, passed + 1 - (time.monotonic() - began)))
        found.seconds = time.monotonic() - began
        found.lag = await self.ask("GET", "/lag")
        found.full = int(samples[-1][1])
        found.slope = slope(samples[len(samples) // 4 :])

    async def settle(self, baseline: dict[str, Any] | None) -> dict[str, Any]:
        """Return the figures once they are those of the baseline, or are those after `PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        while True:
            await self.ask("POST", "/publish")  # what is encoded for sharing goes with it
            figures: dict[str, Any] = await self.ask("GET", "/figures")
            idle = not figures["tables"]["processes"] + figures["tables"]["listeners"]
            if (idle and baseline is None) or figures["tables"] == baseline:
                return figures
            if time.monotonic() > deadline:
                return figures
            await asyncio.sleep(1)


def slope(samples: list[tuple[float, float]]) -> float:
    """Return how fast memory grows, as a share of it per hour: least squares."""
    middle = sum(t for t, _ in samples) / len(samples)
    size = sum(s for _, s in samples) / len(samples)
    over = sum((t - middle) * (s - size) for t, s in samples)
    under = sum((t - middle) ** 2 for t, _ in samples)
    return over / (under or 1.0) * 3600 / size


async def run(connections: int, churn: int, seconds: float) -> list[Round]:
    """Return what was there before, and what each of two rounds showed."""
    connections = raise_open_files(connections)
    with server(APP, ENVIRON) as port:
        crowd = Crowd(port)
        before = Round()
        for _ in range(2):
            await crowd.come(WARM_UP)
            for _ in range(SIZE):
                await crowd.ask("POST", "/publish")
            await crowd.empty()
            before.figures = await crowd.settle(None)
        await asyncio.sleep(12)  # what is kept of a channel that ended, or of a former cookie
        before.figures = await crowd.settle(None)
        rounds = [before]
        for number in (1, 2):
            found = Round()
            await crowd.come(connections)
            await crowd.churn(found, churn, seconds / 2)
            await crowd.empty()
            found.figures = await crowd.settle(before.figures["tables"])
            rounds.append(found)
            print(f"round {number} done", file=sys.stderr)
        return rounds


def report(rounds: list[Round]) -> bool:
    """Print what was found, and tell whether nothing is left."""
    before, first, second = rounds
    tables = before.figures["tables"]
    good = True
    for number, found in enumerate((first, second), 1):
        left = {
            name: count - tables.get(name, 0)
            for name, count in found.figures["tables"].items()
            if count != tables.get(name, 0)
        }
        good = good and not left
        print(
            f"round {number}: {found.replaced / found.seconds:.0f} replaced a second for "
            f"{found.seconds:.0f} s; memory {before.figures['memory'] / 2**20:.1f} -> "
            f"{found.full / 2**20:.1f} -> {found.figures['memory'] / 2**20:.1f} MiB, "
            f"{found.slope:+.1%} an hour; left over: {left or 'nothing'}; live blocks "
            f"{before.figures['blocks']} -> {found.figures['blocks']}; loop stood still "
            f"p99 {found.lag['p99'] * 1e3:.0f} ms, "
            f"longest {found.lag['max'] * 1e3:.0f} ms"
        )
    ratio = second.figures["memory"] / first.figures["memory"]
    print(f"memory after the second round to that after the first: {ratio:.3f}")
    return good and ratio <= RATIO


def main() -> None:
    """Run, and exit with 1 if anything is left."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--churn", type=int, default=100, help="connections replaced a second")
    parser.add_argument("--seconds", type=float, default=600.0, help="of both rounds together")
    arguments = parser.parse_args()
    found = uvloop.run(run(arguments.connections, arguments.churn, arguments.seconds))
    sys.exit(not report(found))


if __name__ == "__main__":
    main()
