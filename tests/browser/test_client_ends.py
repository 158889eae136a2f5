"""How the browser client tells a page that a reader is over, and why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_comet import SITE, Channel, Comet
from tests.kit.following import Network, Tab, own_process
from tests.kit.serving import Address

pytestmark = pytest.mark.browser

LOOP = """([key, name, options]) => {
    seen[key] = []
    const consumer = consumers[key] = comet.channel(name, options)
    void (async () => {
        try {
            for await (const value of consumer) seen[key].push(value)
            seen[key].push("over")
        } catch (error) {
            seen[key].push(error.reason ?? error.name)
        }
    })()
}"""

ONE = """([name, functions]) => {
    seen.told = []
    const note = (what) => ({ name, reason = name }) => seen.told.push([what, reason])
    const options = Object.fromEntries(functions.map((name) => [name, note(name)]))
    consumers.told = comet.channel(name, options)
}"""


def loop(tab: Tab, key: str, name: str, **options: Any) -> None:
    tab.page.evaluate(LOOP, [key, name, options])


def closed(tab: Tab, key: str) -> str | None:
    found: str | None = tab.page.evaluate("(key) => consumers[key].closed", key)
    return found


def test_a_loop_is_over_without_an_error_when_its_channel_has_ended(
    transport: str, tab: Tab, news: Channel[Any]
) -> None:
    loop(tab, "loop", "news")
    tab.follow("told", "news", "callbacks('told')")
    tab.placed("loop", "told")
    assert (closed(tab, "loop"), closed(tab, "told")) == (None, None)
    news.publish("last words")
    news.close()
    assert tab.seen("loop", 2) == ["last words", "over"]
    ended = ["onclosed", "ChannelClosed", "news", "ended", None]
    assert tab.seen("told", 2) == ["last words", ended]
    assert (closed(tab, "loop"), closed(tab, "told")) == ("ended", "ended")


def test_a_reader_without_a_function_for_it_ends_quietly_with_its_channel(
    tab: Tab, news: Channel[Any]
) -> None:
    """The page of these tests fails where an error was reported as uncaught."""
    tab.page.evaluate("() => { consumers.mute = comet.channel('news', { onmessage() {} }) }")
    tab.placed("mute")
    news.close()
    tab.page.wait_for_function("consumers.mute.closed === 'ended'")


@pytest.mark.parametrize("function", ["onclosed", "onerror"])
@pytest.mark.parametrize("end", ["ended", "unknown"])
def test_a_reader_with_one_function_alone_is_told(
    tab: Tab, news: Channel[Any], function: str, end: str
) -> None:
    name = "news" if end == "ended" else "nobody"
    tab.page.evaluate(ONE, [name, [function]])
    if end == "ended":
        tab.placed("told")
        news.close()
    assert tab.seen("told", 1) == [[function, end]]
    assert closed(tab, "told") == end
    assert tab.page.evaluate("consumers.told.next().then(({ done }) => done)") is True


def test_a_loop_throws_what_has_no_function(tab: Tab, comet: Comet) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    start = narrow.reference()["position"]
    for n in range(3):
        narrow.publish(n)
    loop(tab, "unknown", "nobody")
    loop(tab, "full", "narrow", **{"from": start})
    assert tab.seen("unknown", 1) == ["unknown"]
    assert tab.seen("full", 1) == ["ChannelFull"]
    assert (closed(tab, "unknown"), closed(tab, "full")) == ("unknown", "full")


def test_a_reader_that_the_page_closes_says_so(tab: Tab, news: Channel[Any]) -> None:
    for key in ("closed", "left", "late"):
        tab.follow(key, "news")
    tab.placed("closed", "left", "late")
    tab.page.evaluate("() => { consumers.closed.close(); void consumers.left.return() }")
    tab.page.evaluate("() => comet.close()")
    assert [closed(tab, key) for key in ("closed", "left", "late")] == ["closed"] * 3
    assert tab.page.evaluate("comet.channel('news').closed") == "closed"
    tab.page.evaluate("consumers.late.close()")
    assert closed(tab, "late") == "closed"


def test_why_a_reader_is_over_does_not_change(tab: Tab, news: Channel[Any]) -> None:
    loop(tab, "loop", "nobody")
    assert tab.seen("loop", 1) == ["unknown"]
    tab.page.evaluate("consumers.loop.close()")
    assert closed(tab, "loop") == "unknown"


class Rewording:
    """Tells a client that a channel is over for a reason of a later version."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def reword(message: Message) -> None:
            if '"news"' in message.get("text", ""):
                event = {"channel": "news", "error": "closed", "reason": "moved-to-mars"}
                message = {**message, "text": json.dumps({"events": [event]})}
            await send(message)

        await self.app(scope, receive, reword)


def test_a_reason_that_the_client_does_not_know_counts_as_failed(
    network: Network, tab: Tab, news: Channel[Any]
) -> None:
    network.app = Rewording(network.app)
    loop(tab, "loop", "news")
    assert tab.seen("loop", 1) == ["failed"]
    assert closed(tab, "loop") == "failed"


# A reference of another client process


OPEN = """(reference) => {
    seen.thread = []
    consumers.thread = comet.open(reference, {
        onmessage: (value) => seen.thread.push(value),
        onerror: ({ name, message, reason }) => seen.thread.push([name, message, reason]),
    })
    return seen.thread.length
}"""


def test_a_reference_of_another_client_process_is_told_from_a_closed_one(
    comet: Comet, tab: Tab, network: Network
) -> None:
    own_process(tab, network)
    stranger = Tab(tab.page.context.new_page(), tab.page.url)
    foreign = comet.create(scope=own_process(stranger, network), name="thread").reference()
    assert tab.page.evaluate(OPEN, foreign) == 0  # it is told later, as everything is
    message = "this reference is of another client process; was it asked for with comet.fetch?"
    assert tab.seen("thread", 1) == [["CometError", message, "other-process"]]
    assert closed(tab, "thread") == "other-process"


def test_a_reference_of_a_process_that_the_page_had_is_of_a_closed_one(
    comet: Comet, tab: Tab, network: Network
) -> None:
    former = own_process(tab, network)
    reference = comet.create(scope=former, name="thread").reference()
    former.close()
    own_process(tab, network)
    tab.page.evaluate(OPEN, reference)
    assert tab.seen("thread", 1)[0][0] == "ProcessClosed"
    assert closed(tab, "thread") == "process-closed"


# Loading the page anew


@pytest.mark.parametrize(("chance", "milliseconds"), [(0.0001, 3), (0.5, 15_000), (0.9999, 29_997)])
def test_a_page_loads_itself_anew_once_at_a_random_moment(
    leaving: Page, address: Address, chance: float, milliseconds: int
) -> None:
    leaving.clock.install()
    page = Tab(leaving, address.url).page
    loads: list[str] = []
    page.on("load", lambda loaded: loads.append(loaded.url))
    page.clock.pause_at(page.evaluate("Date.now() + 1000") / 1000)
    page.evaluate("(chance) => { Math.random = () => chance }", chance)
    page.evaluate("() => comet.reload()")
    page.evaluate("() => { Math.random = () => 0 }")
    page.evaluate("() => { for (let n = 0; n < 5; n++) comet.reload() }")
    page.clock.run_for(milliseconds - 1)
    assert page.evaluate("typeof comet") == "object"
    with page.expect_event("load"):
        page.clock.run_for(1)
    page.clock.run_for(60_000)
    assert page.evaluate("typeof comet") == "undefined"
    assert len(loads) == 1
