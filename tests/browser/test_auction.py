"""The pages of the auction house, examples/auction, as its users see them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from asgi_comet.testing import wait_for_listeners
from tests.kit.programs import MODULES, need_modules
from tests.kit.serving import Address, serve
from tests.kit.streams import PATIENCE

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="window.hit = 1"><script>window.hit = 1</script>'


class House:
    """The auction house, and a browser for each of its users.

    Args:
        address: The server.
        browser: What runs the browsers.
    """

    def __init__(self, address: Address, browser: Browser) -> None:
        self.url = address.url
        self.browser = browser
        self.contexts: dict[str, BrowserContext] = {}
        self.errors: list[str] = []

    def enter(self, user: str, path: str = "/rooms/1") -> Page:
        """Open a page in a new tab of a user's browser."""
        if user not in self.contexts:
            self.contexts[user] = self.browser.new_context(viewport={"width": 1180, "height": 800})
            answer = self.contexts[user].request.post(f"{self.url}/login/{user}")
            assert answer.ok
        page = self.contexts[user].new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(self.url + path)
        return page

    def post(self, user: str, path: str, value: Any) -> None:
        answer = self.contexts[user].request.post(f"{self.url}/rooms/{path}", data=value)
        assert answer.status == 201, answer.text()


@pytest.fixture
def house(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    need_modules()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE", str(tmp_path_factory.mktemp("auction") / "auction.sqlite"))
        from examples.auction import main, store

        patch.setattr(main, "HTMX", MODULES / "htmx.org/dist/htmx.min.js")
        patch.setattr(main, "PACE", 0.01)
        with store.transaction() as connection:
            connection.execute("DELETE FROM entries")
        with serve(main.app) as address:
            house = House(address, browser)
            yield house
            for context in house.contexts.values():
                context.close()
    assert house.errors == []


def say(page: Page, text: str) -> None:
    page.fill("#say input", text)
    page.press("#say input", "Enter")
    expect(page.locator("#say input")).to_have_value("")


def expect_entries(page: Page, *texts: str) -> None:
    expect(page.locator("#entries li")).to_have_text(list(texts), use_inner_text=True)


def test_members_see_what_is_said_and_bid(house: House) -> None:
    ada, bob = house.enter("ada"), house.enter("bob")
    say(ada, HOSTILE)
    bob.fill("#bid input", "20")
    bob.click("#bid button")
    for page in (ada, bob):
        expect_entries(page, f"ada {HOSTILE}", "bob bids 20 €")
        expect(page.locator("#price")).to_have_text("20")
    ada.fill("#bid input", "20")
    ada.click("#bid button")
    expect(ada.locator("#refused")).to_have_text("There is a bid that is as high.")
    ada.reload()
    expect_entries(ada, f"ada {HOSTILE}", "bob bids 20 €")
    expect(ada.locator("#price")).to_have_text("20")
    assert [page.evaluate("window.hit") for page in (ada, bob)] == [None, None]
    if target := os.environ.get("SCREENSHOTS"):
        take_screenshots(ada, target, "room")


def take_screenshots(page: Page, target: str, name: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        for width in (1180, 390):
            page.set_viewport_size({"width": width, "height": 800})
            page.screenshot(path=f"{target}/auction-{name}-{scheme}-{width}.png", full_page=True)


def test_a_room_is_closed_to_others(house: House) -> None:
    eve = house.enter("eve")
    expect(eve.locator("body")).to_contain_text("This room is for its members.")
    eve.goto(house.url)
    expect(eve.locator("a.card")).to_have_count(1)


VIEWS = pytest.mark.parametrize("path", ["/rooms/1", "/rooms/1/board"])


@VIEWS
def test_pages_that_load_while_messages_come_miss_none_and_show_none_twice(
    house: House, path: str
) -> None:
    ada = house.enter("ada", path)
    count = 60
    over = threading.Event()

    def publish() -> None:
        from examples.auction import main

        for n in range(count):
            main.say(1, "bob", str(n))
            over.wait(0.02)

    publisher = threading.Thread(target=publish)
    publisher.start()
    pages = [ada]
    while publisher.is_alive() and len(pages) < 5:  # a browser has six connections for htmx
        pages.append(house.enter("ada", path))
    publisher.join()
    assert len(pages) > 2
    for page in pages:
        expect_entries(page, *[f"bob {n}" for n in range(count)])


@VIEWS
def test_an_entry_committed_before_and_published_after_the_history_was_read_is_shown_once(
    house: House, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples.auction import main, push

    committed, loaded = threading.Event(), threading.Event()
    publish = push.rooms.publish

    def publish_late(*args: Any, **words: Any) -> Any:
        committed.set()
        loaded.wait(PATIENCE)
        return publish(*args, **words)

    monkeypatch.setattr(push.rooms, "publish", publish_late)
    publisher = threading.Thread(target=main.say, args=(1, "bob", "between"))
    publisher.start()
    assert committed.wait(PATIENCE)
    page = house.enter("ada", path)
    expect_entries(page, "bob between")
    loaded.set()
    publisher.join()
    house.post("ada", "1/said", "after")
    expect_entries(page, "bob between", "ada after")


def test_a_notice_reaches_all_tabs_of_one_user_and_no_other(house: House) -> None:
    one, other = house.enter("ada"), house.enter("ada", "/rooms/2")
    bob, eve = house.enter("bob"), house.enter("eve", "/rooms/2")
    for page in (one, other, bob, eve):
        expect(page.locator("#here")).not_to_be_empty()  # it is connected
    house.post("ada", "1/bids", 10)
    house.post("bob", "1/bids", 20)
    for page in (one, other):
        expect(page.locator("#notices li")).to_have_text(
            ["A brass sextant, about 1810 You are outbid: 20 €"]
        )
    house.post("ada", "1/bids", 30)
    expect(bob.locator("#notices li")).to_contain_text(["30 €"])
    house.post("eve", "2/bids", 10)
    house.post("ada", "2/bids", 11)
    expect(eve.locator("#notices li")).to_contain_text(["11 €"])
    for page in (one, other):
        expect(page.locator("#notices li")).to_have_count(1)


def test_progress_is_shown_in_the_tab_that_asked(house: House) -> None:
    page, other = house.enter("ada"), house.enter("ada")
    page.click("#appraise")
    expect(page.locator("#progress")).to_have_js_property("value", 100)
    expect(page.locator("#appraise")).to_be_enabled()  # the end of the job ends the loop
    expect(other.locator("#progress")).to_have_js_property("value", 0)


def test_who_is_here_is_right_when_tabs_close_and_users_log_out(house: House) -> None:
    ada = house.enter("ada")
    expect(ada.locator("#here")).to_have_text("ada")
    one, other = house.enter("bob"), house.enter("bob")
    for page in (ada, one, other):
        expect(page.locator("#here")).to_have_text("ada, bob")
    one.goto("about:blank")
    other.goto("about:blank")
    expect(ada.locator("#here")).to_have_text("ada")
    again = house.enter("bob")
    expect(ada.locator("#here")).to_have_text("ada, bob")
    ada.click("text=Log out ada")
    expect(again.locator("#here")).to_have_text("bob")


def test_a_page_begins_anew_when_its_user_logs_out_in_another_tab(house: House) -> None:
    page, other = house.enter("ada"), house.enter("ada")
    expect(page.locator("#here")).to_have_text("ada")
    other.click("text=Log out ada")
    expect(page.locator("body")).to_contain_text("This room is for its members.")


def test_the_board_shows_what_is_said_as_text(house: House) -> None:
    from examples.auction import push

    lobby = house.enter("bob", "/")
    house.post("bob", "1/said", HOSTILE)
    board = house.enter("ada", "/rooms/1/board")
    wait_for_listeners(push.rooms.channel(room=1), 1)
    house.post("bob", "1/said", HOSTILE)
    house.post("bob", "1/bids", 10)
    expect_entries(board, *[f"bob {HOSTILE}"] * 2, "bob bids 10 €")
    assert board.locator("#entries img, #entries script").count() == 0
    assert board.evaluate("window.hit") is None
    if target := os.environ.get("SCREENSHOTS"):
        take_screenshots(board, target, "board")
        take_screenshots(lobby, target, "lobby")
