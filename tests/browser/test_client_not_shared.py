"""The browser client where several workers share no client processes: channels of the site only."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, Request

from asgi_comet import SITE, Channel, Comet, Settings
from asgi_comet.testing import join
from tests.kit.following import Tab
from tests.kit.serving import Address
from tests.kit.stage import KEY

pytestmark = pytest.mark.browser


@pytest.fixture
def comet() -> Comet:
    """One of several workers."""
    return Comet(KEY, broker=join(1, people=False)[0], settings=Settings(jitter=0))


def test_a_page_follows_channels_of_the_site_without_a_client_process(
    leaving: Page, address: Address, transport: str, comet: Comet
) -> None:
    news: Channel[Any] = comet.create(scope=SITE, name="news")
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/comet/open"):
            asked.append(request.url)

    leaving.on("request", note)
    tab = Tab(leaving, address.url)
    tab.follow("news")
    tab.placed("news")
    news.publish("first")
    assert tab.seen("news", 1) == ["first"]
    tab.page.evaluate("comet.restart()")
    news.publish("second")
    assert tab.seen("news", 2) == ["first", "second"]
    assert len(asked) == 1  # it does not ask again


def test_a_page_that_asks_for_a_channel_of_its_own_is_offline(tab: Tab) -> None:
    tab.follow("inbox", "~inbox")
    tab.page.wait_for_function("comet.status === 'offline'")
