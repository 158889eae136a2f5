"""What one answer, one write and one client may hold is bounded by what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from asgi_comet import SITE, Channel, Comet, Outcome, Settings
from asgi_comet.channels.chunks import KEPT
from asgi_comet.channels.feed import Feed
from asgi_comet.core.messages import Message
from asgi_comet.identity import clients
from asgi_comet.position import Position
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import client_of, encoded, encoded_bytes, feed_of, inside, tables
from tests.kit.loop import in_loop
from tests.kit.registering import OldPage
from tests.kit.serving import Address, events, poll
from tests.kit.streams import Sse, Ws

MakeServer = Callable[..., tuple[Comet, Address]]
LIMIT = 20_000  # bytes of an answer
COUNT = 200  # messages of a channel


def make_channels(comet: Comet, count: int, length: int = 8, size: int = 1000) -> list[Any]:
    """Channels with names of some length and many messages of one byte."""
    found = []
    for number in range(count):
        name = f"{number:03}".ljust(length, "n")
        found.append(comet.create(scope=SITE, name=name, size=size))
    return found


def fill(channels: list[Any], count: int = COUNT) -> None:
    for channel in channels:
        for number in range(count):
            channel.publish(number % 10)


def close(channels: list[Any]) -> None:
    for channel in channels:
        channel.close()


@pytest.fixture
def made(make_server: MakeServer) -> tuple[Comet, Address]:
    return make_server(settings=Settings(jitter=0, answer_bytes=LIMIT))


def post(server: Address, channels: dict[str, str], **more: Any) -> Any:
    body = json.dumps({"channels": channels, **more})
    return server.request("POST", "/comet/poll", body, {"Content-Type": "application/json"})


# One answer


@pytest.mark.parametrize(("count", "length"), [(1, 1), (1, 255), (20, 8), (20, 255)])
def test_a_poll_is_bounded_by_what_is_written_and_all_comes_in_order(
    made: tuple[Comet, Address], count: int, length: int
) -> None:
    comet, server = made
    channels = make_channels(comet, count, length)
    fill(channels)
    asked = {channel.name: f"last:{COUNT}" for channel in channels}
    seen: dict[str, list[int]] = {name: [] for name in asked}
    while any(len(found) < COUNT for found in seen.values()):
        answer = post(server, asked)
        assert len(answer.body) <= LIMIT
        assert answer.body != b'{"events":[]}'
        for event in events(answer):
            asked[event["channel"]] = event["position"]
            if "data" in event:
                seen[event["channel"]].append(event["data"])
    assert all(found == [n % 10 for n in range(COUNT)] for found in seen.values())


@pytest.mark.parametrize(("count", "more"), [(64, 3), (80, 0)])
def test_an_answer_that_tells_where_many_channels_are_has_room_for_less(
    made: tuple[Comet, Address], count: int, more: int
) -> None:
    comet, server = made
    channels = make_channels(comet, count, 255)
    fill(channels, 3)
    answer = post(server, {channel.name: "last:3" for channel in channels})
    assert len(events(answer)) == count + more  # where they are is told at once in any case
    assert len(answer.body) <= max(LIMIT, count * 300)


def test_ends_that_do_not_fit_are_told_with_the_next_polls(made: tuple[Comet, Address]) -> None:
    comet, server = made
    channels = make_channels(comet, 64, 255, size=2)
    fill(channels, 1)
    places = {channel.name: str(feed_of(channel).history.position) for channel in channels}
    for number, channel in enumerate(channels):
        if number % 2:
            fill([channel], 3)  # the next one for the client has gone
        else:
            channel.close()
    seen: dict[str, str] = {}
    while places:
        answer = post(server, places)
        assert len(answer.body) <= LIMIT
        for event in events(answer):
            seen[event["channel"]] = event["error"]
            del places[event["channel"]]
    assert seen == {c.name: ("closed", "full")[n % 2] for n, c in enumerate(channels)}


def test_a_registration_at_a_client_process_is_bounded_percent_signs_included(
    made: tuple[Comet, Address],
) -> None:
    comet, server = made
    page = OldPage(comet, server)
    inboxes = [comet.create(scope=page.process, name=f"{n}") for n in range(3)]
    for inbox in inboxes:
        for number in range(COUNT):
            inbox.publish(f"{number}" + "é" * 50)
    names = [f"~{n}" for n in range(3)]
    seen, number = list[bytes](), 0
    while len(seen) < 3 * COUNT:
        number += 1
        answer = page.register(*names, number=number)
        assert 0 < len(answer.body) <= LIMIT
        seen += answer.pairs
    for name in names:
        mine = [pair for pair in seen if pair.startswith(name.encode())]
        assert mine == [f"{name}:{n}{quote('é' * 50)}".encode() for n in range(COUNT)]


# One write


@pytest.mark.parametrize("format_", ["json", "text"])
@pytest.mark.parametrize("count", [1, 3, 64])
def test_a_write_of_events_is_bounded_ids_included_and_all_comes_in_order(
    made: tuple[Comet, Address], count: int, format_: str
) -> None:
    comet, server = made
    channels = make_channels(comet, count)
    fill(channels)
    asked: dict[str, str | None] = {channel.name: f"last:{COUNT}" for channel in channels}
    seen: dict[str, list[int]] = {name: [] for name in asked}
    with Sse.open(server, asked, more={"format": format_}) as stream:
        ids = stream.next().id
        assert ids is not None
        places = [Position.parse(part) for part in ids.split(",")]
        for event in stream.take(count * COUNT):
            at = list(asked).index(event.name)
            seen[event.name].append(event.value)
            places[at] = Position(places[at].epoch, places[at].offset + 1)
            assert event.id == ",".join(map(str, places))
    assert all(found == [n % 10 for n in range(COUNT)] for found in seen.values())
    assert max(map(len, stream.chunks)) <= LIMIT
    assert len(stream.chunks) >= sum(map(len, stream.chunks)) // LIMIT


@pytest.mark.parametrize("count", [1, 3, 64])
def test_a_frame_is_bounded_and_all_comes_in_order(made: tuple[Comet, Address], count: int) -> None:
    comet, server = made
    channels = make_channels(comet, count, 100)
    fill(channels)
    seen: dict[str, list[int]] = {channel.name: [] for channel in channels}
    with Ws(server) as socket:
        socket.say(subscribe={channel.name: f"last:{COUNT}" for channel in channels})
        while any(len(found) < COUNT for found in seen.values()):
            text = socket.connection.recv(timeout=20)
            assert len(text) <= LIMIT
            for event in json.loads(text)["events"]:
                if "data" in event:
                    seen[event["channel"]].append(event["data"])
    assert all(found == [n % 10 for n in range(COUNT)] for found in seen.values())


def test_ends_of_many_channels_are_told_in_writes_of_that_size(
    made: tuple[Comet, Address],
) -> None:
    comet, server = made
    channels = make_channels(comet, 64, 100)
    with Sse.open(server, [channel.name for channel in channels]) as stream:
        stream.next()
        in_loop(comet, lambda: close(channels))
        found = stream.take(64)
    assert {event.name for event in found} == {":closed"}
    assert len({event.value["channel"] for event in found}) == 64
    assert found[-1].id == ",".join("-" * 64)
    assert max(map(len, stream.chunks[1:])) <= LIMIT + 2000  # the end of one channel


def test_what_is_refused_at_first_is_told_in_writes_of_that_size(
    made: tuple[Comet, Address],
) -> None:
    comet, server = made
    there = make_channels(comet, 1)[0]
    fill([there], 5)
    names = [f"unknown{n:02}".ljust(100, "n") for n in range(63)]
    starts = dict.fromkeys(names, "k3x9Qp0123456789.123456789") | {there.name: "last:5"}
    with Sse.open(server, starts) as stream:
        stream.next()
        found = stream.take(63 + 5)
    assert [event.name for event in found] == [":closed"] * 63 + [there.name] * 5
    ids = [event.id or "" for event in found]
    assert [one.split(",").count("-") for one in ids] == [*range(1, 64), *[63] * 5]
    assert max(map(len, stream.chunks[1:])) <= LIMIT


# What a broker gives back


def recover_from(kept: dict[str, list[Message]], asked: list[int]) -> Any:
    async def recover(feed: Feed, after: int, max_bytes: int) -> list[Message] | None:
        asked.append(max_bytes)
        return kept[feed.name][after:] or None

    return recover


@pytest.mark.parametrize("transport", ["poll", "sse", "websocket"])
def test_what_a_broker_has_kept_is_bounded_likewise(
    made: tuple[Comet, Address], monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    comet, server = made
    channels = make_channels(comet, 5, size=1)
    fill(channels)
    kept = {c.name: [Message(n + 1, b"%d" % (n % 10)) for n in range(COUNT)] for c in channels}
    asked: list[int] = []
    monkeypatch.setattr(inside(comet).broker, "recover", recover_from(kept, asked))
    places = {c.name: f"{feed_of(c).history.epoch}.0" for c in channels}
    seen: dict[str, list[int]] = {name: [] for name in places}
    sizes: list[int] = []

    def note(found: list[Any], size: int) -> None:
        sizes.append(size)
        for event in found:
            places[event["channel"]] = event["position"]
            seen[event["channel"]].append(event["data"])

    if transport == "poll":
        while any(len(found) < COUNT for found in seen.values()):
            answer = post(server, places)
            note(events(answer), len(answer.body))
    elif transport == "websocket":
        with Ws(server) as socket:
            socket.say(subscribe=places)
            while any(len(found) < COUNT for found in seen.values()):
                text = socket.connection.recv(timeout=20)
                note(json.loads(text)["events"], len(text))
    else:
        with Sse.open(server, dict[str, str | None](places)) as stream:
            stream.next()
            for event in stream.take(5 * COUNT):
                seen[event.name].append(event.value)
        sizes = [len(chunk) for chunk in stream.chunks]
    assert all(found == [n % 10 for n in range(COUNT)] for found in seen.values())
    assert max(sizes) <= LIMIT
    assert max(asked) <= LIMIT


# What is kept to be shared


def test_what_is_kept_to_be_shared_is_bounded_and_goes_with_the_last_listener(
    made: tuple[Comet, Address],
) -> None:
    comet, server = made
    channels = make_channels(comet, 20)
    fill(channels)
    names = [channel.name for channel in channels]
    most: dict[str, int] = dict.fromkeys(names, 0)

    def watch(channel: Any) -> Callable[[int], None]:
        def note(_: int) -> None:
            most[channel.name] = max(most[channel.name], encoded_bytes(feed_of(channel)))

        return note

    for channel in channels:
        feed_of(channel).observers = (watch(channel),)
    streams = []
    for shift in range(5):
        order = names[shift:] + names[:shift]
        stream = Sse.open(server, dict.fromkeys(order, f"last:{COUNT}"))
        streams.append(stream)
        stream.next()
        stream.take(20 * COUNT)
    assert 0 < max(encoded_bytes(feed_of(channel)) for channel in channels) <= KEPT * LIMIT
    for stream in streams:
        stream.cut()
    for channel in channels:
        wait_for_listeners(channel, 0)
    assert max(most.values()) <= KEPT * LIMIT
    assert sum(encoded_bytes(feed_of(channel)) for channel in channels) == 0


def test_what_comes_is_written_once_for_all_streams_whatever_else_they_follow(
    made: tuple[Comet, Address],
) -> None:
    comet, server = made
    a, b, c = make_channels(comet, 3)
    orders = [[a, b], [b, a], [a, b, c], [c, a]]
    streams = [Sse.open(server, [channel.name for channel in order]) for order in orders]
    for stream in streams:
        stream.next()
    wait_for_listeners(a, 4)
    a.publish("x")
    assert [stream.next().value for stream in streams] == ["x"] * 4
    assert len(encoded(feed_of(a))) == 1
    for stream in streams:
        stream.cut()


# The registration protocol at a client process


@pytest.fixture
def page(made: tuple[Comet, Address]) -> OldPage:
    return OldPage(*made)


@pytest.fixture
def ticker(made: tuple[Comet, Address], page: OldPage) -> Channel[str]:
    """A channel with two messages, of which the page has asked once since."""
    ticker = made[0].create(scope=SITE, name="ticker", size=2)
    held = page.hold("ticker", number=0)
    wait_for_listeners(ticker, 1)
    ticker.publish("0")
    assert held.answer().body == b"ticker:0"
    return ticker


def test_of_an_answer_only_its_offsets_are_kept(page: OldPage, ticker: Channel[str]) -> None:
    ticker.publish("x" * 1000)
    assert page.register("ticker", "gone", number=1).pairs[1:] == [b"gone:ENDED_CHANNEL"]
    kept = client_of(page.process).registered
    assert kept is not None
    assert kept.answer == [
        (feed_of(ticker), 1, 2),
        b"gone:ENDED_CHANNEL",
    ]


def test_what_is_no_longer_held_when_an_answer_is_repeated_is_told_as_ended(
    page: OldPage, ticker: Channel[str]
) -> None:
    ticker.publish("1")
    assert page.register("ticker", "gone", number=1).pairs == [b"ticker:1", b"gone:ENDED_CHANNEL"]
    ticker.publish("2")
    assert page.register("ticker", "gone", number=1).pairs == [b"ticker:1", b"gone:ENDED_CHANNEL"]
    ticker.publish("3")
    for _ in range(2):
        again = page.register("ticker", "gone", number=1)
        assert again.pairs == [b"ticker:ENDED_CHANNEL", b"gone:ENDED_CHANNEL"]
    held = page.hold("ticker", number=2)  # it begins anew
    wait_for_listeners(ticker, 1)
    ticker.publish("4")
    assert held.answer().pairs == [b"ticker:4"]


def test_that_a_channel_has_ended_is_told_once_when_its_messages_have_gone_as_well(
    made: tuple[Comet, Address], page: OldPage
) -> None:
    inbox = made[0].create(scope=page.process, name="inbox")
    inbox.publish("x")
    inbox.close()
    assert page.register("~inbox", number=1).pairs == [b"~inbox:x", b"~inbox:ENDED_CHANNEL"]
    feed_of(inbox).acknowledge(1)
    assert page.register("~inbox", number=1).pairs == [b"~inbox:ENDED_CHANNEL"]


def test_of_a_newest_channel_the_newest_is_repeated_and_comes_once(
    made: tuple[Comet, Address], page: OldPage
) -> None:
    comet, _ = made
    price = comet.create_newest(name="price")
    held = page.hold("price", number=1)
    wait_for_listeners(price, 1)
    price.publish("old")
    assert held.answer().pairs == [b"price:old"]
    assert page.register("price", number=1).pairs == [b"price:old"]

    price.publish("new")
    assert page.register("price", number=1).pairs == [b"price:new"]
    held = page.hold("price", number=2)
    wait_for_listeners(price, 1)
    assert feed_of(price).outcomes.of(2) is Outcome.SUCCESS
    price.publish("newer")
    assert held.answer().pairs == [b"price:newer"]


def test_what_a_broker_has_kept_is_repeated_as_well(
    made: tuple[Comet, Address],
    page: OldPage,
    ticker: Channel[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = {"ticker": [Message(n + 1, b'"%d"' % n) for n in range(6)]}
    monkeypatch.setattr(inside(made[0]).broker, "recover", recover_from(kept, []))
    ticker.publish("1")
    first = page.register("ticker", number=1)
    for n in range(2, 6):
        ticker.publish(str(n))
    assert page.register("ticker", number=1).pairs == first.pairs == [b"ticker:1"]


def test_what_all_client_processes_keep_is_bounded_at_n_and_n_plus_one(
    made: tuple[Comet, Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    comet, server = made
    pages = [OldPage(comet, server) for _ in range(3)]
    monkeypatch.setattr(clients, "REGISTERED_LIMIT", 2 * (512 + 16 * len("gone")))
    assert [page.register("gone").status for page in pages] == [200, 200, 503]
    assert client_of(pages[2].process).registered is None
    assert pages[0].register("gone").status == 200  # not more than before
    assert pages[0].register("gone", "too").status == 503
    refused = pages[2].register("gone")
    assert int(refused.headers["retry-after"]) > 0
    assert poll(server, {"gone": "now"})[0]["reason"] == "unknown"  # others do not notice
    pages[0].process.close()
    assert pages[2].register("gone").status == 200
    for page in pages:
        page.process.close()
        assert page.register("gone").status == 410
    assert tables(comet)["registered bytes"] == 0
