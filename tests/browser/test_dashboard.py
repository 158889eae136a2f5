"""The dashboard in a browser: each screen, with the keyboard, in the dark, on a phone, attacked."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, expect

from asgi_comet import Comet, Settings
from asgi_comet.admin.dashboard import dashboard
from asgi_comet.testing._inspect import inside
from asgi_comet.transports import websocket
from tests.kit.following import Network
from tests.kit.operating import TOKEN_OF, TOKENS
from tests.kit.own_server import Server
from tests.kit.redis import RedisServer
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import KEY, TOKEN, application
from tests.kit.streams import Sse
from tests.kit.workers import Workers

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=document.title='broken'>"
MEMBERS, TABS = 10_000, 2_000
SCREENS = ("now", "channels", "people", "events", "workers")

# What the page is refused, which is noted before any of its scripts runs.
WATCH = """addEventListener("securitypolicyviolation", (event) => {
    console.error(`refused by the policy: ${event.violatedDirective} ${event.blockedURI}`)
})"""


@dataclass
class Desk:
    """An operator at a page of the dashboard.

    Attributes:
        page: The page.
        url: The server.
        wrong: What the console has said.
        asked: All addresses that the page has asked for.
    """

    page: Page
    url: str
    wrong: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def sign_in(self, token: str) -> None:
        """Sign in as a browser does, and wait for the first sample."""
        self.page.goto(f"{self.url}/comet/admin/")
        self.page.get_by_label("Admin token").fill(token)
        self.page.keyboard.press("Enter")
        expect(self.page.locator("#listeners")).not_to_have_text("–")

    def show(self, screen: str) -> None:
        """Go to a screen."""
        self.page.goto(f"{self.url}/comet/admin/#{screen}")
        expect(self.page.locator(f"#{screen}")).to_be_visible()

    def confirm(self) -> None:
        """Say yes to what the page asks."""
        self.page.locator("#ask-yes").click()

    def expect_actions(self, *actions: str) -> None:
        """Wait until the screen of events has each of these."""
        self.show("events")
        for action in actions:
            expect(self.page.get_by_text(f"action: {action} ").first).to_be_visible()

    def check(self) -> None:
        """Nothing was refused or has failed, and no address has a token."""
        assert self.wrong == []
        assert self.asked
        assert not any(token in address for token in [*TOKENS, TOKEN] for address in self.asked)


def open_desk(browser: Browser, url: str, **options: object) -> Desk:
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    page.add_init_script(WATCH)
    desk = Desk(page, url)

    def hear(kind: str, text: str) -> None:
        if kind == "error" and "401" not in text:  # the sign-in page
            desk.wrong.append(text)

    page.on("console", lambda line: hear(line.type, line.text))
    page.on("pageerror", lambda error: desk.wrong.append(str(error)))
    page.on("request", lambda request: desk.asked.append(request.url))
    page.on("websocket", lambda socket: desk.asked.append(socket.url))
    return desk


@pytest.fixture
def many() -> Comet:
    """Of many members and many tabs, some of them with hostile names."""
    comet = Comet(KEY, admin=TOKENS, settings=Settings(jitter=0, linger=3600))
    rooms = comet.family("room:{room}", type=str)
    for number in range(MEMBERS - 1):
        rooms.publish("hello", room=str(number))
    rooms.publish(HOSTILE, room=HOSTILE)
    return comet


@pytest.fixture
def busy(many: Comet) -> Iterator[Address]:
    with serve(application(many)) as server:
        clients = inside(many).clients
        for number in range(TABS):
            claim = clients.claim(f"browser {number // 2}")
            clients.assign(clients.open(claim).claim, HOSTILE if number < 2 else None, keep=False)
        yield server


def test_each_screen_shows_many_and_takes_hostile_names_as_text(
    browser: Browser, busy: Address
) -> None:
    desk = open_desk(browser, busy.url)
    page = desk.page
    desk.sign_in(TOKEN_OF["contents"])
    expect(page.locator("#tabs")).to_have_text("2,000")
    expect(page.locator("#gaps")).to_have_text("0")
    expect(page.locator("#limits")).to_contain_text("10,000 of 10,000")
    desk.show("channels")
    page.get_by_role("button", name="room:{room}").click()
    members = page.locator("#members-list")
    expect(members.get_by_role("table")).to_have_attribute("aria-rowcount", str(MEMBERS + 1))
    members.locator(".scroller").evaluate("(list) => { list.scrollTop = list.scrollHeight }")
    members.get_by_role("button", name=HOSTILE).click()
    expect(page.locator("#tail li")).to_contain_text(json.dumps(HOSTILE))
    page.get_by_label("Find", exact=True).fill("room:123")
    expect(members.get_by_role("button")).to_have_count(11)
    desk.show("people")
    people = page.locator("#people-list")
    expect(people.get_by_role("table")).to_have_attribute("aria-rowcount", str(TABS + 1))
    expect(people.get_by_text(HOSTILE)).to_have_count(2)
    assert people.locator(".row").count() < 100
    desk.show("workers")
    expect(page.locator("#workers-list .space .row")).to_have_count(1)
    desk.show("events")
    expect(page.locator("#events-list")).to_contain_text("sign-in")
    assert page.title() == "Push: events"
    assert page.locator("img").count() == 0
    desk.check()
    page.context.close()


def test_the_switch_works_while_push_is_deactivated(
    browser: Browser, comet_: Comet, at: Address
) -> None:
    desk = open_desk(browser, at.url)
    page = desk.page
    desk.sign_in(TOKEN_OF["operate"])
    page.get_by_role("button", name="Deactivate").click()
    page.keyboard.press("Escape")
    expect(page.locator("#ask")).to_be_hidden()
    assert comet_.activation.active
    page.get_by_role("button", name="Deactivate").click()
    desk.confirm()
    expect(page.locator("#switch-state")).to_contain_text("deactivated")
    expect(page.locator("#state")).to_have_text("push is deactivated")
    page.reload()
    page.get_by_role("button", name="Activate").click()
    desk.confirm()
    expect(page.locator("#switch-state")).to_contain_text("Push is active")
    expect(page.locator("#state")).to_have_text("live")
    page.locator("#timeout").fill("7")
    page.get_by_role("button", name="Change the timeout").click()
    desk.confirm()
    expect(page.locator("#switch-state")).to_contain_text("7 s")
    comet_.activation.set_timeout(8)
    expect(page.locator("#timeout")).to_have_value("8")
    desk.expect_actions("deactivate", "activate", "timeout")
    desk.check()
    page.context.close()


def test_the_last_failure_of_a_source_is_shown_as_text(
    browser: Browser, comet_: Comet, at: Address
) -> None:
    @comet_.channel("fails", size=5)
    async def fails() -> AsyncIterator[int]:
        raise RuntimeError(HOSTILE)
        yield 0

    del fails
    desk = open_desk(browser, at.url)
    page = desk.page
    desk.sign_in(TOKEN_OF["operate"])
    desk.show("channels")
    page.get_by_role("button", name="fails").click()
    members = page.locator("#members-list")
    expect(members).to_contain_text(re.compile("restarts|reads"))
    while not page.locator("#fault").text_content():  # it may be about to fail
        members.get_by_role("button", name="fails").click()
    expect(page.locator("#fault")).to_contain_text(f"RuntimeError: {HOSTILE}")
    assert page.locator("img").count() == 0
    desk.check()
    page.context.close()


def test_a_message_is_published_and_a_tab_is_acted_on(
    browser: Browser, comet_: Comet, at: Address
) -> None:
    rooms = comet_.family("room:{room}", type=int)
    kept = rooms.channel(room="blue")
    tab = Tab(at)
    desk = open_desk(browser, at.url)
    page = desk.page
    desk.sign_in(TOKEN_OF["contents"])
    desk.show("channels")
    page.get_by_role("button", name="room:{room}").click()
    expect(page.locator("#members-title")).to_be_focused()
    page.get_by_role("button", name="room:blue").click()
    for text, said in (('"two"', "not done: "), ("2", "done: publish")):
        page.get_by_label("Publish, as JSON").fill(text)
        page.get_by_role("button", name="Publish").click()
        desk.confirm()
        expect(page.get_by_role("alert")).to_contain_text(said)
    desk.wrong.remove(next(text for text in desk.wrong if "422" in text))
    expect(page.locator("#tail li")).to_have_count(1)
    assert kept.reference("first")["position"].endswith(".0")
    with Sse.open(at, ["room:blue"]):  # without a message
        expect(page.locator("#channel-figures")).to_contain_text("listeners: 1 ")
    page.get_by_role("button", name="(created)").click()
    expect(page.locator("#channel")).to_be_hidden()
    desk.show("people")
    for action in ("test-message", "revoke", "close-tab"):
        page.get_by_role("button", name=re.compile("of a visitor")).click()
        page.locator("#choice").select_option(action)
        if action == "revoke":
            page.locator("#revoked").fill("room:{room}")
            page.locator("#revoked").press("Enter")
        else:
            desk.confirm()
        expect(page.get_by_role("alert")).to_have_text(f"done: {action}")
    expect(page.locator("#people-list .space .row")).to_have_count(0)
    assert tab.post(f"{tab.url}/poll", {"channels": {"x": "now"}}).status == 410
    desk.expect_actions("publish", "test-message", "revoke", "close-tab")
    desk.check()
    page.context.close()


def test_with_the_keyboard_on_a_phone_in_the_dark(browser: Browser, at: Address) -> None:
    desk = open_desk(browser, at.url, viewport={"width": 390, "height": 800}, color_scheme="dark")
    page = desk.page
    desk.sign_in(TOKEN_OF["operate"])
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 16, 25)"
    page.keyboard.press("Tab")
    for screen in SCREENS:
        for _ in range(20):
            if page.evaluate("document.activeElement.hash") == f"#{screen}":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator(f"#{screen}")).to_be_visible()
        # The browser goes to the fragment first, and the page then moves the focus.
        page.wait_for_function("document.activeElement.tagName === 'MAIN'")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.evaluate("document.activeElement.blur()")
    desk.show("now")
    page.locator("#switch").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#ask")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#switch-state")).to_contain_text("deactivated")
    desk.check()
    page.context.close()


@pytest.mark.parametrize("transport", ["sse", "poll"])
def test_who_may_only_look_is_shown_nothing_else(
    browser: Browser, comet_: Comet, transport: str
) -> None:
    network = Network(application(comet_))
    network.only(transport)
    with serve(network) as at:
        desk = open_desk(browser, at.url)
        desk.sign_in(TOKEN_OF["look"])
        look_around(desk)
    assert network.tried[transport]


def look_around(desk: Desk) -> None:
    for name in ("#switch", "#timeout-form", "nav a[href='#people']", "nav a[href='#events']"):
        expect(desk.page.locator(name)).to_be_hidden()
    desk.show("channels")
    expect(desk.page.get_by_role("button", name="(created)")).to_be_visible()
    assert not any("policy" in text for text in desk.wrong)  # but blocked transports
    desk.page.get_by_role("button", name="Sign out").click()
    expect(desk.page.get_by_label("Admin token")).to_be_visible()
    desk.page.context.close()


def test_a_page_outlives_the_server_and_a_reload_forgets_nothing(
    browser: Browser, own_server: Server
) -> None:
    own_server.start()
    desk = open_desk(browser, own_server.url)
    page = desk.page
    desk.sign_in(TOKEN)
    line = page.locator("#listeners-chart path")
    expect(line).to_have_attribute("d", re.compile("L.*L"))  # three samples
    page.reload()
    expect(line).to_have_attribute("d", re.compile("L.*L"))
    own_server.stop()
    expect(page.locator("#state")).not_to_have_text("live")
    own_server.start()
    expect(page.locator("#state")).to_have_text("live", timeout=30_000)
    expect(line).to_have_attribute("d", re.compile("L.*L.*L"))
    assert not any("policy" in text for text in desk.wrong)  # but refused connections
    page.context.close()
    own_server.stop()


def test_each_of_three_workers_is_shown(browser: Browser, redis: RedisServer) -> None:
    workers = Workers(3, redis)
    comet = workers.make(admin=TOKENS)
    comet.identify(lambda _: "ada")
    with workers.serve(application, comet) as address:
        for _ in range(3):
            Tab(address)
        desk = open_desk(browser, address.url)
        desk.sign_in(TOKEN_OF["operate"])
        desk.show("workers")
        expect(desk.page.locator("#workers-list .space .row")).to_have_count(3)
        names = set(desk.page.locator("#workers-list .row > :first-child").all_inner_texts())
        desk.show("people")
        worker = desk.page.locator("#people-list .space .row > :last-child")
        expect(worker.first).to_contain_text(":")
        assert set(worker.all_inner_texts()) <= names
        desk.show("now")
        expect(desk.page.locator("#users")).to_contain_text("≤ ")  # ada may be known to each
        desk.check()
        desk.page.context.close()


def test_a_page_that_comes_back_to_another_worker_shows_each_event_once(
    browser: Browser, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "LIFE", 2.0)
    monkeypatch.setattr(websocket, "HEARTBEAT", 1.0)  # when it first looks at its life
    workers = Workers(3, redis)
    comet = workers.make(admin=TOKENS)
    with workers.serve(application, comet) as address:
        desk = open_desk(browser, address.url)
        desk.sign_in(TOKEN_OF["operate"])
        desk.expect_actions("sign-in")
        for _ in range(3):
            desk.page.wait_for_event("websocket")
        expect(desk.page.locator("#state")).to_have_text("live")
        expect(desk.page.get_by_text("action: sign-in ")).to_have_count(1)
        desk.page.context.close()


@pytest.fixture
def comet_() -> Comet:
    return Comet(KEY, admin=TOKENS)


@pytest.fixture
def at(comet_: Comet) -> Iterator[Address]:
    with serve(application(comet_)) as server:
        yield server
