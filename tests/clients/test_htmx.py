"""The extension of htmx: elements that follow channels, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount
from starlette.routing import Route as Path
from starlette.staticfiles import StaticFiles

from asgi_comet import SITE, Channel, ChannelFull, Comet, CometMiddleware
from asgi_comet.testing import wait_for_listeners
from asgi_comet.transports import sse
from tests.kit.programs import MODULES, need_modules
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY, application

pytestmark = pytest.mark.browser

HOSTILE = [
    "<script>window.hacked = true</script>",
    "<img src=x onerror='window.hacked = true'>",
    "<b hx-on:htmx:load='window.hacked = true' hx-get=/x hx-trigger=load>x</b>",
    "</li></ul><svg onload='window.hacked = true'>",
]

STAY = "hx-on:comet:full='event.preventDefault()'"

SHELL = """<!doctype html><meta charset=utf-8><link rel=icon href=data:,>
<script src=/modules/htmx.org/dist/htmx.min.js></script>
<script src=PREFIX/htmx.js></script>
<script>
  const told = [], states = [], passed = [], sources = []
  window.EventSource = class extends EventSource {
    constructor(...options) {
      super(...options)
      sources.push(this)
    }
  }
  for (const type of ["full", "closed", "forbidden"]) {
    document.addEventListener(`comet:${type}`, ({target, detail: {channel, reason}}) => {
      states.push(sources.map(({readyState}) => readyState).join())
      told.push([target.id, type, channel, reason])
    })
  }
  document.addEventListener("htmx:afterSwap", ({target}) => passed.push(target.textContent))
</script>
<body hx-ext=comet>BODY</body>"""


class Live:
    """Pages beside a `Comet`; each is what a test writes, and is closed in the end."""

    def __init__(self, context: BrowserContext, prefix: str = "/comet") -> None:
        self.context = context
        self.prefix = prefix
        self.comet = Comet(KEY, prefix=prefix)
        self.pages: dict[str, str] = {}
        self.server: Address
        self.errors: list[str] = []
        self.asked: list[str] = []

    def app(self) -> CometMiddleware:
        async def page(request: Request) -> HTMLResponse:
            return HTMLResponse(self.pages[request.url.path])

        modules = Mount("/modules", StaticFiles(directory=MODULES))
        routes = [modules, Path("/{path:path}", page)]
        return CometMiddleware(Starlette(routes=routes), comet=self.comet)

    def channel(self, name: str, **options: Any) -> Channel[Any]:
        return self.comet.create(scope=SITE, name=name, **options)

    def open(self, body: str) -> Page:
        self.pages["/"] = SHELL.replace("PREFIX", self.prefix).replace("BODY", body)
        return self.visit("/")

    def visit(self, path: str) -> Page:
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(self.server.url + path)
        return page

    def wrong(self, text: str) -> bool:
        """Take out the errors that have a text in them; tell whether there were any."""
        found = [error for error in self.errors if text in error]
        self.errors = [error for error in self.errors if text not in error]
        return bool(found)


@pytest.fixture
def live(context: BrowserContext, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    yield from run(Live(context), monkeypatch)


def run(live: Live, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    need_modules()
    monkeypatch.setattr(sse, "RETRY", (20, 40))
    with serve(live.app()) as live.server:
        yield live
        for page in live.context.pages:
            page.close()
    assert live.errors == []


def element(name: str, channel: str, more: str = "") -> str:
    return f'<ul id={name} comet-channel="{channel}" hx-swap=beforeend {more}></ul>'


def shows(page: Page, name: str, *texts: object) -> None:
    expect(page.locator(f"#{name} li")).to_have_text([str(text) for text in texts])


def publish(channel: Channel[Any], *values: object) -> None:
    for value in values:
        channel.publish(f"<li>{value}</li>")


def put(page: Page, name: str, html: str, style: str = "innerHTML") -> None:
    """Have htmx swap."""
    page.evaluate(
        "([name, html, swapStyle]) => htmx.swap(`#${name}`, html, {swapStyle})", [name, html, style]
    )


def streams(page: Page) -> list[str]:
    """The URLs of the connections that it has opened."""
    return list(page.evaluate("sources.map(({url}) => url)"))


def states(page: Page) -> list[str]:
    """How they were when something was told: 0 connecting, 1 open, 2 closed for good."""
    return list(page.evaluate("states"))


def wait_until_told(page: Page, *expected: list[Any]) -> None:
    page.wait_for_function("count => told.length >= count", arg=len(expected))
    assert page.evaluate("told") == list(expected)


# One connection


def test_elements_share_one_connection(live: Live) -> None:
    a, b = live.channel("a"), live.channel("b&c=d, ü")
    page = live.open(element("a", "a") + element("b", escape(b.id)))
    for channel in (a, b):
        wait_for_listeners(channel, 1)
        publish(channel, f"of {channel.id[0]}", 2)
    shows(page, "a", "of a", 2)
    shows(page, "b", "of b", 2)
    assert len(streams(page)) == 1


def test_an_element_that_htmx_removes_stops_its_channel_and_no_other(live: Live) -> None:
    a, b = live.channel("a"), live.channel("b")
    page = live.open(f"<main id=main>{element('a', 'a')}</main>" + element("b", "b"))
    wait_for_listeners(a, 1)
    publish(b, 1)
    shows(page, "b", 1)
    put(page, "main", "<p>nothing</p>")
    publish(b, 2)
    wait_for_listeners(a, 0)
    publish(b, 3)
    shows(page, "b", 1, 2, 3)
    assert "channel=a" not in streams(page)[-1]


def test_the_last_element_that_goes_ends_the_connection_and_another_begins_one(live: Live) -> None:
    a = live.channel("a")
    page = live.open(f"<main id=main>{element('a', 'a')}</main>")
    wait_for_listeners(a, 1)
    put(page, "main", "")
    wait_for_listeners(a, 0)
    put(page, "main", element("b", "a", "comet-from=last:1"))
    wait_for_listeners(a, 1)
    publish(a, 1)
    shows(page, "b", 1)


def test_an_element_that_a_script_removes_stops_its_channel_with_the_next_message(
    live: Live,
) -> None:
    a, b = live.channel("a"), live.channel("b")
    page = live.open(element("a", "a") + element("b", "b"))
    wait_for_listeners(a, 1)
    page.evaluate("document.querySelector('#a').remove()")
    publish(a, 1)
    wait_for_listeners(a, 0)
    publish(b, 1)
    shows(page, "b", 1)


def test_an_element_that_comes_gets_its_history_and_the_others_nothing_twice(live: Live) -> None:
    a, b = live.channel("a"), live.channel("b")
    publish(b, 1, 2, 3)
    page = live.open(element("a", "a") + "<main id=main></main>")
    wait_for_listeners(a, 1)
    publish(a, 1)
    shows(page, "a", 1)
    put(page, "main", element("b", "b", "comet-from=last:2"))
    publish(a, 2)
    shows(page, "b", 2, 3)
    publish(a, 3)
    publish(b, 4)
    shows(page, "a", 1, 2, 3)
    shows(page, "b", 2, 3, 4)
    assert len(streams(page)) == 2


def test_nothing_is_lost_or_doubled_while_other_elements_come_and_go(live: Live) -> None:
    a, b = live.channel("a"), live.channel("b")
    page = live.open(element("a", "a") + "<main id=main></main>")
    wait_for_listeners(a, 1)
    for n in range(10):
        publish(a, f"{n} before")
        put(page, "main", "" if n % 2 else element("b", "b"))
        publish(a, f"{n} while")
        wait_for_listeners(b, (n + 1) % 2)
        publish(a, f"{n} after")
    shows(page, "a", *[f"{n} {when}" for n in range(10) for when in ("before", "while", "after")])
    assert len(streams(page)) == 11


def test_elements_of_one_channel_begin_each_where_it_says(live: Live) -> None:
    a = live.channel("a")
    publish(a, 1)
    position = a.reference()["position"]
    publish(a, 2, 3)
    starts = {
        "n": "now",
        "l": "last:1",
        "p": position,
        "f": "first",
        "q": a.reference()["position"],
    }
    lists = [element(name, "a", f"comet-from={start}") for name, start in starts.items()]
    page = live.open("".join(lists))
    shows(page, "f", 1, 2, 3)
    publish(a, 4)
    shows(page, "n", 4)
    shows(page, "l", 3, 4)
    shows(page, "p", 2, 3, 4)
    shows(page, "f", 1, 2, 3, 4)
    shows(page, "q", 4)


def test_a_position_of_another_incarnation_is_told_and_costs_the_others_nothing(live: Live) -> None:
    """Also if htmx swaps something while the server is asked for it."""
    live.context.clock.install()
    held: list[Route] = []

    def hold(route: Route) -> None:
        """Hold the first request; after `:full` the browser comes back to the same URL."""
        if held:
            route.continue_()
        else:
            held.append(route)

    live.context.route("**/events?*position=old.7*", hold)
    a = live.channel("a")
    publish(a, 1, 2)
    top = f"comet-from={a.reference()['position']}"
    page = live.open(
        "<main id=main></main>"
        + element("old", "a", f"comet-from=old.7 {STAY}")
        + element("a", "a", "comet-from=last:2")
        + element("new", "a", top)
    )
    page.wait_for_function("sources.length === 2")
    shows(page, "a", 1, 2)
    put(page, "main", element("more", "a", top))
    page.clock.fast_forward(1000)
    assert len(streams(page)) == 2
    held[0].continue_()
    wait_until_told(page, ["old", "full", "a", "full"])
    publish(a, 3)
    for name in ("old", "new", "more"):
        shows(page, name, 3)
    shows(page, "a", 1, 2, 3)


def test_a_newest_channel_that_began_anew_needs_no_word(live: Live) -> None:
    a = live.comet.create_newest(name="a")
    publish(a, 1)
    page = live.open(element("a", "a", "comet-from=old.7") + element("b", "a"))
    shows(page, "a", 1)
    publish(a, 2)
    shows(page, "a", 1, 2)
    expect(page.locator("#b li").last).to_have_text("2")
    assert page.evaluate("told") == []


@pytest.mark.parametrize("count", [128, 129])
def test_a_connection_has_so_many_channels(live: Live, count: int) -> None:
    channels = [live.channel(f"c{n}") for n in range(count)]
    page = live.open("<main id=main></main>" + "".join(element(c.id, c.id) for c in channels))
    for channel in channels[:128]:
        wait_for_listeners(channel, 1)
    assert len(streams(page)) == 1
    assert live.wrong("expected at most 128 channels, got one more, c128") is (count == 129)
    extra = live.channel("extra")
    page.evaluate("document.querySelector('#c0').remove()")
    put(page, "main", element("more", "extra"))  # in its place
    wait_for_listeners(extra, 1)
    publish(extra, 1)
    shows(page, "more", 1)


def test_it_connects_where_it_was_loaded_from(
    context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for live in run(Live(context, "/push"), monkeypatch):
        a = live.channel("a")
        page = live.open(element("a", "a"))
        wait_for_listeners(a, 1)
        publish(a, 1)
        shows(page, "a", 1)
        assert "/push/events?" in streams(page)[0]


def test_a_channel_of_another_server_is_followed_there(live: Live) -> None:
    other = Comet(KEY, allowed_origins=[live.server.url])
    far = other.create(scope=SITE, name="far")
    with serve(application(other)) as address:
        page = live.open(element("a", "far", f'comet-url="{address.url}/comet"'))
        wait_for_listeners(far, 1)
        publish(far, 1)
        shows(page, "a", 1)
        page.close()


def test_attributes_may_be_data_attributes(live: Live) -> None:
    a = live.channel("a")
    publish(a, 1, 2)
    page = live.open(
        '<ul id=a data-comet-channel=a data-comet-from=last:1 hx-swap="beforeend"></ul>'
    )
    shows(page, "a", 2)
    publish(a, 3)
    shows(page, "a", 2, 3)


# What an element shows


def test_a_value_is_shown_as_its_family_renders_it_and_no_script_in_it_runs(live: Live) -> None:
    rooms = live.comet.family("room:{room}", render=lambda text: f"<li>{escape(text)}</li>")
    page = live.open(element("a", "room:1", "comet-from=last:1"))
    wait_for_listeners(rooms.channel(room=1), 1)
    for text in HOSTILE:
        rooms.publish(text, room=1)
    shows(page, "a", *HOSTILE)
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("text", HOSTILE[:2])
def test_without_escaping_it_would_run(live: Live, text: str) -> None:
    """So the test above sees it."""
    rooms = live.comet.family("room:{room}", render=lambda text: f"<li>{text}</li>")
    page = live.open(element("a", "room:1", "comet-from=last:1"))
    wait_for_listeners(rooms.channel(room=1), 1)
    rooms.publish(text, room=1)
    page.wait_for_function("window.hacked")
    live.wrong("404")  # of the picture
    live.wrong("500")


def test_a_message_with_the_id_of_an_item_takes_its_place(live: Live) -> None:
    a = live.channel("a")
    page = live.open(
        '<ul id=a comet-channel=a hx-swap="beforeend"><li id=m1>one<li id="x:[2]">two</li></ul>'
        '<p id=m3>not in the list</p><ul id=b hx-swap="afterbegin" comet-channel=a></ul>'
    )
    wait_for_listeners(a, 1)
    for html in ('<li id="x:[2]">zwei</li>', "<li id=m3>three</li>", "text", "<li id=m3>drei</li>"):
        a.publish(html)
    shows(page, "a", "one", "zwei", "drei")
    shows(page, "b", "drei", "zwei")
    expect(page.locator("p")).to_have_text("not in the list")


def test_an_element_that_each_message_replaces_misses_none(live: Live) -> None:
    a = live.channel("a")
    page = live.open("<p id=a comet-channel=a hx-swap=outerHTML>0</p>")
    wait_for_listeners(a, 1)
    for n in range(1, 6):
        a.publish(f"<p id=a comet-channel=a hx-swap=outerHTML>{n}</p>")
    expect(page.locator("#a")).to_have_text("5")
    assert [text for text in page.evaluate("passed") if text] == ["1", "2", "3", "4", "5"]


def test_an_element_goes_on_from_the_one_it_replaces_not_from_an_earlier_one(live: Live) -> None:
    a = live.channel("a")
    page = live.open("<p id=a comet-channel=a></p>")
    wait_for_listeners(a, 1)
    a.publish("1")
    expect(page.locator("#a")).to_have_text("1")
    at = page.evaluate(
        """() => { // both swaps come before the extension looks which elements are left
            const one = document.querySelector("#a")
            const next = () => {
                const p = document.createElement("p")
                p.setAttribute("comet-channel", "a")
                p.id = "a"
                document.querySelector("#a").replaceWith(p)
                htmx.process(p)
                return p
            }
            const [epoch] = one.getAttribute("comet-from").split(".")
            next().setAttribute("comet-from", `${epoch}.3`)
            return next().getAttribute("comet-from").split(".")[1]
        }"""
    )
    assert at == "3"


def test_the_target_and_the_swap_are_those_of_htmx(live: Live) -> None:
    a = live.channel("a")
    page = live.open("<p id=shown></p><i comet-channel=a hx-target=#shown hx-swap=textContent></i>")
    wait_for_listeners(a, 1)
    a.publish("<b>as text</b>")
    expect(page.locator("#shown")).to_have_text("<b>as text</b>")


def test_an_element_that_cannot_show_a_message_keeps_it_from_no_other(live: Live) -> None:
    a = live.channel("a")
    page = live.open(element("a", "a", "hx-target=#nowhere") + element("b", "a"))
    wait_for_listeners(a, 1)
    publish(a, 1, 2)
    shows(page, "b", 1, 2)
    assert live.wrong("insertBefore")
    assert live.wrong("htmx:")
    assert len(streams(page)) == 1


def test_a_page_that_htmx_restores_goes_on_where_it_was(live: Live) -> None:
    a = live.channel("a")
    link = '<a hx-get="/other" hx-target="#main" hx-push-url=true href="#">leave</a>'
    live.pages["/other"] = "<p>another page</p>"
    page = live.open(f"<main id=main>{element('a', 'a')}{link}</main>")
    wait_for_listeners(a, 1)
    publish(a, 1, 2)
    shows(page, "a", 1, 2)
    page.click("a")
    expect(page.locator("#main")).to_have_text("another page")
    wait_for_listeners(a, 0)
    publish(a, 3)
    page.go_back()
    shows(page, "a", 1, 2, 3)
    publish(a, 4)
    shows(page, "a", 1, 2, 3, 4)


def test_an_element_that_is_processed_again_follows_what_it_says_then(live: Live) -> None:
    a, b = live.channel("a"), live.channel("b")
    page = live.open(element("a", "a"))
    wait_for_listeners(a, 1)
    publish(a, 1)
    shows(page, "a", 1)
    page.evaluate("htmx.process(document.body)")
    publish(a, 2)
    shows(page, "a", 1, 2)
    change = "([name, value]) => htmx.find('#a').setAttribute(name, value)"
    page.evaluate(change, ["comet-channel", "b"])
    page.evaluate(change, ["comet-from", "now"])
    page.evaluate("htmx.process(document.body)")
    wait_for_listeners(b, 1)
    wait_for_listeners(a, 0)
    publish(b, 3)
    shows(page, "a", 1, 2, 3)
    url = live.context.request.post(f"{live.server.url}/comet/open").json()["url"]
    page.evaluate(change, ["comet-url", url])
    page.evaluate("htmx.process(document.body)")
    page.wait_for_function("(url) => sources.at(-1).url.includes(url)", arg=url)
    page.wait_for_function("/^(2,)+1$/.test(sources.map(({readyState}) => readyState))")
    publish(b, 4)
    shows(page, "a", 1, 2, 3, 4)


# What it tells


def test_a_channel_that_ends_is_told_and_the_others_go_on(live: Live) -> None:
    a, b = live.channel("a"), live.channel("b")
    page = live.open(element("a", "a") + element("b", "b"))
    wait_for_listeners(b, 1)
    a.close()
    wait_until_told(page, ["a", "closed", "a", "ended"])
    publish(b, 1)
    shows(page, "b", 1)
    b.close()
    wait_until_told(page, ["a", "closed", "a", "ended"], ["b", "closed", "b", "ended"])
    assert states(page) == ["1", "2"]


def test_a_channel_that_does_not_exist_is_told(live: Live) -> None:
    page = live.open(element("a", "nws"))
    wait_until_told(page, ["a", "closed", "nws", "unknown"])
    assert states(page) == ["2"]


def test_a_channel_that_is_forbidden_is_told_and_the_others_go_on(live: Live) -> None:
    def may(connection: HTTPConnection, room: str) -> bool:
        return room == "open"

    rooms = live.comet.family("room:{room}", authorize=may)
    names = ["room:closed", "room:open", "room:secret"]
    page = live.open("".join(element(name[5:], name) for name in names))
    closed, secret = (
        [name, "forbidden", f"room:{name}", "forbidden"] for name in ("closed", "secret")
    )
    wait_until_told(page, closed, secret)
    channel = rooms.channel(room="open")
    wait_for_listeners(channel, 1)
    publish(channel, 1)
    shows(page, "open", 1)
    assert states(page) == ["2,0", "2,2,0"]


def fall_behind(live: Live, page: Page, *channels: Channel[Any]) -> None:
    """Have a page miss messages on its channels."""
    live.comet.activation.deactivate()
    for channel in channels:
        wait_for_listeners(channel, 0)
        publish(channel, *range(3))
    live.comet.activation.activate()
    page.wait_for_function("count => told.length === count", arg=len(channels))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "RETRY_LATER", (20, 40))


@pytest.mark.usefixtures("soon")
def test_a_page_that_missed_something_is_loaded_again_once_and_not_at_once(live: Live) -> None:
    live.context.clock.install()
    live.context.add_init_script("Math.random = () => 0.5")
    a, b = live.channel("a", size=2), live.channel("b", size=2)
    page = live.open(element("a", "a") + element("b", "b"))
    wait_for_listeners(b, 1)
    fall_behind(live, page, a, b)
    pages = live.asked.count(live.server.url + "/")
    page.clock.fast_forward(10_000)
    publish(a, "meanwhile")
    shows(page, "a", "meanwhile")
    with page.expect_navigation():
        page.clock.fast_forward(5_000)
    page.wait_for_function("told.length === 0")
    assert live.asked.count(live.server.url + "/") == pages + 1


@pytest.mark.usefixtures("soon")
def test_a_page_that_takes_care_of_it_is_not_loaded_again(live: Live) -> None:
    live.context.clock.install()
    a = live.channel("a", size=2)
    page = live.open(element("a", "a", STAY))
    wait_for_listeners(a, 1)
    fall_behind(live, page, a)
    page.clock.fast_forward(60_000)
    publish(a, "after")
    shows(page, "a", "after")
    assert page.evaluate("told") == [["a", "full", "a", "full"]]


# A tab's own channel


def own_page(live: Live, body: str) -> tuple[Page, str]:
    """Open a page below whose body everything is read at the URL of a new client process."""
    url = live.context.request.post(f"{live.server.url}/comet/open").json()["url"]
    return live.open(f'<main comet-url="{url}">{body}</main>'), url


def test_a_tabs_own_channel_shares_the_connection_of_its_url(live: Live) -> None:
    a = live.channel("a")
    page, url = own_page(live, element("own", "~inbox") + element("a", "a") + element("b", "~b"))
    wait_for_listeners(a, 1)
    (process,) = live.comet.processes()
    inbox = live.comet.create(scope=process, name="inbox")
    publish(inbox, "mine")
    publish(a, 1)
    shows(page, "own", "mine")
    shows(page, "a", 1)
    assert [url in stream for stream in streams(page)] == [True]
    live.context.request.post(f"{live.server.url}{url}/close")
    told = [("own", "~inbox"), ("a", "a"), ("b", "~b")]
    wait_until_told(page, *[[name, "closed", of, "process-closed"] for name, of in told])
    assert states(page) == ["2", "2", "2"]


def test_an_own_channel_that_overflowed_is_full_and_over(live: Live) -> None:
    live.context.clock.install()
    url = live.context.request.post(f"{live.server.url}/comet/open").json()["url"]
    (process,) = live.comet.processes()
    inbox = live.comet.create(scope=process, name="inbox", size=1)
    inbox.publish("1")
    with pytest.raises(ChannelFull):
        inbox.publish("2")
    page = live.open(f'<main comet-url="{url}">{element("own", "~inbox", STAY)}</main>')
    wait_until_told(page, ["own", "full", "~inbox", "full"])
    page.clock.fast_forward(60_000)
    assert states(page) == ["2"]
    assert len(streams(page)) == 1


# What goes wrong


@pytest.mark.parametrize("start", ["last", "5", "last:1,now", "e.01", "a b.1"])
def test_a_start_that_is_none_is_told_and_costs_the_others_nothing(live: Live, start: str) -> None:
    a = live.channel("a")
    page = live.open(element("wrong", "a", f'comet-from="{start}"') + element("a", "a"))
    wait_for_listeners(a, 1)
    publish(a, 1)
    shows(page, "a", 1)
    assert live.wrong(f"comet-from: expected a position or last:10, got {start}")


def test_as_a_module_it_says_how_to_load_it(live: Live) -> None:
    live.pages["/module"] = (
        '<link rel=icon href=data:,><script type=module src="/comet/htmx.js"></script>'
    )
    live.visit("/module")
    assert live.wrong('expected <script src="…/htmx.js">, got a module')


def test_where_the_browser_gives_up_it_comes_back_later_and_later(live: Live) -> None:
    live.context.clock.install()
    live.context.add_init_script("Math.random = () => 1")
    events = "**/comet/events?*"
    live.context.route(events, lambda route: route.fulfill(status=502))
    a = live.channel("a")
    publish(a, 1)
    page = live.open(element("a", "a", "comet-from=last:1"))

    def gave_up(count: int) -> None:
        page.wait_for_function(
            "n => sources.length === n && sources[n - 1].readyState === EventSource.CLOSED",
            arg=count,
        )

    delays = [4, 8, 16, 32, 32]
    for n, delay in enumerate(delays, 1):
        gave_up(n)
        page.clock.fast_forward(1000 * delay - 2000)
        assert page.evaluate("sources.length") == n
        page.clock.fast_forward(2000)
    gave_up(len(delays) + 1)
    live.context.unroute(events)
    page.clock.fast_forward(32_000)
    shows(page, "a", 1)
    assert live.wrong("502")
