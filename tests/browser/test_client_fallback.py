"""The browser client where a transport does not come through, and when it tries that again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from asgi_comet import Channel
from tests.kit.following import CONNECT, Network, Tab
from tests.kit.nginx import nginx
from tests.kit.own_server import Server
from tests.kit.serving import Address

pytestmark = pytest.mark.browser


@pytest.mark.firefox
def test_server_sent_events_where_websockets_are_blocked(
    tab: Tab, network: Network, news: Channel[Any]
) -> None:
    network.blocked = {"websocket"}
    tab.follow("news")
    tab.placed("news")
    news.publish("here")
    assert tab.seen("news", 1) == ["here"]
    assert network.tried == {"websocket": 1, "sse": 1}


@pytest.mark.firefox
def test_poll_where_both_are_blocked(tab: Tab, network: Network, news: Channel[Any]) -> None:
    network.only("poll")
    tab.follow("news")
    tab.placed("news")
    news.publish("here")
    assert tab.seen("news", 1) == ["here"]
    assert (network.tried["websocket"], network.tried["sse"]) == (1, 1)


def test_poll_where_nginx_buffers_events_and_knows_no_websocket(
    own_server: Server, page: Page, tmp_path: Path
) -> None:
    """It waits for more to compress, as it may where it does not obey `X-Accel-Buffering`."""
    own_server.start()
    asked: Counter[str] = Counter()
    page.on("websocket", lambda _: asked.update(["websocket"]))
    page.on("request", lambda one: asked.update([one.url.partition("?")[0].rpartition("/")[2]]))
    upgrade = ("proxy_set_header Upgrade $http_upgrade;", "")
    buffering = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering; "
    buffering += "gzip on; gzip_types *; gzip_min_length 0;"
    with nginx(tmp_path, own_server, upgrade, more=buffering) as url:
        tab = Tab(page, url)
        tab.follow("news")
        tab.placed("news")
        for n in range(3):
            own_server.publish("news", n)
        assert tab.seen("news", 3) == [0, 1, 2]
        assert (asked["websocket"], asked["events"]) == (1, 1)
        assert asked["poll"] >= 1
        page.close()


def follow_afresh(tab: Tab) -> None:
    """Load the page again, and wait until it is connected."""
    tab.page.reload()
    tab.page.evaluate(CONNECT, {})
    tab.follow("news")
    tab.placed("news")


@pytest.mark.parametrize("chosen", ["sse", "poll"])
def test_the_choice_is_remembered_for_a_minute_then_for_an_hour(
    leaving: Page, address: Address, network: Network, news: Channel[Any], chosen: str
) -> None:
    network.only(chosen)
    leaving.clock.install()
    tab = Tab(leaving, address.url)
    for period in ("01:00", "01:00:00", "01:00:00"):
        before = network.tried["websocket"]
        follow_afresh(tab)
        assert network.tried["websocket"] == before + 1
        follow_afresh(tab)  # within the period
        assert network.tried["websocket"] == before + 1
        leaving.goto("about:blank")  # a page that stays would try again by itself
        leaving.clock.fast_forward(period)
        leaving.goto(address.url)
    network.blocked = set()
    tried = network.tried.copy()
    follow_afresh(tab)
    follow_afresh(tab)
    assert network.tried - tried == {"websocket": 2}


def test_one_hiccup_of_a_choice_does_not_lead_down_for_an_hour(
    leaving: Page, address: Address, network: Network, news: Channel[Any]
) -> None:
    network.only("sse")
    leaving.clock.install()
    tab = Tab(leaving, address.url)
    for _ in range(2):  # now it is chosen for an hour
        follow_afresh(tab)
        leaving.goto("about:blank")
        leaving.clock.fast_forward("01:00")
        leaving.goto(address.url)
    network.only("poll")
    follow_afresh(tab)
    remembered = leaving.evaluate("localStorage[`comet ${origin}`]").split()
    assert remembered[0] == "poll"
    network.only("sse")
    leaving.goto("about:blank")
    leaving.clock.fast_forward("01:00")
    leaving.goto(address.url)
    tried = network.tried["sse"]
    follow_afresh(tab)
    assert network.tried["sse"] == tried + 1
    assert leaving.evaluate("localStorage[`comet ${origin}`]").split()[0] == "sse"


def test_a_poll_catches_up_over_a_slow_link(
    leaving: Page, address: Address, network: Network, news: Channel[Any]
) -> None:
    """Which takes longer than what may pass until there is an answer at all."""
    network.only("poll")
    start = news.reference()["position"]
    for n in range(12):
        news.publish(f"{n:>20000}")
    tab = Tab(leaving, address.url)
    session = leaving.context.new_cdp_session(leaving)
    session.send("Network.enable")
    limits = {"latency": 10, "downloadThroughput": 48_000, "uploadThroughput": 48_000}
    session.send("Network.emulateNetworkConditions", {"offline": False, **limits})
    tab.follow("news", options=f"{{ from: '{start}' }}")
    assert [int(text) for text in tab.seen("news", 12)] == list(range(12))
    assert network.tried["poll"] <= 3


def test_a_page_that_stays_open_tries_again_however_often_it_reconnects(
    leaving: Page, address: Address, network: Network, news: Channel[Any]
) -> None:
    network.only("sse")
    leaving.clock.install()
    tab = Tab(leaving, address.url)
    tab.follow("news")
    tab.placed("news")
    leaving.clock.pause_at(leaving.evaluate("Date.now() + 1000") / 1000)  # it comes back if told
    tried = []
    for n in range(10):
        network.blocked = set() if n == 9 else {"websocket", "poll"}
        leaving.clock.fast_forward("20:00")
        leaving.evaluate("dispatchEvent(new Event('online'))")
        news.publish(n)
        assert tab.seen("news", n + 1)[-1] == n
        tried.append(network.tried["websocket"])
    assert tried == [2, 2, 2, 3, 3, 3, 4, 4, 4, 5]  # after a minute, and then once an hour
    assert leaving.evaluate("localStorage[`comet ${origin}`]") == ""
