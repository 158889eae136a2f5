"""Tabs: what a poll costs, what idle tabs cost, and what they take in Redis."""

from __future__ import annotations

import json
import socket
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.http import connect, exchange, make_head, make_tail, read
from benchmarks.redis.figures import Figure
from benchmarks.redis.primary import run_primary
from benchmarks.redis.workers import Worker, run_worker
from benchmarks.servers import raise_open_files

TABS = 100
ROUNDS = 20  # polls of each tab in one turn
WARM_UP = 3
IDLE = 1000  # tabs that hold a stream
MINUTES = 2.5  # for which they are watched
MANY = 10_000  # tabs that are only opened

MICRO = 1e6


@dataclass(slots=True)
class Tab:
    """One page with one own channel, and a connection to each worker that is kept.

    Attributes:
        ports: The workers, which get the polls in turn.
        path: Its endpoints.
        cookie: The header that names its session.
        position: Where it is.
    """

    ports: Sequence[int]
    path: str = field(init=False)
    cookie: str = field(init=False)
    position: str = field(init=False)
    _connections: deque[socket.socket] = field(init=False)

    def __post_init__(self) -> None:
        self._connections = deque(map(connect, self.ports))
        head, body = exchange(self._connection, make_head("POST", "/comet/open") + make_tail())
        opened = json.loads(body)
        (cookie,) = (x for x in head.split(b"\r\n") if x.lower().startswith(b"set-cookie"))
        self.path = opened["url"]
        self.cookie = "Cookie: " + cookie.split(b": ")[1].split(b";")[0].decode()
        token = f"Comet-Process: {opened['process']}"
        self._send("/drive/own", "", token)
        self.position = "new.0"

    def ask(self) -> None:
        """Send a poll that is answered at once."""
        self._connections.rotate()
        body = json.dumps({"channels": {"~own": self.position}, "idle": True})
        self._connection.sendall(self._write(f"{self.path}/poll", body))

    def hear(self) -> None:
        """Read the answer."""
        _, body = read(self._connection)
        for event in json.loads(body)["events"]:
            self.position = event["position"]

    def stream(self) -> None:
        """Follow the channel by a stream of events, for as long as the connection lasts."""
        path = f"{self.path}/events?channel=~own&position=new.0"
        self._connection.sendall(make_head("GET", path, self.cookie) + make_tail())

    def close(self) -> None:
        """Leave without a word."""
        for connection in self._connections:
            connection.close()

    @property
    def _connection(self) -> socket.socket:
        return self._connections[0]

    def _send(self, path: str, body: str, *headers: str) -> None:
        exchange(self._connection, self._write(path, body, *headers))

    def _write(self, path: str, body: str, *headers: str) -> bytes:
        kind = "Content-Type: application/json"
        return make_head("POST", path, self.cookie, kind, *headers) + make_tail(body)


@contextmanager
def open_tabs(workers: Sequence[Worker], count: int) -> Iterator[list[Tab]]:
    """Open that many tabs."""
    ports = [worker.port for worker in workers]
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Tab(ports))) for _ in range(count)]


def measure_tabs(turns: int) -> Iterator[Figure]:
    """Measure polls, idle tabs, and many tabs."""
    yield from _measure_polls(turns)
    yield from _measure_idle()
    yield from _measure_many()


def _measure_polls(turns: int) -> Iterator[Figure]:
    cpu, redis, scripts = (defaultdict[str, list[float]](list) for _ in range(3))
    with run_primary() as primary, primary.client() as client, ExitStack() as stack:
        brokers = {"memory": [""], "same": [primary.url], "others": [primary.url] * 2}
        subjects = {}
        for name, urls in brokers.items():
            workers = [stack.enter_context(run_worker(url)) for url in urls]
            subjects[name] = workers, stack.enter_context(open_tabs(workers, TABS))
            _poll(*subjects[name], WARM_UP)
        for turn in range(turns):
            for name, subject in list(subjects.items())[:: -1 if turn % 2 else 1]:
                before, calls = primary.cpu, client.info("commandstats")
                cpu[name].append(_poll(*subject, ROUNDS))
                redis[name].append((primary.cpu - before) / (TABS * ROUNDS) * MICRO)
                count = _count(calls, client.info("commandstats"))
                scripts[name].append(count / (TABS * ROUNDS))
    for name, words in (("same", "to the same worker"), ("others", "to another worker each time")):
        times = [one / other for one, other in zip(cpu[name], cpu["memory"], strict=True)]
        yield Figure(f"poll of a tab {words}, CPU of workers", "µs", cpu[name], cpu["memory"])
        yield Figure("the same, times memory", "", times, goal=1.5)
        yield Figure("the same, CPU of Redis", "µs", redis[name])
        yield Figure("the same, scripts of Redis", "", scripts[name])


def _poll(workers: Sequence[Worker], tabs: Sequence[Tab], rounds: int) -> float:
    """Have all tabs poll at a time; return the microseconds of the workers for a poll."""
    before = _sum_cpu(workers)
    for _ in range(rounds):
        for tab in tabs:
            tab.ask()
        for tab in tabs:
            tab.hear()
    return (_sum_cpu(workers) - before) / (len(tabs) * rounds) * MICRO


def _sum_cpu(workers: Sequence[Worker]) -> float:
    return float(sum(worker.state()["cpu"] for worker in workers))


def _count(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> int:
    """Return how many scripts were run in between."""
    calls = (stats.get("cmdstat_evalsha", {}).get("calls", 0) for stats in (before, after))
    return -next(calls) + next(calls)


def _measure_idle() -> Iterator[Figure]:
    raise_open_files(3 * IDLE)
    with run_primary() as primary, primary.client() as client, run_worker(primary.url) as worker:
        quiet = _watch(client)
        with open_tabs([worker], IDLE) as tabs:
            for tab in tabs:
                tab.stream()
            time.sleep(2)
            busy = _watch(client)
    yield Figure(f"{IDLE:,} idle tabs, commands of Redis a minute, beyond none", "", [busy - quiet])


def _watch(client: Any) -> float:
    """Return how many commands Redis runs in a minute."""
    before = client.info("stats")["total_commands_processed"]
    time.sleep(MINUTES * 60)
    after = client.info("stats")["total_commands_processed"]
    return float(after - before - 1) / MINUTES


def _measure_many() -> Iterator[Figure]:
    with ExitStack() as stack:
        primary = stack.enter_context(run_primary())
        client = stack.enter_context(primary.client())
        worker = stack.enter_context(run_worker(primary.url))
        stack.enter_context(open_tabs([worker], TABS))
        keys, used = client.dbsize(), client.info("memory")["used_memory"]
        begin = time.perf_counter()
        for _ in range(MANY):
            Tab([worker.port]).close()
        seconds = time.perf_counter() - begin
        keys = (client.dbsize() - keys) / MANY
        used = (client.info("memory")["used_memory"] - used) / MANY
    yield Figure(f"{MANY:,} tabs: keys of Redis each", "", [keys])
    yield Figure(f"{MANY:,} tabs: bytes of Redis each", "bytes", [used])
    yield Figure("tabs opened a second, each with a channel", "/s", [MANY / seconds])
