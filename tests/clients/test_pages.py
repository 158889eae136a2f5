"""The pages among the examples, as a visitor sees them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from asgi_comet import SITE, Channel, ChannelFull
from asgi_comet.testing import wait_for_listeners
from asgi_comet.transports import sse
from examples import eventsource, htmx, websocket
from tests.kit.programs import MODULES, need_modules
from tests.kit.serving import Address, serve

pytestmark = pytest.mark.browser

PAGES = [
    pytest.param(eventsource, id="eventsource"),
    pytest.param(htmx, id="htmx"),
    pytest.param(websocket, id="websocket"),
]
SSE_PAGES = PAGES[:2]
# Where a page is, and where to post.
PATHS = {htmx: ("/rooms/kitchen", "/rooms/kitchen")}
TEXT = {"Content-Type": "text/plain"}
EVENTS = "**/comet/events?*"

Reference = dict[str, str]

# Lets a test see every EventSource that the page opens.
WATCH = """
window.sources = []
window.EventSource = class extends EventSource {
    constructor(...options) {
        super(...options)
        sources.push(this)
    }
}"""


class Opened:
    """A page, and what it asked for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        self.asked: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(url)

    def reaches(self, state: str) -> None:
        """Wait until its first `EventSource` is open, or closed."""
        self.page.wait_for_function(f"sources[0]?.readyState === EventSource.{state}")

    def asked_once(self) -> None:
        """It opened one stream, and the browser did not come back for it."""
        assert self.page.evaluate("sources.length") == 1
        assert len([url for url in self.asked if "/events?" in url]) == 1


class Visit:
    """A page of an example, which is served afresh."""

    def __init__(self, example: ModuleType, server: Address, context: BrowserContext) -> None:
        self.example = example
        self.server = server
        self.context = context
        self.opened: list[Opened] = []
        self.path, self.target = PATHS.get(example, ("/", "/news"))
        self.page = self.open(self.path).page

    @property
    def news(self) -> Channel[Any]:
        """The channel that the page follows."""
        if self.example is htmx:
            return htmx.rooms.channel(room="kitchen")
        news: Channel[Any] = self.example.news
        return news

    def open(self, path: str) -> Opened:
        self.opened.append(Opened(self.context.new_page(), self.server.url + path))
        return self.opened[-1]

    def make_process(self) -> Reference:
        """Have a client process opened; where its inbox is."""
        opened = self.context.request.post(f"{self.server.url}/comet/open").json()
        return {"url": opened["url"], "channel": "~inbox", "position": "now"}

    def serve_own(self, page: str) -> None:
        """Serve a page at /own, each time the same one, as to a tab that is duplicated."""
        self.context.route(
            f"{self.server.url}/own",
            lambda route: route.fulfill(body=page, content_type="text/html; charset=utf-8"),
        )

    def post(self, text: str) -> None:
        answer = self.server.request("POST", self.target, text.encode(), TEXT)
        assert answer.status == 204, answer

    def listened(self, count: int = 1) -> None:
        wait_for_listeners(self.news, count)

    def shows(self, *texts: str) -> None:
        expect(self.page.locator("ul li")).to_have_text(list(texts))


@pytest.fixture
def visit(
    request: pytest.FixtureRequest, context: BrowserContext, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Visit]:
    """Serve an example, made anew, and open its page, whose clock a test may turn."""
    if request.param is htmx:
        need_modules()
    monkeypatch.setenv("NODE_MODULES", str(MODULES))
    monkeypatch.setattr(sse, "RETRY", (20, 40))
    monkeypatch.setattr(sse, "RETRY_LATER", (20, 40))
    example = importlib.reload(request.param)
    with serve(example.app) as server:
        context.clock.install()
        context.add_init_script(WATCH)
        visit = Visit(example, server, context)
        visit.listened()
        yield visit
        for opened in visit.opened:
            opened.page.close()
    assert [opened.errors for opened in visit.opened if opened.errors] == []


on_every_page = pytest.mark.parametrize("visit", PAGES, indirect=True)
on_pages_with_sse = pytest.mark.parametrize("visit", SSE_PAGES, indirect=True)
on_the_page_of_eventsource = pytest.mark.parametrize("visit", SSE_PAGES[:1], indirect=True)


@on_every_page
def test_a_page_shows_what_is_posted_as_text(visit: Visit) -> None:
    texts = ["first", "<b>héllo</b> & 🎈", "<img src=x onerror='window.hacked = true'>"]
    for text in texts:
        visit.post(text)
    visit.shows(*texts)
    visit.page.reload()
    visit.shows(*texts)
    assert visit.page.evaluate("window.hacked") is None


@on_every_page
def test_a_page_gets_what_it_missed_while_push_was_off(visit: Visit) -> None:
    activation = visit.example.comet.activation
    visit.post("before")
    visit.shows("before")
    activation.deactivate()
    visit.listened(0)
    for n in range(3):
        visit.post(f"meanwhile {n}")
    activation.activate()
    if visit.example is websocket:
        expect(visit.page.locator("#state")).to_have_text("away")
        visit.page.clock.fast_forward(4000)
    visit.listened()
    visit.post("after")
    visit.shows("before", "meanwhile 0", "meanwhile 1", "meanwhile 2", "after")


@on_pages_with_sse
def test_a_page_goes_on_where_the_browser_gave_up(visit: Visit) -> None:
    """A proxy has said that the server is away."""
    page = visit.page
    visit.post("before")
    visit.shows("before")
    page.route(EVENTS, lambda route: route.fulfill(status=502))
    with page.expect_response(lambda answer: answer.status == 502):
        visit.example.comet.activation.deactivate()
    visit.listened(0)
    visit.post("meanwhile")
    visit.example.comet.activation.activate()
    page.unroute(EVENTS)
    page.wait_for_function("sources[0].readyState === EventSource.CLOSED")
    page.clock.fast_forward(4000)
    visit.listened()
    visit.shows("before", "meanwhile")


@on_every_page
def test_a_page_stops_when_the_channel_ends(visit: Visit) -> None:
    visit.post("the last one")
    visit.shows("the last one")
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    visit.page.on("websocket", lambda socket: asked.append(socket.url))
    visit.news.close()
    visit.listened(0)
    if visit.example is not htmx:
        expect(visit.page.locator("#state")).to_have_text("This was all.")
    visit.page.clock.fast_forward(60_000)
    visit.shows("the last one")
    assert asked == []


@on_every_page
def test_a_page_that_missed_something_says_so_or_is_loaded_again(visit: Visit) -> None:
    activation = visit.example.comet.activation
    visit.post("0")
    visit.shows("0")
    activation.deactivate()
    visit.listened(0)
    visit.page.evaluate("document.addEventListener('comet:full', () => (window.full = true))")
    for n in range(1, 1102):  # more than the channel holds
        visit.post(str(n))
    activation.activate()
    if visit.example is websocket:
        expect(visit.page.locator("#state")).to_have_text("away")
        visit.page.clock.fast_forward(4000)
    if visit.example is htmx:
        visit.page.wait_for_function("window.full")
        visit.page.clock.fast_forward(30_000)  # the pages of all visitors are not loaded at once
        visit.shows(*[str(n) for n in range(1002, 1102)])
    else:
        visit.shows("0", "Here some are missing.")
    visit.listened()
    visit.post("after")
    expect(visit.page.locator("li").last).to_have_text("after")


# A tab's own channel


def write_page(example: ModuleType, reference: Reference) -> str:
    """The page of an example, just as it is, but following another channel."""
    page: str
    if example is eventsource:
        page = eventsource.write_page(reference)
    else:
        page = example.PAGE.format(**reference, messages="")
    return page


@on_pages_with_sse
def test_of_two_pages_of_one_tab_the_older_stays_away(visit: Visit) -> None:
    if visit.example is eventsource:
        page = visit.context.request.get(f"{visit.server.url}/inbox").text()
    else:
        page = write_page(visit.example, visit.make_process())
    visit.serve_own(page)
    first = visit.open("/own")
    first.reaches("OPEN")
    second = visit.open("/own")
    second.reaches("OPEN")
    first.reaches("CLOSED")
    visit.context.clock.fast_forward(60_000)
    for opened in (first, second):
        opened.asked_once()
        if visit.example is eventsource:
            expect(opened.page.locator("li")).to_have_text(["Welcome"])
    second.reaches("OPEN")
    if visit.example is eventsource:
        expect(first.page.locator("#state")).to_have_text("This goes on in another tab.")
        expect(second.page.locator("#state")).to_have_text("live")


@on_pages_with_sse
def test_a_page_stays_away_from_what_it_may_not_read(visit: Visit) -> None:
    """It has no cookie, so nothing is its own."""
    reference = {"url": "/comet", "channel": "~inbox", "position": "now"}
    visit.serve_own(write_page(visit.example, reference))
    opened = visit.open("/own")
    opened.reaches("CLOSED")
    visit.context.clock.fast_forward(60_000)
    opened.asked_once()
    if visit.example is eventsource:
        expect(opened.page.locator("#state")).to_have_text("This is not for you.")


@on_pages_with_sse
def test_a_page_stays_away_when_its_process_is_closed(visit: Visit) -> None:
    reference = visit.make_process()
    visit.serve_own(write_page(visit.example, reference))
    opened = visit.open("/own")
    opened.reaches("OPEN")
    visit.context.request.post(f"{visit.server.url}{reference['url']}/close")
    opened.reaches("CLOSED")
    visit.context.clock.fast_forward(60_000)
    opened.asked_once()
    if visit.example is eventsource:
        expect(opened.page.locator("#state")).to_contain_text("load it again")


@on_the_page_of_eventsource
def test_a_page_stays_away_from_a_channel_that_overflowed(
    visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    comet = visit.example.comet
    create = comet.create
    made: list[Channel[Any]] = []

    def create_small(**options: Any) -> Channel[Any]:
        made.append(create(**options, size=1))
        return made[-1]

    monkeypatch.setattr(comet, "create", create_small)
    visit.serve_own(visit.context.request.get(f"{visit.server.url}/inbox").text())
    with pytest.raises(ChannelFull):
        made[0].publish("Nobody has read the first one.")
    opened = visit.open("/own")
    opened.reaches("CLOSED")
    visit.context.clock.fast_forward(60_000)
    opened.asked_once()
    expect(opened.page.locator("li")).to_have_text(["Here some are missing."])
    expect(opened.page.locator("#state")).to_have_text("This has overflowed.")


@on_the_page_of_eventsource
def test_a_name_of_any_kind_is_followed(visit: Visit) -> None:
    channel = visit.example.comet.create(scope=SITE, name="a&b=c#d+e%20, ü", type=str)
    visit.serve_own(eventsource.write_page(channel.reference()))
    visit.open("/own")
    wait_for_listeners(channel, 1)
    channel.publish("Hello")
    expect(visit.opened[-1].page.locator("li")).to_have_text(["Hello"])
