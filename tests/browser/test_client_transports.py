"""The browser client over each transport: what it delivers, and what it tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, Request

from asgi_comet import SITE, Channel, ChannelFull, Comet
from tests.kit.following import Network, Tab, own_process
from tests.kit.serving import Address

pytestmark = pytest.mark.browser


@pytest.mark.firefox
def test_messages_of_three_channels_come_in_order_to_every_consumer(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any], network: Network
) -> None:
    gauge = comet.create_newest(name="gauge")
    inbox = comet.create(scope=own_process(tab, network), name="inbox")
    tab.follow("news")
    tab.follow("gauge")
    tab.follow("~inbox")
    tab.follow("again", "news", "callbacks('again')")
    tab.placed("news", "gauge", "~inbox", "again")
    last = 199
    for n in range(last + 1):
        for channel in (news, gauge, inbox):
            channel.publish(n)
    every = list(range(last + 1))
    assert tab.seen("news", last + 1) == every
    assert tab.seen("again", last + 1) == every
    assert tab.seen("~inbox", last + 1) == every
    newest = tab.page.wait_for_function(
        "(last) => seen.gauge.at(-1) === last && seen.gauge", arg=last
    ).json_value()
    assert newest == sorted(set(newest))
    assert network.tried[transport] >= 1
    assert tab.page.evaluate("comet.status") == "online"


@pytest.mark.firefox
def test_any_text_comes_as_it_was_written(
    transport: str, tab: Tab, news: Channel[Any], network: Network
) -> None:
    texts = ["ü", "a\r\nb\n\nc\rd", "\u2028\u2029\x85", "a: b", "data: {}\n\n", "🎈" * 50_000, "\0"]
    tab.follow("news")
    tab.placed("news")
    before = network.tried[transport]
    for text in texts:
        news.publish(text)
    assert tab.seen("news", len(texts)) == texts
    if transport != "poll":
        assert network.tried[transport] == before  # on the same connection


def test_channels_come_and_go_and_no_other_loses_a_message(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any]
) -> None:
    others = [comet.create(scope=SITE, name=f"other{n}") for n in range(5)]
    # With every third message one of the others comes, or goes.
    tab.follow(
        "news",
        options="""{ onmessage(value) {
            seen.news.push(value)
            if (value % 3) return
            const key = `other${value % 5}`, past = window.past ??= []
            if (!consumers[key]) return follow(key, key)
            consumers[key].close()
            past.push(seen[key])
            delete consumers[key]
        } }""",
    )
    tab.follow("beside", "news")
    tab.placed("news", "beside")
    count = 600
    for n in range(count):
        for channel in (news, *others):
            channel.publish(n)
        if n % 10 == 9:  # at most twenty are on their way
            tab.seen("news", n - 10)
    assert tab.seen("news", count) == list(range(count))
    assert tab.seen("beside", count) == list(range(count))
    past = tab.page.evaluate("past")
    assert len(past) > 20
    runs = [[value for value in run if value is not True] for run in past]
    assert any(runs)
    for run in runs:
        assert run == list(range(run[0], run[0] + len(run))) if run else True, run


def test_one_who_begins_earlier_while_messages_come_gets_them_all(
    transport: str, tab: Tab, news: Channel[Any]
) -> None:
    """Even in the midst of what came at once."""
    start = news.reference()["position"]
    tab.follow(
        "news",
        options="""{ onmessage(value) {
            seen.news.push(value)
            if (value % 10 === 5) follow(`early${value}`, "news", { from: "START" })
        } }""".replace("START", start),
    )
    tab.placed("news")
    count = 100
    for n in range(count):
        news.publish(n)
    assert tab.seen("news", count) == list(range(count))
    for n in range(5, count, 10):
        assert tab.seen(f"early{n}", count) == list(range(count))


def test_a_channel_that_comes_while_the_connection_is_made_is_followed(
    comet: Comet, transport: str, tab: Tab
) -> None:
    """At whatever turn of the event loop after the process is known."""
    turns = 12
    for n in range(turns):
        comet.create(scope=SITE, name=f"first{n}")
        comet.create(scope=SITE, name=f"then{n}")
        comet.create(scope=SITE, name=f"last{n}")
    tab.page.evaluate(
        """(turns) => {
            const placed = async (consumer) => {
                while (!consumer.position) await new Promise((done) => setTimeout(done))
            }
            window.connected = 0
            const round = async (n) => {
                const { connect } = await import("/comet/comet.js")
                const client = connect()
                const first = client.channel(`first${n}`)
                await client.process()
                for (let turn = 0; turn < n; turn++) await null
                const then = client.channel(`then${n}`)
                await placed(first)
                await placed(then)
                await placed(client.channel(`last${n}`))
                client.close()
                if (++connected < turns) return round(connected)
            }
            void round(0)
        }""",
        turns,
    )
    tab.page.wait_for_function("(turns) => connected === turns", arg=turns)


@pytest.mark.firefox
def test_full_and_closed_are_told_once_to_every_consumer(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any]
) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    old = narrow.reference()["position"]
    for n in range(3):
        narrow.publish(n)
    new = narrow.reference()["position"]
    for key in ("news", "news2"):
        tab.follow(key, "news")
    for key in ("narrow", "narrow2"):
        tab.follow(key, "narrow", json.dumps({"from": old}))
    tab.follow("nobody")
    tab.follow("called", "nobody", "callbacks('called')")
    tab.follow("reported", "nobody", "{...callbacks('reported'), onclosed: undefined}")
    for key in ("narrow", "narrow2"):
        assert tab.seen(key, 2) == [["ChannelFull", "narrow", None, new], True]
    assert tab.seen("called", 1) == [["onclosed", "ChannelClosed", "nobody", "unknown", None]]
    assert tab.seen("nobody", 2) == [["ChannelClosed", "nobody", "unknown", None], True]
    assert tab.seen("reported", 1) == [["onerror", "ChannelClosed", "nobody", "unknown", None]]

    tab.placed("news", "news2")
    news.publish("last words")
    news.close()
    for key in ("news", "news2"):
        assert tab.seen(key, 2) == ["last words", True]
    everything = tab.page.evaluate("seen")
    assert {key: len(heard) for key, heard in everything.items()} == {
        "news": 2,
        "news2": 2,
        "narrow": 2,
        "narrow2": 2,
        "nobody": 2,
        "called": 1,
        "reported": 1,
    }


def test_one_consumer_resumes_where_the_channel_is_and_the_other_is_told_full(
    comet: Comet, transport: str, tab: Tab
) -> None:
    narrow = comet.create(scope=SITE, name="narrow", size=1)
    old = narrow.reference()["position"]
    for n in range(3):
        narrow.publish(n)
    new = narrow.reference()["position"]
    tab.follow("resumes", "narrow", json.dumps({"from": old, "onfull": "resume"}))
    tab.follow("told", "narrow", json.dumps({"from": old}))
    assert tab.seen("told", 2) == [["ChannelFull", "narrow", None, new], True]
    tab.page.wait_for_function("(at) => consumers.resumes.position === at", arg=new)
    narrow.publish("after")
    assert tab.seen("resumes", 1) == ["after"]


def test_a_final_full_ends_whoever_would_resume(
    comet: Comet, transport: str, tab: Tab, news: Channel[Any], network: Network
) -> None:
    inbox = comet.create(scope=own_process(tab, network), name="inbox", size=1)
    inbox.publish("never read")
    with pytest.raises(ChannelFull):
        inbox.publish("one too many")
    tab.follow("~inbox", options='{ onfull: "resume" }')
    tab.follow("called", "~inbox", '{ ...callbacks("called"), onfull: "resume" }')
    tab.follow("news")
    assert tab.seen("~inbox", 2) == [["ChannelFull", "~inbox", None, None], True]
    assert tab.seen("called", 1) == [["onerror", "ChannelFull", "~inbox", None, None]]
    tab.placed("news")
    for n in range(3):
        news.publish(n)
        tab.seen("news", n + 1)
    assert network.tried[transport] <= 12  # it does not ask for it again and again
    assert tab.page.evaluate("[seen['~inbox'].length, seen.called.length]") == [2, 1]


def test_acknowledges_once_a_second_and_only_what_is_the_processs_own(
    comet: Comet,
    transport: str,
    leaving: Page,
    address: Address,
    news: Channel[Any],
    network: Network,
) -> None:
    page = leaving
    said: list[Any] = []

    def note(frame: Any) -> None:
        found = json.loads(frame)
        if "ack" in found:
            said.append(found["ack"])

    def note_request(request: Request) -> None:
        if request.url.endswith("/ack"):
            said.append(request.post_data_json)

    page.on("websocket", lambda socket: socket.on("framesent", note))
    page.on("request", note_request)
    page.clock.install()
    tab = Tab(page, address.url)
    inbox = comet.create(scope=own_process(tab, network), name="inbox")
    tab.follow("news")
    tab.follow("~inbox")
    tab.placed("news", "~inbox")
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 5)
    here = page.evaluate(
        "consumers['~inbox'].position"
    )  # where it began, which is acknowledged too
    expected: list[Any] = [] if transport == "poll" else [{"~inbox": here}]
    count = 0
    for _ in range(3):
        for _ in range(10):
            news.publish(count)
            inbox.publish(count)
            count += 1
            tab_seen(page, "~inbox", count)
        tab_seen(page, "news", count)
        assert said == expected
        page.clock.run_for(1000)
        if transport != "poll":  # whose next request acknowledges
            expected.append({"~inbox": page.evaluate("consumers['~inbox'].position")})
        page.evaluate("fetch('/')")  # what was sent before has been noted
        assert said == expected
    page.clock.resume()


def tab_seen(page: Page, key: str, count: int) -> None:
    """Wait in a page whose clock stands still, where nothing can be looked at at intervals."""
    for _ in range(2000):
        if page.evaluate("(key) => seen[key].length", key) >= count:
            return
    raise AssertionError(f"{key} never had {count}")
