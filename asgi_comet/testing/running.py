"""Applications under test: with their lifespan, without sockets, threads and waiting.

Owns the time from start to end of a test. Must not know pytest.
"""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from starlette.types import ASGIApp

from asgi_comet._runtime.timers import RESOLUTION
from asgi_comet.channels.channels import Channel
from asgi_comet.comet import Comet
from asgi_comet.declare.declared import DeclaredChannel
from asgi_comet.testing._inspect import expire, inside, left, process_of
from asgi_comet.testing.browsing import Browser, Tab
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.hiring import Hiring
from asgi_comet.testing.joined import JoinedBroker
from asgi_comet.testing.ledger import Ledger
from asgi_comet.testing.quiet import make_watch
from asgi_comet.testing.traffic import FORGOTTEN
from asgi_comet.testing.verdict import judge
from asgi_comet.testing.workplace import Worker, Workplace, answer_for_users

__all__ = ["CometApp", "Record", "TestClock", "run"]

BASE = "https://testserver"
LONG = 3600.0  # seconds after which nothing is left of a client
MOMENT = 1.0  # seconds that an answer waits for another one, which has a new cookie
LONGEST = 20.0  # seconds that a reader waits before it comes back
LATE = RESOLUTION * 1.01  # seconds that a timer may expire late
STEPS = 4  # how often that passes: what ends may leave something that ends in turn

OF_THE_APPLICATION = {"channels", "sources", "members", "timers", "jobs", "users", "logins"}
"""Tables with channels of the site, which the application may keep, and with those who log in."""


class TestClock(ManualClock):
    """The clock of a test: everything that has to do with time goes by it, and it stands still.

    What is due when it is advanced is done at once.
    """

    __test__ = False  # is no test of pytest's

    def __init__(self) -> None:
        super().__init__()
        self.comets: list[Comet] = []

    def advance(self, seconds: float) -> None:
        """Let time pass.

        Args:
            seconds: How much.
        """
        super().advance(seconds)
        now, self._now = self._now, self._now + LATE
        for comet in self.comets:
            expire(comet)
        self._now = now


class Record:
    """The messages that were published on channels of one name, with or without readers.

    Args:
        ledger: What was published.
        name: The name.
    """

    def __init__(self, ledger: Ledger, name: str) -> None:
        self._ledger = ledger
        self._name = name
        self._before = len(ledger.named(name))

    @property
    def messages(self) -> list[Any]:
        """The values since the record was begun."""
        return [json.loads(data) for data in self._ledger.named(self._name)[self._before :]]


class Down:
    """The broker between several workers.

    Args:
        brokers: The brokers of the workers.
    """

    def __init__(self, brokers: Sequence[JoinedBroker]) -> None:
        self._brokers = brokers

    def down(self) -> None:
        """Cut the workers off from each other, as if Redis was away."""
        for broker in self._brokers:
            broker.disconnect()

    def up(self) -> None:
        """Let the workers reach each other again."""
        for broker in self._brokers:
            broker.reconnect()


class CometApp:
    """An application under test. Made by `run`, or by the fixture `comet_app`.

    Args:
        hire: Makes workers.
        base_url: The URL of the application.

    Attributes:
        clock: The clock, which the test advances.
        browsers: The browsers that were made.
    """

    def __init__(self, hire: Hiring, base_url: str = BASE) -> None:
        self.clock: TestClock = TestClock()
        self.browsers: list[Browser] = []
        self._hire = hire
        self._base_url = base_url
        self._ledger = Ledger()
        self._before: dict[str, int] = {}
        self._answers = False  # for users of browsers
        self._running: Workplace | None = None

    @property
    def _place(self) -> Workplace:
        if self._running is None:
            raise RuntimeError(
                "expected the application to run: it runs inside the test function, which must be "
                "async, and not yet in a fixture; without the fixture comet_app it runs in `async "
                "with run(app) as comet_app`"
            )
        return self._running

    @property
    def comet(self) -> Comet:
        """The `Comet`; with several workers, that of the first one."""
        return self._place.workers[0].comet

    @property
    def broker(self) -> Down:
        """The broker between the workers.

        Raises:
            RuntimeError: There is one worker only.
        """
        brokers = [inside(worker.comet).broker for worker in self._place.workers]
        joined = [broker for broker in brokers if isinstance(broker, JoinedBroker)]
        if not joined:
            raise RuntimeError("expected several workers, run(make_app=make_app, workers=2)")
        return Down(joined)

    @property
    def tabs(self) -> list[Tab]:
        """All tabs of all browsers."""
        return [tab for browser in self.browsers for tab in browser.tabs]

    def browser(self, user: Any = FORGOTTEN, headers: Mapping[str, str] | None = None) -> Browser:
        """Return a new browser, without cookies.

        Args:
            user: The answer of the application's `identify` for this browser; by default the
                application itself is asked.
            headers: Sent with every request.

        Raises:
            ValueError: There is a user, and the application has no `identify`.
        """
        if user is not FORGOTTEN and not self._answers:
            for worker in self._place.workers:
                answer_for_users(worker.comet)
            self._answers = True
        browser = Browser(self._place, user, headers or {})
        self.browsers.append(browser)
        return browser

    def record(self, channel: str | Channel[Any] | DeclaredChannel[Any, Any]) -> Record:
        """Record what is published from now on, with or without readers.

        Args:
            channel: The channel, or its name; an own channel's of all tabs.
        """
        name = channel if isinstance(channel, str) else channel.reference()["channel"]
        return Record(self._ledger, name)

    async def settle(self) -> None:
        """Return once every task waits, and no worker thread runs.

        Raises:
            NotQuiet: A task never waits, or a thread takes longer than 5 s.
        """
        await self._place.watch.settle()

    async def restart(self) -> None:
        """Restart the server: a new application by `make_app`; of several workers one by one.

        Raises:
            RuntimeError: There is no `make_app`.
        """
        self._hire.check_new()
        for number, worker in enumerate(list(self._place.workers)):
            await self._place.dismiss(worker)
            await self._employ(self._hire.one(self.clock), number)
        await self.settle()

    async def check(self) -> None:
        """Check the promise, and that nothing is left once all tabs have gone.

        Every reader has every message in order, each once, or was told `full` or `closed`. Then all
        tabs leave, and time passes; so call it last.

        Raises:
            AssertionError: Something is not as promised; the text lists everything.
            NotQuiet: It cannot be proven, because of a timer, socket or thread of the application;
                the text names the task.
        """
        __tracebackhide__ = True
        await self._place.watch.prove()
        await self._come_back()
        tokens = {tab.process for tab in self.tabs if tab.process}
        comets = self.clock.comets  # also those before a restart, which may have other keys
        processes = {
            token: next(filter(None, (process_of(comet, token) for comet in comets)), "")
            for token in tokens
        }
        wrong = judge([tab.traffic for tab in self.tabs], self._ledger, processes)
        for tab in self.tabs:
            tab.leave()
        for _ in range(STEPS):
            await self.settle()
            self.clock.advance(LONG)
        await self.settle()
        gc.collect()  # some tables hold their entries weakly
        await self.settle()
        wrong += self._place.list_failures()
        wrong += self._list_what_is_left()
        if wrong:
            raise AssertionError("\n".join(["the promise was not kept:", *wrong]))

    async def _come_back(self) -> None:
        """Let those readers connect again that were told to wait, and answers come that wait."""
        for _ in range(STEPS):
            self.clock.advance(MOMENT)
            await self.settle()
        for _ in range(STEPS):
            readings = [reading for tab in self.tabs for reading in tab.traffic.readings]
            if not any(reading.away for reading in readings):
                return
            self.clock.advance(LONGEST)
            await self.settle()

    def _list_what_is_left(self) -> list[str]:
        tables = self._count()
        found = [
            f"{size - self._before.get(name, 0)} left in the table `{name}`"
            for name, size in tables.items()
            if size > self._before.get(name, 0)
        ]
        return found + [
            f"a task is left: {name}"
            for task, name in self._place.watch.tasks().items()
            if task not in self._place.tasks and "Pump" not in name
        ]

    def _count(self) -> dict[str, int]:
        """Return the sizes of the tables of all workers that should be empty without clients."""
        found: dict[str, int] = {}
        for worker in self._place.workers:
            tables = left(worker.comet)
            logins = tables.pop("logins", 0)  # which last until the logout
            for name, size in tables.items():
                if name not in OF_THE_APPLICATION:
                    less = logins if name in {"sessions", "users"} else 0
                    found[name] = found.get(name, 0) + size - less
        return found

    # The time of the test

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Run the application while the context lasts, once; `run` and the fixture call it."""
        failure: BaseException | None = None
        watch = make_watch()
        async with anyio.create_task_group() as group:
            self._running = Workplace(self.clock, watch, group, self._base_url)
            try:
                await self._start()
                yield
            except BaseException as error:  # raised again outside the group, which would wrap it
                failure = error
            try:
                with anyio.CancelScope(shield=True):
                    await self._stop()
            except Exception as error:
                failure = failure or error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _start(self) -> None:
        for number in range(self._hire.workers):
            await self._employ(self._hire.one(self.clock), number)
        await self.settle()
        self._before = self._count()

    async def _stop(self) -> None:
        for tab in self.tabs:
            tab.leave()
        for worker in list(self._place.workers):
            await self._place.dismiss(worker)
        for comet in self.clock.comets:
            self._ledger.leave(comet)
        for browser in self.browsers:
            await browser.http.aclose()

    async def _employ(self, worker: Worker, number: int) -> None:
        self._ledger.watch(worker.comet)
        if self._answers:
            answer_for_users(worker.comet)
        self.clock.comets.append(worker.comet)
        await self._place.employ(worker, number)


@asynccontextmanager
async def run(
    app: ASGIApp | None = None,
    *,
    make_app: Callable[..., ASGIApp] | None = None,
    comet: Comet | None = None,
    workers: int = 1,
    base_url: str = BASE,
) -> AsyncGenerator[CometApp]:
    """Run an application in the loop of a test, on asyncio or trio.

    The whole application runs, with its middleware and its lifespan, which begins and ends in the
    task of the test. There is no socket, and time stands still until the test advances the clock.

    Args:
        app: The application; or else `make_app`.
        make_app: Makes the application, for `workers` and `CometApp.restart`. For several workers
            it takes a `broker`, for its `Comet(..., broker=broker)`.
        comet: The `Comet` of the application, where it cannot be found or there are several.
        workers: How many workers there are, each an application by `make_app`. Each request comes
            to the next one.
        base_url: The URL of the application.

    Raises:
        ValueError: The arguments do not fit together, or the application has not one `Comet`; the
            text says what was expected.
        TypeError: The event loop does not tell what waits, or the `Comet` has a broker.
        RuntimeError: The application has failed to start, and says why.
    """
    made = CometApp(Hiring(app, make_app=make_app, comet=comet, workers=workers), base_url)
    async with made.running():
        yield made
