"""Applications that run in the loop of a test, with their lifespans.

Owns what a server owns besides connections: it starts and stops applications, and chooses the
worker of each request. Must not know browsers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import anyio
import anyio.abc
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Scope

from asgi_comet.app import CometApp
from asgi_comet.brokers.memory import MemoryBroker
from asgi_comet.comet import Comet
from asgi_comet.middleware import CometMiddleware
from asgi_comet.testing._inspect import comet_of, inside, is_closed
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.joined import JoinedBroker
from asgi_comet.testing.lines import Connection
from asgi_comet.testing.quiet import Watch

__all__ = ["USER", "Worker", "Workplace", "answer_for_users", "find_comet"]

C = TypeVar("C", bound=Connection)

USER = "asgi_comet.testing.user"
"""Where a scope has the user that a test gave to a browser."""


class Worker:
    """One application.

    Args:
        app: The application.
        comet: Its `Comet`.
        clock: The clock of the test.

    Attributes:
        app: The application.
        comet: Its `Comet`.
        state: What its lifespan gives to requests.
    """

    def __init__(self, app: ASGIApp, comet: Comet, clock: ManualClock) -> None:
        broker = inside(comet).broker
        if not isinstance(broker, MemoryBroker | JoinedBroker):
            raise TypeError(
                "expected a Comet without a broker, as a test has no sockets, "
                f"got one with {type(broker).__name__}: make the application with broker=None"
            )
        self.app: ASGIApp = app
        self.comet: Comet = comet
        self.state: dict[str, Any] = {}
        self._clock = clock
        self._identify = inside(comet).users.identify
        self._asked = anyio.Event()  # to stop
        self._answer = anyio.Event()
        self._failure: BaseException | None = None
        self._said: Message = {}
        self._first = True

    async def start(self, group: anyio.abc.TaskGroup) -> None:
        """Start the application.

        Raises:
            RuntimeError: It has failed to start, and says why.
            Exception: What it has raised.
        """
        clock = inside(self.comet).runtime.clock
        self._before, clock.source = clock.source, self._clock
        group.start_soon(self._run)
        await self._hear("lifespan.startup.complete")

    async def stop(self) -> None:
        """Stop the application.

        Raises:
            RuntimeError: It has failed to stop, and says why.
            Exception: What it has raised.
        """
        self._asked.set()
        try:
            await self._hear("lifespan.shutdown.complete")
        finally:
            inside(self.comet).runtime.clock.source = self._before
            inside(self.comet).users.identify = self._identify

    async def _hear(self, expected: str) -> None:
        await self._answer.wait()
        self._answer = anyio.Event()
        if self._failure is not None:
            raise self._failure
        if self._said["type"] != expected:
            text = self._said.get("message") or "the application has said no more"
            raise RuntimeError(f"expected {expected}, got {self._said['type']}: {text}")

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        try:
            await self.app(scope, self._receive, self._send)
        except Exception as error:
            self._failure = error
            self._answer.set()

    async def _receive(self) -> Message:
        if self._first:
            self._first = False
            return {"type": "lifespan.startup"}
        await self._asked.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        self._said = message
        self._answer.set()


class Workplace:
    """The workers of a test, and where they run.

    Args:
        clock: The clock.
        watch: Sees what goes on in the loop.
        group: Runs everything.
        base_url: The URL of the applications.

    Attributes:
        workers: The workers, of which each request comes to the next one.
        clock: The clock.
        watch: Sees what goes on in the loop.
        base_url: The URL of the applications.
        tasks: The tasks of the workers, which they began with.
        failed: The connections in which the application has raised.
    """

    def __init__(
        self,
        clock: ManualClock,
        watch: Watch,
        group: anyio.abc.TaskGroup,
        base_url: str,
    ) -> None:
        self.workers: list[Worker] = []
        self.clock: ManualClock = clock
        self.watch: Watch = watch
        self.base_url: str = base_url
        self.tasks: set[object] = set(watch.tasks())
        self.failed: list[Connection] = []
        self._group = group
        self._calls = 0
        self._ready = anyio.Event()

    async def employ(self, worker: Worker, number: int) -> None:
        """Start a worker, which gets requests from then on.

        Args:
            worker: The worker.
            number: Its place among the workers.
        """
        before = self.watch.tasks().keys()
        await worker.start(self._group)
        await self.watch.settle()
        self.tasks |= self.watch.tasks().keys() - before
        self.workers.insert(number, worker)
        ready, self._ready = self._ready, anyio.Event()
        ready.set()

    async def dismiss(self, worker: Worker) -> None:
        """Stop a worker, which gets no requests any more."""
        self.workers.remove(worker)
        await worker.stop()

    async def ready(self) -> None:
        """Return once there is a worker."""
        while not self.workers:
            await self._ready.wait()

    def start(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something until the test ends."""
        self._group.start_soon(job)

    def call(self, make: Callable[[ASGIApp, Scope], C], scope: Scope) -> C:
        """Call the application of the next worker.

        Args:
            make: Makes the connection.
            scope: What the application is told.

        Raises:
            ConnectionError: There is no worker, because it is being restarted.
        """
        if not self.workers:
            raise ConnectionError("no worker runs")
        worker = self.workers[self._calls % len(self.workers)]
        self._calls += 1
        connection = make(worker.app, {**scope, "state": dict(worker.state)})
        self._group.start_soon(self._serve, connection)
        return connection

    async def _serve(self, connection: Connection) -> None:
        await connection.run()
        if connection.failure is not None:
            self.failed.append(connection)

    def list_failures(self) -> list[str]:
        """Return what the application has raised that no request of the test has raised."""
        untold = [one.failure for one in self.failed if not one.told]
        return [f"the application has raised {failure!r:.200}" for failure in untold]

    def url(self, path: str) -> str:
        """Return the path of an endpoint below PREFIX."""
        return f"{self.workers[0].comet.prefix if self.workers else ''}/{path}"

    @property
    def alone(self) -> bool:
        """Whether there is one worker, which knows of everything at once."""
        return len(self.workers) == 1

    def is_closed(self, token: str) -> bool:
        """Return whether a client process has closed."""
        return any(is_closed(worker.comet, token) for worker in self.workers)


def answer_for_users(comet: Comet) -> None:
    """Answer `identify` for browsers to which the test gave a user.

    Raises:
        ValueError: The application has no `identify`.
    """
    users = inside(comet).users
    ask = users.identify
    if ask is None:
        raise ValueError(
            "expected an application with @comet.identify, which user= answers; without one, let "
            "the test log in as users do: tab.post('/login', ...)"
        )

    def identify(connection: HTTPConnection) -> Any:
        return connection.scope[USER] if USER in connection.scope else ask(connection)

    users.identify = identify


def find_comet(app: ASGIApp) -> Comet:
    """Return the `Comet` of an application: of its middleware, or of what is mounted in it.

    Raises:
        ValueError: There is none, or there are several.
    """
    found = list(dict.fromkeys(_find(app, set())))
    if len(found) != 1:
        raise ValueError(
            f"expected one Comet in the application, found {len(found)}: give the one of the test, "
            "as run(app, comet=...) or as a fixture named comet"
        )
    return found[0]


def _find(app: Any, seen: set[int]) -> Iterator[Comet]:
    if app is None or id(app) in seen:
        return
    seen.add(id(app))
    if isinstance(app, CometApp | CometMiddleware):
        yield comet_of(app)
    for middleware in getattr(app, "user_middleware", ()):
        if isinstance(comet := middleware.kwargs.get("comet"), Comet):
            yield comet
    for inner in (getattr(app, "app", None), *getattr(app, "routes", ())):
        yield from _find(inner, seen)
