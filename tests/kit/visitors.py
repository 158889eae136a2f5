"""Visitors of the notification centre, each with a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, BrowserContext, Page, WebSocket, expect

TOPICS = ("lunch", "releases", "board")


class Visitor:
    """One tab of somebody; the server is that of all tests, so its notes may be there already.

    Args:
        page: The tab.
        demo: The URL of the demo.
        guest: Who a new browser is logged in as.

    Attributes:
        page: The tab.
        heard: The texts of the notes that came over its channel.
    """

    def __init__(self, page: Page, demo: str, guest: str = "alice") -> None:
        self.page = page
        self.heard: list[str] = []
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("websocket", self._listen)
        self.open(demo, guest)

    def open(self, demo: str, guest: str = "alice") -> None:
        self.page.goto(f"{demo}/notifications?guest={guest}")
        expect(self.page.locator("#state")).to_have_attribute("data-state", "online")

    def become(self, name: str) -> None:
        self.page.click(f'[data-become="{name}"]')
        self.expect_to_be(name)

    def expect_to_be(self, name: str) -> None:
        """Wait until the page is that user's, and complete."""
        expect(self.page.locator("#who-name")).to_have_text(name.capitalize() or "a visitor")
        expect(self.page.locator("#state")).to_have_attribute("data-state", "online")
        if name:
            expect(self.page.locator("[data-follow=lunch]")).to_be_visible()

    def follow(self, topic: str, *, follows: bool) -> None:
        box = self.page.locator(f"[data-follow={topic}]")
        box.set_checked(follows)
        expect(box).to_be_enabled()

    def write(self, topic: str, text: str) -> None:
        """Write a note, and wait until the server has it."""
        self.page.select_option("#write-topic", topic)
        self.page.fill("#write-text", text)
        self.page.press("#write-text", "Enter")
        expect(self.page.locator("#write-text")).to_have_value("")

    def expect_note(self, text: str, count: int = 1) -> None:
        expect(self.page.locator("#notes .text").get_by_text(text, exact=True)).to_have_count(count)

    def expect_seen(self, text: str, seen: str) -> None:
        note = self.page.locator("#notes li").filter(has_text=text)
        expect(note.locator(".seen")).to_have_text(seen)

    def expect_unread(self, count: int) -> None:
        expect(self.page.locator("#bell")).to_have_attribute("data-unread", str(count))

    def look(self) -> None:
        self.page.click("#bell")
        self.expect_unread(0)

    def expect_room(self, state: str) -> None:
        expect(self.page.locator("#room")).to_have_attribute("data-state", state)

    @property
    def figures(self) -> int:
        """How many it was told in the room."""
        return int(self.page.get_attribute("#room-cash", "data-count") or 0)

    def wait_for_figures(self, more: int) -> None:
        for _ in range(more):
            seen = str(self.figures)
            expect(self.page.locator("#room-cash")).not_to_have_attribute("data-count", seen)

    def another_tab(self, demo: str) -> Visitor:
        return Visitor(self.page.context.new_page(), demo)

    def _listen(self, socket: WebSocket) -> None:
        def hear(frame: str | bytes) -> None:
            for event in json.loads(frame).get("events", ()):
                if event["channel"] == "~messages" and "data" in event:
                    self.heard.append(event["data"]["value"]["text"])

        socket.on("framereceived", hear)


@contextmanager
def browser_of(browser: Browser, name: str, demo: str) -> Iterator[Visitor]:
    """The browser of somebody who follows everything and has read it all."""
    context = browser.new_context(viewport={"width": 1180, "height": 900})
    visitor = Visitor(context.new_page(), demo, name)
    visitor.expect_to_be(name)
    right = visitor.page.locator("#right")
    if name == "alice" and right.inner_text() == "Give it back":
        right.click()
        expect(right).to_have_text("Take Bob's right away")
    for topic in TOPICS:
        visitor.follow(topic, follows=True)
    visitor.look()
    yield visitor
    leave(context)
    assert visitor.errors == []


def leave(context: BrowserContext) -> None:
    """Say goodbye: who is still there in the next test is asked for receipts."""
    for page in context.pages:
        page.goto("about:blank")
    context.close()
