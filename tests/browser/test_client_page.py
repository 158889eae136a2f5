"""`comet.js` in a page that lives: that is hidden, left, come back to, duplicated, or cut off.

What each transport does on its own is tested in test_client_transports.py.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, Route
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.routing import Route as Endpoint
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_comet import SITE, ClientProcess, Comet, CometMiddleware, Settings
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import inside
from tests.kit.chromium import QUIET
from tests.kit.following import POLLING
from tests.kit.own_server import Server
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY

pytestmark = pytest.mark.browser

PATIENCE = 30.0  # seconds until what does not come is missed
HTML = "<!doctype html><meta charset=utf-8><title>a page</title>"

# `seen[name]` is all that a consumer was told, `statuses` all that the page was.
CONNECT = """async (wish) => {
    const {connect} = await import("/comet/comet.js")
    window.comet = connect(wish)
    window.statuses = [comet.status]
    window.closings = 0
    window.seen = {}
    window.consumers = {}
    comet.addEventListener("status", () => statuses.push(comet.status))
    comet.addEventListener("process-closed", () => closings++)
    window.follow = (name, consume) => {
        const told = (error) => seen[name].push([error.name, error.reason ?? null])
        seen[name] = []
        consumers[name] = consume({
            onmessage: (data) => seen[name].push(data),
            onfull: told,
            onerror: told,
        })
    }
}"""

FOLLOW = """([name, channel, options]) =>
    follow(name, (told) => comet.channel(channel, {...told, ...options}))"""

HIDE = """(hidden) => {
    const is = (name, value) =>
        Object.defineProperty(document, name, {configurable: true, get: () => value})
    is("hidden", hidden)
    is("visibilityState", hidden ? "hidden" : "visible")
    document.dispatchEvent(new Event("visibilitychange"))
}"""

# When a poll was asked for, and when its answer was read, by the page's clock.
NOTE_POLLS = """
    window.polls = []
    window.answered = 0
    const original = window.fetch
    window.fetch = async (...asked) => {
        if (!String(asked[0]).includes("/poll?")) return original(...asked)
        polls.push(Date.now())
        const answer = await original(...asked)
        const json = answer.json.bind(answer)
        answer.json = async () => {
            const found = await json()
            answered++
            return found
        }
        return answer
    }
"""

NO_WEBSOCKET = "delete window.WebSocket"


class Tab:
    """A page with a client in it."""

    def __init__(self, page: Page, **wish: Any) -> None:
        self.page = page
        self.counts: dict[str, int] = {}
        page.evaluate(CONNECT, wish)

    def follow(self, channel: str, name: str | None = None, **options: Any) -> None:
        """Follow a channel, and wait until it has a place."""
        name = name or channel
        self.page.evaluate(FOLLOW, [name, channel, options])
        self.placed(name)

    def placed(self, name: str) -> None:
        self.until("(name) => consumers[name].position", name)

    def next(self, name: str) -> Any:
        """Wait for what a consumer is told next."""
        self.counts[name] = count = self.counts.get(name, 0) + 1
        self.until("([name, count]) => seen[name]?.length >= count", [name, count])
        return self.evaluate("([name, count]) => seen[name][count - 1]", [name, count])

    def seen(self, name: str) -> list[Any]:
        found: list[Any] = self.evaluate("(name) => seen[name]", name)
        return found

    def until(self, condition: str, argument: Any = None) -> None:
        self.page.wait_for_function(
            condition, arg=argument, timeout=PATIENCE * 1000, polling=POLLING
        )

    def until_status(self, status: str) -> None:
        self.until("(status) => comet.status === status", status)

    def evaluate(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    @property
    def statuses(self) -> list[str]:
        found: list[str] = self.evaluate("statuses")
        return found

    @property
    def process(self) -> str:
        found: str = self.evaluate("comet.process().then(({url}) => new URL(url).pathname)")
        return found

    def hide(self, hidden: bool = True) -> None:
        self.evaluate(HIDE, hidden)


class Log:
    """Notes each request; refuses WebSockets if it is told so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.changed = threading.Condition()
        self.refuses_websocket = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
            with self.changed:
                method = scope.get("method", "WebSocket")
                self.requests.append((method, scope["path"], headers))
                self.changed.notify_all()
        if scope["type"] == "websocket" and self.refuses_websocket:
            await send({"type": "websocket.close"})  # 403
        else:
            await self.app(scope, receive, send)

    def count(self, end: str) -> int:
        """Return how many were of paths with this end."""
        return sum(path.endswith(end) for _, path, _ in self.requests)

    def wait(self, end: str, count: int) -> None:
        """Wait until there were so many of them."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.count(end) >= count, PATIENCE), self.requests


class Site:
    """A server whose pages are given what a test says."""

    def __init__(self, comet: Comet) -> None:
        self.comet = comet
        self.news = comet.create(scope=SITE, name="news")
        self.other = comet.create(scope=SITE, name="other")
        self.gauge = comet.create_newest(name="gauge")
        self.processes: list[ClientProcess] = []
        self.closed: list[str] = []
        self.changed = threading.Condition()
        self.kept: str | None = None
        routes = [
            Endpoint("/", self._page),
            Endpoint("/given", self._given),
            Endpoint("/same", self._same),
            Endpoint("/unowned", self._unowned),
            Endpoint("/plain", self._plain),
            Endpoint("/mine", self._mine, methods=["POST"]),
        ]
        middleware = [Middleware(CometMiddleware, comet=comet)]
        self.log = Log(Starlette(routes=routes, middleware=middleware))
        self.address: Address

    @property
    def url(self) -> str:
        return self.address.url

    def find(self, url: str) -> ClientProcess:
        """Return the process that a page has, by its URL."""
        (found,) = [one for one in self.open_processes() if one.url == url]
        return found

    def open_processes(self) -> list[ClientProcess]:
        return [*inside(self.comet).clients.processes()]

    def wait_closed(self, process: ClientProcess) -> None:
        """Wait until a process has closed."""
        done = threading.Event()
        process.on_close(lambda _: done.set())
        assert done.wait(PATIENCE)

    async def _page(self, request: Request) -> HTMLResponse:
        return HTMLResponse(HTML)

    async def _given(self, request: Request) -> HTMLResponse:
        process = self.comet.open_process()
        self.processes.append(process)
        inbox = self.comet.create(scope=process, name="inbox")
        script = self.comet.script(process, headlines=self.news, inbox=inbox)
        inbox.publish("while loading")
        return HTMLResponse(HTML + script)

    async def _same(self, request: Request) -> HTMLResponse:
        """As from a cache."""
        if self.kept is None:
            answer = await self._given(request)
            self.kept = bytes(answer.body).decode()
        return HTMLResponse(self.kept)

    async def _unowned(self, request: Request) -> HTMLResponse:
        return HTMLResponse(HTML + self.comet.script(None, headlines=self.news))

    async def _plain(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("plain")

    async def _mine(self, request: Request) -> JSONResponse:
        """What an endpoint of an application does: makes a channel for the tab that asks."""
        process = self.comet.process()
        channel = self.comet.create(scope=process)
        reference = channel.reference()
        channel.publish("before the answer")
        return JSONResponse({"thread": reference, "url": process.url})


@pytest.fixture
def settings() -> Settings:
    return Settings(jitter=0)


@pytest.fixture
def site(comet: Comet, page: Page) -> Iterator[Site]:
    """Pages are closed before the server stops, which waits for streams."""
    site = Site(comet)
    with serve(site.log) as site.address:
        yield site
        for one in page.context.pages:
            one.close()


@pytest.fixture
def open_tab(site: Site, page: Page) -> Callable[..., Tab]:
    """Open a page, the first in the page that there is, and connect."""
    unused = [page]

    def open_tab(path: str = "/", **wish: Any) -> Tab:
        one = unused.pop() if unused else page.context.new_page()
        one.goto(site.url + path)
        return Tab(one, **wish)

    return open_tab


OpenTab = Callable[..., Tab]


# The server goes away, and comes back


@pytest.mark.firefox
def test_a_server_that_was_killed_and_started_again(own_server: Server, page: Page) -> None:
    own_server.start()
    page.goto(own_server.url)
    tab = Tab(page)
    tab.follow("news")
    tab.follow("news", "resuming", onfull="resume")
    tab.follow("gauge")
    tab.follow("~inbox")
    before = tab.process
    own_server.publish("news", 1)
    own_server.publish("gauge", 1)
    for name in ("news", "resuming", "gauge"):
        assert tab.next(name) == 1
    assert tab.statuses == ["connecting", "online"]

    own_server.stop(signal.SIGKILL)
    tab.until_status("offline")
    own_server.start()
    assert tab.next("~inbox") == ["ProcessClosed", None]
    assert tab.next("news") == ["ChannelFull", None]
    tab.until_status("online")
    assert tab.evaluate("closings") == 1
    assert tab.process != before

    # What resumed may have been told where it is, or not yet: then it is where the server was.
    own_server.wait_for_listeners("news", 1)
    own_server.publish("news", 2)
    own_server.publish("gauge", 2)
    assert tab.next("resuming") == 2
    assert tab.next("gauge") == 2
    tab.follow("~inbox", "inbox again")
    assert tab.seen("~inbox") == [["ProcessClosed", None]]
    assert tab.seen("news") == [1, ["ChannelFull", None]]
    assert tab.statuses[:2] == ["connecting", "online"]
    assert tab.statuses[-1] == "online"


def test_a_process_that_the_server_closes(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.follow("news")
    tab.follow("~inbox")
    before = site.find(tab.process)
    before.close()
    assert tab.next("~inbox") == ["ProcessClosed", None]
    tab.until("() => closings === 1")
    tab.follow("~inbox", "inbox again")
    after = site.find(tab.process)
    assert after is not before
    site.news.publish("goes on")
    site.comet.create(scope=after, name="inbox").publish("new")
    assert tab.next("news") == "goes on"
    assert tab.next("inbox again") == "new"
    assert tab.seen("~inbox") == [["ProcessClosed", None]]
    assert tab.evaluate("closings") == 1


@pytest.mark.firefox
def test_push_is_switched_off_and_on(site: Site, open_tab: OpenTab, page: Page) -> None:
    page.clock.install()
    tab = open_tab()
    tab.follow("news")
    tab.follow("~inbox")
    inbox = site.comet.create(scope=site.find(tab.process), name="inbox")
    inbox.publish(0)
    assert tab.next("~inbox") == 0
    site.comet.activation.deactivate()
    tab.until_status("deactivated")
    for n in range(3):
        site.news.publish(n)
        inbox.publish(n + 1)
    site.comet.activation.activate()
    page.clock.fast_forward(20_000)  # it comes back after 5 to 15 s
    tab.until_status("online")
    for n in range(3):
        assert tab.next("news") == n
        assert tab.next("~inbox") == n + 1
    site.news.publish("last")
    assert tab.next("news") == "last"
    assert tab.seen("~inbox") == [0, 1, 2, 3]
    assert tab.evaluate("closings") == 0


def test_a_page_that_is_opened_while_push_is_switched_off(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    page.clock.install()
    site.comet.activation.deactivate()
    tab = open_tab()
    tab.evaluate(FOLLOW, ["news", "news", {}])
    tab.until_status("deactivated")
    site.comet.activation.activate()
    page.clock.fast_forward(60_000)
    tab.placed("news")
    site.news.publish(1)
    assert tab.next("news") == 1
    assert tab.statuses[-1] == "online"


@pytest.mark.firefox
def test_a_network_that_fails_and_is_there_again(site: Site, open_tab: OpenTab, page: Page) -> None:
    page.clock.install()
    tab = open_tab()
    tab.follow("news")
    page.clock.pause_at(tab.evaluate("Date.now() + 1000") / 1000)
    page.context.set_offline(True)
    tab.until_status("offline")
    wait_for_listeners(site.news, 0, PATIENCE)
    for n in range(3):
        site.news.publish(n)
    # The page's clock stands still: it does not wait until it would have tried again.
    page.context.set_offline(False)
    tab.until_status("online")
    for n in range(3):
        assert tab.next("news") == n
    assert tab.seen("news") == [0, 1, 2]


def test_a_user_need_not_wait_until_the_page_tries_again(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    """As with a button: `restart`."""
    page.clock.install()
    tab = open_tab()
    tab.follow("news")
    site.comet.activation.deactivate()
    tab.until_status("deactivated")
    page.clock.pause_at(tab.evaluate("Date.now() + 1000") / 1000)
    site.comet.activation.activate()
    site.news.publish("meanwhile")
    tab.evaluate("comet.restart()")
    tab.until_status("online")
    assert tab.next("news") == "meanwhile"
    tab.evaluate("comet.restart()")  # also where there is no need
    site.news.publish("after")
    assert tab.next("news") == "after"
    assert tab.evaluate("closings") == 0


# Without a channel


@pytest.mark.parametrize("websocket", [True, False], ids=["websocket", "sse"])
@pytest.mark.parametrize("status", ["deactivated", "offline", "online"])
def test_a_page_without_channels_says_nothing_of_the_network(
    site: Site, open_tab: OpenTab, page: Page, websocket: bool, status: str
) -> None:
    """Nothing would ever say that it is otherwise now."""
    site.log.refuses_websocket = not websocket
    page.clock.install()
    tab = open_tab()
    tab.follow("news")
    tab.follow("other")
    page.clock.pause_at(tab.evaluate("Date.now() + 1000") / 1000)
    if status == "deactivated":
        site.comet.activation.deactivate()
    page.context.set_offline(status == "offline")
    tab.until_status(status)
    tab.evaluate("consumers.news.close()")
    assert tab.evaluate("comet.status") == status
    tab.evaluate("consumers.other.close()")
    assert tab.evaluate("comet.status") == "connecting"
    page.clock.resume()
    page.clock.fast_forward(60_000)
    tab.evaluate("comet.restart()")
    assert tab.evaluate("comet.status") == "connecting"
    site.comet.activation.activate()
    page.context.set_offline(False)
    tab.follow("news", "again")
    site.news.publish(1)
    assert tab.next("again") == 1
    tab.until_status("online")
    tab.evaluate("comet.close()")
    assert tab.evaluate("comet.status") == "closed"


def test_a_process_that_cannot_be_opened_is_no_claim_without_channels(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    page.route("**/open", lambda route: route.fulfill(status=503))
    tab = open_tab()
    tab.evaluate(FOLLOW, ["news", "news", {}])
    tab.until_status("deactivated")
    tab.evaluate("consumers.news.close()")
    assert tab.statuses == ["connecting", "deactivated", "connecting"]


# Hidden


class Hidden:
    """A tab whose clock is turned by hand."""

    def __init__(self, site: Site, page: Page, open_tab: OpenTab, **wish: Any) -> None:
        page.add_init_script(NOTE_POLLS)
        page.clock.install()
        self.site = site
        self.page = page
        self.tab = open_tab(**wish)
        self.tab.follow("news")
        page.clock.pause_at(self.tab.evaluate("Date.now() + 1000") / 1000)
        self.published = 0
        self.sockets = site.log.count("/socket")
        self.publish()
        self.tab.hide()
        self.since: int = self.tab.evaluate("Date.now()")

    def publish(self) -> None:
        """Publish; that it arrives keeps the connection from seeming dead."""
        self.site.news.publish(self.published)
        self.published += 1

    def heard(self) -> None:
        """Wait for all that was published, in order."""
        while self.tab.counts.get("news", 0) < self.published:
            assert self.tab.next("news") == self.tab.counts["news"] - 1

    def pass_(self, seconds: float) -> None:
        self.page.clock.fast_forward(int(seconds * 1000))

    def stay(self, seconds: float, pause: float = 30) -> None:
        """Let time pass with the connection that there is, and a message in every pause."""
        while seconds > 0:
            step = min(pause, seconds)
            self.pass_(step)
            seconds -= step
            self.publish()
            self.heard()
        assert self.site.news.listeners == 1
        assert self.site.log.count("/socket") == self.sockets

    def dropped(self) -> None:
        """Wait until the connection has gone and the first idle poll was answered."""
        wait_for_listeners(self.site.news, 0, PATIENCE)
        self.answered(1)

    def answered(self, count: int) -> None:
        self.tab.until("(count) => answered >= count", count)

    @property
    def polls(self) -> list[float]:
        """When it polled, in seconds since it was hidden."""
        found: list[float] = self.tab.evaluate(
            "(since) => polls.map((at) => (at - since) / 1000)", self.since
        )
        return found


def test_a_tab_that_is_hidden_for_long_polls_ever_less_often(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    hidden = Hidden(site, page, open_tab)
    hidden.stay(179)
    assert hidden.polls == []
    hidden.pass_(1)
    hidden.dropped()
    assert hidden.polls == [180]

    # min(0.5 t + 60, 600), for t seconds idle; and 240 is less than half of 600
    expected = [180.0]
    for pause in (60, 90, 135, 202.5, 240, 240):
        hidden.publish()
        hidden.pass_(pause - 0.01)
        assert hidden.polls == expected
        hidden.pass_(0.01)
        expected.append(expected[-1] + pause)
        hidden.answered(len(expected))
        assert hidden.polls == expected
        hidden.heard()
    assert site.news.listeners == 0

    hidden.publish()
    hidden.tab.hide(False)  # the clock stands still: at once
    wait_for_listeners(site.news, 1, PATIENCE)
    hidden.heard()
    hidden.publish()
    hidden.heard()
    assert hidden.polls == expected
    assert hidden.tab.seen("news") == list(range(hidden.published))
    assert hidden.tab.evaluate("closings") == 0


@pytest.mark.parametrize("settings", [Settings(jitter=0, process_timeout=50)], ids=["50 s"])
def test_the_pause_is_below_half_of_a_short_process_timeout(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    hidden = Hidden(site, page, open_tab, timeout=10)
    hidden.pass_(10)
    hidden.dropped()
    for n in range(3):
        hidden.pass_(24.9)
        hidden.answered(n + 2)
    assert len(hidden.polls) == 4


def test_a_tab_that_is_shown_while_it_polls_does_not_wait(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    hidden = Hidden(site, page, open_tab, timeout=10)
    page.route("**/poll?*", hold)
    hidden.pass_(10)
    wait_for_listeners(site.news, 0, PATIENCE)
    hidden.tab.until("() => polls.length === 1")
    hidden.tab.hide(False)
    while not held:
        page.wait_for_event("request")
    held.pop().continue_()
    hidden.answered(1)
    hidden.pass_(1)
    wait_for_listeners(site.news, 1, PATIENCE)
    hidden.publish()
    hidden.heard()


def test_a_tab_that_is_shown_in_time_keeps_its_connection(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    hidden = Hidden(site, page, open_tab, timeout=20)
    hidden.stay(15)
    hidden.tab.hide(False)
    hidden.stay(60)
    hidden.tab.hide()
    hidden.stay(19)
    hidden.pass_(1)
    hidden.dropped()


def test_a_tab_that_is_always_active(site: Site, open_tab: OpenTab, page: Page) -> None:
    hidden = Hidden(site, page, open_tab, alwaysActive=True, timeout=20)
    hidden.stay(300)
    assert hidden.polls == []


def test_a_tab_that_is_active_as_long_as_messages_come(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    hidden = Hidden(site, page, open_tab, activeUntilTimeout=True, timeout=20)
    hidden.stay(100, pause=10)
    assert hidden.polls == []
    hidden.pass_(20)
    hidden.dropped()


def test_of_several_wishes_the_most_reactive_holds(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    hidden = Hidden(site, page, open_tab, timeout=20)
    hidden.tab.evaluate("comet.configure({timeout: 60})")
    hidden.tab.evaluate("comet.configure({timeout: 10})")
    activity = hidden.tab.evaluate("comet.activity")
    assert activity["timeout"] == 60
    hidden.stay(59)
    hidden.pass_(1)
    hidden.dropped()


def test_a_wish_leaves_alone_what_it_does_not_name(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab(timeout=30, timeBetweenRequestsWhenIdle=[0.5, 5, 60])
    tab.evaluate("comet.configure({activeUntilTimeout: true})")
    activity = tab.evaluate("comet.activity")
    assert (activity["timeout"], activity["activeUntilTimeout"]) == (30, True)
    assert activity["timeBetweenRequestsWhenIdle"] == [0.5, 5, 60]


def test_a_wish_may_ask_for_less_than_the_default(site: Site, open_tab: OpenTab) -> None:
    less = {"timeout": 30, "timeBetweenRequests": 5, "timeBetweenRequestsWhenIdle": [1, 120, 900]}
    tab = open_tab()
    before = tab.evaluate("comet.activity")
    tab.evaluate("(less) => void (window.wish = comet.configure(less))", less)
    assert tab.evaluate("comet.activity") == {**before, **less}
    tab.evaluate("wish.drop()")
    assert tab.evaluate("comet.activity") == before
    tab.evaluate("wish.drop()")  # nothing more to take back
    assert tab.evaluate("comet.activity") == before


def test_what_connect_was_given_is_a_wish_like_another(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab(timeout=20, timeBetweenRequests=9)
    tab.evaluate(
        """() => {
            window.more = comet.configure({timeout: 60})
            window.same = [comet.configure({timeout: 60}), comet.configure({timeout: 10})]
        }"""
    )
    assert tab.evaluate("[comet.activity.timeout, comet.activity.timeBetweenRequests]") == [60, 9]
    tab.evaluate("more.drop()")
    assert tab.evaluate("comet.activity.timeout") == 60
    tab.evaluate("same[0].drop()")
    assert tab.evaluate("comet.activity.timeout") == 20


def test_a_tab_that_need_not_be_active_any_more_rests(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    hidden = Hidden(site, page, open_tab, timeout=60)
    hidden.tab.evaluate("() => void (window.music = comet.configure({alwaysActive: true}))")
    hidden.stay(100)
    assert hidden.tab.evaluate("comet.isActive") is True
    hidden.tab.evaluate("music.drop()")
    hidden.dropped()
    assert hidden.tab.evaluate("comet.isActive") is False


def test_a_wish_that_is_dropped_early_leaves_the_time_that_there_was(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    hidden = Hidden(site, page, open_tab, timeout=60)
    hidden.tab.evaluate("() => void (window.music = comet.configure({alwaysActive: true}))")
    hidden.stay(40)
    hidden.tab.evaluate("music.drop()")
    hidden.stay(19)
    hidden.pass_(1)
    hidden.dropped()


@pytest.mark.parametrize("websocket", [True, False], ids=["websocket", "sse"])
def test_a_tab_that_rests_is_activated_for_a_while(
    site: Site, open_tab: OpenTab, page: Page, websocket: bool
) -> None:
    site.log.refuses_websocket = not websocket
    hidden = Hidden(site, page, open_tab, timeout=60)
    assert hidden.tab.evaluate("comet.isActive") is websocket
    if not websocket:
        hidden.dropped()  # at once; otherwise the poll under way would seem dead after the minute
    hidden.pass_(60)
    hidden.dropped()
    assert hidden.tab.evaluate("comet.isActive") is False
    hidden.tab.evaluate("comet.activate()")  # the clock stands still: at once
    wait_for_listeners(site.news, 1, PATIENCE)
    assert hidden.tab.evaluate("comet.isActive") is True
    hidden.sockets = site.log.count("/socket")
    hidden.heard()
    hidden.stay(59)
    hidden.pass_(1)
    wait_for_listeners(site.news, 0, PATIENCE)
    assert hidden.tab.evaluate("comet.isActive") is False
    hidden.tab.hide(False)
    hidden.tab.until("comet.isActive")
    hidden.tab.evaluate("comet.close()")
    assert hidden.tab.evaluate("comet.isActive") is False


def test_a_tab_that_is_hidden_again_after_it_was_activated(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    """Activated while shown means nothing once it is hidden."""
    site.log.refuses_websocket = True
    page.clock.install()
    tab = open_tab()
    tab.follow("news")
    tab.evaluate("comet.activate()")
    page.clock.pause_at(tab.evaluate("Date.now() + 1000") / 1000)
    tab.hide()
    wait_for_listeners(site.news, 0, PATIENCE)
    assert tab.evaluate("comet.isActive") is False


def test_no_wish_is_too_long_for_a_timer(site: Site, open_tab: OpenTab, page: Page) -> None:
    """Beyond 2^31 ms a browser does not wait at all."""
    page.add_init_script(
        """window.longest = 0
        const original = window.setTimeout
        window.setTimeout = (act, milliseconds) => {
            longest = Math.max(longest, milliseconds ?? 0)
            return original(act, milliseconds)
        }"""
    )
    site.log.refuses_websocket = True
    page.route("**/events?*", lambda route: route.abort())
    tab = open_tab()
    tab.evaluate("comet.configure({timeout: Infinity})")
    tab.evaluate("comet.activity.timeBetweenRequests = Infinity")
    tab.follow("news")
    site.log.wait("/poll", 1)
    tab.hide()
    assert 10**9 < tab.evaluate("longest") < 2**31
    tab.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert site.log.count("/poll") == 2


# Left, and come back to

LEAVE = "(type) => dispatchEvent(new PageTransitionEvent(type, {persisted: true}))"


def test_a_page_that_is_left_closes_its_process(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.follow("~inbox")
    process = site.find(tab.process)
    tab.page.goto("about:blank")
    site.wait_closed(process)
    assert site.log.count("/close") == 1


def test_a_page_that_was_given_its_process_closes_it_too(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab("/given")
    tab.follow("news")
    tab.page.goto("about:blank")
    site.wait_closed(site.processes[0])


def test_a_page_that_a_browser_keeps_goes_on_where_it_was(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.follow("news")
    tab.follow("~inbox")
    process = site.find(tab.process)
    inbox = site.comet.create(scope=process, name="inbox")
    inbox.publish(0)
    assert tab.next("~inbox") == 0
    tab.evaluate(LEAVE, "pagehide")
    wait_for_listeners(site.news, 0, PATIENCE)
    for n in range(3):
        site.news.publish(n)
        inbox.publish(n + 1)
    assert tab.seen("news") == []
    tab.evaluate(LEAVE, "pageshow")
    for n in range(3):
        assert tab.next("news") == n
        assert tab.next("~inbox") == n + 1
    assert tab.seen("~inbox") == [0, 1, 2, 3]
    assert (site.log.count("/close"), tab.evaluate("closings")) == (0, 0)
    assert site.open_processes() == [process]


@pytest.fixture
def keeping(browser: Browser) -> Iterator[Browser]:
    """A browser that keeps the pages that were left, which Playwright switches off."""
    keeping = browser.browser_type.launch(
        executable_path=shutil.which("chromium"),
        args=QUIET,
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield keeping
    keeping.close()


def test_the_way_back_to_a_page_that_chromium_kept(site: Site, keeping: Browser) -> None:
    page = keeping.new_page()
    page.goto(site.url)
    tab = Tab(page)
    tab.follow("news")
    tab.follow("~inbox")
    process = site.find(tab.process)
    inbox = site.comet.create(scope=process, name="inbox")
    tab.evaluate("addEventListener('pageshow', ({persisted}) => (window.kept = persisted))")
    for n in range(3):
        page.goto(f"{site.url}/plain")
        wait_for_listeners(site.news, 0, PATIENCE)
        site.news.publish(n)
        inbox.publish(n)
        page.go_back(wait_until="commit")  # there is no `load`
        wait_for_listeners(site.news, 1, PATIENCE)
        assert tab.evaluate("kept")
        assert tab.next("news") == tab.next("~inbox") == n
    assert (site.log.count("/close"), tab.evaluate("closings")) == (0, 0)
    assert site.open_processes() == [process]
    page.close()


def test_a_page_whose_process_expired_while_the_browser_kept_it(
    site: Site, open_tab: OpenTab
) -> None:
    tab = open_tab()
    tab.follow("news")
    tab.follow("~inbox")
    process = site.find(tab.process)
    tab.evaluate(LEAVE, "pagehide")
    wait_for_listeners(site.news, 0, PATIENCE)
    site.news.publish("meanwhile")
    process.close()
    tab.evaluate(LEAVE, "pageshow")
    assert tab.next("~inbox") == ["ProcessClosed", None]
    assert tab.next("news") == "meanwhile"
    assert tab.evaluate("closings") == 1


@pytest.mark.firefox
def test_a_duplicated_tab_opens_a_process_of_its_own_and_is_told(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    """A duplicate has the same page and a copy of the session's storage; so has one opened here."""
    tab = open_tab("/same")
    tab.follow("headlines")
    tab.follow("inbox")
    assert tab.next("inbox") == "while loading"
    with page.context.expect_page() as opened:
        page.evaluate("void open('/same')")
    opened.value.wait_for_load_state()
    duplicate = Tab(opened.value)
    assert duplicate.evaluate("document.querySelector('script#comet').text") == tab.evaluate(
        "document.querySelector('script#comet').text"
    )
    duplicate.follow("headlines")
    duplicate.follow("inbox")
    assert duplicate.next("inbox") == ["ProcessClosed", None]
    duplicate.follow("~inbox")
    assert tab.process == site.processes[0].url
    assert duplicate.process != tab.process
    site.comet.create(scope=site.find(duplicate.process), name="inbox").publish("its own")
    site.news.publish("for both")
    assert tab.next("headlines") == duplicate.next("headlines") == "for both"
    assert duplicate.next("~inbox") == "its own"
    assert tab.seen("inbox") == ["while loading"]
    assert (tab.evaluate("closings"), duplicate.evaluate("closings")) == (0, 1)
    assert "offline" not in duplicate.statuses


INTRODUCE = """() => {
    window.introduced = 0
    const introduce = async (error) => {
        introduced++
        const {thread} = await (await comet.fetch("/mine", {method: "POST"})).json()
        follow("thread", (told) => comet.open(thread, told))
    }
    follow("inbox", (told) => comet.channel("inbox", {...told, onerror: introduce}))
}"""


@pytest.mark.parametrize("again", [False, True], ids=["first", "second"])
def test_the_same_page_from_a_cache_is_told_and_introduces_itself(
    site: Site, open_tab: OpenTab, again: bool
) -> None:
    """As with Back, where the page may be cached. So is who connects a second time."""
    tab = open_tab("/same")
    assert tab.process == site.processes[0].url
    if not again:
        tab.page.goto("about:blank")
        site.wait_closed(site.processes[0])
        site.news.publish("meanwhile")
        tab.page.goto(f"{site.url}/same")
    else:
        site.news.publish("meanwhile")
    copy = Tab(tab.page)
    copy.evaluate(INTRODUCE)
    copy.follow("headlines")
    assert copy.next("thread") == "before the answer"
    assert copy.next("headlines") == "meanwhile"
    assert copy.evaluate("[introduced, closings]") == [1, 1]
    assert copy.process != site.processes[0].url
    assert len(site.open_processes()) == (2 if again else 1)


def test_a_copy_of_a_page_is_told_with_its_first_request(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab("/same")
    process = tab.process
    tab.page.reload()
    copy = Tab(tab.page)
    assert copy.evaluate("closings") == 0
    ask = "comet.fetch('/mine', {method: 'POST'}).then((a) => a.json()).then(({url}) => url)"
    assert copy.evaluate(ask) == copy.process != process
    assert copy.evaluate("closings") == 1


def test_two_pages_with_one_process_both_go_on(site: Site, open_tab: OpenTab) -> None:
    """As where there is no storage: each takes the process that stands in the page."""
    first = open_tab("/same")
    first.follow("headlines")
    first.follow("inbox")
    assert first.next("inbox") == "while loading"
    second = open_tab("/same")
    second.follow("headlines")
    second.follow("inbox")
    assert first.next("inbox") == ["ProcessClosed", None]
    first.follow("~inbox", "inbox again")
    assert first.process != second.process == site.processes[0].url
    site.news.publish("for both")
    assert first.next("headlines") == second.next("headlines") == "for both"
    assert (first.evaluate("closings"), second.evaluate("closings")) == (1, 0)
    site.comet.create(scope=site.find(first.process), name="inbox").publish("the first's")
    assert first.next("inbox again") == "the first's"


def test_a_page_that_is_loaded_again_takes_the_new_process(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab("/given")
    tab.follow("inbox")
    tab.page.reload()
    site.wait_closed(site.processes[0])
    again = Tab(tab.page)
    again.follow("inbox")
    assert again.next("inbox") == "while loading"
    assert again.process == site.processes[1].url


# The six connections of HTTP/1.1


def test_eight_tabs_leave_room_for_ordinary_requests(site: Site, open_tab: OpenTab) -> None:
    """A browser does not count WebSockets among the six connections to a host."""
    tabs = [open_tab() for _ in range(8)]
    for tab in tabs:
        tab.follow("news")
    wait_for_listeners(site.news, 8, PATIENCE)
    for tab in tabs:
        found = tab.evaluate(
            "fetch('/plain', {signal: AbortSignal.timeout(2000)}).then((a) => a.text())"
        )
        assert found == "plain"
    site.news.publish(1)
    assert [tab.next("news") for tab in tabs] == [1] * 8


ASK = "fetch('/plain', {signal: AbortSignal.timeout(2000)}).then((answer) => answer.text(), String)"


@pytest.mark.firefox
def test_without_websocket_hidden_tabs_leave_room_for_ordinary_requests(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    """Six streams are all that a browser opens; hidden tabs do not have one."""
    site.log.refuses_websocket = True
    page.clock.install()
    shown, *hidden = tabs = [open_tab() for _ in range(8)]
    shown.follow("news")
    for n, tab in enumerate(hidden):
        if n % 2:  # opened in the background
            tab.hide()
        tab.follow("news")
        tab.hide()
    wait_for_listeners(site.news, 1, PATIENCE)
    assert [tab.evaluate(ASK) for tab in tabs] == ["plain"] * 8
    assert [tab.evaluate("comet.status") for tab in tabs] == ["online"] * 8

    site.news.publish(1)
    assert shown.next("news") == 1
    assert [tab.seen("news") for tab in hidden] == [[]] * 7
    page.clock.fast_forward(61_000)
    assert [tab.next("news") for tab in hidden] == [1] * 7
    assert [tab.evaluate("closings") for tab in tabs] == [0] * 8


def test_without_websocket_the_tab_that_is_shown_has_the_stream(
    site: Site, open_tab: OpenTab
) -> None:
    site.log.refuses_websocket = True
    tabs = [open_tab() for _ in range(2)]
    for n in range(4):
        shown, other = tabs[n % 2], tabs[1 - n % 2]
        other.hide()
        shown.hide(False)
        if n < 2:
            shown.follow("news")
        wait_for_listeners(site.news, 1, PATIENCE)
        site.news.publish(n)
        shown.until("(n) => seen.news.at(-1) === n", n)
    assert tabs[1].seen("news") == [1, 2, 3]
    tabs[0].hide(False)
    tabs[0].until("() => seen.news.length === 4")
    assert tabs[0].seen("news") == [0, 1, 2, 3]


def test_without_websocket_a_tab_that_is_always_active_keeps_its_connection(
    site: Site, open_tab: OpenTab
) -> None:
    site.log.refuses_websocket = True
    resting, active = [open_tab() for _ in range(2)]
    for tab in (resting, active):
        tab.follow("news")
        tab.hide()
        wait_for_listeners(site.news, 0, PATIENCE)
    active.evaluate("comet.configure({alwaysActive: true})")
    wait_for_listeners(site.news, 1, PATIENCE)
    site.news.publish(1)
    assert active.next("news") == 1
    active.hide(False)
    active.hide()
    site.news.publish(2)
    assert active.next("news") == 2
    assert resting.seen("news") == []
    assert site.news.listeners == 1


# What a page is given


def test_nothing_is_lost_while_a_page_loads(site: Site, open_tab: OpenTab, page: Page) -> None:
    page.goto(site.url + "/given")
    site.news.publish("before there was a client")
    tab = Tab(page)
    assert tab.evaluate("comet.status") == "connecting"
    tab.follow("headlines")
    tab.follow("inbox")
    assert tab.next("headlines") == "before there was a client"
    assert tab.next("inbox") == "while loading"
    assert tab.process == site.processes[0].url
    assert site.open_processes() == site.processes
    assert site.log.count("/open") == 0


def test_a_name_that_the_page_was_given_is_the_same_channel_from_anywhere(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    for n in range(3):
        site.news.publish(n)
    page.goto(site.url + "/given")
    site.news.publish(3)
    tab = Tab(page)
    tab.follow("headlines", "last two", **{"from": "last:2"})
    tab.follow("inbox", "own", **{"from": "last:1"})
    tab.evaluate("follow('as it was', (t) => comet.channel('headlines', {...t, from: undefined}))")
    assert tab.next("last two") == 2
    assert tab.next("last two") == 3
    assert tab.next("own") == "while loading"
    assert tab.next("as it was") == 3


def test_references_without_a_process_are_there_each_time_the_page_is_loaded(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    for n in range(3):
        page.goto(site.url + "/unowned")
        site.news.publish(n)
        tab = Tab(page)
        tab.evaluate(FOLLOW, ["headlines", "headlines", {}])
        assert tab.next("headlines") == n


def test_a_reference_in_an_answer_becomes_a_channel(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab()
    url = tab.evaluate(
        """async () => {
            const {thread, url} = await (await comet.fetch("/mine", {method: "POST"})).json()
            follow("thread", (told) => comet.open(thread, told))
            return url
        }"""
    )
    assert url == tab.process
    assert tab.next("thread") == "before the answer"


def test_a_reference_of_another_server_has_its_own_connection(
    site: Site, open_tab: OpenTab
) -> None:
    tab = open_tab()
    tab.follow("news")
    other = Comet(KEY, allowed_origins=[site.url], settings=Settings(jitter=0))
    far = other.create(scope=SITE, name="far")
    far.publish("old")
    log = Log(CometMiddleware(Starlette(), comet=other))
    with serve(log) as address:
        reference = other.external_channel(prefix=f"{address.url}/comet", name="far").reference()
        tab.evaluate(
            "(reference) => follow('far', (told) => comet.open(reference, told))", reference
        )
        assert tab.next("far") == "old"
        far.publish("new")
        assert tab.next("far") == "new"
        assert [path for _, path, _ in log.requests] == ["/comet/socket"]
        tab.page.goto("about:blank")


MINE = """() => comet.fetch("/mine", {method: "POST"}).then(async (answer) =>
    answer.ok ? (await answer.json()).url : answer.status)"""


def test_requests_go_on_when_the_process_is_gone_and_nothing_is_followed(
    site: Site, open_tab: OpenTab
) -> None:
    tab = open_tab()
    for closings in range(3):
        before = tab.evaluate(MINE)
        assert tab.evaluate("closings") == closings
        site.find(before).close()
    after = tab.evaluate(MINE)
    assert after != before
    assert tab.process == site.find(after).url


def test_a_request_that_cannot_be_repeated_fails_and_the_next_does_not(
    site: Site, open_tab: OpenTab
) -> None:
    tab = open_tab()
    site.find(tab.evaluate(MINE)).close()
    request = "comet.fetch(new Request('/mine', {method: 'POST', body: 'once'}))"
    assert tab.evaluate(f"{request}.then((answer) => answer.status)") == 410
    assert isinstance(tab.evaluate(MINE), str)
    assert tab.evaluate("closings") == 1


def test_a_request_goes_on_beside_channels_when_the_process_is_gone(
    site: Site, open_tab: OpenTab
) -> None:
    tab = open_tab()
    tab.follow("news")
    tab.follow("~inbox")
    before = site.find(tab.process)
    before.close()
    after = tab.evaluate(MINE)
    assert tab.next("~inbox") == ["ProcessClosed", None]
    tab.follow("~inbox", "inbox again")
    site.news.publish("goes on")
    assert tab.next("news") == "goes on"
    site.comet.create(scope=site.find(after), name="inbox").publish("new")
    assert tab.next("inbox again") == "new"
    assert tab.process == after
    assert tab.evaluate("closings") == 1


def test_what_an_application_says_is_gone_is_not_the_process(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    page.route("**/gone", lambda route: route.fulfill(status=410))
    tab = open_tab()
    tab.follow("~inbox")
    process = tab.process
    assert tab.evaluate("comet.fetch('/gone').then((answer) => answer.status)") == 410
    assert tab.process == process
    assert (tab.evaluate("closings"), tab.seen("~inbox")) == (0, [])


def test_without_cookies_it_tries_ever_less_often(
    site: Site, open_tab: OpenTab, page: Page
) -> None:
    """However eagerly the page introduces itself."""

    def forget(route: Route) -> None:
        answer = route.fetch()
        headers = {k: v for k, v in answer.headers.items() if k != "set-cookie"}
        page.context.clear_cookies()
        route.fulfill(response=answer, headers=headers)

    page.route("**/comet/open", forget)
    page.clock.install()
    tab = open_tab()
    page.clock.pause_at(tab.evaluate("Date.now() + 1000") / 1000)
    tab.evaluate(
        """() => {
            Math.random = () => 0.99
            const introduce = async () => {
                await fetch("/plain")
                comet.channel("~inbox", {onmessage() {}, onerror: introduce})
            }
            introduce()
        }"""
    )
    for opened, pause in enumerate((0.5, 1, 2, 4, 8, 16, 20, 20, 20), 1):
        while site.log.count("/open") < opened:
            assert tab.evaluate(ASK) == "plain"
        for _ in range(20):
            assert tab.evaluate(ASK) == "plain"
        page.clock.run_for(int(pause * 900))
        for _ in range(5):
            assert tab.evaluate(ASK) == "plain"
        assert site.log.count("/open") == opened
        page.clock.run_for(int(pause * 100))
    page.unroute_all(behavior="wait")  # the next one is on its way


def test_only_our_own_origin_is_told_the_process(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab()
    process = tab.process.rpartition("/")[2]
    foreign = Log(PlainTextResponse("foreign"))
    with serve(foreign) as address:
        ask = "(url) => comet.fetch(url).then((a) => a.text(), (error) => error.name)"
        assert tab.evaluate(ask, f"{address.url}/foreign") == "TypeError"
        assert tab.evaluate(ask, "/plain") == "plain"
        assert tab.evaluate(ask, f"{site.url}/plain") == "plain"
        request = "(url) => comet.fetch(new Request(url)).then((a) => a.text())"
        assert tab.evaluate(request, "/plain") == "plain"
    ((method, path, headers),) = foreign.requests
    assert (method, path) == ("GET", "/foreign")
    assert "comet-process" not in headers
    told = [h.get("comet-process") for _, path, h in site.log.requests if path == "/plain"]
    assert told == [process] * 3


def test_close_ends_everything(site: Site, open_tab: OpenTab) -> None:
    tab = open_tab()
    tab.follow("news")
    process = site.find(tab.process)
    tab.evaluate(
        """() => {
            const loop = async () => {
                for await (const message of comet.channel("other")) window.last = message
                return "over"
            }
            window.loop = loop()
            return null
        }"""
    )
    wait_for_listeners(site.other, 1, PATIENCE)
    tab.evaluate("comet.close()")
    assert tab.evaluate("loop") == "over"
    site.wait_closed(process)
    wait_for_listeners(site.news, 0, PATIENCE)
    tab.evaluate("comet.close()")
    assert tab.statuses == ["connecting", "online", "closed"]
    assert tab.seen("news") == []
    assert site.log.count("/close") == 1


# Hostile payloads

HOSTILE = [
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg onload='window.pwned = 1'>",
    "<iframe src='javascript:parent.pwned = 1'></iframe>",
    "javascript:window.pwned=1",
    "data:text/html,<script>parent.pwned=1</script>",
    "<!--<script>window.pwned = 1//",
    "]]><script>window.pwned = 1</script>",
    "'-(window.pwned = 1)-'",
    '"-(window.pwned = 1)-"',
    "`${window.pwned = 1}`",
    "\\u003cscript\\u003ewindow.pwned = 1\\u003c/script\\u003e",
    "\u2028window.pwned = 1\u2029",
    "{{constructor.constructor('window.pwned = 1')()}}",
    "__proto__",
    "constructor",
    "toString",
    "//evil.invalid/comet?x=,&channel=%00#",
    "x, event: open data: 1 id: -",
]

COLLECT = """([name, text]) => {
    follow(name, (told) => comet.channel(text, told))
}"""


def watch(page: Page) -> tuple[list[str], list[str]]:
    """Note dialogs, and requests to anywhere."""
    dialogs: list[str] = []
    hosts: list[str] = []

    def dismiss(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("request", lambda request: hosts.append(request.url))
    page.on("websocket", lambda socket: hosts.append(socket.url))
    return dialogs, hosts


@pytest.mark.parametrize("websocket", [True, False], ids=["websocket", "sse"])
def test_hostile_names_and_messages_run_nothing(
    site: Site, open_tab: OpenTab, page: Page, websocket: bool
) -> None:
    if not websocket:
        page.add_init_script(NO_WEBSOCKET)
    dialogs, urls = watch(page)
    channels = {text: site.comet.create(scope=SITE, name=text) for text in HOSTILE}
    tab = open_tab("/unowned")  # some are names that any object has
    for text in HOSTILE:
        tab.evaluate(COLLECT, [f"to {text}", text])
    for text in HOSTILE:
        tab.placed(f"to {text}")
    for text, channel in channels.items():
        channel.publish(text)
        channel.publish({text: [text]})
        channel.publish({"__proto__": {"pwned": 1}})
    for text in HOSTILE:
        assert tab.next(f"to {text}") == text
        tab.until("(name) => seen[name].length === 3", f"to {text}")
        of = "([name, text]) => seen[name][1][text] instanceof Array"
        assert tab.evaluate(of, [f"to {text}", text])
    assert tab.evaluate("[window.pwned ?? null, ({}).pwned ?? null]") == [None, None]
    assert tab.evaluate("document.scripts.length") == 1
    assert dialogs == []
    assert {url.split("/")[2] for url in urls} == {site.url.split("/")[2]}


def test_hostile_references_run_nothing(site: Site, open_tab: OpenTab, page: Page) -> None:
    dialogs, urls = watch(page)
    tab = open_tab()
    tab.follow("news")
    position = site.news.reference()["position"]
    for text in HOSTILE:
        tab.evaluate(
            """([name, position]) => {
                const told = {onmessage() {}, onerror() {}}
                const names = [name, "news"]
                comet.open({url: "/comet", channel: name, position}, told)
                comet.open({url: "/comet", channel: name, position: "now"}, told)
            }""",
            [text, position],
        )
    for text in ("javascript:window.pwned=1", "data:text/html,<script>parent.pwned=1</script>"):
        tab.evaluate(
            """(url) => void comet.open({url, channel: "x", position: "now"}, {onmessage() {}})""",
            text,
        )
    site.news.publish("still here")
    assert tab.next("news") == "still here"
    assert tab.evaluate("window.pwned ?? null") is None
    assert tab.evaluate("document.scripts.length") == 0
    assert dialogs == []
    ours = site.url.split("/")[2]
    assert {url.split("/")[2] for url in urls if url.startswith(("http", "ws"))} == {ours}


@pytest.mark.firefox
def test_hostile_references_in_a_page_run_nothing(comet: Comet, browser: Browser) -> None:
    channels = {text: comet.create(scope=SITE, name=text) for text in HOSTILE}

    async def show(request: Request) -> HTMLResponse:
        script = comet.script(comet.open_process(), **channels)
        return HTMLResponse(HTML + script)

    middleware = [Middleware(CometMiddleware, comet=comet)]
    with serve(Starlette(routes=[Endpoint("/", show)], middleware=middleware)) as address:
        page = browser.new_page()
        try:
            dialogs, urls = watch(page)
            page.goto(address.url)
            for text, channel in channels.items():
                channel.publish(text)
            tab = Tab(page)
            for text in HOSTILE:
                tab.evaluate(COLLECT, [f"to {text}", text])
            for text in HOSTILE:  # from the position that stood in the page
                assert tab.next(f"to {text}") == text
            assert tab.evaluate("window.pwned ?? null") is None
            assert tab.evaluate("document.scripts.length") == 1
            assert dialogs == []
            assert {url.split("/")[2] for url in urls} == {address.url.split("/")[2]}
        finally:
            page.close()
