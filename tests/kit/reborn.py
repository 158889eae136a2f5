"""A worker on Redis that is killed and started again at once, for its modules are imported."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Settings
from asgi_comet.brokers.redis import RedisBroker
from tests.kit.serving import Address, bound_socket
from tests.kit.stage import KEY

# Neither `fork`, for the threads of a test, nor `spawn`, which imports everything each time.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.kit.reborn"])


def make(url: str) -> tuple[Comet, Channel[int]]:
    """Make the `Comet` of a worker, or of a program that publishes, and its channel `news`."""
    comet = Comet(KEY, broker=RedisBroker(url), settings=Settings(jitter=0))
    return comet, comet.create(scope=SITE, name="news", size=1000)


def _serve(listening: socket.socket, url: str) -> None:
    comet, _ = make(url)
    config = uvicorn.Config(CometMiddleware(Starlette(), comet=comet), log_level="error")
    uvicorn.Server(config).run(sockets=[listening])


class Reborn:
    """A worker in a process of its own, on a socket that outlives it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._listening = bound_socket()
        self.address = Address(*self._listening.getsockname())
        self.start()

    def start(self) -> None:
        """Start it; connections wait until it accepts them."""
        self._process = _context.Process(target=_serve, args=(self._listening, self._url))
        self._process.start()

    def kill(self) -> None:
        """Kill it, with all that it has in memory."""
        self._process.kill()
        self._process.join(20)
        self._process.close()

    def close(self) -> None:
        self.kill()
        self._listening.close()


@contextmanager
def reborn(url: str, count: int) -> Iterator[list[Reborn]]:
    """Run workers on a Redis while the context lasts."""
    workers = [Reborn(url) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.close()
