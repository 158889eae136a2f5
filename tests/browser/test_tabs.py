"""What belongs to one tab of the demo, and what to all: two tabs of one browser."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import run_demo

pytestmark = pytest.mark.browser

A_NUMBER = re.compile(r"[0-9.]+")

# Notes every value that attributes of an element ever have; a look at the page finds only the last.
RECORD = """([id, ...names]) => {
    const element = document.getElementById(id)
    window.seen = Object.fromEntries(names.map((name) => [name, []]))
    // Two changes in one turn are told together: what the first one made is the second's old value.
    new MutationObserver((changes) => {
        for (const name of names) {
            const values = changes.filter((change) => change.attributeName === name)
                .map((change) => change.oldValue)
            if (values.length) seen[name].push(...values.slice(1), element.getAttribute(name))
        }
    }).observe(element, {attributeFilter: names, attributeOldValue: true})
}"""


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """Run the demo with jobs that are soon done."""
    yield from run_demo(sys.executable, "-m", "uvicorn", "tests.kit.hurried_demo:app")


def open_demo(page: Page, demo: str) -> None:
    page.goto(demo)
    expect(page.locator("#state")).to_have_attribute("data-state", "online")
    expect(page.locator("#me")).to_have_attribute("data-tabs", A_NUMBER)


def me(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.evaluate("({...document.getElementById('me').dataset})")
    return found


def test_two_tabs_of_one_browser_never_get_each_others_job(demo: str, page: Page) -> None:
    other = page.context.new_page()
    for one in (page, other):
        open_demo(one, demo)
        one.evaluate(RECORD, ["job-progress", "data-tab", "data-value"])
    for one in (page, other):
        one.click("#job-start")
    for one in (page, other):
        expect(one.locator("#job-progress")).to_have_attribute("data-value", "100", timeout=30_000)
        expect(one.locator("#job-start")).to_be_enabled()
        expect(one.locator("#job-note")).to_be_empty()
        seen = one.evaluate("seen")
        assert set(seen["data-tab"]) == {me(one)["process"]}
        assert [int(value) for value in seen["data-value"]] == list(range(2, 101, 2))
    assert me(page)["process"] != me(other)["process"]
    assert page.inner_text("#job-pi") != other.inner_text("#job-pi")


def test_a_job_reaches_only_the_tab_that_started_it(demo: str, page: Page) -> None:
    other = page.context.new_page()
    for one in (page, other):
        open_demo(one, demo)
    page.click("#job-start")
    expect(page.locator("#job-progress")).to_have_attribute("data-value", "100", timeout=30_000)
    expect(other.locator("#job-progress")).to_have_attribute("data-value", "0")

    page.click("#job-start")  # a second one, in the place of the first
    expect(page.locator("#job-start")).to_be_disabled()
    expect(page.locator("#job-progress")).not_to_have_attribute("data-value", "100")


def test_tabs_are_of_one_session_and_know_how_many_they_are(demo: str, page: Page) -> None:
    open_demo(page, demo)
    expect(page.locator("#me")).to_have_attribute("data-tabs", "1")
    other = page.context.new_page()
    open_demo(other, demo)
    for one in (page, other):
        expect(one.locator("#me")).to_have_attribute("data-tabs", "2")
    assert me(page)["session"] == me(other)["session"]
    assert me(page)["process"] != me(other)["process"]

    other.goto("about:blank")  # it says goodbye
    expect(page.locator("#me")).to_have_attribute("data-tabs", "1")


def test_the_gauge_moves(demo: str, page: Page) -> None:
    open_demo(page, demo)
    gauge = page.locator("#gauge")
    expect(gauge).to_have_attribute("data-value", A_NUMBER)
    for _ in range(2):
        before = gauge.get_attribute("data-value")
        assert before is not None
        expect(gauge).not_to_have_attribute("data-value", before)


def test_a_tab_goes_on_where_it_was_when_push_is_switched_on_again(demo: str, page: Page) -> None:
    open_demo(page, demo)
    page.evaluate(RECORD, ["job-progress", "data-value"])
    page.click("#job-start")
    expect(page.locator("#job-progress")).not_to_have_attribute("data-value", "0")
    page.click("#deactivate")
    expect(page.locator("#state")).to_have_attribute("data-state", "deactivated")
    page.click("#activate")
    expect(page.locator("#job-progress")).to_have_attribute("data-value", "100", timeout=30_000)
    assert [int(value) for value in page.evaluate("seen['data-value']")] == list(range(2, 101, 2))


def test_a_tab_whose_network_fails_goes_on_where_it_was(demo: str, page: Page) -> None:
    open_demo(page, demo)
    page.evaluate(RECORD, ["job-progress", "data-value"])
    page.click("#job-start")
    expect(page.locator("#job-progress")).not_to_have_attribute("data-value", "0")
    page.context.set_offline(True)
    expect(page.locator("#state")).to_have_attribute("data-state", "offline")
    page.context.set_offline(False)
    expect(page.locator("#job-progress")).to_have_attribute("data-value", "100", timeout=30_000)
    assert [int(value) for value in page.evaluate("seen['data-value']")] == list(range(2, 101, 2))


def test_a_tab_that_the_server_closed_opens_a_new_process(demo: str, page: Page) -> None:
    open_demo(page, demo)
    before = me(page)
    page.evaluate(
        """fetch(JSON.parse(document.getElementById("comet").textContent).url + "/close",
            {method: "POST"})"""
    )
    expect(page.locator("#me")).not_to_have_attribute("data-process", before["process"])
    assert me(page)["session"] == before["session"]
    page.click("#job-start")
    expect(page.locator("#job-progress")).not_to_have_attribute("data-value", "0")
    if target := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{target}/demo-tab.png", full_page=True)


def test_two_tabs_side_by_side_are_two_of_one_browser(demo: str, page: Page) -> None:
    page.goto(f"{demo}/two")
    for frame in page.frames[1:]:
        expect(frame.locator("#me")).to_have_attribute("data-tabs", "2")
    one, other = page.frames[1:]
    one.click("#job-start")
    expect(one.locator("#job-progress")).to_have_attribute("data-value", "100", timeout=30_000)
    expect(other.locator("#job-progress")).to_have_attribute("data-value", "0")
    if target := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{target}/demo-two.png")
