"""The demo as a visitor sees it: `scripts/demo` and headless Chromium."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import Page, expect

COUNT = "Number(document.getElementById('cpu-value').dataset.count)"


def wait_for_figures(page: Page, more: int = 2) -> None:
    for _ in range(more):
        seen = page.evaluate(COUNT)
        expect(page.locator("#cpu-value")).not_to_have_attribute("data-count", str(seen))


@pytest.mark.browser
def test_figures_move_and_the_switch_stops_and_resumes_them(demo: str, page: Page) -> None:
    page.goto(demo)
    state = page.locator("#state")
    expect(state).to_have_attribute("data-state", "live")
    wait_for_figures(page)
    for figure in ("#cpu-value", "#memory-value", "#network-value"):
        expect(page.locator(figure)).not_to_be_empty()

    page.click("#deactivate")
    expect(state).to_have_attribute("data-state", "deactivated")
    expect(page.locator("#status")).to_have_attribute("data-active", "false")
    stopped = page.evaluate(COUNT)

    page.click("#activate")
    expect(state).to_have_attribute("data-state", "live", timeout=15_000)
    wait_for_figures(page)
    assert page.evaluate(COUNT) > stopped


@pytest.mark.browser
def test_the_form_writes_to_everyone(demo: str, page: Page) -> None:
    other = page.context.new_page()
    for one in (page, other):
        one.goto(demo)
        expect(one.locator("#state")).to_have_attribute("data-state", "live")
    text = "<b>héllo</b> 🎈 a:b"
    page.fill("#wall-text", text)
    page.press("#wall-text", "Enter")
    for one in (page, other):
        expect(one.locator("#wall-list").get_by_text(text)).to_be_visible()
        expect(one.locator("#wall-list b")).to_have_count(0)


@pytest.mark.browser
def test_the_operator_changes_the_timeout_by_form_and_by_command(demo: str, page: Page) -> None:
    page.goto(demo)
    expect(page.locator("#state")).to_have_attribute("data-state", "live")
    page.fill("#timeout-seconds", "7")
    page.check("#timeout-kill")
    page.click("#set-timeout")
    expect(page.locator("#status")).to_contain_text("timeout7 s")
    page.fill("#command", "comet:set_timeout 20 KILL")
    page.click("#run-command")
    expect(page.locator("#status")).to_contain_text("timeout20 s")
    wait_for_figures(page)


@pytest.mark.browser
def test_a_narrow_screen_does_not_scroll_sideways(demo: str, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(demo)
    wait_for_figures(page, 1)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if target := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{target}/demo-narrow.png", full_page=True)
