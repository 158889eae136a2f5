"""On demand over real sockets: a source is read no further than its client acknowledges.

That a source was *not* read is seen without waiting: a message of a site channel that comes on the
same connection, or an answer, was written after everything that the server had to do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from asgi_comet import SITE, Channel, Comet, Settings
from asgi_comet.identity.process import ClientProcess
from tests.kit.loop import in_loop
from tests.kit.processes import process_of
from tests.kit.serving import Address, Tab
from tests.kit.stage import Made
from tests.kit.streams import Cut, Sse, Ws


class Source:
    """A source without end that never waits, and counts the values that were taken from it."""

    def __init__(self) -> None:
        self.taken = 0

    async def values(self) -> AsyncIterator[int]:
        while True:
            self.taken += 1
            yield self.taken

    def of(self, process: ClientProcess) -> AsyncIterator[int]:
        return self.values()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def tab(server: Address) -> Tab:
    return Tab(server)


@pytest.fixture
def mark(comet: Comet) -> Channel[str]:
    """A channel whose messages show that everything before them has happened."""
    return comet.create(scope=SITE, name="mark", type=str)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def settle(comet: Comet) -> None:
    """Let the loop run everything that is ready, several times over."""
    for _ in range(5):
        in_loop(comet, lambda: None)


def open_sse(tab: Tab, query: dict[str, str], last_id: str | None = None) -> Sse:
    return Sse.open(
        tab.address, ["~n", "mark"], tab.url, query, Cookie=tab.cookie, Last_Event_ID=last_id
    )


def named(stream: Sse, name: str, count: int) -> list[Any]:
    """Return the values of the next events, which all must be of one channel."""
    found: list[Any] = []
    while len(found) < count:
        event = stream.next()
        if event.name and not event.name.startswith((":", "#")):
            assert event.name == name
            found.append(event.value)
    return found


# WebSocket


@pytest.mark.parametrize("ahead", [1, 3])
def test_a_websocket_that_acknowledges_nothing_gets_the_window_and_no_more(
    comet: Comet, tab: Tab, source: Source, mark: Channel[str], stack: ExitStack, ahead: int
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n", ahead=ahead)
    socket = stack.enter_context(Ws(tab.address, tab.url, tab.cookie))
    socket.say(subscribe={"~n": "now", "mark": "now"})
    socket.take(2)
    assert [event["data"] for event in socket.take(ahead)] == list(range(1, ahead + 1))
    for text in ("one", "two", "three"):
        mark.publish(text)
        assert socket.next()["data"] == text
    settle(comet)
    assert source.taken == ahead


def test_a_websocket_gets_one_value_for_each_acknowledgement(
    comet: Comet, tab: Tab, source: Source, mark: Channel[str], stack: ExitStack
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n")
    socket = stack.enter_context(Ws(tab.address, tab.url, tab.cookie))
    socket.say(subscribe={"~n": "now", "mark": "now"})
    socket.take(2)
    for n in range(1, 20):
        event = socket.next()
        assert event["data"] == source.taken == n
        socket.say(ack={"~n": event["position"]})
        socket.say(ack={"~n": event["position"]})  # the same again changes nothing
    assert "ahead" not in event


def test_now_beyond_what_was_acknowledged_waits_for_its_position_to_be_acknowledged(
    comet: Comet, tab: Tab, source: Source, mark: Channel[str], stack: ExitStack
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n")
    for _ in range(2):  # the second connection does not want what the first one left
        socket = stack.enter_context(Ws(tab.address, tab.url, tab.cookie))
        socket.say(subscribe={"~n": "now"})
        here = socket.next()
        if source.taken == 0:
            assert socket.next()["data"] == 1
    settle(comet)
    assert source.taken == 1
    socket.say(ack={"~n": here["position"]})
    assert socket.next()["data"] == 2


def test_an_acknowledgement_without_a_listener_reads_nothing(
    comet: Comet, tab: Tab, source: Source, stack: ExitStack
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n")
    position = tab.poll({"~n": "now"})[0]["position"]
    position = tab.poll({"~n": position})[0]["position"]
    assert tab.post(f"{tab.url}/ack", {"~n": position}).status == 204
    settle(comet)
    assert source.taken == 1


# Clients that acknowledge say so, and are told where that is waited for


def test_a_websocket_that_says_it_acknowledges_is_told_where(
    comet: Comet, tab: Tab, source: Source, mark: Channel[str], stack: ExitStack
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n", ahead=2)
    socket = stack.enter_context(Ws(tab.address, tab.url, tab.cookie, query="?ack=1"))
    socket.say(subscribe={"~n": "now", "mark": "now"})
    socket.take(2)
    assert [event["ahead"] for event in socket.take(2)] == [2, 2]
    mark.publish("x")
    assert "ahead" not in socket.next()


def test_a_poll_that_says_it_acknowledges_is_told_where(
    comet: Comet, tab: Tab, source: Source, mark: Channel[str]
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n")

    def ask(starts: dict[str, str], query: str) -> list[dict[str, Any]]:
        answer = tab.post(f"{tab.url}/poll{query}", {"channels": starts})
        events: list[dict[str, Any]] = json.loads(answer.body)["events"]
        return events

    here = {e["channel"]: e["position"] for e in ask({"~n": "now", "mark": "now"}, "?ack=1")}
    mark.publish("x")
    while "~n" in here and source.taken < 1:
        events = ask(here, "?ack=1")
        assert all("ahead" not in e for e in events if e["channel"] == "mark")
    (event,) = ask({"~n": here["~n"]}, "?ack=1")
    assert event == {"channel": "~n", "position": event["position"], "data": 1, "ahead": 1}
    (event,) = ask({"~n": here["~n"]}, "?other=1")
    assert event == {"channel": "~n", "position": event["position"], "data": 1}


def test_an_event_stream_that_says_it_acknowledges_stays_and_is_told_where(
    comet: Comet, tab: Tab, source: Source, mark: Channel[str]
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n")
    with open_sse(tab, {"ack": "1"}) as stream:
        for n in range(1, 4):
            assert named(stream, "~n", 1) == [n]
            assert b"ahead: 1\n" in b"".join(stream.chunks)
            mark.publish("x")
            assert named(stream, "mark", 1) == ["x"]
            assert source.taken == n
            position = str(stream.last_id).split(",")[0]
            assert tab.post(f"{tab.url}/ack", {"~n": position}).status == 204


# `EventSource`, which acknowledges by coming again


@pytest.mark.parametrize("ahead", [1, 3])
def test_an_event_stream_ends_when_the_window_is_used_up_and_the_next_request_acknowledges(
    comet: Comet, tab: Tab, source: Source, mark: Channel[str], ahead: int
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n", ahead=ahead)
    last_id = None
    for n in range(4):
        with open_sse(tab, {}, last_id) as stream:
            expected = [n * ahead + k for k in range(1, ahead + 1)]
            assert named(stream, "~n", ahead) == expected
            assert {event.name for event in stream.rest()} <= {"", "#"}
            assert stream.retry == 100
            assert b"ahead" not in b"".join(stream.chunks)
            assert source.taken == expected[-1]
            last_id = stream.last_id


def test_an_event_stream_that_begins_behind_a_used_up_window_ends_at_once(
    comet: Comet, tab: Tab, source: Source, mark: Channel[str]
) -> None:
    comet.create_unlimited(source.values(), scope=process_of(comet, tab), name="n")
    for _ in range(2):
        with open_sse(tab, {}) as stream:
            assert {event.name for event in stream.rest()} <= {":open", "~n", "", "#"}
        assert stream.retry == 100
    assert source.taken == 1
    with open_sse(tab, {}, stream.last_id) as stream:
        assert named(stream, "~n", 1) == [2]


def test_an_event_stream_ends_when_the_history_has_no_room_for_another_message(
    make_server: Callable[..., Made],
) -> None:
    comet, address = make_server(
        settings=Settings(jitter=0, message_limit=1000, history_bytes=3000)
    )
    tab = Tab(address)

    async def long() -> AsyncIterator[str]:
        while True:
            yield "x" * 900

    comet.create_unlimited(long(), scope=process_of(comet, tab), name="n", ahead=100)
    last_id = None
    for _ in range(3):
        with Sse.open(address, ["~n"], tab.url, Cookie=tab.cookie, Last_Event_ID=last_id) as stream:
            assert len(named(stream, "~n", 3)) == 3  # 2,706 bytes
            assert {event.name for event in stream.rest()} <= {"", "#"}
            assert stream.retry == 100
            last_id = stream.last_id


def test_an_on_demand_channel_that_ends_is_told_to_be_closed(
    comet: Comet, tab: Tab, mark: Channel[str]
) -> None:
    async def two() -> AsyncIterator[int]:
        for n in (1, 2):
            yield n

    comet.create_unlimited(two(), scope=process_of(comet, tab), name="n")
    last_id, seen = None, []
    while ":closed" not in seen:
        with open_sse(tab, {}, last_id) as stream:
            try:
                while ":closed" not in seen:
                    seen.append(stream.next().name)
            except Cut:
                last_id = stream.last_id
    assert [name for name in seen if name in ("~n", ":closed")] == ["~n", "~n", ":closed"]


def test_a_declared_on_demand_channel_has_its_own_window(
    comet: Comet, tab: Tab, source: Source, stack: ExitStack
) -> None:
    async def numbers(process: ClientProcess) -> AsyncIterator[int]:
        async for value in source.of(process):
            yield value

    comet.unlimited("n", ahead=4)(numbers)
    socket = stack.enter_context(Ws(tab.address, tab.url, tab.cookie))
    socket.say(subscribe={"~n": "now"})
    assert [event.get("data") for event in socket.take(5)] == [None, 1, 2, 3, 4]
    settle(comet)
    assert source.taken == 4
