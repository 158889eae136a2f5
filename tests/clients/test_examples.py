"""The pages of the examples, in a browser: what they show, and when they load themselves anew."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, expect

from examples import quickstart, users
from tests.kit.serving import serve


def test_the_quickstart_shows_what_is_posted(context: BrowserContext) -> None:
    with serve(quickstart.app) as server:
        server.request("POST", "/news?text=Before")
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("ul")).to_contain_text("Before")
        for text in ("%3CHello%3E", "World"):
            server.request("POST", f"/news?text={text}")
        expect(page.locator("ul")).to_contain_text("<Hello>\nWorld", use_inner_text=True)
        page.close()


def test_the_other_tab_loads_itself_anew_when_somebody_logs_in_or_out(
    context: BrowserContext,
) -> None:
    with serve(users.app) as server:
        tab, other = context.new_page(), context.new_page()
        for page in (tab, other):
            page.goto(server.url)
            expect(page.locator("p")).to_have_text("You are a visitor.")
        tab.click("button")
        for page in (tab, other):
            expect(page.locator("p")).to_have_text("You are ada.")
        tab.evaluate("fetch('/logout', {method: 'POST'})")
        for page in (tab, other):
            expect(page.locator("p")).to_have_text("You are a visitor.", timeout=20_000)
            page.close()
