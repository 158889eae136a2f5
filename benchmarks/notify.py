"""The loop's cost of one notification to many: `python -m benchmarks.notify [LISTENERS]`.

Without sockets: each client process has a connection that is woken and reads nothing. Prints for
each way to prepare how long it took until all had it, the longest time for which no other task had
the loop, how much of such a time the loop itself worked at most (the rest is other threads, and the
other load of the machine), and how often the value was encoded.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop
from pydantic import BaseModel, model_serializer

from asgi_comet import Comet, Notifier, Session, Settings
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.identity.process import Claim
from asgi_comet.testing._inspect import feed_of, inside

LISTENERS = 10_000
ROUNDS = 5


class Quiet(Listener):
    """A connection that takes note of nothing."""

    def rouse(self) -> None:
        """Be told, and told again."""
        self.woken = None

    def forbid(self, feed: Feed) -> None:
        """Not used."""


class Value(BaseModel):
    """A value that counts how often it is encoded."""

    text: str

    @model_serializer
    def count(self) -> dict[str, str]:
        """Encode."""
        encoded.append(1)
        return {"text": self.text}


encoded: list[int] = []


async def later(user: Any, value: Value) -> Value:
    """Prepare, with a wait."""
    await asyncio.sleep(0)
    return value


async def at_once(user: Any, value: Value) -> Value:
    """Prepare, without a wait."""
    return value


WAYS: dict[str, Callable[[Any, Any], Any] | None] = {
    "the same for all": None,
    "sync prepare": lambda user, value: value,
    "async prepare": at_once,
    "async prepare that waits": later,
}


class Stretches:
    """Looks how long it takes until the loop has turned."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.busiest = 0.0

    async def run(self) -> None:
        """Look at every turn."""
        while True:
            before, worked = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.perf_counter() - before)
            self.busiest = max(self.busiest, time.thread_time() - worked)


async def measure(way: str, count: int) -> None:
    """Notify all, some rounds, and print the worst."""
    comet = Comet("k" * 32, settings=Settings(max_processes=count))
    notifier: Notifier[int] = comet.notifier("bench", key=int, prepare=WAYS[way])
    async with comet.lifespan():
        for number in range(count):
            process = inside(comet).clients.open(Claim.of(Session(f"session {number}"))).process
            feed = feed_of(notifier.listen(1, process))
            inside(comet).fanout.attach(Quiet(), feed)
        gc.collect()
        gc.freeze()
        took, longest, busiest, times = 0.0, 0.0, 0.0, 0
        for _ in range(ROUNDS):
            stretches = Stretches()
            watching = asyncio.create_task(stretches.run())
            await asyncio.sleep(0)
            encoded.clear()
            began = time.perf_counter()
            reached = await notifier.notify(1, Value(text="hello"))
            took = max(took, time.perf_counter() - began)
            watching.cancel()
            assert reached == count
            longest = max(longest, stretches.longest)
            busiest = max(busiest, stretches.busiest)
            times = max(times, len(encoded))
        stretch = f"{longest * 1e3:.1f} ms | {busiest * 1e3:.1f} ms"
        print(f"| {way} | {took * 1e3:.0f} ms | {stretch} | {times} |")


def main() -> None:
    """Print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else LISTENERS
    print(f"One notification to {count} listeners, the worst of {ROUNDS}, with uvloop:\n")
    print("| prepared | all have it after | longest stretch | of it the loop | encoded |")
    print("|---|---|---|---|---|")
    for way in WAYS:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(way, count))


if __name__ == "__main__":
    main()
