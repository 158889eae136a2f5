"""Notifications from anywhere, on a real server: order, and receipts."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

import pytest
from fastapi import BackgroundTasks, Body, FastAPI

from asgi_comet import (
    SITE,
    Channel,
    ClientProcess,
    Comet,
    CometMiddleware,
    Notification,
    Notifier,
    ProcessLocal,
    Receipt,
    Settings,
)
from asgi_comet.testing._inspect import inside
from tests.kit.processes import process_of
from tests.kit.serving import Address
from tests.kit.streams import PATIENCE, Sse, Ws
from tests.kit.tabs import Page
from tests.kit.workers import Workers, one_worker

Text = Annotated[str, Body()]


@pytest.fixture
def comet(workers: Workers) -> Comet:
    return workers.make(settings=Settings(jitter=0))


def make(comet: Comet) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)

    @app.post("/login/{user}")
    def login(user: str) -> None:
        comet.login(user)

    return app


# How to implement a notification system?


def notify_threads(comet: Comet) -> tuple[FastAPI, Notifier[int]]:
    """“The easiest way for the server to send notifications to the client is Os_notif.”"""
    app = make(comet)

    # For each type of data on which you want to receive updates, make a notifier.
    my_notif = comet.notifier("messages", key=int)

    # To declare that you are listening on one piece of data i, call listen(i).
    @app.post("/threads/{i}/listen")
    def listen(i: int) -> None:
        my_notif.listen(i)

    # To notify all the clients listening on data i, call notify(i, function): the argument is the
    # id of the user who will be notified, if he is connected (None otherwise). This makes it
    # possible to customize the notifications. Return None if you don't want him to be notified.
    @app.post("/threads/{i}")
    def say(i: int, text: Text) -> None:
        def customize(user: str | None) -> str | None:
            return None if user == "bob" else f"{text}, {user or 'visitor'}"

        my_notif.notify(i, customize)

    return app, my_notif


def test_with_a_notifier(workers: Workers, comet: Comet) -> None:
    made: list[Notifier[int]] = []

    def build(comet: Comet) -> FastAPI:
        app, my_notif = notify_threads(comet)
        made.append(my_notif)
        return app

    with workers.serve(build, comet) as address:
        my_notif = made[0]
        ada, bob, visitor = Page(address, "ada"), Page(address, "bob"), Page(address)
        for page in (ada, bob, visitor):
            for i in (1, 2):
                assert page.say(f"/threads/{i}/listen").status == 200
        assert visitor.say("/threads/1", "hello").status == 200
        assert ada.follow("~messages") == [{"key": 1, "value": "hello, ada"}]
        assert visitor.follow("~messages") == [{"key": 1, "value": "hello, visitor"}]

        # A closed tab is forgotten, without a memory leak.
        assert [len(my_notif.listeners(i)) for i in (1, 2, 3)] == [3, 3, 0]
        for page in (ada, bob, visitor):
            assert page.post(f"{page.url}/close").status == 204
        assert [len(my_notif.listeners(i)) for i in (1, 2)] == [0, 0]
        if workers.count == 1:  # otherwise the worker has the key for as long as its copy of a tab
            assert len(my_notif) == 0


def implement_by_hand(comet: Comet) -> FastAPI:
    """“Manual implementation”: a channel per client process, and an iteration over a user's."""
    app = make(comet)

    # First create a channel, and register it in a reference of scope client process.
    def create(process: ClientProcess) -> tuple[Channel[Any], Any]:
        stream: asyncio.Queue[Any] = asyncio.Queue()

        async def read() -> AsyncIterator[Any]:
            while True:
                yield await stream.get()

        channel = comet.create(read, scope=process, name="notifications")
        return channel, stream.put_nowait

    channel_ref = ProcessLocal(create)

    # On client side, listen on this channel. To do that, execute this code (on server side)
    # during the service that will start the client process:
    @app.post("/start")
    async def start() -> dict[str, str]:
        channel, _ = channel_ref.get()
        return channel.reference()

    # To get back the notify functions for one user, iterate on all client process states: on all
    # sessions of the user, and on all client processes of each session.
    @app.post("/notify/{user_id}")
    async def notify(user_id: str, v: Text) -> int:
        count = 0
        for session in comet.sessions(user=user_id):
            for process in session.processes:
                _, notify = channel_ref.get(process)
                notify(v)
                count += 1
        assert count == len(comet.processes(user=user_id))
        return count

    return app


@one_worker("a queue of Python's is in one worker, and so is the ProcessLocal that holds it")
def test_without_a_notifier(workers: Workers, comet: Comet) -> None:
    with workers.serve(implement_by_hand, comet) as address:
        ada = Page(address, "ada")
        second_tab, second_browser = Page(address, browser=ada), Page(address, "ada")
        bob = Page(address, "bob")
        pages = [ada, second_tab, second_browser, bob]
        for page in pages:
            reference = json.loads(page.say("/start").body)
            assert (reference["channel"], reference["url"]) == ("~notifications", page.url)
            page.positions["~notifications"] = reference["position"]
        assert json.loads(bob.say("/notify/ada", "you have a new message").body) == 3
        for page in pages[:3]:
            assert page.follow("~notifications") == ["you have a new message"]
        assert json.loads(ada.say("/notify/bob", "hi").body) == 1
        assert bob.follow("~notifications") == ["hi"]
        for page in pages:
            page.post(f"{page.url}/close")
        assert len(inside(comet).channels) == 0


# From anywhere


def publish_in_start_up(comet: Comet, channel: Channel[Any]) -> Any:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for number in range(3):
            channel.publish(["start-up", number])
        yield

    return lifespan


Tell = Callable[[str], None]


def publish_from_anywhere(comet: Comet) -> tuple[FastAPI, Tell]:
    channel = comet.create(scope=SITE, name="log")
    notifier = comet.notifier("n", key=int)
    app = FastAPI(lifespan=publish_in_start_up(comet, channel))
    app.add_middleware(CometMiddleware, comet=comet)

    def tell(caller: str) -> None:
        for number in range(50):
            channel.publish([caller, number])
            notifier.notify(1, [caller, number])

    @app.post("/listen")
    def listen() -> None:
        notifier.listen(1)

    @app.post("/sync")
    def sync() -> None:
        tell("sync")

    @app.post("/async")
    async def in_loop() -> None:
        tell("async")

    @app.post("/later")
    def later(tasks: BackgroundTasks) -> None:
        tasks.add_task(tell, "background")

    return app, tell


def test_a_start_up_hook_a_sync_endpoint_a_thread_and_a_background_task_publish_in_order(
    workers: Workers, comet: Comet
) -> None:
    made: list[Tell] = []

    def build(comet: Comet) -> FastAPI:
        app, tell = publish_from_anywhere(comet)
        made.append(tell)
        return app

    callers = ["sync", "async", "background", "thread"]
    with workers.serve(build, comet) as address:
        page = Page(address)
        page.positions["log"] = "last:100"
        begun = [["start-up", number] for number in range(3)] * workers.count
        assert sorted(page.take("log", len(begun))) == sorted(begun)
        page.say("/listen")
        thread = threading.Thread(target=made[0], args=("thread",))
        thread.start()
        for path in ("/sync", "/async", "/later"):
            assert page.say(path).status == 200
        found = page.take("log", 200)
        notified = page.take("~n", 200)
        thread.join()
    for caller in callers:
        expected = [[caller, number] for number in range(50)]
        assert [one for one in found if one[0] == caller] == expected
        assert [one["value"] for one in notified if one["value"][0] == caller] == expected


# Receipts


@dataclass
class Thread:
    """Somebody's thread that asks for receipts while the server runs in another."""

    address: Address
    notifier: Notifier[int]
    loop: asyncio.AbstractEventLoop
    seen: list[Notification]

    def notify(self, value: Any) -> Notification:
        self.seen.append(self.notifier.notify(1, value))
        return self.seen[-1]

    def publish(self, value: Any) -> Notification:
        """Notify, and return once the notification is published."""
        notification = self.notify(value)

        async def wait() -> int:
            return await notification

        assert asyncio.run_coroutine_threadsafe(wait(), self.loop).result(PATIENCE) == 1
        return notification

    def begin(self, notification: Notification, timeout: float = PATIENCE) -> Any:
        coroutine = notification.received(timeout=timeout)
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def open(self, comet: Comet, user: str) -> tuple[Page, ClientProcess]:
        page = Page(self.address)
        page.say("/listen")
        process = process_of(comet, page)
        return page, process


@pytest.fixture
def thread(workers: Workers, comet: Comet) -> Iterator[Thread]:
    loops: queue.Queue[asyncio.AbstractEventLoop] = queue.Queue()
    notifiers: list[Notifier[int]] = []

    def build(comet: Comet) -> FastAPI:
        first = not notifiers

        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            if first:
                loops.put(asyncio.get_running_loop())
            yield

        notifier = comet.notifier("n", key=int)
        notifiers.append(notifier)
        app = FastAPI(lifespan=lifespan)
        app.add_middleware(CometMiddleware, comet=comet)

        @app.post("/listen")
        def listen() -> None:
            notifier.listen(1)

        return app

    with workers.serve(build, comet) as address:
        yield Thread(address, notifiers[0], loops.get(timeout=PATIENCE), [])


def test_a_poll_that_comes_back_acknowledges(comet: Comet, thread: Thread) -> None:
    page, process = thread.open(comet, "ada")
    waiting = thread.begin(thread.notify("x"))
    assert page.follow("~n") == [{"key": 1, "value": "x"}]
    assert not waiting.done()
    held = page.hold(page.positions)  # the next poll carries the position
    assert waiting.result(PATIENCE) == Receipt((process,), (), ())
    thread.notify("y")
    assert held.answer().status == 200


def test_a_page_that_was_told_to_skip_a_notification_does_not_have_it(
    comet: Comet, thread: Thread
) -> None:
    page, process = thread.open(comet, "ada")
    first = thread.notify("first")
    page.take("~n", 1)
    position = page.positions["~n"]
    thread.notify("second")
    page.take("~n", 1)
    skipped = [thread.publish(text) for text in ("third", "fourth")]
    page.positions["~n"] = position  # of a message that is gone
    assert page.follow("~n") == []
    page.acknowledge("~n")
    later = thread.notify("fifth")
    assert [one["value"] for one in page.take("~n", 1)] == ["fifth"]
    for one in skipped:
        assert thread.begin(one).result(PATIENCE) == Receipt((), (), (process,))
    for one in (first, later):
        assert thread.begin(one).result(PATIENCE) == Receipt((process,), (), ())


def test_a_websocket_acknowledges(comet: Comet, thread: Thread) -> None:
    page, process = thread.open(comet, "ada")
    with Ws(thread.address, page.url, page.cookie) as socket:
        socket.say(subscribe={"~n": "new.0"})
        waiting = thread.begin(thread.notify("x"))
        event = socket.next()
        assert event["data"] == {"key": 1, "value": "x"}
        assert not waiting.done()
        socket.say(ack={"~n": event["position"]})
        assert waiting.result(PATIENCE) == Receipt((process,), (), ())


def stream(page: Page, position: str = "new.0") -> Sse:
    query = urlencode({"channel": "~n", "position": position})
    return Sse.get(page.address, f"{page.url}/events?{query}", Cookie=page.cookie)


def test_an_event_source_is_silent_and_one_that_is_away_is_missing(
    comet: Comet, thread: Thread
) -> None:
    silent_page, silent = thread.open(comet, "ada")
    _, away = thread.open(comet, "bob")
    with stream(silent_page) as events:
        notification = thread.notify("x")
        _, event = events.take(2)  # where it begins, and the message
        assert json.loads(event.data) == {"key": 1, "value": "x"}
        receipt = thread.begin(notification, timeout=0.2).result(PATIENCE)
        assert receipt == Receipt((), (silent,), (away,))


def test_a_client_whose_connection_broke_and_that_comes_back_in_time_counts(
    comet: Comet, thread: Thread
) -> None:
    page, process = thread.open(comet, "ada")
    with Ws(thread.address, page.url, page.cookie) as socket:
        socket.say(subscribe={"~n": "new.0"})
        first = thread.notify("first")
        event = socket.next()
        socket.say(ack={"~n": event["position"]})
        assert thread.begin(first).result(PATIENCE).acknowledged == (process,)
        waiting = thread.begin(thread.notify("second"))
        assert socket.next()["data"]["value"] == "second"
        socket.cut()  # before it could acknowledge
    page.positions["~n"] = event["position"]
    assert not waiting.done()
    assert page.take("~n", 1) == [{"key": 1, "value": "second"}]
    assert waiting.result(PATIENCE) == Receipt((process,), (), ())


async def published(notification: Notification) -> int:
    return await notification


def test_a_client_that_closes_is_not_waited_for(comet: Comet, thread: Thread) -> None:
    page, process = thread.open(comet, "ada")
    notification = thread.notify("x")
    waiting = thread.begin(notification)
    asyncio.run_coroutine_threadsafe(published(notification), thread.loop).result(PATIENCE)
    page.post(f"{page.url}/close")
    assert waiting.result(PATIENCE) == Receipt((), (), (process,))
