"""Memory: of Redis per channel and per channel that a worker follows, of a worker likewise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from asgi_comet.brokers.redis.keys import Keys
from benchmarks.redis.figures import Figure
from benchmarks.redis.primary import Primary, run_primary
from benchmarks.redis.workers import run_worker

CHANNELS = 5000
FULL = 20  # messages of each channel in the end
BEFORE = 500  # channels that are there first, so that what is made once is made
ENDED = 600_000  # ms that the record of a channel that has ended stays
PAUSE = 0.05  # seconds
WORKER = "memory of a worker per followed channel with one message"


def measure_space(turns: int) -> Iterator[Figure]:
    """Measure all of it, each turn with processes of its own."""
    found: dict[str, list[float]] = {}
    with_memory: list[float] = []
    for _ in range(turns):
        with run_primary() as primary:
            for what, value in (*_measure_redis(primary), *_look_what_is_left(primary)):
                found.setdefault(what, []).append(value)
        with run_primary() as primary:
            found.setdefault(WORKER, []).append(_weigh_worker(primary.url))
        with_memory.append(_weigh_worker(""))
    for what, values in found.items():
        unit = "" if what.startswith("keys") else "bytes"
        yield Figure(what, unit, values, with_memory if what == WORKER else [])


def _measure_redis(primary: Primary) -> Iterator[tuple[str, float]]:
    with primary.client() as client, run_worker(primary.url, CHANNELS) as owner:
        owner.store(1)
        before = client.info("memory")["used_memory"]
        with run_worker(primary.url, CHANNELS):
            _wait_until_followed(client, 2)
            grown = client.info("memory")["used_memory"] - before
        keys = [key for key in client.scan_iter(count=1000) if b":many" in key]
        yield "keys in Redis per channel", len(keys) / CHANNELS
        yield "record of a channel", _weigh(client, "c")
        names = [client.memory_usage(key, samples=0) for key in client.scan_iter("*names")]
        yield "name of a channel, among all names", sum(names) / CHANNELS
        yield "one message of 200 bytes", _weigh(client, "h")
        owner.store(FULL - 1)
        yield f"{FULL} messages of 200 bytes", _weigh(client, "h")
        yield "channel that one more worker follows, in Redis", grown / CHANNELS
        owner.ask("/drive/close")


def _wait_until_followed(client: Any, workers: int) -> None:
    """Return once that many workers follow each channel."""
    topics = [Keys().site(f"many{number}").topic for number in range(CHANNELS)]
    while min(count for _, count in client.pubsub_numsub(*topics)) < workers:
        time.sleep(PAUSE)


def _look_what_is_left(primary: Primary) -> Iterator[tuple[str, float]]:
    """Look at the keys when all channels are closed and all workers have stopped."""
    with primary.client() as client:
        lives = {key.decode(): client.pttl(key) for key in client.keys("*")}
    lasting = ", ".join(f"`{key}`" for key, life in sorted(lives.items()) if life == -1)
    yield f"keys that stay when all is closed: {lasting}", sum(x == -1 for x in lives.values())
    yield "keys that then expire within 10 minutes", sum(0 < x <= ENDED for x in lives.values())
    if any(life > ENDED for life in lives.values()):
        raise ValueError(f"expected the other keys to expire within {ENDED} ms, got {lives}")


def _weigh(client: Any, kind: str) -> float:
    """Return the bytes of one of a channel's keys, on average, with the key itself."""
    keys = list(client.scan_iter(f"*}}{kind}:many*", count=1000))
    total: int = sum(client.memory_usage(key, samples=0) for key in keys)
    return total / len(keys)


def _weigh_worker(broker: str) -> float:
    """Return the bytes of a worker per channel, from the difference of two workers."""
    return (_memory(broker, CHANNELS) - _memory(broker, BEFORE)) / (CHANNELS - BEFORE)


def _memory(broker: str, channels: int) -> int:
    with run_worker(broker, channels) as worker:
        worker.store(1)
        return worker.memory()
