"""Make the pictures of docs/dashboard.md: `python -m tests.dashboard_images`.

Serves a Comet that a few tabs follow, and takes each picture in Chromium after half a minute, so
that the charts have something to show.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack

from anyio import sleep
from playwright.sync_api import Page, expect, sync_playwright

from asgi_comet import Comet
from tests.kit.chromium import launch_chromium
from tests.kit.operating import TOKEN_OF, TOKENS
from tests.kit.programs import ROOT
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import KEY, application
from tests.kit.streams import Sse

FOLDER = ROOT / "docs" / "images"
SECONDS = 30
READERS = 40

comet = Comet(KEY, admin=TOKENS)
orders = comet.family("orders:{shop}", type=dict[str, int])


@comet.channel("ticker", size=100)
async def ticker() -> AsyncIterator[dict[str, float]]:
    """Publish a price, now and then."""
    for number in itertools.count():
        yield {"number": number, "price": round(random.uniform(90, 110), 2)}
        await sleep(random.uniform(0.02, 0.4))


def follow(stack: ExitStack, server: Address) -> None:
    """Open tabs, and have each follow the ticker and a shop."""
    for number in range(READERS):
        tab = Tab(server)
        names = ["ticker", f"orders:{number % 12}"]
        stack.enter_context(Sse.open(server, names, tab.url, Cookie=tab.cookie))
        orders.publish({"order": number}, shop=str(number % 12))


def take(page: Page, url: str) -> None:
    """Sign in, wait, and take the pictures."""
    page.goto(f"{url}/comet/admin/")
    page.get_by_label("Admin token").fill(TOKEN_OF["contents"])
    page.keyboard.press("Enter")
    expect(page.locator("#listeners")).not_to_have_text("–")
    page.wait_for_timeout(SECONDS * 1000)
    page.screenshot(path=FOLDER / "dashboard.png")
    page.get_by_role("link", name="Channels").click()
    page.get_by_role("button", name="ticker").click()
    page.locator("#members-list").get_by_role("button", name="ticker").click()
    expect(page.locator("#tail li").nth(4)).to_be_visible()
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=FOLDER / "dashboard-channels.png")


def main() -> None:
    """Take the pictures."""
    with ExitStack() as stack:
        server = stack.enter_context(serve(application(comet)))
        follow(stack, server)
        with sync_playwright() as playwright, launch_chromium(playwright) as browser:
            take(browser.new_page(viewport={"width": 1000, "height": 620}), server.url)


if __name__ == "__main__":
    main()
