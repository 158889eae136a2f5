"""`EventSource` as Chromium has it: what it comes back from, and where it stops for good."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_comet import SITE, Channel, ClientProcess, Comet, CometMiddleware
from asgi_comet.transports import sse
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY, application

pytestmark = pytest.mark.browser

# An array of [event, data, id] for each source, by the name it is given.
OPEN = """([name, url, channels, withCredentials]) => {
    const source = new EventSource(url, {withCredentials}), seen = []
    window.tabs = {...window.tabs, [name]: {source, seen}}
    const ours = [
        ":open", ":deactivated", ":full", ":closed", ":forbidden", ":process-closed", ":replaced"
    ]
    for (const type of [...ours, ...channels])
        source.addEventListener(type, ({data, lastEventId}) =>
            seen.push([type, JSON.parse(data), lastEventId]))
}"""

OPEN_PROCESS = """async (live) => {
    const opened = await fetch(`${live}/comet/open`, {method: "POST", credentials: "include"})
    return (await opened.json()).url
}"""

Event = tuple[str, Any, str]


class Log:
    """Notes each request for events, and how it was answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.requests: list[str | None] = []  # the Last-Event-ID of each
        self.statuses: list[int] = []
        self.changed = threading.Condition()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith("/events"):
            await self.app(scope, receive, send)
            return

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                with self.changed:
                    self.statuses.append(message["status"])
                    self.changed.notify_all()
            await send(message)

        found = dict(scope["headers"]).get(b"last-event-id")
        with self.changed:
            self.requests.append(None if found is None else found.decode())
        await self.app(scope, receive, note)


class Source:
    """An `EventSource` in a page."""

    def __init__(
        self,
        page: Page,
        url: str,
        *channels: str,
        name: str = "first",
        credentials: bool = False,
    ) -> None:
        self.page = page
        self._name = name
        self._count = 0
        page.evaluate(OPEN, [name, url, list(channels), credentials])

    def next(self) -> Event:
        """Wait for the next event."""
        self._count += 1
        event, data, id_ = self.page.wait_for_function(
            "([name, count]) => tabs[name].seen[count - 1]", arg=[self._name, self._count]
        ).json_value()
        return event, data, id_

    def begun(self) -> str:
        """Wait for the beginning of the first stream, or of a further one; return the id."""
        event, _, id_ = self.next()
        assert event == ":open"
        return id_

    def stopped(self) -> None:
        """Wait until the browser has given up; there is nothing that was not looked at."""
        self.page.wait_for_function(
            "(name) => tabs[name].source.readyState === EventSource.CLOSED", arg=self._name
        )
        assert self.page.evaluate("(name) => tabs[name].seen.length", self._name) == self._count

    @property
    def state(self) -> int:
        found: int = self.page.evaluate("(name) => tabs[name].source.readyState", self._name)
        return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have browsers come back at once instead of after seconds."""
    monkeypatch.setattr(sse, "RETRY", (20, 40))
    monkeypatch.setattr(sse, "RETRY_LATER", (20, 40))


@pytest.fixture
def opened() -> list[ClientProcess]:
    """The client processes of the pages that were served."""
    return []


@pytest.fixture
def log(comet: Comet, opened: list[ClientProcess]) -> Log:
    async def page(request: Request) -> HTMLResponse:
        opened.append(comet.open_process())
        return HTMLResponse("<!doctype html><title>a page</title>")

    middleware = [Middleware(CometMiddleware, comet=comet)]
    return Log(Starlette(routes=[Route("/", page)], middleware=middleware))


@pytest.fixture
def server(log: Log) -> Iterator[Address]:
    with serve(log) as address:
        yield address


@pytest.fixture
def tab(page: Page, server: Address) -> Iterator[Page]:
    """A page of the server's origin; closed before the server stops, which waits for streams."""
    page.goto(server.url)
    yield page
    for one in page.context.pages:
        one.close()


@pytest.fixture
def news(comet: Comet) -> Channel[Any]:
    return comet.create(scope=SITE, name="news")


# What it comes back from


@pytest.mark.firefox
def test_it_comes_back_when_push_is_switched_on_again_and_has_missed_nothing(
    comet: Comet, tab: Page, news: Channel[Any], log: Log
) -> None:
    source = Source(tab, "/comet/events?channel=news", "news")
    first = source.begun()
    news.publish("before")
    event, data, at = source.next()
    assert (event, data) == ("news", "before")
    assert first != at

    comet.activation.deactivate()
    for _ in range(3):  # it asks again and again
        assert source.next() == (":deactivated", {}, at)
    for n in range(3):
        news.publish(n)
    comet.activation.activate()
    event, data, id_ = source.next()
    while event == ":deactivated":
        event, data, id_ = source.next()
    assert (event, data, id_) == (":open", {"positions": {"news": at}}, at)
    for n in range(3):
        assert source.next()[:2] == ("news", n)
    assert log.requests[:2] == [None, at]
    assert set(log.statuses) == {200}


@pytest.mark.firefox
def test_it_goes_on_from_the_position_that_came_with_full(
    comet: Comet, tab: Page, log: Log
) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    source = Source(tab, "/comet/events?channel=narrow", "narrow")
    old = source.begun()
    comet.activation.deactivate()
    assert source.next()[0] == ":deactivated"
    for n in range(3):
        narrow.publish(n)
    comet.activation.activate()
    while (found := source.next())[0] in (":deactivated", ":open"):
        assert found[2] == old
    new = narrow.reference()["position"]
    assert found == (":full", {"channel": "narrow"}, new)
    assert source.begun() == new
    narrow.publish("after")
    assert source.next()[:2] == ("narrow", "after")
    assert log.requests[-1] == new


def test_a_full_channel_holds_up_no_other(comet: Comet, tab: Page, news: Channel[Any]) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    source = Source(tab, "/comet/events?channel=narrow&channel=news", "narrow", "news")
    source.begun()
    comet.activation.deactivate()
    for n in range(2):
        narrow.publish(n)
        news.publish(n)
    comet.activation.activate()
    found: list[tuple[str, Any]] = []
    while ("news", 1) not in found or not any(name == ":full" for name, _ in found):
        found.append(source.next()[:2])
    said = [event for event in found if event[0] not in (":open", ":deactivated")]
    assert sorted(said, key=str) == [
        (":full", {"channel": "narrow"}),
        ("news", 0),
        ("news", 1),
    ]


# Where it stops


@pytest.mark.firefox
def test_it_stops_when_the_last_of_its_channels_has_ended(
    comet: Comet, tab: Page, news: Channel[Any], log: Log
) -> None:
    other = comet.create(scope=SITE, name="other")
    source = Source(tab, "/comet/events?channel=news&channel=other", "news", "other")
    source.begun()
    news.publish("last words")
    news.close()
    assert source.next()[:2] == ("news", "last words")
    event, data, id_ = source.next()
    assert (event, data) == (":closed", {"channel": "news", "reason": "ended"})
    assert id_ == f"-,{other.reference()['position']}"
    other.publish("still here")
    assert source.next()[:2] == ("other", "still here")
    other.close()
    assert source.next() == (":closed", {"channel": "other", "reason": "ended"}, "-,-")
    source.stopped()
    assert log.statuses == [200, 204]


def test_it_stops_at_a_channel_that_nobody_made(tab: Page, log: Log) -> None:
    source = Source(tab, "/comet/events?channel=nobody")
    assert source.next() == (":open", {"positions": {}}, "-")
    assert source.next() == (":closed", {"channel": "nobody", "reason": "unknown"}, "-")
    source.stopped()
    assert (log.requests, log.statuses) == ([None, "-"], [200, 204])


@pytest.mark.firefox
def test_two_tabs_of_one_process_do_not_throw_each_other_out_in_turn(
    comet: Comet, tab: Page, opened: list[ClientProcess], log: Log
) -> None:
    inbox = comet.create(scope=opened[0], name="inbox")
    url = f"{opened[0].url}/events?channel=~inbox"
    first = Source(tab, url, "~inbox")
    first.begun()
    duplicate = tab.context.new_page()
    duplicate.goto(tab.url)
    second = Source(duplicate, url, "~inbox")
    second.begun()
    assert first.next() == (":replaced", {}, "-")
    first.stopped()
    inbox.publish("for the newer one")
    assert second.next()[:2] == ("~inbox", "for the newer one")
    assert second.state == 1
    assert log.requests == [None, None, "-"]
    assert log.statuses == [200, 200, 204]


def test_it_stops_when_its_process_is_closed(
    comet: Comet, tab: Page, opened: list[ClientProcess], log: Log
) -> None:
    (process,) = opened
    url = f"{process.url}/events?channel=~inbox"
    comet.create(scope=process, name="inbox")
    source = Source(tab, url, "~inbox")
    source.begun()
    process.close()
    while (found := source.next())[0] == ":closed":
        pass
    assert found == (":process-closed", {}, "-")
    source.stopped()

    late = Source(tab, url, name="late")
    assert late.next() == (":process-closed", {}, "-")
    late.stopped()
    assert log.requests == [None, "-", None, "-"]
    assert log.statuses == [200, 204, 200, 204]


def test_it_stops_at_what_it_may_not_read(tab: Page, news: Channel[Any], log: Log) -> None:
    tab.context.clear_cookies()  # without one, nobody has channels of their own
    source = Source(tab, "/comet/events?channel=news&channel=~inbox", "news")
    found = [source.next() for _ in range(2)]
    assert found[-1] == (":forbidden", {"channel": "~inbox"}, "-,-")
    source.stopped()
    assert log.statuses == [200, 204]


@pytest.mark.firefox
def test_it_stops_at_a_refusal_at_once(tab: Page, log: Log) -> None:
    """Not our rule but its own: any answer but 200 is final."""
    source = Source(tab, "/comet/events?channel=news&position=nonsense")
    source.stopped()
    assert log.statuses == [400]
    cut = Source(tab, "/comet/p/nonsense/events?channel=~inbox", name="second")
    cut.stopped()
    assert log.statuses == [400, 403]


# What it is for


def test_a_page_of_a_foreign_origin_hears_nothing(
    tab: Page, server: Address, news: Channel[Any], log: Log
) -> None:
    tab.goto(server.url.replace("127.0.0.1", "localhost"))
    source = Source(tab, f"{server.url}/comet/events?channel=news", "news")
    source.stopped()
    assert log.statuses == [403]


@pytest.mark.firefox
def test_a_page_of_an_allowed_origin_follows_a_channel_of_its_own_with_credentials(
    tab: Page,
) -> None:
    """Another port is another origin, but the same site, so the cookie comes along."""
    comet = Comet(KEY, allowed_origins=[tab.evaluate("location.origin")])
    with serve(application(comet)) as live:
        try:
            url = live.url + tab.evaluate(OPEN_PROCESS, live.url) + "/events?channel=~inbox"
            source = Source(tab, url, credentials=True)
            assert source.begun() == "new.0"
            without = Source(tab, url, name="without")
            without.stopped()
            assert source.state == 1
        finally:
            tab.goto("about:blank")


def test_many_channels_take_one_connection(comet: Comet, tab: Page, log: Log) -> None:
    """More than the six that a browser opens to one host."""
    channels = [comet.create(scope=SITE, name=f"c{n}") for n in range(20)]
    names = [channel.name or "" for channel in channels]
    source = Source(tab, "/comet/events?" + "&".join(f"channel={name}" for name in names), *names)
    positions = [channel.reference()["position"] for channel in channels]
    assert source.begun() == ",".join(positions)
    for n, channel in enumerate(channels):
        channel.publish(json.dumps({"n": n}))
        positions[n] = channel.reference()["position"]
        assert source.next() == (channel.name, json.dumps({"n": n}), ",".join(positions))
    assert len(log.requests) == 1
