"""The notification centre of the demo: two browsers, Alice's and Bob's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.kit.visitors import TOPICS, Visitor, browser_of

pytestmark = pytest.mark.browser


@pytest.fixture
def alice(demo: str, browser: Browser) -> Iterator[Visitor]:
    with browser_of(browser, "alice", demo) as visitor:
        visitor.expect_room("open")
        yield visitor


@pytest.fixture
def bob(demo: str, browser: Browser, alice: Visitor) -> Iterator[Visitor]:
    with browser_of(browser, "bob", demo) as visitor:
        visitor.expect_room("open")
        yield visitor


# Notes


def test_a_note_reaches_everybody_but_the_tab_that_it_comes_from(
    alice: Visitor, bob: Visitor, demo: str
) -> None:
    second = alice.another_tab(demo)
    second.expect_to_be("alice")
    second.look()
    alice.write("lunch", "from Alice")
    bob.expect_note("from Alice")
    second.expect_note("from Alice")
    bob.write("releases", "from Bob")
    for one in (alice, second):
        one.expect_note("from Alice")
        one.expect_note("from Bob")
        one.expect_unread(1)  # her own does not count
    bob.expect_unread(1)
    assert alice.heard == ["from Bob"]
    assert second.heard == ["from Alice", "from Bob"]
    assert bob.heard == ["from Alice"]


def test_each_tab_counts_what_it_has_not_looked_at(alice: Visitor, bob: Visitor, demo: str) -> None:
    second = bob.another_tab(demo)
    second.expect_to_be("bob")
    second.look()
    for n in (1, 2):
        alice.write("lunch", f"count {n}")
        bob.expect_unread(n)
        second.expect_unread(n)
    expect(bob.page).to_have_title("(2) asgi_comet · notifications")
    bob.look()
    alice.write("lunch", "count 3")
    second.expect_unread(3)
    bob.expect_unread(1)


def test_only_who_follows_a_topic_is_told(alice: Visitor, bob: Visitor, demo: str) -> None:
    second = bob.another_tab(demo)
    second.expect_to_be("bob")
    bob.follow("lunch", follows=False)
    expect(second.page.locator("[data-follow=lunch]")).not_to_be_checked()
    alice.write("lunch", "not followed")
    alice.write("releases", "followed")
    for one in (bob, second):
        one.expect_note("followed")
        assert one.heard == ["followed"]
    bob.follow("lunch", follows=True)
    alice.write("lunch", "followed again")
    for one in (bob, second):
        one.expect_note("followed again")
        assert one.heard == ["followed", "followed again"]


def test_one_who_follows_nothing_may_begin_to(alice: Visitor, bob: Visitor) -> None:
    for topic in TOPICS:
        bob.follow(topic, follows=False)
    bob.page.reload()
    bob.expect_to_be("bob")
    bob.follow("lunch", follows=True)
    alice.write("lunch", "the first")
    bob.expect_note("the first")


def test_a_note_is_prepared_for_each_user(alice: Visitor, bob: Visitor) -> None:
    alice.write("lunch", "Soup, Bob?")
    note = bob.page.locator("#notes li").filter(has_text="Soup, Bob?")
    expect(note.locator(".by b")).to_have_text("Alice")
    expect(note).to_contain_class("mentioned")
    note = alice.page.locator("#notes li").filter(has_text="Soup, Bob?")
    expect(note.locator(".by b")).to_have_text("You")
    expect(note).not_to_contain_class("mentioned")


def test_a_private_topic_is_hidden_from_who_is_no_member(alice: Visitor, bob: Visitor) -> None:
    alice.page.click("#right")
    bob.expect_room("forbidden")
    expect(bob.page.locator("[data-follow=board]")).to_have_count(0)
    alice.write("board", "secret")
    alice.write("lunch", "public")
    bob.expect_note("public")
    assert bob.heard == ["public"]
    bob.page.reload()
    bob.expect_to_be("bob")
    bob.expect_note("public")
    bob.expect_note("secret", 0)

    alice.page.click("#right")
    bob.expect_room("open")
    bob.expect_note("secret")
    alice.write("board", "for members")
    bob.expect_note("for members")
    assert bob.heard == ["public", "for members"]


# Receipts


def test_the_author_is_told_who_has_seen_a_note(alice: Visitor, bob: Visitor) -> None:
    bob.follow("lunch", follows=False)
    alice.write("lunch", "to nobody")
    bob.follow("lunch", follows=True)
    alice.write("lunch", "to Bob")
    alice.expect_seen("to Bob", "seen by Bob")
    alice.expect_seen("to nobody", "")
    bob.expect_seen("to Bob", "")
    for one, name, seen in ((alice, "alice", "seen by Bob"), (bob, "bob", "")):
        one.page.reload()
        one.expect_to_be(name)
        one.expect_seen("to Bob", seen)
        one.expect_seen("to nobody", "")


def test_a_note_to_a_tab_that_is_away_is_seen_when_it_is_back(alice: Visitor, bob: Visitor) -> None:
    bob.page.context.set_offline(True)
    expect(bob.page.locator("#banner")).to_have_text("No connection; we keep trying.")
    alice.write("lunch", "while away")
    alice.expect_seen("while away", "")
    bob.page.context.set_offline(False)
    bob.expect_note("while away")
    alice.expect_seen("while away", "seen by Bob")


# Users


def test_other_tabs_are_told_that_somebody_logged_in_or_out(
    alice: Visitor, bob: Visitor, demo: str
) -> None:
    second = alice.another_tab(demo)
    second.expect_to_be("alice")
    told = second.page.locator("#told")
    expect(told).to_be_empty()
    alice.become("")
    expect(told).to_have_text("You are logged out.")
    second.expect_to_be("")
    expect(second.page.locator("#notes")).to_be_hidden()
    alice.become("alice")
    expect(told).to_have_text("You are now Alice.")
    second.expect_to_be("alice")
    alice.become("bob")
    expect(told).to_have_text("You are now Bob.")
    second.expect_to_be("bob")
    bob.write("lunch", "to myself")
    for one in (alice, second):
        note = one.page.locator("#notes li").filter(has_text="to myself")
        expect(note.locator(".by b")).to_have_text("You")


def test_a_user_that_comet_has_forgotten_is_brought_back(
    alice: Visitor, bob: Visitor, demo: str
) -> None:
    bob.page.context.clear_cookies(name="comet")  # as when the server was restarted
    bob.open(demo)
    bob.expect_to_be("bob")
    alice.write("lunch", "still here?")
    bob.expect_note("still here?")
    alice.expect_seen("still here?", "seen by Bob")


def test_a_new_browser_is_alices_until_it_logs_out(demo: str, page: Page) -> None:
    visitor = Visitor(page, demo)
    visitor.expect_to_be("alice")
    visitor.expect_note("The market at noon, Alice?")
    visitor.expect_room("open")
    visitor.become("")
    page.reload()
    visitor.expect_to_be("")
    visitor.become("bob")
    page.reload()
    visitor.expect_to_be("bob")
    assert visitor.errors == []


def test_two_host_names_are_two_users(alice: Visitor, demo: str) -> None:
    with alice.page.context.expect_page() as opened:
        alice.page.click("text=Bob's page")
    other = demo.replace("127.0.0.1", "localhost")
    assert urlsplit(opened.value.url).netloc == urlsplit(other).netloc
    expect(opened.value.locator("#who-name")).to_have_text("Bob")
    opened.value.close()
    second = alice.another_tab(other)
    second.expect_to_be("bob")
    second.expect_room("open")
    second.write("lunch", "from the other host")
    alice.expect_note("from the other host")
    alice.expect_to_be("alice")
    second.expect_seen("from the other host", "seen by Alice")
    assert second.errors == []


def test_a_visitor_is_told_nothing(alice: Visitor, bob: Visitor, demo: str, page: Page) -> None:
    visitor = Visitor(page, demo)
    visitor.become("")
    for element in page.locator(".for-users").all():
        expect(element).to_be_hidden()
    ask = page.request
    assert ask.get(f"{demo}/centre").status == 401
    assert ask.post(f"{demo}/topics/lunch", data={"text": "x"}).status == 401
    assert ask.put(f"{demo}/members/bob").status == 401
    assert ask.post(f"{demo}/login", data={"user": "mallory"}).status == 422
    ask = bob.page.request
    assert ask.delete(f"{demo}/members/alice").status == 403
    assert ask.post(f"{demo}/topics/lunch", data={"text": " "}).status == 422
    alice.page.click("#right")
    bob.expect_room("forbidden")
    assert ask.post(f"{demo}/topics/board", data={"text": "x"}).status == 403


# The room


def test_a_right_that_is_taken_away_ends_the_delivery_at_once(alice: Visitor, bob: Visitor) -> None:
    bob.wait_for_figures(1)
    alice.page.click("#right")
    bob.expect_room("forbidden")
    expect(bob.page.locator("#room-note")).to_have_text("forbidden: you may not read this.")
    last = bob.figures
    alice.wait_for_figures(2)
    assert bob.figures == last
    bob.page.reload()  # it asks again
    bob.expect_room("forbidden")
    assert bob.figures == 0

    alice.page.click("#right")
    bob.expect_room("open")
    bob.wait_for_figures(1)


# A page that goes and comes


def test_a_reload_loses_nothing_that_matters(alice: Visitor, bob: Visitor, demo: str) -> None:
    alice.write("lunch", "before")
    bob.expect_unread(1)
    bob.follow("board", follows=False)
    bob.page.reload()
    bob.expect_to_be("bob")
    bob.expect_unread(1)
    bob.expect_note("before")
    expect(bob.page.locator("[data-follow=board]")).not_to_be_checked()
    expect(bob.page.locator("[data-follow=lunch]")).to_be_checked()
    bob.look()
    bob.page.goto("about:blank")
    alice.write("lunch", "meanwhile")
    bob.open(demo)
    bob.expect_unread(1)
    bob.expect_note("meanwhile")
    alice.write("lunch", "after")
    bob.expect_unread(2)
    expect(bob.page.locator("#told")).to_be_empty()


def test_push_that_is_switched_off_is_told_and_loses_no_note(
    alice: Visitor, bob: Visitor, demo: str, page: Page
) -> None:
    page.goto(demo)
    page.click("#deactivate")
    expect(bob.page.locator("#banner")).to_have_text("Push is switched off.")
    alice.write("lunch", "while it is off")
    page.click("#activate")
    expect(page.locator("#status")).to_have_attribute("data-active", "true")
    bob.page.evaluate("dispatchEvent(new Event('online'))")
    expect(bob.page.locator("#banner")).to_be_empty()
    bob.expect_note("while it is off")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_does_not_scroll_sideways(alice: Visitor, scheme: str) -> None:
    alice.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    alice.page.set_viewport_size({"width": 390, "height": 800})
    alice.write("board", "W" * 280)
    assert alice.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if target := os.environ.get("SCREENSHOTS"):
        alice.page.screenshot(path=f"{target}/notifications-{scheme}.png", full_page=True)
