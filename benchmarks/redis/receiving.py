"""What a frame costs the worker that receives it, when no client listens.

This process is that worker, the publisher is another one. Times are of this thread's processor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import uvloop

from asgi_comet import SITE, Comet
from asgi_comet.brokers.redis.address import parse_address
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.dialing import dial
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.testing._inspect import feed_of, inside
from benchmarks.redis.figures import Figure
from benchmarks.redis.primary import Primary, run_primary
from benchmarks.redis.workers import Worker, run_worker


@dataclass(frozen=True, slots=True)
class Case:
    """How frames come.

    Attributes:
        what: In words.
        channels: How many channels have messages.
        rounds: How often they have some at once.
        each: How many messages each has then, which are one frame.
        waits: Whether all frames wait in the socket before the first is read.
        goal: What a message may cost, in microseconds.
    """

    what: str
    channels: int
    rounds: int
    each: int = 1
    waits: bool = False
    goal: float | None = None

    @property
    def messages(self) -> int:
        """How many messages come in all."""
        return self.channels * self.rounds * self.each


CASES = (
    Case("frame of one message, 6,400 in a row", 64, 100, waits=True, goal=4.0),
    Case("frame of one message, 64 at a time", 64, 100, goal=4.0),
    Case("frame of one message, one at a time", 1, 2000),
    Case("message of a frame of 64", 64, 4, 64),
)


def measure_receiving(turns: int) -> Iterator[Figure]:
    """Measure with the windows of a `Comet`, and without: a connection that reads and parses."""
    for case in CASES:
        ours, bare = list[float](), list[float]()
        with (
            run_primary() as primary,
            run_worker(primary.url, case.channels) as publisher,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            for _ in range(turns):
                ours.append(runner.run(_receive(primary, publisher, case)))
                bare.append(runner.run(_receive_bare(primary, publisher, case)))
        yield Figure(f"{case.what}: CPU to receive; without windows", "µs", ours, bare, case.goal)


async def _receive(primary: Primary, publisher: Worker, case: Case) -> float:
    """Follow all channels, and return the microseconds per message."""
    comet = Comet("k" * 32, broker=primary.url)
    channels = [comet.create(scope=SITE, name=f"many{n}") for n in range(case.channels)]
    async with comet.lifespan():
        for channel in channels:
            await channel.publish("opened").stored()
        feeds = [feed_of(channel) for channel in channels]
        for feed in feeds:
            await inside(comet).channels.sharing.follow(feed)
        before = sum(feed.top for feed in feeds)
        cost = await _time(publisher, case, lambda: channels[0].publish("the last").stored())
        if sum(feed.top for feed in feeds) != before + case.messages + 1:
            raise ValueError(f"expected {case.messages} messages in the windows")
        return cost


async def _receive_bare(primary: Primary, publisher: Worker, case: Case) -> float:
    """Subscribe to all topics, and return the microseconds per message."""
    count = 0

    def take(_: bytes, __: bytes) -> None:
        nonlocal count
        count += 1

    connection = Connection(await dial(parse_address(primary.url), 5.0), take)
    running: Awaitable[None] = connection.run()
    task = asyncio.ensure_future(running)
    keys = Keys()
    await connection.subscribe([keys.site(f"many{n}").topic for n in range(case.channels)])
    cost = await _time(publisher, case, lambda: connection.send(Call(("PING",), bytes)))
    connection.close("measured")
    with suppress(BrokerUnavailable):
        await task
    if count < case.messages // case.each:
        raise ValueError(f"expected {case.messages // case.each} frames, got {count}")
    return cost


async def _time(publisher: Worker, case: Case, ask_last: Callable[[], Awaitable[object]]) -> float:
    """Have messages published, and return the microseconds of this thread per message.

    Args:
        publisher: The worker that publishes.
        case: How many messages.
        ask_last: Asks Redis for something, the reply to which comes after all frames.
    """
    before = time.thread_time()
    if case.waits:
        publisher.store(case.rounds, case.each)
    else:
        await asyncio.to_thread(publisher.store, case.rounds, case.each)
    await ask_last()
    return (time.thread_time() - before) / case.messages * 1e6
