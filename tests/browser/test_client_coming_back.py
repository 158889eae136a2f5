"""The browser client where a server stops, a network swallows all, or a channel is forbidden.

What the server says is put in its mouth here: how it comes to say so is tested elsewhere.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.sync_api import Page
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_comet import SITE, Channel, Comet
from asgi_comet.testing import wait_for_listeners
from tests.kit.following import PATIENCE, Network, Tab
from tests.kit.serving import Address

pytestmark = pytest.mark.browser

Say = Callable[[Scope, Receive, Send], Awaitable[None]]

NOTE_STATUS = """
    window.statuses = [comet.status]
    comet.addEventListener("status", () => statuses.push(comet.status))
"""


class Between:
    """Answers instead of an application, as long as there is something to say for a path.

    Attributes:
        words: What to say, by the last part of the path.
        at: When something was said, by the monotonic clock.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.words: dict[str, list[Say]] = {}
        self.at: list[float] = []
        self.changed = threading.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left = self.words.get(scope.get("path", "").rpartition("/")[2])
        if not left:
            await self.app(scope, receive, send)
            return
        say = left.pop(0)
        with self.changed:
            self.at.append(time.monotonic())
            self.changed.notify_all()
        await say(scope, receive, send)

    def wait(self, count: int) -> None:
        """Wait until it answered so often."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.at) >= count, PATIENCE / 1000)


@pytest.fixture
def between(network: Network) -> Between:
    network.app = between = Between(network.app)
    return between


@pytest.fixture
def noted(tab: Tab) -> Tab:
    tab.page.evaluate(NOTE_STATUS)
    return tab


def statuses(tab: Tab) -> list[str]:
    found: list[str] = tab.page.evaluate("statuses")
    return found


def until_status(tab: Tab, status: str) -> None:
    tab.page.wait_for_function("(status) => comet.status === status", arg=status)


# A server that comes back soon


def closing(code: int, *frames: Any) -> Say:
    """A WebSocket that is closed after some words."""

    async def say(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "comet.v1"})
        for frame in frames:
            await send({"type": "websocket.send", "text": json.dumps(frame)})
        await send({"type": "websocket.close", "code": code})

    return say


def ending(body: bytes, kind: bytes = b"text/event-stream") -> Say:
    """An answer that ends."""

    async def say(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return say


RETRY = b"retry: 1234\n"
OPEN = RETRY + b'event: :open\ndata: {"positions": {}}\nid: -\n\n'
CANARY = {"events": [{"channel": ":", "error": "closed", "reason": "unknown"}]}

SOON = {
    "websocket": ("socket", closing(1012)),
    "websocket, heard": ("socket", closing(1012, CANARY)),
    "sse": ("events", ending(RETRY)),
    "sse, heard": ("events", ending(OPEN)),
}


@pytest.mark.parametrize("kind", SOON)
def test_a_server_that_comes_back_soon_is_no_failure_of_a_transport(
    noted: Tab, between: Between, network: Network, news: Channel[Any], kind: str
) -> None:
    """As when it stops, or a login changes the cookie."""
    path, say = SOON[kind]
    between.words[path] = [say] * 3
    transport = kind.partition(",")[0]
    network.blocked = {"websocket"} - {transport}
    noted.follow("news")
    wait_for_listeners(news, 1, PATIENCE / 1000)
    news.publish("goes on")
    assert noted.seen("news", 1) == ["goes on"]
    assert network.tried[transport] == 4
    others = network.tried.keys() - {transport}
    assert others <= {"websocket"}  # which is tried first
    assert set(statuses(noted)) == {"connecting", "online"}
    pauses = [after - before for before, after in zip(between.at, between.at[1:], strict=False)]
    assert min(pauses) > 0.5


def test_a_stream_that_is_refused_and_then_ends_at_once_is_not_offline(
    noted: Tab, between: Between, network: Network, news: Channel[Any]
) -> None:
    """A server that stops may refuse WebSockets already."""
    network.blocked = {"websocket"}
    between.words["events"] = [ending(RETRY)]
    noted.follow("news")
    between.wait(1)
    network.blocked = set()
    noted.placed("news")
    assert network.tried == {"websocket": 2, "sse": 1}
    assert statuses(noted) == ["connecting", "online"]


def test_a_stream_of_something_else_is_a_failure(
    noted: Tab, between: Between, network: Network, news: Channel[Any]
) -> None:
    """As where a café wants to be paid first."""
    network.blocked = {"websocket"}
    between.words["events"] = [ending(b"<title>Welcome</title>", b"text/html")]
    noted.follow("news")
    noted.placed("news")
    news.publish("here")
    assert noted.seen("news", 1) == ["here"]
    assert network.tried["sse"] == 1
    assert network.tried["poll"] >= 1


# A network that swallows all


async def mute(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing, until the other side has gone."""
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass


def test_a_process_that_cannot_be_opened_in_time_is_offline(
    noted: Tab, between: Between, news: Channel[Any]
) -> None:
    between.words["open"] = [mute]
    noted.follow("news")
    until_status(noted, "offline")
    noted.placed("news")
    assert statuses(noted) == ["connecting", "offline", "online"]


def test_offline_is_told_with_the_first_connection_that_stays_mute_after_a_silence(
    noted: Tab, between: Between, network: Network, news: Channel[Any], page: Page
) -> None:
    noted.follow("news")
    noted.placed("news")
    between.words = {"socket": [mute] * 9, "events": [mute] * 9, "poll": [mute] * 9}
    page.clock.install()
    news.publish("the next silence begins with this")
    noted.seen("news", 1)
    page.clock.fast_forward(35_000)
    until_status(noted, "connecting")
    between.wait(1)
    page.clock.fast_forward(4_000)
    until_status(noted, "offline")
    assert network.tried in ({"websocket": 2}, {"websocket": 2, "sse": 1})
    between.words = {}
    page.clock.fast_forward(4_000)
    until_status(noted, "online")
    news.publish("goes on")
    assert noted.seen("news", 2)[-1] == "goes on"
    assert statuses(noted) == ["connecting", "online", "connecting", "offline", "online"]


def test_a_pause_between_polls_may_be_longer_than_a_poll_is_held(
    leaving: Page, address: Address, network: Network, news: Channel[Any]
) -> None:
    network.only("poll")
    leaving.clock.install()
    tab = Tab(leaving, address.url, timeBetweenRequests=90)
    leaving.evaluate(NOTE_STATUS)
    tab.follow("news")
    tab.placed("news")
    for n in range(3):
        polls = network.tried["poll"]
        leaving.clock.fast_forward(89_000)
        assert network.tried["poll"] == polls
        leaving.clock.fast_forward(2_000)
        wait_for_listeners(news, 1, PATIENCE / 1000)  # it is held again
        news.publish(n)
        assert tab.seen("news", n + 1)[-1] == n
    assert statuses(tab) == ["connecting", "online"]


def test_a_poll_that_is_held_for_long_is_asked_anew_and_nobody_is_told(
    comet: Comet, leaving: Page, address: Address, network: Network, news: Channel[Any]
) -> None:
    """An operator may have it held for up to an hour."""
    network.only("poll")
    comet.activation.set_timeout(3600)
    leaving.clock.install()
    tab = Tab(leaving, address.url)
    leaving.evaluate(NOTE_STATUS)
    tab.follow("news")
    tab.placed("news")
    for n in range(3):
        wait_for_listeners(news, 1, PATIENCE / 1000)
        polls = network.tried["poll"]
        leaving.clock.fast_forward(36_000)
        leaving.wait_for_function("() => fetch('/').then(() => true)")
        while network.tried["poll"] < polls + 2:
            leaving.evaluate("fetch('/').then(() => null)")
        wait_for_listeners(news, 1, PATIENCE / 1000)
        news.publish(n)
        assert tab.seen("news", n + 1) == list(range(n + 1))
    assert statuses(tab) == ["connecting", "online"]


def test_offline_is_told_of_a_poll_as_soon(
    leaving: Page, address: Address, network: Network, between: Between, news: Channel[Any]
) -> None:
    network.only("poll")
    leaving.clock.install()
    tab = Tab(leaving, address.url)
    leaving.evaluate(NOTE_STATUS)
    tab.follow("news")
    tab.placed("news")
    wait_for_listeners(news, 1, PATIENCE / 1000)
    between.words = {"poll": [mute] * 9}
    leaving.clock.fast_forward(35_000)
    between.wait(1)
    leaving.clock.fast_forward(4_000)
    until_status(tab, "offline")
    assert statuses(tab) == ["connecting", "online", "offline"]


# What the server refuses


def refusing(status: int, *headers: tuple[bytes, bytes]) -> Say:
    async def say(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"what is wrong"})

    return say


BAD = {
    "websocket": ("socket", closing(4400, CANARY, {"error": "what is wrong"})),
    "sse": ("events", refusing(400)),
    "poll": ("poll", refusing(400)),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_is_said_on_the_console_and_not_repeated_soon(
    leaving: Page,
    address: Address,
    between: Between,
    network: Network,
    news: Channel[Any],
    kind: str,
) -> None:
    path, say = BAD[kind]
    between.words[path] = [say] * 3
    network.only(kind)
    leaving.clock.install()
    errors: list[str] = []
    leaving.on("console", lambda message: errors.append(message.text))
    tab = Tab(leaving, address.url)
    leaving.evaluate("Math.random = () => 0.5")
    tab.follow("news")
    for count in range(1, 4):
        while len(between.at) < count:
            leaving.evaluate("fetch('/').then(() => null)")
        until_status(tab, "offline")
        for _ in range(3):
            leaving.evaluate("fetch('/').then(() => null)")
        leaving.clock.fast_forward(15_000)
        for _ in range(3):
            leaving.evaluate("fetch('/').then(() => null)")
        assert len(between.at) == count
        leaving.clock.fast_forward(6_000)
    tab.placed("news")
    assert errors.count("comet: what is wrong") == 3


def test_what_a_server_says_of_when_to_come_back_is_obeyed(
    leaving: Page, address: Address, between: Between, news: Channel[Any]
) -> None:
    between.words["open"] = [refusing(429, (b"retry-after", b"100"))]
    leaving.clock.install()
    tab = Tab(leaving, address.url)
    tab.follow("news")
    until_status(tab, "offline")
    opened = []
    leaving.on("request", lambda one: opened.append(one.url) if "/open" in one.url else None)
    leaving.clock.fast_forward(99_000)
    leaving.evaluate("fetch('/').then(() => null)")
    assert opened == []
    leaving.clock.fast_forward(2_000)
    tab.placed("news")


def test_a_channel_that_is_closed_before_the_connection_is_there_asks_for_nothing(
    noted: Tab, network: Network, news: Channel[Any], page: Page
) -> None:
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    noted.page.evaluate(
        """() => {
            const Original = window.WebSocket
            window.WebSocket = function (...asked) {
                const socket = new Original(...asked)
                queueMicrotask(() => consumers.news?.close())
                return socket
            }
        }"""
    )
    frames: list[Any] = []

    def note(frame: Any) -> None:  # the driver takes no builtin
        frames.append(frame)

    page.on("websocket", lambda socket: socket.on("framereceived", note))
    noted.follow("news")
    while not frames:  # the server has answered
        noted.page.evaluate("fetch('/').then(() => null)")
    noted.page.evaluate("consumers.news = null")
    noted.follow("again", "news")
    noted.placed("again")
    assert statuses(noted) == ["connecting", "online"]
    assert errors == []


# A channel that is forbidden in the midst

REVOKE = "from here on it is forbidden"


class Revoking:
    """Takes a channel away from whoever would get a certain message."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        held: list[Message] = []
        ended = False

        async def pass_on(message: Message) -> None:
            nonlocal ended
            if message["type"] == "http.response.start":
                held.append(message)
                return
            if ended:
                return
            said = message.get("text") or message.get("body", b"").decode()
            if REVOKE in said:
                message, ended = self.forbid(scope, message)
                for start in held:
                    start["headers"] = [h for h in start["headers"] if h[0] != b"content-length"]
            while held:
                await send(held.pop())
            await send(message)

        await self.app(scope, receive, pass_on)

    def forbid(self, scope: Scope, message: Message) -> tuple[Message, bool]:
        event = {"channel": "news", "error": "forbidden"}
        if scope["type"] == "websocket":
            return {"type": "websocket.send", "text": json.dumps({"events": [event]})}, False
        if scope["path"].endswith("/poll"):
            return {**message, "body": json.dumps({"events": [event]}).encode()}, True
        count = scope["query_string"].count(b"channel=")
        ids = ",".join("-" * count)
        text = f'event: :forbidden\ndata: {{"channel": "news"}}\nid: {ids}\n\n'
        return {"type": "http.response.body", "body": text.encode()}, True


def test_a_channel_that_is_forbidden_in_the_midst_ends_and_the_others_go_on(
    comet: Comet, network: Network, transport: str, noted: Tab, news: Channel[Any]
) -> None:
    network.app = Revoking(network.app)
    other = comet.create(scope=SITE, name="other")
    noted.follow("news")
    noted.follow("told", "news", "callbacks('told')")
    noted.follow("other")
    noted.placed("news", "told", "other")
    for channel in (other, news):
        channel.publish("before")
    noted.seen("told", 1)
    news.publish(REVOKE)
    forbidden = ["ChannelClosed", "news", "forbidden", None]
    assert noted.seen("news", 3) == ["before", forbidden, True]
    assert noted.seen("told", 2) == ["before", ["onclosed", *forbidden]]
    for n in range(3):
        other.publish(n)
    assert noted.seen("other", 4) == ["before", 0, 1, 2]
    wait_for_listeners(news, 0, PATIENCE / 1000)
    assert set(statuses(noted)) == {"connecting", "online"}


# Who waits in a loop of their own


def test_of_those_who_wait_one_is_told_the_error_and_nobody_waits_for_ever(
    tab: Tab, news: Channel[Any]
) -> None:
    tab.page.evaluate(
        """() => {
            const consumer = comet.channel("nobody")
            const note = async (waiting) => {
                for (const { reason, value } of await Promise.allSettled(waiting)) {
                    ends.push(reason?.name ?? value.done)
                }
            }
            window.ends = []
            void note([consumer.next(), consumer.next(), consumer.next()])
                .then(() => note([consumer.next()]))
        }"""
    )
    tab.page.wait_for_function("ends.length === 4")
    assert tab.page.evaluate("ends") == ["ChannelClosed", True, True, True]
