"""Times of the processor: of a delivery to many listeners, and of a message stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.control import make_text
from benchmarks.load_process import load_process
from benchmarks.peers import SUBJECTS
from benchmarks.redis.figures import Figure
from benchmarks.redis.primary import Primary, run_primary
from benchmarks.redis.workers import Worker, run_worker
from benchmarks.servers import Served

OURS = "ours"
CLIENTS = 1000
CHANNELS = 64
BURST = 64  # messages of a burst
KEPT = 100  # messages of a log, as of our channels
WARM_UP = 20  # rounds
ROUNDS = 40  # publishes of one turn to all clients
STORED = 12_800  # messages of one turn

MICRO = 1e6


def measure_fanout(turns: int) -> Iterator[Figure]:
    """Measure a delivery to 1,000 listeners of one worker, with Redis and in memory.

    Both workers have their turns one after the other, and are started anew for each third of them.
    """
    costs: list[list[float]] = [[], []]
    for start in range(3):
        with run_primary() as primary, ExitStack() as stack:
            loads = []
            for broker in (primary.url, "")[:: 1 if start % 2 else -1]:
                worker = stack.enter_context(run_worker(broker))
                dialect = SUBJECTS["sse"][OURS].dialect
                load = stack.enter_context(load_process(dialect, Served(worker.port)))
                load.open(CLIENTS)
                load.run(WARM_UP, 1)
                loads.append((costs[not broker], load))
            for turn in range(turns):
                for cost, load in loads[:: 1 if turn % 2 else -1]:
                    block = load.run(ROUNDS, 1)
                    cost.append(block.cpu / block.deliveries * MICRO)
    times = [ours / memory for ours, memory in zip(*costs, strict=True)]
    yield Figure(f"delivery to {CLIENTS:,} listeners, CPU of the worker", "µs", costs[0], costs[1])
    yield Figure("the same, times memory", "", times, goal=1.05)


def measure_storing(turns: int) -> Iterator[Figure]:
    """Measure messages stored: one for each of 64 channels, and bursts on one channel.

    The worker that publishes follows its channels, so Redis sends each frame to one worker. The
    reference is what Redis takes for RPUSH, LTRIM and PUBLISH of the same bytes, in pipelines of
    as many messages; and what the worker takes with memory.
    """
    with run_primary() as primary, ExitStack() as stack:
        for channels, each, goal in ((CHANNELS, 1, 60_000), (1, BURST, 200_000)):
            ours = stack.enter_context(run_worker(primary.url, channels))
            memory = stack.enter_context(run_worker("", channels))
            rounds = STORED // (channels * each)
            found: list[list[float]] = [[], [], [], []]
            for _ in range(turns):
                for values, value in zip(
                    found,
                    (
                        *_store(primary, ours, rounds, each),
                        _store_bare(primary, rounds, channels, each),
                        memory.store(rounds, each)["cpu"] / STORED * MICRO,
                    ),
                    strict=True,
                ):
                    values.append(value)
            yield from _tell_stored(channels, each, goal, found)


def _tell_stored(channels: int, each: int, goal: int, found: list[list[float]]) -> Iterator[Figure]:
    what = (
        f"{channels} channels, a message each"
        if channels > 1
        else f"bursts of {each} on one channel"
    )
    redis, worker, bare, memory = found
    rates, bares = ([MICRO / cost for cost in costs] for costs in (redis, bare))
    yield Figure(
        f"{what}: publishes per second of Redis' core", "/s", rates, bares, goal, least=True
    )
    yield Figure(f"{what}: CPU of Redis per publish", "µs", redis, bare)
    yield Figure(f"{what}: CPU of the worker that publishes", "µs", worker, memory)


def _store(primary: Primary, worker: Worker, rounds: int, each: int) -> tuple[float, float]:
    """Return the microseconds of Redis and of the worker per message."""
    before = primary.cpu
    told = worker.store(rounds, each)
    return (
        (primary.cpu - before) / told["messages"] * MICRO,
        told["cpu"] / told["messages"] * MICRO,
    )


def _store_bare(primary: Primary, rounds: int, channels: int, each: int) -> float:
    """Return the microseconds of Redis per message without a script."""
    data = make_text(0)
    with primary.client() as client, primary.client() as other, other.pubsub() as reader:
        reader.subscribe(*(f"bare{number}" for number in range(channels)))
        before = primary.cpu
        for _ in range(rounds):
            pipeline = client.pipeline(transaction=False)
            for number in range(channels * each):
                name = f"bare{number % channels}"
                pipeline.rpush(name, data).ltrim(name, -KEPT, -1).publish(name, data)
            pipeline.execute()
            while reader.get_message() is not None:
                pass
        return (primary.cpu - before) / (rounds * channels * each) * MICRO
