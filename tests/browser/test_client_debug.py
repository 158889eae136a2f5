"""What the browser client logs in the console for the author of a page, if that wants to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from asgi_comet import SITE, Channel, Comet
from tests.kit.following import Network, Tab, own_process
from tests.kit.serving import Address

pytestmark = pytest.mark.browser


@pytest.fixture
def lines() -> list[str]:
    """What the page has logged."""
    return []


@pytest.fixture
def leaving(browser: Browser, address: Address, lines: list[str]) -> Iterator[Page]:
    def note(line: ConsoleMessage) -> None:
        if line.type == "log":
            lines.append(" ".join(str(one.json_value()) for one in line.args))

    context = browser.new_context()
    page = context.new_page()
    page.on("console", note)
    yield page
    context.close()


def follow_until_it_is_over(tab: Tab, comet: Comet, network: Network, news: Channel[Any]) -> None:
    """Let everything happen that is worth a line."""
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    start = narrow.reference()["position"]
    for n in range(3):
        narrow.publish(n)
    tab.follow("news")
    tab.follow("narrow", options=f"{{ from: '{start}' }}")
    tab.placed("news")
    tab.seen("narrow", 2)
    own_process(tab, network).close()
    tab.page.wait_for_function("closings === 1")
    news.close()
    tab.seen("news", 1)


LISTEN = """() => {
    window.closings = 0
    comet.addEventListener("process-closed", () => closings++)
}"""


@pytest.mark.parametrize("by", ["option", "storage"])
def test_it_says_what_it_does(
    comet: Comet,
    network: Network,
    leaving: Page,
    address: Address,
    lines: list[str],
    by: str,
) -> None:
    network.only("sse")
    news = comet.create(scope=SITE, name="news")
    options = {"debug": True} if by == "option" else {}
    if by == "storage":
        leaving.goto(address.url)
        leaving.evaluate("() => { localStorage['comet debug'] = 1 }")
    tab = Tab(leaving, address.url, **options)
    tab.page.evaluate(LISTEN)
    follow_until_it_is_over(tab, comet, network, news)
    place = tab.page.evaluate("consumers.news.position")
    for line in (
        "comet: tries websocket",
        "comet: tries sse",
        "comet: connected by sse",
        "comet: is online",
        "comet: has a client process",
        "comet: has another client process",
        f"comet: subscribes {{'news': '{place}'}}",
        "comet: news: ended",
    ):
        while not any(said.strip() == line for said in lines):
            tab.page.evaluate("0")  # the driver tells of a line a moment later
    assert any(said.startswith("comet: narrow: messages were missed") for said in lines)
    assert any(said.startswith("comet: lost: ") for said in lines)
    assert not any("/p/" in said for said in lines)  # a token is a secret


def test_it_says_nothing_unless_it_is_told_to(
    comet: Comet, network: Network, news: Channel[Any], tab: Tab, lines: list[str]
) -> None:
    tab.page.evaluate(LISTEN)
    follow_until_it_is_over(tab, comet, network, news)
    assert lines == []


def test_an_option_of_false_wins_over_the_storage(
    news: Channel[Any], leaving: Page, address: Address, lines: list[str]
) -> None:
    leaving.goto(address.url)
    leaving.evaluate("() => { localStorage['comet debug'] = 1 }")
    tab = Tab(leaving, address.url, debug=False)
    tab.follow("news")
    tab.placed("news")
    assert lines == []
