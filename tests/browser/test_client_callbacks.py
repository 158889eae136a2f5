"""The browser client where functions of the page throw, or what the page asks for is nonsense.

A mistake in the page is reported, and disturbs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from asgi_comet import SITE, Channel, ChannelFull, Comet
from tests.kit.following import Network, Tab, own_process
from tests.kit.serving import Address

pytestmark = pytest.mark.browser


@pytest.fixture
def errors() -> list[str]:
    """What a page reported as uncaught."""
    return []


@pytest.fixture
def leaving(browser: Browser, address: Address, errors: list[str]) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()


THROWING = """() => {
    window.throwing = (key) => {
        const told = (error) => seen[key].push(error.name)
        const fails = (error) => {
            told(error)
            throw new Error("mistake")
        }
        return { onmessage() {}, onfull: fails, onclosed: fails, onerror: fails }
    }
}"""


@pytest.fixture
def throwing(tab: Tab) -> Tab:
    tab.page.evaluate(THROWING)
    return tab


def test_a_function_that_throws_when_a_channel_ends_takes_nothing_from_others(
    comet: Comet, transport: str, throwing: Tab, news: Channel[Any], errors: list[str]
) -> None:
    other = comet.create(scope=SITE, name="other")
    throwing.follow("first", "news", "throwing('first')")
    throwing.follow("second", "news")
    throwing.follow("other")
    throwing.placed("first", "second", "other")
    news.close()
    for n in range(10):
        other.publish(n)
    assert throwing.seen("second", 1) == [True]
    assert throwing.seen("other", 10) == list(range(10))
    assert throwing.seen("first", 1) == ["ChannelClosed"]
    assert errors == ["mistake"]
    assert throwing.page.evaluate("comet.status") == "online"


def test_a_function_that_throws_when_messages_were_missed_takes_nothing_from_others(
    comet: Comet, transport: str, throwing: Tab, news: Channel[Any], errors: list[str]
) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    start = narrow.reference()["position"]
    for n in range(3):
        narrow.publish(n)
    options = f"{{ ...throwing('first'), from: '{start}' }}"
    throwing.follow("news")
    throwing.placed("news")
    throwing.follow("first", "narrow", options)
    throwing.follow("second", "narrow", f"{{ from: '{start}' }}")
    assert throwing.seen("second", 2)[1] is True
    assert throwing.seen("first", 1) == ["ChannelFull"]
    news.publish("goes on")
    assert throwing.seen("news", 1) == ["goes on"]
    assert errors == ["mistake"]


def test_a_function_that_throws_when_the_process_is_gone_does_not_stop_the_client(
    comet: Comet,
    transport: str,
    throwing: Tab,
    news: Channel[Any],
    network: Network,
    errors: list[str],
) -> None:
    process = own_process(throwing, network)
    throwing.follow("first", "~inbox", "throwing('first')")
    throwing.follow("second", "~inbox")
    throwing.follow("news")
    throwing.placed("first", "second", "news")
    process.close()
    news.publish("goes on")
    assert throwing.seen("news", 1) == ["goes on"]
    assert throwing.seen("second", 2) == [["ProcessClosed", None, None, None], True]
    assert throwing.seen("first", 1) == ["ProcessClosed"]
    assert errors == ["mistake"]
    throwing.page.wait_for_function("comet.status === 'online'")


def test_a_final_full_whose_function_throws_ends_that_reader_alone(
    comet: Comet, throwing: Tab, news: Channel[Any], network: Network, errors: list[str]
) -> None:
    inbox = comet.create(scope=own_process(throwing, network), name="inbox", size=1)
    inbox.publish("never read")
    with pytest.raises(ChannelFull):
        inbox.publish("one too many")
    throwing.follow("first", "~inbox", "throwing('first')")
    throwing.follow("second", "~inbox")
    throwing.follow("news")
    throwing.placed("news")
    news.publish(1)
    assert throwing.seen("news", 1) == [1]
    assert throwing.seen("second", 2) == [["ChannelFull", "~inbox", None, None], True]
    assert errors == ["mistake"]


def test_who_was_closed_by_another_for_the_same_message_does_not_get_it(
    transport: str, tab: Tab, news: Channel[Any], errors: list[str]
) -> None:
    closing = """{ onmessage(value) {
        seen.first.push(value)
        consumers.second.close()
        consumers.third.close()
    } }"""
    tab.follow("first", "news", closing)
    tab.follow("second", "news", "callbacks('second')")
    tab.follow("third", "news")
    tab.placed("first", "second", "third")
    for n in range(2):
        news.publish(n)
    assert tab.seen("first", 2) == [0, 1]
    assert tab.seen("third", 1) == [True]
    assert tab.page.evaluate("seen.second") == []
    assert errors == []


# What the page asks for

TRY = """([name, options]) => {
    try {
        comet.channel(name, options)
    } catch (error) {
        return [error.name, error.message]
    }
}"""

STARTS = [
    *(
        "garbage",
        "",
        "first ",
        "first:1",
        "last:",
        "last:x",
        "last:-1",
        "last:01",
        "last:" + "9" * 17,
        "now ",
    ),
    *(
        "a.b.c",
        "x.-1",
        "x.01",
        ".1",
        "x.",
        "x." + "9" * 17,
        "x" * 33 + ".1",
        "x.1\n",
        5,
        ["a", "b"],
    ),
]
NAMES: list[Any] = [None, 5, "", "x" * 256, "ü" * 128, {}]


@pytest.mark.parametrize("transport", ["websocket", "poll"], indirect=True)
def test_a_bad_argument_throws_and_disturbs_nothing(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any], network: Network
) -> None:
    comet.create(scope=SITE, name="other")
    tab.follow("news")
    tab.placed("news")
    before = network.tried.copy()
    for start in STARTS:
        name, message = tab.page.evaluate(TRY, ["other", {"from": start}])
        assert name == "TypeError"
        assert message.startswith("expected now, first, last:10 or a position, got ")
    for channel in NAMES:
        name, message = tab.page.evaluate(TRY, [channel, {}])
        assert name == "TypeError"
        assert message.startswith("expected a name of 1 to 255 bytes, got ")
    for call in (r"comet.channel('\ud800')", "comet.channel()", "comet.open({})"):
        thrown = f"() => {{ try {{ {call} }} catch (error) {{ return error.name }} }}"
        assert tab.page.evaluate(thrown) == "TypeError"
    assert network.tried == before
    for start in (
        "first",
        "last:0",
        "last:9999999999999999",
        "new.0",
        news.reference()["position"],
    ):
        tab.follow(start, "news", f"{{ from: '{start}' }}")
    for name in ("x" * 255, "ü" * 127, "\U0001f388", "~x", "\ufeff"):
        tab.follow(name)
    tab.follow("other")
    tab.placed("other")
    news.publish(1)
    assert tab.seen("news", 1) == [1]


def test_one_channel_too_many_throws_and_disturbs_nothing(
    comet: Comet, transport: str, tab: Tab
) -> None:
    channels = [comet.create(scope=SITE, name=f"m{n}") for n in range(129)]
    for n in range(128):
        tab.follow(f"m{n}")
    assert tab.page.evaluate(TRY, ["m128", {}])[0] == "RangeError"
    tab.placed(*(f"m{n}" for n in range(128)))
    assert tab.page.evaluate(TRY, ["m128", {}]) == ["RangeError", "at most 128 channels"]
    tab.follow("again", "m0")  # a channel that there is
    tab.page.evaluate("consumers.m5.close()")
    tab.follow("m128")
    tab.placed("again", "m128")
    for n, channel in enumerate(channels):
        channel.publish(n)
    for n in (0, 1, 127, 128):
        assert tab.seen(f"m{n}", 1) == [n]
    assert tab.seen("again", 1) == [0]


# When it is over


def test_after_closing_nothing_waits_for_ever(tab: Tab, news: Channel[Any]) -> None:
    tab.follow("news")
    tab.placed("news")
    tab.page.evaluate("comet.close()")
    done = "comet.channel('news').next().then(({ done }) => done)"
    assert tab.page.evaluate(done) is True
    elsewhere = "comet.open({ url: 'http://127.0.0.1:9/', channel: 'x', position: 'now' })"
    assert tab.page.evaluate(f"{elsewhere}.next().then(({{ done }}) => done)") is True


def test_after_closing_requests_name_no_process(tab: Tab, network: Network) -> None:
    own_process(tab, network)
    sent: list[bool] = []
    tab.page.on("request", lambda one: sent.append("comet-process" in one.headers))
    tab.page.evaluate("comet.fetch('/').then(() => null)")
    tab.page.evaluate("comet.close()")
    tab.page.evaluate("comet.fetch('/').then(() => null)")
    assert (sent[0], sent[-1]) == (True, False)
