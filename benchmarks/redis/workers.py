"""Workers in processes of their own, and how they are driven."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.control import PREFIX
from benchmarks.http import connect, exchange, make_head, make_tail
from benchmarks.servers import server

APP = "benchmarks.redis.worker:app"
START = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that runs.

    Attributes:
        port: Where it serves.
    """

    port: int

    def ask(self, path: str) -> Any:
        """Ask for something in JSON, on a connection for this once."""
        with connect(self.port) as connection:
            connection.settimeout(None)
            request = make_head("GET", path) + make_tail()
            return json.loads(exchange(connection, request)[1])

    def store(self, rounds: int, each: int = 1) -> Any:
        """Have messages published to every channel, and stored."""
        return self.ask(f"/drive/store/{rounds}/{each}")

    def state(self) -> Any:
        """Return what it holds and has used."""
        return self.ask(f"{PREFIX}/state")

    def memory(self) -> int:
        """Return how many bytes of memory it has, after a collection."""
        found: int = self.ask(f"{PREFIX}/memory")["pss"]
        return found


@contextmanager
def run_worker(broker: str, channels: int = 0) -> Iterator[Worker]:
    """Start a worker, and wait until it serves.

    Args:
        broker: The URL of its broker; `""` is memory.
        channels: How many channels it makes besides `ticker`.
    """
    environ = {"COMET_BROKER": broker, "CHANNELS": str(channels)}
    with server(APP, environ, grace=20) as port:
        worker = Worker(port)
        began = time.monotonic()
        worker.state()
        if time.monotonic() - began > START:
            raise TimeoutError("expected a worker to start")
        yield worker
