"""The demo as a visitor sees it: `scripts/demo` and headless Chromium."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

COUNT = "Number(document.getElementById('cpu-value').dataset.count)"

# Notes when each figure was measured that the chart draws from now on.
NOTE = """() => {
    const { push } = Chart.prototype
    window.drawn = []
    Chart.prototype.push = function (at, values) {
        if (this.element.id === "cpu-chart") drawn.push(at)
        return push.call(this, at, values)
    }
}"""

# What the server has published: asked for anew, so without what the page was told.
PUBLISHED = """async () => {
    const body = JSON.stringify({ channels: { cpu: "last:60" } })
    const headers = { "Content-Type": "application/json" }
    const answer = await fetch("/comet/poll", { method: "POST", body, headers })
    const { events } = await answer.json()
    return events.filter((event) => "data" in event).map(({ data }) => data.at)
}"""


def wait_for_figures(page: Page, more: int = 2) -> None:
    for _ in range(more):
        seen = page.evaluate(COUNT)
        expect(page.locator("#cpu-value")).not_to_have_attribute("data-count", str(seen))


@pytest.mark.browser
def test_figures_move_and_the_switch_stops_and_resumes_them(demo: str, page: Page) -> None:
    page.goto(demo)
    state, banner = page.locator("#state"), page.locator("#banner")
    expect(banner).to_be_hidden()
    expect(state).to_have_attribute("data-state", "online")
    wait_for_figures(page)
    for figure in ("#cpu-value", "#memory-value", "#network-value"):
        expect(page.locator(figure)).not_to_be_empty()

    page.click("#deactivate")
    expect(state).to_have_attribute("data-state", "deactivated")
    expect(banner).to_be_visible()
    expect(banner).to_have_text("Push is switched off.")
    expect(page.locator("#status")).to_have_attribute("data-active", "false")
    stopped = page.evaluate(COUNT)

    page.click("#activate")
    expect(state).to_have_attribute("data-state", "online")
    expect(banner).to_be_empty()
    wait_for_figures(page)
    assert page.evaluate(COUNT) > stopped


@pytest.mark.browser
@pytest.mark.parametrize("others", ["", "2010"])
def test_the_form_writes_to_everyone(demo: str, page: Page, others: str) -> None:
    other = page.context.new_page()
    for one, path in ((page, ""), (other, others)):
        one.goto(f"{demo}/{path}")
        expect(one.locator("#state")).to_have_attribute("data-state", "online")
    text = f"<b>héllo</b> 🎈 a:b {others}!"
    page.fill("#wall-text", text)
    page.press("#wall-text", "Enter")
    for one in (page, other):
        expect(one.locator("#wall-list").get_by_text(text)).to_have_count(1)
        expect(one.locator("#wall-list").get_by_text(text)).to_be_visible()
        expect(one.locator("#wall-list b")).to_have_count(0)


@pytest.mark.browser
def test_the_operator_changes_the_timeout_by_form_and_by_command(demo: str, page: Page) -> None:
    page.goto(demo)
    expect(page.locator("#state")).to_have_attribute("data-state", "online")
    page.fill("#timeout-seconds", "7")
    page.check("#timeout-kill")
    page.click("#set-timeout")
    expect(page.locator("#status")).to_contain_text("timeout7 s")
    page.fill("#command", "comet:set_timeout 20 KILL")
    page.click("#run-command")
    expect(page.locator("#status")).to_contain_text("timeout20 s")
    wait_for_figures(page)


@pytest.mark.browser
def test_a_page_that_is_opened_shows_what_went_before(demo: str, page: Page) -> None:
    page.goto(demo)
    page.fill("#wall-text", "written before")
    page.press("#wall-text", "Enter")
    wait_for_figures(page)
    seen = page.evaluate(COUNT)
    other = page.context.new_page()
    other.goto(demo)
    expect(other.locator("#wall-list").get_by_text("written before")).to_be_visible()
    while other.evaluate(COUNT) < seen:  # its policy forbids what `wait_for_function` does
        pass


@pytest.mark.browser
def test_a_page_whose_network_fails_says_so_and_misses_no_figure(demo: str, page: Page) -> None:
    page.goto(demo)
    wait_for_figures(page, 1)
    page.evaluate(NOTE)
    page.context.set_offline(True)
    expect(page.locator("#banner")).to_have_text("No connection; we keep trying.")
    page.wait_for_timeout(3000)
    page.context.set_offline(False)
    expect(page.locator("#banner")).to_be_empty()
    wait_for_figures(page)
    drawn = page.evaluate("drawn")
    published = page.evaluate(PUBLISHED)
    assert drawn == published[published.index(drawn[0]) :][: len(drawn)]
    assert len(drawn) > 3


@pytest.mark.browser
def test_the_page_of_2010_shows_what_is_on_the_wire(demo: str, page: Page) -> None:
    page.goto(demo)
    page.click("nav >> text=2010")
    wait_for_figures(page)
    expect(page.locator("#wire-list")).to_contain_text("registration=cpu%0Amemory")
    page.click("#deactivate")
    expect(page.locator("#state")).to_have_attribute("data-state", "deactivated")
    expect(page.locator("#wire-list")).to_contain_text("503")
    page.click("#activate")
    expect(page.locator("#state")).to_have_attribute("data-state", "online")
    expect(page.locator("#banner")).to_be_empty()
