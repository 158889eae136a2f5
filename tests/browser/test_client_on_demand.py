"""The browser client acknowledges what the page has consumed, and nothing before.

That a source was *not* read is seen without waiting: a message of another channel that the page got
on the same connection was written after everything that the server had to do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route

from asgi_comet import SITE, Channel, Comet
from asgi_comet.testing import wait_for_listeners
from tests.kit.faulty_proxy import FaultyProxy
from tests.kit.following import PATIENCE, Network, Tab, own_process
from tests.kit.serving import Address

pytestmark = pytest.mark.browser

# `consume(key, name, options, callback)` follows a channel in a loop, or with a callback, and holds
# each message until `release(key)` says that it is consumed.
CONSUME = """() => {
    window.gates = {}
    window.release = (key, failure) => {
        const [done, fail] = gates[key]
        delete gates[key]
        failure ? fail(failure) : done()
    }
    window.consume = (key, name, options, callback) => {
        const heard = seen[key] = []
        const hold = (value) => {
            heard.push(value)
            return new Promise((...gate) => (gates[key] = gate))
        }
        const told = callback && { onmessage: hold, onerror: ({ name }) => heard.push(name) }
        const consumer = consumers[key] = comet.channel(name, { ...options, ...told })
        const loop = async () => {
            for await (const value of consumer) if ((await hold(value)) === "leave") break
            heard.push("over")
        }
        if (!callback) loop().catch(({ name }) => heard.push(name))
    }
}"""


class Source:
    """A source that never waits, and counts the values that were taken from it.

    It ends once `over` says so.
    """

    def __init__(self) -> None:
        self.over: Callable[[], bool] = lambda: False
        self.taken = 0

    async def values(self) -> AsyncIterator[int]:
        while not self.over():
            self.taken += 1
            yield self.taken


class Reader:
    """A page that consumes what a source gives when the test says so."""

    def __init__(self, tab: Tab, network: Network, comet: Comet, news: Channel[Any]) -> None:
        self.tab = tab
        self.page = tab.page
        self.comet = comet
        self.news = news
        self.process = own_process(tab, network)
        self.source = Source()
        self._marks = 0
        self.page.evaluate(CONSUME)

    def make(self, ahead: int = 1) -> Channel[Any]:
        values = self.source.values()
        return self.comet.create_unlimited(values, scope=self.process, name="n", ahead=ahead)

    def consume(
        self, key: str = "n", callback: bool = False, name: str = "~n", **options: Any
    ) -> None:
        script = "([key, name, options, callback]) => consume(key, name, options, callback)"
        self.page.evaluate(script, [key, name, options, callback])

    def watch(self) -> None:
        """Follow a channel beside it, whose messages show that everything before has happened."""
        self.tab.follow("news")
        self.tab.placed("news")

    def release(self, key: str = "n") -> None:
        self.page.wait_for_function("(key) => gates[key]", arg=key)
        self.page.evaluate("(key) => release(key)", key)

    def mark(self) -> None:
        """Publish on the channel beside it, twice; a poll may have been on its way."""
        for _ in range(2):
            self.news.publish(self._marks)
            self._marks += 1
            assert self.tab.seen("news", self._marks) == list(range(self._marks))

    def taken(self, count: int, key: str = "n") -> None:
        """Wait until the page has so many values; check that no more are read, however long."""
        assert self.tab.seen(key, count) == list(range(1, count + 1))
        self.page.clock.run_for(2000)  # by then all that is owed is acknowledged
        self.mark()
        assert self.source.taken == count


@pytest.fixture
def errors() -> list[str]:
    """What the page reported as uncaught."""
    return []


@pytest.fixture
def reporting(browser: Browser, address: Address, errors: list[str]) -> Iterator[Page]:
    """A page whose mistakes are reported to the test."""
    context = browser.new_context()
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()


@pytest.fixture
def reader(
    leaving: Page, address: Address, network: Network, comet: Comet, news: Channel[Any]
) -> Reader:
    leaving.clock.install()
    return Reader(Tab(leaving, address.url), network, comet, news)


HOW = pytest.mark.parametrize("callback", [False, True], ids=["loop", "promise"])


@HOW
def test_a_source_is_read_one_value_ahead_of_what_is_consumed(
    transport: str, reader: Reader, callback: bool
) -> None:
    reader.watch()
    reader.make()
    reader.consume(callback=callback)
    for n in range(1, 8):
        reader.taken(n)
        reader.release()


def test_values_ahead_come_at_once_and_more_when_all_are_consumed(
    transport: str, reader: Reader
) -> None:
    reader.watch()
    reader.make(ahead=3)
    reader.consume()
    for consumed in range(7):
        assert reader.tab.seen("n", consumed + 1) == list(range(1, consumed + 2))
        reader.page.clock.run_for(2000)
        reader.mark()
        assert reader.source.taken == 3 * (consumed // 3 + 1)
        reader.release()


def test_the_only_channel_of_a_page_is_read_on_demand(transport: str, reader: Reader) -> None:
    reader.make()
    reader.consume()
    for n in range(1, 8):
        reader.tab.seen("n", n)
        reader.page.evaluate("fetch('/').then(() => null)")
        assert reader.source.taken == n
        reader.release()
    assert reader.tab.seen("n", 8) == list(range(1, 9))


# What counts as consumed


def test_a_callback_consumes_when_it_returns_throws_or_its_promise_is_settled(
    transport: str,
    reporting: Page,
    errors: list[str],
    address: Address,
    comet: Comet,
    network: Network,
    news: Channel[Any],
) -> None:
    reader = Reader(Tab(reporting, address.url), network, comet, news)
    reader.make()
    reader.page.evaluate(
        """() => {
            seen.n = []
            const onmessage = (value) => {
                seen.n.push(value)
                if (value % 3 === 1) throw new Error(`thrown ${value}`)
                if (value % 3 === 2) return Promise.reject(new Error(`rejected ${value}`))
            }
            consumers.n = comet.channel("~n", { onmessage })
        }"""
    )
    assert reader.tab.seen("n", 6)[:6] == [1, 2, 3, 4, 5, 6]
    assert errors[:4] == ["thrown 1", "rejected 2", "thrown 4", "rejected 5"]


def test_values_that_are_asked_for_at_once_come_one_after_the_other(
    transport: str, reader: Reader
) -> None:
    """A message is consumed when another one is waited for."""
    reader.make()
    reader.page.evaluate(
        """() => {
            seen.n = []
            const consumer = comet.channel("~n")
            const ask = () => consumer.next().then(({ value }) => seen.n.push(value))
            for (let count = 0; count < 3; count++) ask()
        }"""
    )
    assert reader.tab.seen("n", 3) == [1, 2, 3]


def test_a_channel_is_consumed_as_far_as_its_slowest_reader(transport: str, reader: Reader) -> None:
    reader.watch()
    reader.make()
    reader.consume("slow")
    reader.tab.placed("slow")
    reader.tab.follow("fast", "~n", json.dumps({"from": "first"}))
    for n in range(1, 4):
        reader.tab.seen("fast", n)
        reader.taken(n, "slow")
        assert reader.tab.seen("fast", n) == list(range(1, n + 1))
        reader.release("slow")


@pytest.mark.parametrize("end", ["close()", "return()"])
def test_a_slow_reader_that_is_closed_holds_back_no_other(
    transport: str, reader: Reader, end: str
) -> None:
    reader.make()
    reader.consume("slow")
    reader.tab.placed("slow")
    reader.tab.follow("fast", "~n", json.dumps({"from": "first"}))
    reader.tab.seen("fast", 1)
    reader.tab.seen("slow", 1)
    reader.page.evaluate(f"() => void consumers.slow.{end}")
    assert reader.tab.seen("fast", 5)[:5] == [1, 2, 3, 4, 5]


def test_a_reader_that_was_closed_consumes_nothing_for_a_new_one(
    transport: str, reader: Reader
) -> None:
    reader.watch()
    reader.make()
    reader.consume("old", callback=True)
    reader.tab.seen("old", 1)
    reader.page.evaluate("consumers.old.close()")
    start: dict[str, Any] = {"from": "first"}
    reader.consume("new", **start)
    reader.taken(1, "new")
    reader.release("old")
    reader.taken(1, "new")
    reader.release("new")
    reader.taken(2, "new")


def test_a_reader_that_joins_while_another_is_slow_gets_what_it_asked_for(
    transport: str, reader: Reader
) -> None:
    reader.make()
    reader.consume("slow")
    reader.tab.seen("slow", 1)
    reader.consume("now")
    start: dict[str, Any] = {"from": "last:1"}
    reader.consume("last", **start)
    assert reader.tab.seen("last", 1) == [1]
    for n in (2, 3):
        reader.release("slow")
        reader.release("last")
        if n > 2:
            reader.release("now")
        assert reader.tab.seen("slow", n) == reader.tab.seen("last", n) == list(range(1, n + 1))
        assert reader.tab.seen("now", n - 1) == list(range(2, n + 1))


def test_a_loop_that_is_left_has_consumed_its_last_value_and_no_other(
    transport: str, reader: Reader
) -> None:
    channel = reader.make(ahead=3)
    reader.consume()
    for n in range(1, 4):
        reader.tab.seen("n", n)
        reader.release()
    reader.tab.seen("n", 4)
    reader.page.evaluate("release('n')")
    reader.tab.seen("n", 5)
    reader.page.evaluate("() => { gates.n[0]('leave') }")
    assert reader.tab.seen("n", 6) == [1, 2, 3, 4, 5, "over"]
    epoch = channel.reference()["position"].split(".")[0]
    assert reader.page.evaluate("consumers.n.position") == f"{epoch}.5"
    if transport == "poll":  # which acknowledges with its next request, and there is none
        return
    for _ in range(2000):
        if channel.reference("first")["position"] == f"{epoch}.5":
            break
        reader.page.evaluate("fetch('/').then(() => null)")
    reader.tab.follow("again", "~n", json.dumps({"from": "first"}))
    assert reader.tab.seen("again", 1)[0] == 6


def test_a_position_is_that_of_what_the_page_was_given(
    transport: str, reader: Reader, comet: Comet
) -> None:
    """Not of what has come and waits in the page: from there on messages would be missed."""
    inbox = comet.create(scope=reader.process, name="inbox")
    reader.consume("inbox", name="~inbox")
    reader.tab.placed("inbox")
    for n in range(3):
        inbox.publish(n)
    reader.watch()
    reader.mark()
    epoch = inbox.reference()["position"].split(".")[0]
    for n in range(1, 4):
        reader.tab.seen("inbox", n)
        assert reader.page.evaluate("consumers.inbox.position") == f"{epoch}.{n}"
        reader.release("inbox")


def test_an_ordinary_channel_is_acknowledged_as_it_is_consumed(
    comet: Comet, leaving: Page, reader: Reader
) -> None:
    inbox = comet.create(scope=reader.process, name="inbox")
    reader.watch()
    reader.consume("inbox", name="~inbox")
    reader.tab.placed("inbox")
    epoch = inbox.reference()["position"].split(".")[0]
    for n in range(3):
        inbox.publish(n)
    reader.mark()
    for consumed in range(3):
        leaving.clock.run_for(2000)
        reader.mark()
        assert inbox.reference()["position"] == f"{epoch}.{consumed}"
        reader.release("inbox")


# One round trip for a value


def test_each_value_costs_one_round_trip(
    transport: str, network: Network, leaving: Page, reader: Reader
) -> None:
    """One acknowledgement, or one poll; the server answers with the next value."""
    said: list[str] = []

    def note(frame: Any) -> None:
        if '"ack"' in frame:
            said.append(frame)

    leaving.on("websocket", lambda socket: socket.on("framesent", note))
    leaving.on("request", lambda one: said.append(one.url) if one.url.endswith("/ack") else None)
    reader.make()
    before = network.tried[transport]
    leaving.evaluate(
        """() => {
            seen.n = []
            const onmessage = (value) => {
                seen.n.push(value)
                if (value === 30) consumers.n.close()
            }
            consumers.n = comet.channel("~n", { onmessage })
        }"""
    )
    assert reader.tab.seen("n", 30) == list(range(1, 31))
    leaving.evaluate("fetch('/').then(() => null)")
    if transport == "poll":
        assert network.tried["poll"] - before <= 30 + 2  # two to find its place
    else:
        assert 29 <= len(said) <= 30 + 1  # one for its place
        assert network.tried[transport] - before == 1


# Connections that break while a value is consumed


def test_a_value_that_is_being_consumed_is_not_acknowledged_by_coming_back(
    transport: str, reader: Reader
) -> None:
    reader.watch()
    channel = reader.make()
    reader.consume()
    for n in range(1, 5):
        reader.taken(n)
        where = channel.reference("first")["position"]
        reader.page.context.set_offline(True)
        wait_for_listeners(reader.news, 0, PATIENCE / 1000)
        reader.page.context.set_offline(False)
        reader.mark()  # the connection is there again
        assert reader.tab.seen("n", n) == list(range(1, n + 1))
        assert reader.source.taken == n
        assert channel.reference("first")["position"] == where
        reader.release()


def test_the_only_channel_of_a_page_goes_on_when_its_value_is_consumed(
    transport: str, network: Network, reader: Reader
) -> None:
    network.blocked.discard("poll")  # by which a page says that it is there
    reader.make()
    reader.consume()
    for n in range(1, 4):
        reader.tab.seen("n", n)
        reader.page.context.set_offline(True)
        if n == 2:
            reader.release()  # while there is no network
            reader.page.context.set_offline(False)
        else:
            reader.page.context.set_offline(False)
            reader.page.wait_for_function("comet.status === 'online'")
            assert reader.source.taken == n
            reader.release()
    assert reader.tab.seen("n", 4) == [1, 2, 3, 4]


def test_a_value_that_takes_long_does_not_cost_the_client_process(
    leaving: Page, network: Network, reader: Reader
) -> None:
    """With nothing else to ask for, the page says from time to time that it is there."""
    network.only("poll")
    reader.make()
    reader.consume()
    reader.tab.seen("n", 1)
    for _ in range(3):
        polls = network.tried["poll"]
        leaving.clock.fast_forward(230_000)
        leaving.evaluate("fetch('/').then(() => null)")
        assert network.tried["poll"] == polls
        leaving.clock.fast_forward(20_000)
        for _ in range(2000):
            leaving.evaluate("fetch('/').then(() => null)")
            if network.tried["poll"] > polls:
                break
        assert network.tried["poll"] == polls + 1
    assert reader.tab.seen("n", 1) == [1]
    assert reader.source.taken == 1
    reader.release()
    assert reader.tab.seen("n", 2) == [1, 2]


LEAVE = "(type) => dispatchEvent(new PageTransitionEvent(type, {persisted: true}))"


@pytest.mark.parametrize("asleep", [True, False], ids=["while away", "when back"])
def test_a_page_that_a_browser_keeps_while_a_value_is_consumed(
    transport: str, reader: Reader, asleep: bool
) -> None:
    reader.watch()
    reader.make()
    reader.consume()
    reader.taken(1)
    reader.page.evaluate(LEAVE, "pagehide")
    wait_for_listeners(reader.news, 0, PATIENCE / 1000)
    if asleep:
        reader.release()
    reader.page.evaluate(LEAVE, "pageshow")
    if not asleep:
        reader.mark()
        assert reader.source.taken == 1
        reader.release()
    reader.taken(2)


def test_an_acknowledgement_that_does_not_come_through_is_said_again(
    network: Network, reader: Reader
) -> None:
    network.only("sse")
    refused: list[str] = []

    def refuse(route: Route) -> None:
        if len(refused) < 2:
            refused.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    reader.watch()
    reader.make()
    reader.page.route("**/ack", refuse)
    streams = network.tried["sse"]
    reader.consume()
    reader.tab.seen("n", 1)
    streams = network.tried["sse"]
    reader.release()
    reader.taken(2)
    assert len(refused) == 2
    assert network.tried["sse"] == streams


@pytest.fixture
def proxy(address: Address) -> Iterator[FaultyProxy]:
    with FaultyProxy(address).run() as proxy:
        yield proxy


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [1, 5])
def test_every_value_comes_once_and_in_order_whatever_befalls_the_connections(
    comet: Comet,
    transport: str,
    leaving: Page,
    proxy: FaultyProxy,
    network: Network,
    news: Channel[Any],
    ahead: int,
) -> None:
    reader = Reader(Tab(leaving, proxy.address.url), network, comet, news)
    reader.watch()
    source = reader.source
    source.over = lambda: source.taken >= 100 and proxy.enough()
    leaving.evaluate(
        """() => {
            const pause = (value) => new Promise((done) => setTimeout(done, value % 7 * 5))
            window.slowly = async (key, name) => {
                const heard = seen[key] = []
                for await (const value of comet.channel(name)) {
                    heard.push(value)
                    if (value % 3) await pause(value)
                }
            }
            slowly("n", "~n").then(() => seen.n.push("ended"))
            slowly("beside", "news").catch(({ reason }) => seen.beside.push(reason))
        }"""
    )
    published = iter(range(10**9))
    worst = 0
    reader.make(ahead)
    while not leaving.evaluate("seen.n.length"):
        pass  # before that it has no position to come back with
    with proxy.faults(lambda: news.publish(next(published))):
        while (seen := leaving.evaluate("seen.n"))[-1:] != ["ended"] and proxy.befell["reset"] < 50:
            worst = max(worst, source.taken - len(leaving.evaluate("seen.n")))
    assert seen == [*range(1, source.taken + 1), "ended"]
    assert source.over()
    assert worst <= ahead
    news_seen = leaving.evaluate("seen.news")
    assert news_seen == list(range(len(news_seen)))


# From the first message


def test_the_start_first_is_everything_from_the_first_message_or_full(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any]
) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=2)
    for n in range(3):
        news.publish(n)
        narrow.publish(n)
    tab.follow("news", options='{ from: "first" }')
    tab.follow("now", "news")
    tab.follow("narrow", options='{ from: "first" }')
    assert tab.seen("news", 3) == [0, 1, 2]
    assert tab.seen("narrow", 2)[0][0] == "ChannelFull"
    tab.placed("now")
    news.publish(3)
    assert tab.seen("now", 1) == [3]
    assert tab.seen("news", 4) == [0, 1, 2, 3]


def test_a_reference_begins_at_the_first_message(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any]
) -> None:
    for n in range(3):
        news.publish(n)
    for start in (news.reference("first"), {**news.reference(), "position": "first"}):
        tab.page.evaluate(
            """(reference) => {
                seen.news = []
                comet.open(reference, { onmessage: (value) => seen.news.push(value) })
            }""",
            start,
        )
        assert tab.seen("news", 3) == [0, 1, 2]
