"""How long a message is on its way: published on one worker, received by a client of another.

Times are of the clock on the wall, so they hold what else the machine does.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchmarks.control import PREFIX
from benchmarks.http import CHUNK, connect, make_head, make_tail, read_head, split
from benchmarks.redis.figures import Figure
from benchmarks.redis.primary import run_primary
from benchmarks.redis.workers import Worker, run_worker
from benchmarks.samples import percentile

CHANNELS = 64
SECONDS = 1.5  # of one turn
RATES = (1000, 5000, 10_000, 20_000)  # publishes per second
GOALS = {50: 1.5, 99: 10.0}  # ms
PATIENCE = 30.0  # seconds

_AT = re.compile(rb'"at":(\d+)')


@dataclass(slots=True)
class Turn:
    """What one turn has shown.

    Attributes:
        rate: Publishes per second that were reached.
        delays: Milliseconds of each message.
    """

    rate: float = 0.0
    delays: list[float] = field(default_factory=list)


class Readers:
    """One client for each channel of a worker, in this process."""

    def __init__(self, worker: Worker) -> None:
        self._poll = select.epoll()
        self._connections: dict[int, socket.socket] = {}
        for number in range(CHANNELS):
            connection = connect(worker.port)
            path = f"/comet/events?channel=many{number}"
            connection.sendall(make_head("GET", path, "Accept: text/event-stream") + make_tail())
            read_head(connection)
            self._connections[connection.fileno()] = connection
            self._poll.register(connection, select.EPOLLIN)
        while worker.ask(f"{PREFIX}/state")["held"] < CHANNELS:
            pass

    def close(self) -> None:
        """Close all connections."""
        self._poll.close()
        for connection in self._connections.values():
            connection.close()

    def run(self, publisher: Worker, rate: int) -> Turn:
        """Have a worker publish at a rate, and read until all messages have come."""
        turn, expected = Turn(), int(rate * SECONDS)
        rests: dict[int, bytes] = {}
        with connect(publisher.port) as control:
            control.sendall(make_head("GET", f"/drive/pace/{rate}/{SECONDS}") + make_tail())
            end = time.monotonic() + PATIENCE
            while len(turn.delays) < expected:
                if time.monotonic() > end:
                    raise TimeoutError(f"expected {expected} messages, got {len(turn.delays)}")
                for descriptor, _ in self._poll.poll(1.0):
                    self._read(descriptor, rests, turn)
            told = read_json(control)
        turn.rate = told["messages"] / told["seconds"]
        return turn

    def _read(self, descriptor: int, rests: dict[int, bytes], turn: Turn) -> None:
        raw = rests.get(descriptor, b"") + self._connections[descriptor].recv(CHUNK)
        now = time.perf_counter_ns()
        whole, _, rests[descriptor] = raw.rpartition(b"\n")
        turn.delays += [(now - int(at)) / 1e6 for at in _AT.findall(whole)]


def read_json(connection: socket.socket) -> dict[str, float]:
    """Read an answer."""
    raw = b""
    while (answer := split(raw)) is None:
        raw += connection.recv(CHUNK)
    told: dict[str, float] = json.loads(answer[1])
    return told


def measure_delays(turns: int) -> Iterator[Figure]:
    """Measure it on two workers with Redis, and on one with memory."""
    with run_primary() as primary, ExitStack() as stack:
        publisher, other, memory = (
            stack.enter_context(run_worker(broker, CHANNELS))
            for broker in (primary.url, primary.url, "")
        )
        ours, bare = Readers(other), Readers(memory)
        stack.callback(ours.close)
        stack.callback(bare.close)
        for rate in RATES:
            ours.run(publisher, rate)
            bare.run(memory, rate)
            found = [(ours.run(publisher, rate), bare.run(memory, rate)) for _ in range(turns)]
            yield from _tell(rate, found)


def _tell(rate: int, found: list[tuple[Turn, Turn]]) -> Iterator[Figure]:
    goals = GOALS if rate == max(RATES) else {}
    for percent in GOALS:
        ours, bare = (
            [percentile(pair[side].delays, percent) for pair in found] for side in range(2)
        )
        what = f"{rate:,} publishes/s, to a client of another worker: p{percent}"
        yield Figure(what, "ms", ours, bare, goals.get(percent))
    ours, bare = ([pair[side].rate for pair in found] for side in range(2))
    what = f"{rate:,} publishes/s: the rate that was reached"
    yield Figure(what, "/s", ours, bare, least=True)
