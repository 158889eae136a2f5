"""The browser client over each transport, through a network that does harm."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from asgi_comet import SITE, Channel, Comet
from asgi_comet.testing import wait_for_listeners
from tests.kit.faulty_proxy import FaultyProxy
from tests.kit.following import PATIENCE, Network, Tab, own_process
from tests.kit.serving import Address

pytestmark = pytest.mark.browser


@pytest.fixture
def proxy(address: Address) -> Iterator[FaultyProxy]:
    with FaultyProxy(address).run() as proxy:
        yield proxy


def test_a_connection_that_has_gone_silent_is_given_up(
    transport: str, leaving: Page, proxy: FaultyProxy, news: Channel[Any]
) -> None:
    """It looks alive, and nothing comes of what was sent."""
    leaving.clock.install()
    tab = Tab(leaving, proxy.address.url)
    tab.follow("news")
    tab.placed("news")
    news.publish("before")
    tab.seen("news", 1)
    wait_for_listeners(news, 1)
    proxy.swallow()
    news.publish("swallowed")
    leaving.clock.fast_forward(36_000)
    leaving.clock.fast_forward(20_000)  # between two attempts
    assert tab.seen("news", 2) == ["before", "swallowed"]


@pytest.mark.slow
def test_every_message_comes_once_and_in_order_whatever_befalls_the_connections(
    comet: Comet, transport: str, leaving: Page, proxy: FaultyProxy, network: Network
) -> None:
    tab = Tab(leaving, proxy.address.url)
    process = own_process(tab, network)
    channels = [
        comet.create(scope=SITE, name="news"),
        comet.create(scope=SITE, name="prices"),
        comet.create(scope=process, name="inbox"),
    ]
    keys = ("news", "prices", "~inbox")
    for key in keys:
        tab.follow(key)
    tab.placed(*keys)
    count = 0
    done = threading.Event()

    def publish() -> None:
        nonlocal count
        broken_off = network.tried[transport] > 5  # again and again
        if count >= 300 and broken_off and proxy.enough():
            done.set()
            return
        for channel in channels:
            channel.publish(count)
        count += 1

    with proxy.faults(publish):
        assert done.wait(PATIENCE / 1000)
        for key in keys:
            assert tab.seen(key, count) == list(range(count))
    assert not process.closed
