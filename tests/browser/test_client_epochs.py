"""The browser client where several read one channel, and not all are in the same incarnation.

Nobody is given a message that does not follow the one before; who was in another incarnation is
told `full`, and nobody else.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page

from asgi_comet import SITE, Channel, Comet
from asgi_comet.testing import wait_for_listeners
from tests.kit.following import PATIENCE, Tab

pytestmark = pytest.mark.browser


def position(channel: Channel[Any]) -> str:
    return str(channel.reference()["position"])


def remake(comet: Comet, channel: Channel[Any]) -> Channel[Any]:
    """Put a namesake in place of a channel; its positions are of another epoch."""
    name = channel.name
    channel.close()
    return comet.create(scope=SITE, name=name)


def starting(start: str, **options: Any) -> str:
    return json.dumps({"from": start, **options})


@pytest.fixture
def renewed(comet: Comet, news: Channel[Any]) -> tuple[str, Channel[Any]]:
    """A kept position, and the channel that took the place of the one that it is of."""
    for n in range(3):
        news.publish(f"old {n}")
    kept = position(news)
    channel = remake(comet, news)
    channel.publish("before")
    return kept, channel


def full(channel: Channel[Any]) -> list[Any]:
    return ["ChannelFull", "news", None, position(channel)]


def test_one_who_joins_from_another_incarnation_is_told_full(
    transport: str, tab: Tab, renewed: tuple[str, Channel[Any]]
) -> None:
    kept, channel = renewed
    tab.follow("now", "news")
    tab.placed("now")
    expected = full(channel)
    tab.follow("kept", "news", starting(kept))
    assert tab.seen("kept", 2) == [expected, True]
    for n in range(3):
        channel.publish(n)
    assert tab.seen("now", 3) == [0, 1, 2]


def test_one_who_resumes_from_another_incarnation_misses_nothing_from_there(
    transport: str, tab: Tab, renewed: tuple[str, Channel[Any]]
) -> None:
    kept, channel = renewed
    tab.follow("now", "news")
    tab.placed("now")
    at = position(channel)
    tab.follow("kept", "news", starting(kept, onfull="resume"))
    tab.page.wait_for_function("(at) => consumers.kept.position === at", arg=at)
    for n in range(3):
        channel.publish(n)
    assert tab.seen("now", 3) == tab.seen("kept", 3) == [0, 1, 2]


@pytest.mark.parametrize("start", ["now", "last:1"])
def test_a_kept_position_beside_a_relative_start_is_told_full(
    transport: str, tab: Tab, renewed: tuple[str, Channel[Any]], start: str
) -> None:
    kept, channel = renewed
    expected = full(channel)
    tab.page.evaluate(
        """([kept, start]) => {
            follow("kept", "news", { from: kept })
            follow("other", "news", { from: start })
        }""",
        [kept, start],
    )
    assert tab.seen("kept", 2) == [expected, True]
    tab.placed("other")
    channel.publish(1)
    before = ["before"] if start == "last:1" else []
    assert tab.seen("other", len(before) + 1) == [*before, 1]


@pytest.mark.parametrize("first", ["kept", "given"])
def test_of_two_positions_the_one_of_another_incarnation_is_told_full(
    transport: str, tab: Tab, renewed: tuple[str, Channel[Any]], first: str
) -> None:
    """As where a page was given one, and kept the other."""
    kept, channel = renewed
    starts = {"kept": kept, "given": position(channel)}
    keys = [first, *(starts.keys() - {first})]
    tab.page.evaluate(
        "(all) => all.forEach(([key, start]) => follow(key, 'news', { from: start }))",
        [[key, starts[key]] for key in keys],
    )
    for n in range(3):
        channel.publish(n)
    ((name, *_), over) = tab.seen("kept", 2)
    assert (name, over) == ("ChannelFull", True)
    assert tab.seen("given", 3) == [0, 1, 2]


def test_a_restart_while_another_joins_is_told_to_who_was_there(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any], page: Page
) -> None:
    tab.follow("there", "news")
    tab.placed("there")
    news.publish("old")
    tab.seen("there", 1)
    page.context.set_offline(True)
    wait_for_listeners(news, 0, PATIENCE / 1000)
    channel = remake(comet, news)
    channel.publish("missed")
    expected = full(channel)
    tab.follow("joins", "news", starting("last:1"))
    page.context.set_offline(False)
    assert tab.seen("there", 3) == ["old", expected, True]
    channel.publish("new")
    assert tab.seen("joins", 2) == ["missed", "new"]


def test_the_newest_comes_to_readers_of_any_incarnation(
    comet: Comet, transport: str, tab: Tab
) -> None:
    gauge = comet.create_newest(name="gauge")
    gauge.publish("old")
    kept = str(gauge.reference()["position"])
    gauge.close()
    gauge = comet.create_newest(name="gauge")
    gauge.publish(1)
    tab.follow("now", "gauge")
    tab.placed("now")
    tab.follow("kept", "gauge", starting(kept))
    assert tab.seen("kept", 1) == [1]
    for n in (2, 3):
        gauge.publish(n)
        tab.seen("kept", n)
        tab.seen("now", n - 1)
    assert tab.page.evaluate("[seen.kept, seen.now]") == [[1, 2, 3], [2, 3]]


# Who begins now


def test_one_who_begins_now_gets_nothing_old_beside_one_who_is_behind(
    transport: str, tab: Tab, news: Channel[Any]
) -> None:
    start = position(news)
    for n in range(20):
        news.publish(n)
    tab.page.evaluate(
        """(start) => {
            follow("behind", "news", { from: start })
            follow("now", "news")
        }""",
        start,
    )
    assert tab.seen("behind", 20) == list(range(20))
    tab.placed("now")
    news.publish(20)
    assert tab.seen("now", 1) == [20]
    assert tab.seen("behind", 21) == list(range(21))


def test_one_who_begins_now_is_not_told_what_another_missed(
    transport: str, tab: Tab, renewed: tuple[str, Channel[Any]]
) -> None:
    kept, channel = renewed
    tab.page.evaluate(
        """(kept) => {
            follow("kept", "news", { from: kept })
            follow("now", "news")
        }""",
        kept,
    )
    tab.seen("kept", 2)
    tab.placed("now")
    channel.publish("new")
    assert tab.seen("now", 1) == ["new"]
