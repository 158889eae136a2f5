"""The browser client over each transport: what it delivers, how it falls back, what it survives."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request as Asked
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_comet import SITE, Channel, ChannelFull, ClientProcess, Comet, CometMiddleware
from asgi_comet.testing import wait_for_listeners
from tests.browser.faulty_proxy import FAULTS, FaultyProxy
from tests.clients.servers import Server, reserved_port
from tests.clients.test_nginx import nginx
from tests.serving import Address, serve

pytestmark = pytest.mark.browser

PATIENCE = 60_000  # milliseconds until a test fails for what does not come

TRANSPORTS = ("websocket", "sse", "poll")

# `follow(key, name, options)` notes what a consumer is told, and its end, under the key.
CONNECT = """async (options) => {
    const { connect } = await import("/comet/comet.js")
    Object.assign(window, { comet: connect(options), consumers: {}, seen: {} })
    const told = ({ name, channel, reason = null, position = null }) =>
        [name, channel, reason, position]
    window.follow = (key, name, options) => {
        const heard = seen[key] = []
        const consumer = consumers[key] = comet.channel(name, options)
        if (options?.onmessage) return
        void (async () => {
            try {
                for await (const value of consumer) heard.push(value)
            } catch (error) {
                heard.push(told(error))
            }
            heard.push((await consumer.next()).done)
        })()
    }
    window.callbacks = (key) => {
        const note = (what) => (error) => seen[key].push([what, ...told(error)])
        return {
            onmessage: (value) => seen[key].push(value),
            onclosed: note("onclosed"), onerror: note("onerror"),
        }
    }
}"""


class Network:
    """What lies between the page and the application: lets some transports through, and counts."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.blocked: set[str] = set()
        self.tried: Counter[str] = Counter()
        self.processes: list[ClientProcess] = []  # of those who asked which is theirs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = {"socket": "websocket", "events": "sse", "poll": "poll"}.get(
            scope.get("path", "").rpartition("/")[2], ""
        )
        if kind:
            self.tried[kind] += 1
        if kind not in self.blocked:
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close"})  # 403
        else:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})

    def only(self, transport: str) -> None:
        self.blocked = set(TRANSPORTS) - {transport}


class Tab:
    """A page with a client in it."""

    def __init__(self, page: Page, url: str, **options: Any) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.evaluate(CONNECT, options)

    def follow(self, key: str, channel: str | None = None, options: str = "{}") -> None:
        name = channel or key
        script = f"follow({json.dumps(key)}, {json.dumps(name)}, {options})"
        self.page.evaluate(f"() => {{ {script} }}")

    def placed(self, *keys: str) -> None:
        """Wait until consumers know where they are."""
        script = "(keys) => keys.every((key) => consumers[key].position)"
        self.page.wait_for_function(script, arg=keys)

    def seen(self, key: str, count: int) -> list[Any]:
        """Wait until that much has come; return all that has."""
        found: list[Any] = self.page.wait_for_function(
            "([key, count]) => seen[key].length >= count && seen[key]", arg=[key, count]
        ).json_value()
        return found


def own_process(tab: Tab, network: Network) -> ClientProcess:
    """Return the page's client process."""
    tab.page.evaluate("comet.fetch('/mine').then((answer) => answer.json())")
    return network.processes[-1]


@pytest.fixture
def network(comet: Comet) -> Network:
    async def page(request: Asked) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>a page</title><link rel=icon href=data:,>")

    async def mine(request: Asked) -> JSONResponse:
        between.processes.append(comet.process())
        return JSONResponse(None)

    routes = [Route("/", page), Route("/mine", mine)]
    middleware = [Middleware(CometMiddleware, comet=comet)]
    between = Network(Starlette(routes=routes, middleware=middleware))
    return between


@pytest.fixture
def address(network: Network) -> Iterator[Address]:
    with serve(network) as address:
        yield address


@pytest.fixture
def leaving(page: Page, address: Address) -> Iterator[Page]:
    """The page; closed before the server stops, which waits for streams."""
    yield page
    for one in page.context.pages:
        one.close()


@pytest.fixture
def tab(leaving: Page, address: Address) -> Tab:
    return Tab(leaving, address.url)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, network: Network) -> str:
    """The only one that the network lets through."""
    network.only(request.param)
    return str(request.param)


@pytest.fixture
def news(comet: Comet) -> Channel[Any]:
    return comet.create(scope=SITE, name="news")


# Each transport alone


def test_messages_of_three_channels_come_in_order_to_every_consumer(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any], network: Network
) -> None:
    gauge = comet.create_newest(name="gauge")
    inbox = comet.create(scope=own_process(tab, network), name="inbox")
    tab.follow("news")
    tab.follow("gauge")
    tab.follow("~inbox")
    tab.follow("again", "news", "callbacks('again')")
    tab.placed("news", "gauge", "~inbox", "again")
    last = 199
    for n in range(last + 1):
        for channel in (news, gauge, inbox):
            channel.publish(n)
    every = list(range(last + 1))
    assert tab.seen("news", last + 1) == every
    assert tab.seen("again", last + 1) == every
    assert tab.seen("~inbox", last + 1) == every
    newest = tab.page.wait_for_function(
        "(last) => seen.gauge.at(-1) === last && seen.gauge", arg=last
    ).json_value()
    assert newest == sorted(set(newest))
    assert network.tried[transport] >= 1
    assert tab.page.evaluate("comet.status") == "online"


def test_any_text_comes_as_it_was_written(
    transport: str, tab: Tab, news: Channel[Any], network: Network
) -> None:
    texts = ["ü", "a\r\nb\n\nc\rd", "\u2028\u2029\x85", "a: b", "data: {}\n\n", "🎈" * 50_000, "\0"]
    tab.follow("news")
    tab.placed("news")
    before = network.tried[transport]
    for text in texts:
        news.publish(text)
    assert tab.seen("news", len(texts)) == texts
    if transport != "poll":
        assert network.tried[transport] == before  # on the same connection


def test_channels_come_and_go_and_no_other_loses_a_message(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any]
) -> None:
    others = [comet.create(scope=SITE, name=f"other{n}") for n in range(5)]
    # With every third message one of the others comes, or goes.
    tab.follow(
        "news",
        options="""{ onmessage(value) {
            seen.news.push(value)
            if (value % 3) return
            const key = `other${value % 5}`, past = window.past ??= []
            if (!consumers[key]) return follow(key, key)
            consumers[key].close()
            past.push(seen[key])
            delete consumers[key]
        } }""",
    )
    tab.follow("beside", "news")
    tab.placed("news", "beside")
    count = 600
    for n in range(count):
        for channel in (news, *others):
            channel.publish(n)
        if n % 10 == 9:  # at most twenty are on their way
            tab.seen("news", n - 10)
    assert tab.seen("news", count) == list(range(count))
    assert tab.seen("beside", count) == list(range(count))
    past = tab.page.evaluate("past")
    assert len(past) > 20
    runs = [[value for value in run if value is not True] for run in past]
    assert any(runs)
    for run in runs:
        assert run == list(range(run[0], run[0] + len(run))) if run else True, run


def test_one_who_begins_earlier_while_messages_come_gets_them_all(
    transport: str, tab: Tab, news: Channel[Any]
) -> None:
    """Even in the midst of what came at once."""
    start = news.reference()["position"]
    tab.follow(
        "news",
        options="""{ onmessage(value) {
            seen.news.push(value)
            if (value % 10 === 5) follow(`early${value}`, "news", { from: "START" })
        } }""".replace("START", start),
    )
    tab.placed("news")
    count = 100
    for n in range(count):
        news.publish(n)
    assert tab.seen("news", count) == list(range(count))
    for n in range(5, count, 10):
        assert tab.seen(f"early{n}", count) == list(range(count))


def test_a_channel_that_comes_while_the_connection_is_made_is_followed(
    comet: Comet, transport: str, tab: Tab
) -> None:
    """At whatever turn of the event loop after the process is known."""
    turns = 12
    for n in range(turns):
        comet.create(scope=SITE, name=f"first{n}")
        comet.create(scope=SITE, name=f"then{n}")
        comet.create(scope=SITE, name=f"last{n}")
    tab.page.evaluate(
        """(turns) => {
            const placed = async (consumer) => {
                while (!consumer.position) await new Promise((done) => setTimeout(done))
            }
            window.connected = 0
            const round = async (n) => {
                const { connect } = await import("/comet/comet.js")
                const client = connect()
                const first = client.channel(`first${n}`)
                await client.process()
                for (let turn = 0; turn < n; turn++) await null
                const then = client.channel(`then${n}`)
                await placed(first)
                await placed(then)
                await placed(client.channel(`last${n}`))
                client.close()
                if (++connected < turns) return round(connected)
            }
            void round(0)
        }""",
        turns,
    )
    tab.page.wait_for_function("(turns) => connected === turns", arg=turns)


def test_full_and_closed_are_told_once_to_every_consumer(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any]
) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    old = narrow.reference()["position"]
    for n in range(3):
        narrow.publish(n)
    new = narrow.reference()["position"]
    for key in ("news", "news2"):
        tab.follow(key, "news")
    for key in ("narrow", "narrow2"):
        tab.follow(key, "narrow", json.dumps({"from": old}))
    tab.follow("nobody")
    tab.follow("called", "nobody", "callbacks('called')")
    tab.follow("reported", "nobody", "{...callbacks('reported'), onclosed: undefined}")
    for key in ("narrow", "narrow2"):
        assert tab.seen(key, 2) == [["ChannelFull", "narrow", None, new], True]
    assert tab.seen("called", 1) == [["onclosed", "ChannelClosed", "nobody", "unknown", None]]
    assert tab.seen("nobody", 2) == [["ChannelClosed", "nobody", "unknown", None], True]
    assert tab.seen("reported", 1) == [["onerror", "ChannelClosed", "nobody", "unknown", None]]

    tab.placed("news", "news2")
    news.publish("last words")
    news.close()
    for key in ("news", "news2"):
        ended = ["ChannelClosed", "news", "ended", None]
        assert tab.seen(key, 3) == ["last words", ended, True]
    everything = tab.page.evaluate("seen")
    assert {key: len(heard) for key, heard in everything.items()} == {
        "news": 3,
        "news2": 3,
        "narrow": 2,
        "narrow2": 2,
        "nobody": 2,
        "called": 1,
        "reported": 1,
    }


def test_one_consumer_resumes_where_the_channel_is_and_the_other_is_told_full(
    comet: Comet, transport: str, tab: Tab
) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    old = narrow.reference()["position"]
    for n in range(3):
        narrow.publish(n)
    new = narrow.reference()["position"]
    tab.follow("resumes", "narrow", json.dumps({"from": old, "onfull": "resume"}))
    tab.follow("told", "narrow", json.dumps({"from": old}))
    assert tab.seen("told", 2) == [["ChannelFull", "narrow", None, new], True]
    tab.page.wait_for_function("(at) => consumers.resumes.position === at", arg=new)
    narrow.publish("after")
    assert tab.seen("resumes", 1) == ["after"]


def test_a_final_full_ends_whoever_would_resume(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any], network: Network
) -> None:
    inbox = comet.create(scope=own_process(tab, network), name="inbox", size=1)
    inbox.publish("never read")
    with pytest.raises(ChannelFull):
        inbox.publish("one too many")
    tab.follow("~inbox", options='{ onfull: "resume" }')
    tab.follow("called", "~inbox", '{ ...callbacks("called"), onfull: "resume" }')
    tab.follow("news")
    assert tab.seen("~inbox", 2) == [["ChannelFull", "~inbox", None, None], True]
    assert tab.seen("called", 1) == [["onerror", "ChannelFull", "~inbox", None, None]]
    tab.placed("news")
    for n in range(3):
        news.publish(n)
        tab.seen("news", n + 1)
    assert network.tried[transport] <= 8  # it does not ask for it again and again
    assert tab.page.evaluate("[seen['~inbox'].length, seen.called.length]") == [2, 1]


def test_acknowledges_once_a_second_and_only_what_is_the_processs_own(
    comet: Comet,
    transport: str,
    leaving: Page,
    address: Address,
    news: Channel[Any],
    network: Network,
) -> None:
    page = leaving
    said: list[Any] = []

    def note(frame: Any) -> None:
        found = json.loads(frame)
        if "ack" in found:
            said.append(found["ack"])

    def note_request(request: Request) -> None:
        if request.url.endswith("/ack"):
            said.append(request.post_data_json)

    page.on("websocket", lambda socket: socket.on("framesent", note))
    page.on("request", note_request)
    page.clock.install()
    tab = Tab(page, address.url)
    inbox = comet.create(scope=own_process(tab, network), name="inbox")
    tab.follow("news")
    tab.follow("~inbox")
    tab.placed("news", "~inbox")
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 5)
    expected: list[Any] = []
    count = 0
    for _ in range(3):
        for _ in range(10):
            news.publish(count)
            inbox.publish(count)
            count += 1
            tab_seen(page, "~inbox", count)
        tab_seen(page, "news", count)
        assert said == expected
        page.clock.run_for(1000)
        if transport != "poll":  # whose next request acknowledges
            expected.append({"~inbox": page.evaluate("consumers['~inbox'].position")})
        page.evaluate("fetch('/')")  # what was sent before has been noted
        assert said == expected
    page.clock.resume()


def tab_seen(page: Page, key: str, count: int) -> None:
    """Wait in a page whose clock stands still, where nothing can be looked at at intervals."""
    for _ in range(2000):
        if page.evaluate("(key) => seen[key].length", key) >= count:
            return
    raise AssertionError(f"{key} never had {count}")


# Where a transport does not come through


def test_server_sent_events_where_websockets_are_blocked(
    tab: Tab, network: Network, news: Channel[Any]
) -> None:
    network.blocked = {"websocket"}
    tab.follow("news")
    tab.placed("news")
    news.publish("here")
    assert tab.seen("news", 1) == ["here"]
    assert network.tried == {"websocket": 1, "sse": 1}


def test_poll_where_both_are_blocked(tab: Tab, network: Network, news: Channel[Any]) -> None:
    network.only("poll")
    tab.follow("news")
    tab.placed("news")
    news.publish("here")
    assert tab.seen("news", 1) == ["here"]
    assert (network.tried["websocket"], network.tried["sse"]) == (1, 1)


@pytest.fixture
def own_server() -> Iterator[Server]:
    with reserved_port() as port:
        server = Server(port)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def test_poll_where_nginx_buffers_events_and_knows_no_websocket(
    own_server: Server, page: Page, tmp_path: Path
) -> None:
    """It waits for more to compress, as it may where it does not obey `X-Accel-Buffering`."""
    asked: Counter[str] = Counter()
    page.on("websocket", lambda _: asked.update(["websocket"]))
    page.on("request", lambda one: asked.update([one.url.partition("?")[0].rpartition("/")[2]]))
    upgrade = ("proxy_set_header Upgrade $http_upgrade;", "")
    buffering = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; "
    buffering += "gzip on; gzip_types *; gzip_min_length 0;"
    with nginx(tmp_path, own_server, upgrade, more=buffering) as url:
        tab = Tab(page, url)
        tab.follow("news")
        tab.placed("news")
        for n in range(3):
            own_server.publish("news", n)
        assert tab.seen("news", 3) == [0, 1, 2]
        assert (asked["websocket"], asked["events"]) == (1, 1)
        assert asked["poll"] >= 1
        page.close()


def follow_afresh(tab: Tab) -> None:
    """Load the page again, and wait until it is connected."""
    tab.page.reload()
    tab.page.evaluate(CONNECT, {})
    tab.follow("news")
    tab.placed("news")


@pytest.mark.parametrize("chosen", ["sse", "poll"])
def test_the_choice_is_remembered_for_a_minute_then_for_an_hour(
    leaving: Page, address: Address, network: Network, news: Channel[Any], chosen: str
) -> None:
    network.only(chosen)
    leaving.clock.install()
    tab = Tab(leaving, address.url)
    for period in ("01:00", "01:00:00", "01:00:00"):
        before = network.tried["websocket"]
        follow_afresh(tab)
        assert network.tried["websocket"] == before + 1
        follow_afresh(tab)  # within the period
        assert network.tried["websocket"] == before + 1
        leaving.clock.fast_forward(period)
    network.blocked = set()
    tried = network.tried.copy()
    follow_afresh(tab)
    follow_afresh(tab)
    assert network.tried - tried == {"websocket": 2}


def test_a_page_that_stays_open_tries_again_however_often_it_reconnects(
    leaving: Page, address: Address, network: Network, news: Channel[Any]
) -> None:
    network.only("sse")
    leaving.clock.install()
    tab = Tab(leaving, address.url)
    tab.follow("news")
    tab.placed("news")
    tried = []
    for n in range(10):
        network.blocked = set() if n == 9 else {"websocket", "poll"}
        leaving.clock.fast_forward("20:00")
        leaving.evaluate("dispatchEvent(new Event('online'))")
        news.publish(n)
        assert tab.seen("news", n + 1)[-1] == n
        tried.append(network.tried["websocket"])
    assert tried[0] == 2  # after a minute, and then
    assert tried[-1] == 5  # after an hour at most
    assert leaving.evaluate("localStorage[`comet ${origin}`]") == ""


# Through a network that does harm


@pytest.fixture
def proxy(address: Address) -> Iterator[FaultyProxy]:
    with FaultyProxy(address).run() as proxy:
        yield proxy


def test_a_connection_that_has_gone_silent_is_given_up(
    transport: str, leaving: Page, proxy: FaultyProxy, news: Channel[Any]
) -> None:
    """It looks alive, and nothing comes of what was sent."""
    leaving.clock.install()
    tab = Tab(leaving, proxy.address.url)
    tab.follow("news")
    tab.placed("news")
    news.publish("before")
    tab.seen("news", 1)
    wait_for_listeners(news, 1)
    proxy.swallow()
    news.publish("swallowed")
    leaving.clock.fast_forward(65_000 if transport == "poll" else 36_000)
    leaving.clock.fast_forward(20_000)  # between two attempts
    assert tab.seen("news", 2) == ["before", "swallowed"]


@pytest.mark.slow
def test_every_message_comes_once_and_in_order_whatever_befalls_the_connections(
    comet: Comet, transport: str, leaving: Page, proxy: FaultyProxy, network: Network
) -> None:
    tab = Tab(leaving, proxy.address.url)
    process = own_process(tab, network)
    channels = [
        comet.create(scope=SITE, name="news"),
        comet.create(scope=SITE, name="prices"),
        comet.create(scope=process, name="inbox"),
    ]
    keys = ("news", "prices", "~inbox")
    for key in keys:
        tab.follow(key)
    tab.placed(*keys)
    count, published = 1000, iter(range(1000))
    done = threading.Event()

    def publish() -> None:
        n = next(published, None)
        if n is None:
            done.set()
            return
        for channel in channels:
            channel.publish(n)

    with proxy.faults(publish):
        assert done.wait(PATIENCE / 1000)
        for key in keys:
            assert tab.seen(key, count) == list(range(count))
    assert min(proxy.befell[fault] for fault in FAULTS) >= 2
    assert network.tried[transport] > 5  # it was broken off, again and again
    assert not process.closed
