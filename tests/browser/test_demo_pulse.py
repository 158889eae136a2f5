"""The promise, as the first page of the demo shows it: the line is cut, and nothing is missing."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, WebSocket, expect

pytestmark = pytest.mark.browser


class Wire:
    """The WebSockets of a page, and the numbers that came over them."""

    def __init__(self, page: Page) -> None:
        self.sockets: list[WebSocket] = []
        self.numbers: list[int] = []
        page.on("websocket", self._listen)

    def _listen(self, socket: WebSocket) -> None:
        self.sockets.append(socket)
        socket.on("framereceived", self._hear)

    def _hear(self, frame: str | bytes) -> None:
        for event in json.loads(frame).get("events", ()):
            if event["channel"] == "pulse" and "data" in event:
                self.numbers.append(event["data"])


def open_demo(page: Page, demo: str) -> None:
    page.goto(demo)
    expect(page.locator("#state")).to_have_attribute("data-state", "online")
    expect(page.locator("#pulse")).to_have_attribute("data-received", re.compile("[1-9]"))


def figures(page: Page) -> dict[str, int]:
    found: dict[str, str] = page.evaluate("({...document.getElementById('pulse').dataset})")
    return {name: int(value) for name, value in found.items()}


def cut(page: Page, seconds: float) -> None:
    """Cut the line for another time than the button says."""
    button = page.locator("[data-cut]").first
    button.evaluate("(button, seconds) => { button.dataset.cut = seconds }", seconds)
    button.click()


def wait_until_back(page: Page) -> None:
    expect(page.locator("#pulse")).to_have_attribute("data-round", "1", timeout=60_000)
    expect(page.locator("#state")).to_have_attribute("data-state", "online")


def test_a_page_whose_line_is_cut_misses_nothing_and_catches_up(demo: str, page: Page) -> None:
    wire = Wire(page)
    open_demo(page, demo)
    assert len(wire.sockets) == 1
    page.click("text=Cut the line for 5 seconds")
    expect(page.locator("#pulse-says")).to_contain_text("Cut. The line is whole again in")
    expect(page.locator("#state")).not_to_have_attribute("data-state", "online")
    assert wire.sockets[0].is_closed()

    wait_until_back(page)
    expect(page.locator("#pulse-missing")).to_have_text("0")
    expect(page.locator("#pulse-says")).to_contain_text("none are missing")
    shown = figures(page)
    assert shown["missing"] == 0
    assert shown["caught"] > 0
    assert page.inner_text("#pulse-caught") == str(shown["caught"])
    first = wire.numbers[0]
    assert wire.numbers == list(range(first, first + len(wire.numbers)))
    assert len(wire.sockets) > 1


def test_a_cut_ends_an_event_stream_as_well(demo: str, page: Page) -> None:
    page.route_web_socket("**/socket", lambda socket: socket.close())
    open_demo(page, demo)
    cut(page, 2)
    wait_until_back(page)
    shown = figures(page)
    assert shown["missing"] == 0
    assert shown["caught"] > 0


def test_a_cut_is_for_the_tab_that_asks_alone(demo: str, page: Page) -> None:
    other = page.context.new_page()
    for one in (page, other):
        open_demo(one, demo)
    cut(page, 1)
    wait_until_back(page)
    assert figures(other)["round"] == 0
    assert page.request.post(f"{demo}/cut?seconds=61").status == 422


@pytest.mark.slow
def test_a_page_that_was_cut_off_for_too_long_is_told_what_is_gone(demo: str, page: Page) -> None:
    open_demo(page, demo)
    cut(page, 20)  # the server keeps ten seconds
    wait_until_back(page)
    shown = figures(page)
    assert shown["missing"] > 0
    assert shown["caught"] > 0
    expect(page.locator("#pulse-says")).to_contain_text(
        f"{shown['missing']} were no longer held, and the page was told so."
    )
