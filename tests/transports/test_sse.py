"""Server-sent events over real sockets: docs/wire.md#server-sent-events."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from asgi_comet import SITE, Channel, ChannelFull, Comet, Settings
from asgi_comet.channels.feed import Feed, Wake
from asgi_comet.core.messages import Message
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import client_of, expected, feed_of, inside
from tests.kit.loop import in_loop
from tests.kit.processes import default_of, process_of
from tests.kit.serving import Address, Tab, poll
from tests.kit.streams import Event, Sse

MakeServer = Callable[..., tuple[Comet, Address]]
Open = Callable[..., Sse]


@pytest.fixture
def open_stream(server: Address) -> Iterator[Open]:
    """Open a stream, which is cut before the server stops."""
    with ExitStack() as stack:

        def open_(channels: Any, base: str = "/comet", **headers: Any) -> Sse:
            address = headers.pop("address", server)
            more = headers.pop("more", None)
            found = Sse.open(address, channels, base, more, **headers)
            stack.callback(found.cut)
            return found

        yield open_


@pytest.fixture
def timed(make_server: MakeServer) -> tuple[Comet, Address, ManualClock]:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    return comet, server, clock


def read_open(stream: Sse) -> dict[str, str]:
    """Read the first event; return the positions in it."""
    event = stream.next()
    assert event.name == ":open"
    assert event.value.keys() == {"positions"}
    found: dict[str, str] = event.value["positions"]
    return found


# The answer


def test_the_head_of_the_answer(comet: Comet, open_stream: Open) -> None:
    comet.create(scope=SITE, name="ticker")
    stream = open_stream(["ticker"])
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-store"
    assert stream.headers["x-content-type-options"] == "nosniff"
    assert stream.headers["x-accel-buffering"] == "no"
    assert "content-length" not in stream.headers


def test_the_first_event_tells_where_it_is_and_when_to_come_back(
    comet: Comet, open_stream: Open
) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    channel.publish(1)
    position = str(feed_of(channel).history.position)
    retries = set()
    for _ in range(20):
        stream = open_stream(["ticker"])
        event = stream.next()
        assert (event.name, event.id) == (":open", position)
        assert event.value == {"positions": {"ticker": position}}
        assert stream.retry is not None
        assert 1000 <= stream.retry <= 5000
        retries.add(stream.retry)
    assert len(retries) > 1


def test_an_event_has_the_channel_the_data_and_the_position(
    comet: Comet, open_stream: Open
) -> None:
    channel = comet.create(scope=SITE, name="tick-er/ä")
    stream = open_stream(["tick-er/ä"])
    read_open(stream)
    channel.publish({"price": 1.5, "text": "a\r\nb\nc\rd\u2028"})
    event = stream.next()
    epoch = feed_of(channel).history.epoch
    assert (event.name, event.id) == ("tick-er/ä", f"{epoch}.1")
    assert event.value == {"price": 1.5, "text": "a\r\nb\nc\rd\u2028"}
    assert event.data == json.dumps(event.value, ensure_ascii=False, separators=(",", ":"))


def test_the_id_has_the_positions_of_all_channels_in_the_order_of_the_url(
    comet: Comet, open_stream: Open
) -> None:
    channels = [comet.create(scope=SITE, name=name) for name in ("c", "a", "b")]
    c, a, b = (feed_of(channel).history.epoch for channel in channels)
    stream = open_stream(["c", "a", "b"])
    assert read_open(stream) == {"c": f"{c}.0", "a": f"{a}.0", "b": f"{b}.0"}
    assert stream.last_id == f"{c}.0,{a}.0,{b}.0"
    for number, id_ in ((1, f"{c}.0,{a}.1,{b}.0"), (2, f"{c}.0,{a}.1,{b}.1"),
                        (0, f"{c}.1,{a}.1,{b}.1")):  # fmt: skip
        channels[number].publish("x")
        assert stream.next().id == id_
    channels[1].close()
    event = stream.next()
    assert (event.name, event.value) == (":closed", {"channel": "a", "reason": "ended"})
    assert event.id == f"{c}.1,-,{b}.1"
    channels[2].publish("y")
    assert stream.next().id == f"{c}.1,-,{b}.2"


def test_start_positions_are_one_per_channel_in_the_same_order(
    comet: Comet, open_stream: Open
) -> None:
    channels = {name: comet.create(scope=SITE, name=name) for name in ("a", "b", "c")}
    for channel in channels.values():
        for n in range(3):
            channel.publish(n)
    epochs = {name: feed_of(channel).history.epoch for name, channel in channels.items()}
    stream = open_stream({"a": "now", "b": "last:1", "c": f"{epochs['c']}.1"})
    assert read_open(stream) == {
        "a": f"{epochs['a']}.3",
        "b": f"{epochs['b']}.2",
        "c": f"{epochs['c']}.1",
    }
    found = [(event.name, event.value) for event in stream.take(3)]
    assert sorted(found) == [("b", 2), ("c", 1), ("c", 2)]
    assert stream.last_id == ",".join(f"{epoch}.3" for epoch in epochs.values())


def test_last_event_id_wins_over_position(comet: Comet, open_stream: Open) -> None:
    channel = comet.create(scope=SITE, name="a")
    for n in range(3):
        channel.publish(n)
    epoch = feed_of(channel).history.epoch
    stream = open_stream({"a": "now"}, Last_Event_ID=f"{epoch}.2")
    assert read_open(stream) == {"a": f"{epoch}.2"}
    assert stream.next().value == 2
    empty = open_stream({"a": f"{epoch}.1"}, Last_Event_ID="")
    read_open(empty)
    assert [event.value for event in empty.take(2)] == [1, 2]


def test_a_channel_that_is_over_in_the_id_is_not_followed_again(
    comet: Comet, open_stream: Open
) -> None:
    a, b = (comet.create(scope=SITE, name=name) for name in ("a", "b"))
    stream = open_stream(["a", "b"], Last_Event_ID=f"-,{feed_of(b).history.position}")
    assert read_open(stream) == {"b": str(feed_of(b).history.position)}
    assert (a.listeners, b.listeners) == (0, 1)
    b.publish("x")
    assert stream.next().id == f"-,{feed_of(b).history.position}"


@pytest.mark.parametrize("active", [True, False])
def test_an_id_of_which_all_is_over_is_204_and_a_browser_stops(
    comet: Comet, open_stream: Open, active: bool
) -> None:
    comet.create(scope=SITE, name="a")
    if not active:
        comet.activation.deactivate()
    stream = open_stream(["a", "b"], Last_Event_ID="-,-")
    assert (stream.status, stream.body()) == (204, b"")
    assert "content-type" not in stream.headers
    assert len(inside(comet).fanout.listeners) == 0


def test_texts_are_written_as_they_are_if_asked(comet: Comet, open_stream: Open) -> None:
    channel = comet.create(scope=SITE, name="a")
    stream = open_stream(["a"], more={"format": "text"})
    read_open(stream)
    channel.publish('<p class="x">\n  hello</p>\r\n')
    channel.publish({"not": "text"})
    assert stream.next().data == '<p class="x">\n  hello</p>\n'
    assert stream.next().value == {"not": "text"}


def test_only_whole_events_are_written(comet: Comet, open_stream: Open) -> None:
    channels = [comet.create(scope=SITE, name=name) for name in ("a", "b")]
    alone, both = open_stream(["a"]), open_stream(["a", "b"])
    for stream in (alone, both):
        read_open(stream)

    def publish() -> None:
        for n in range(300):
            for channel in channels:
                channel.publish([n, "x" * 500])

    for _ in range(3):
        in_loop(comet, publish)
        alone.take(300)
        both.take(600)
    for stream in (alone, both):
        assert all(chunk.endswith(b"\n\n") for chunk in stream.chunks)
        assert len(stream.chunks) >= 4


def test_one_write_has_at_most_answer_bytes_of_messages(
    make_server: MakeServer, open_stream: Open
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, answer_bytes=1000))
    channels = [comet.create(scope=SITE, name=name) for name in ("a", "b", "c")]
    stream = open_stream(["a", "b", "c"], address=server)
    read_open(stream)

    def publish() -> None:
        for n in range(10):
            for channel in channels:
                channel.publish(str(n) * 598)

    in_loop(comet, publish)
    seen: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    for event in stream.take(30):
        seen[event.name].append(event.value[0])
    assert all(found == list("0123456789") for found in seen.values())
    largest = max(chunk.count(b"event: ") for chunk in stream.chunks[1:])
    assert largest == 1  # 600 bytes each: two are more than 1000


# Errors


def test_behind_the_history_is_full_and_the_stream_ends_to_go_on_from_its_id(
    make_server: MakeServer, open_stream: Open
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=2))
    channel = comet.create(scope=SITE, name="a")
    other = comet.create(scope=SITE, name="b")
    for n in range(5):
        channel.publish(n)
    epoch = feed_of(channel).history.epoch
    starts = {"a": f"{epoch}.1", "b": "now"}
    stream = open_stream(starts, address=server)
    read_open(stream)
    (full,) = stream.rest()
    assert (full.name, full.value) == (":full", {"channel": "a"})
    assert full.id == f"{epoch}.5,{feed_of(other).history.position}"
    again = open_stream(starts, address=server, Last_Event_ID=stream.last_id)
    read_open(again)
    channel.publish("goes on")
    assert again.next().value == "goes on"


def test_overtaken_while_it_follows_is_full_too(make_server: MakeServer, open_stream: Open) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=2))
    channel = comet.create(scope=SITE, name="a")
    stream = open_stream(["a"], address=server)
    read_open(stream)

    def publish() -> None:
        for n in range(3):
            channel.publish(n)

    in_loop(comet, publish)
    (full,) = stream.rest()
    assert (full.name, full.id) == (":full", str(feed_of(channel).history.position))
    wait_for_listeners(channel, 0)


def test_what_this_worker_no_longer_holds_is_asked_of_the_broker(
    make_server: MakeServer, open_stream: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=2))
    channel = comet.create(scope=SITE, name="a")
    epoch = feed_of(channel).history.epoch

    async def recover(feed: Feed, after: int, max_bytes: int) -> list[Message]:
        return [Message(n, b"%d" % n) for n in range(after + 1, 4)]

    monkeypatch.setattr(inside(comet).broker, "recover", recover)
    stream = open_stream({"a": f"{epoch}.0"}, address=server)
    beyond = open_stream({"a": f"{epoch}.0"}, address=server)
    read_open(stream)

    def publish() -> None:
        for n in range(1, 6):
            channel.publish(n)

    in_loop(comet, publish)
    found = stream.take(5)
    assert [event.value for event in found] == [1, 2, 3, 4, 5]
    assert [event.id for event in found] == [f"{epoch}.{n}" for n in range(1, 6)]
    read_open(beyond)
    assert [event.value for event in beyond.take(5)] == [1, 2, 3, 4, 5]


def test_a_channel_of_another_worker_is_asked_of_the_broker(
    make_server: MakeServer, open_stream: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    comet, server = make_server()
    made: list[Channel[Any]] = []

    async def adopt(name: str) -> Feed | None:
        if name != "elsewhere":
            return None
        made.append(comet.create(scope=SITE, name=name))
        return feed_of(made[0])

    monkeypatch.setattr(inside(comet).channels, "adopt", adopt)
    stream = open_stream({"elsewhere": "now", "nowhere": "now"}, address=server)
    position = str(feed_of(made[0]).history.position)
    assert read_open(stream) == {"elsewhere": position}
    closed = stream.next()
    assert closed.value == {"channel": "nowhere", "reason": "unknown"}
    made[0].publish("x")
    assert stream.next().value == "x"
    explicit = open_stream({"elsewhere": position}, address=server)
    read_open(explicit)
    assert explicit.next().value == "x"


def last_words(stream: Sse) -> Event:
    """Read the last event, behind which the stream must end."""
    (event,) = stream.rest()
    return event


def test_when_every_channel_has_ended_the_stream_ends_and_nothing_brings_it_back(
    comet: Comet, open_stream: Open
) -> None:
    a, b = (comet.create(scope=SITE, name=name) for name in ("a", "b"))
    stream = open_stream(["a", "b", "gone"])
    assert read_open(stream).keys() == {"a", "b"}
    assert stream.next().value == {"channel": "gone", "reason": "unknown"}
    a.close()
    assert stream.next().value == {"channel": "a", "reason": "ended"}

    def end() -> None:
        b.publish("last words")
        b.close()

    in_loop(comet, end)
    assert stream.next().value == "last words"
    closed = last_words(stream)
    assert (closed.name, closed.id) == (":closed", "-,-,-")
    assert open_stream(["a", "b", "gone"], Last_Event_ID=stream.last_id).status == 204


def test_forbidden_ends_it_for_good_whatever_else_it_asked(comet: Comet, open_stream: Open) -> None:
    site = comet.create(scope=SITE, name="a")
    for channels in (["a", "~b"], ["~b", "a"], ["~b", "~c"], ["~b", "gone"], ["gone", "~b"]):
        for start in ("now", "other.3"):
            stream = open_stream(dict.fromkeys(channels, start if start == "now" else "e.1"))
            read_open(stream)
            names = {event.name for event in stream.rest()}
            assert ":forbidden" in names
            assert stream.last_id == "-,-", channels
            assert site.listeners == 0


def test_a_process_that_closes_is_told_and_nothing_brings_it_back(
    comet: Comet, server: Address, open_stream: Open
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    comet.create(scope=SITE, name="a")
    stream = open_stream(["a", "~b"], tab.url, Cookie=tab.cookie)
    read_open(stream)
    in_loop(comet, process.close)
    closed = last_words(stream)
    assert (closed.name, closed.value, closed.id) == (":process-closed", {}, "-,-")


@pytest.mark.parametrize("cookie", ["", "tab"])
def test_a_process_that_has_closed_is_told_in_an_event_whoever_asks(
    comet: Comet, server: Address, open_stream: Open, cookie: str
) -> None:
    tab = Tab(server)
    process_of(comet, tab).close()
    stream = open_stream(["a", "~b"], tab.url, Cookie=tab.cookie if cookie else None)
    assert (stream.status, stream.headers["content-type"][:17]) == (200, "text/event-stream")
    closed = last_words(stream)
    assert (closed.name, closed.id) == (":process-closed", "-,-")


def test_a_newer_connection_replaces_it_and_it_does_not_come_back(
    comet: Comet, server: Address, open_stream: Open
) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="b")
    older = open_stream(["~b"], tab.url, Cookie=tab.cookie)
    read_open(older)
    newer = open_stream(["~b"], tab.url, Cookie=tab.cookie, Last_Event_ID=older.last_id)
    replaced = last_words(older)
    assert (replaced.name, replaced.value, replaced.id) == (":replaced", {}, "-")
    read_open(newer)
    inbox.publish("x")
    assert newer.next().value == "x"


def test_an_overflowed_process_channel_is_full_for_good(
    comet: Comet, server: Address, open_stream: Open
) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="b", size=1)
    inbox.publish(1)
    with pytest.raises(ChannelFull):
        inbox.publish(2)
    stream = open_stream(["~b"], tab.url, Cookie=tab.cookie)
    assert read_open(stream) == {}
    full = last_words(stream)
    assert (full.name, full.value, full.id) == (":full", {"channel": "~b"}, "-")


def test_deactivated_it_ends_with_a_later_retry_and_comes_back_from_its_position(
    comet: Comet, open_stream: Open
) -> None:
    channel = comet.create(scope=SITE, name="a")
    stream = open_stream(["a"])
    read_open(stream)
    where = stream.last_id
    comet.activation.deactivate()
    told = last_words(stream)
    retries = {stream.retry}
    assert (told.name, told.id) == (":deactivated", where)
    for _ in range(20):
        refused = open_stream(["a"], Last_Event_ID=where)
        assert (refused.status, last_words(refused).name) == (200, ":deactivated")
        retries.add(refused.retry)
    assert all(retry is not None and 5000 <= retry <= 15000 for retry in retries)
    assert len(retries) > 1
    wait_for_listeners(channel, 0)
    comet.activation.activate()
    channel.publish("x")
    back = open_stream(["a"], Last_Event_ID=where)
    read_open(back)
    assert back.next().value == "x"


def test_the_own_channels_of_a_cookie_are_those_of_its_default_process(
    comet: Comet, server: Address, open_stream: Open
) -> None:
    tab = Tab(server)
    stream = open_stream(["~b"], Cookie=tab.cookie)
    assert read_open(stream) == {"~b": "new.0"}
    default = default_of(comet, tab)
    assert default is not process_of(comet, tab)
    comet.create(scope=default, name="b").publish("x")
    assert stream.next().value == "x"


# Time


def test_silence_is_broken_by_a_comment_every_15_seconds(
    timed: tuple[Comet, Address, ManualClock], open_stream: Open
) -> None:
    comet, server, clock = timed
    channel = comet.create(scope=SITE, name="a")
    stream = open_stream(["a"], address=server)
    read_open(stream)
    for _ in range(3):
        clock.advance(15.2)
        assert stream.next().name == "#"
    clock.advance(10)
    channel.publish("x")
    assert stream.next().value == "x"
    clock.advance(10)  # 20 since the last comment, but not silent
    channel.publish("y")
    assert stream.next().value == "y"
    clock.advance(15.2)
    assert stream.next().name == "#"


def test_a_stream_lives_ten_minutes_and_ends_so_that_a_browser_resumes(
    timed: tuple[Comet, Address, ManualClock], open_stream: Open
) -> None:
    comet, server, clock = timed
    channel = comet.create(scope=SITE, name="a")
    streams = [open_stream(["a"], address=server) for _ in range(8)]
    for stream in streams:
        read_open(stream)
    clock.advance(539)
    wait_for_listeners(channel, 8)
    channel.publish("x")
    for stream in streams:
        while stream.next().name == "#":
            pass
    clock.advance(122)
    for stream in streams:
        assert all(event.name == "#" for event in stream.rest())  # and no error
    wait_for_listeners(channel, 0)
    assert len(inside(comet).fanout.listeners) == 0
    channel.publish("y")
    back = open_stream(["a"], address=server, Last_Event_ID=streams[0].last_id)
    read_open(back)
    assert back.next().value == "y"


def test_ten_minutes_are_not_the_same_for_all(
    timed: tuple[Comet, Address, ManualClock], open_stream: Open
) -> None:
    comet, server, clock = timed
    channel = comet.create(scope=SITE, name="a")
    for _ in range(30):
        read_open(open_stream(["a"], address=server))
    counts = set[int]()
    for _ in range(13):
        clock.advance(10 if counts else 535)
        poll(server, {"a": "now"})  # a turn of the server
        poll(server, {"a": "now"})
        counts.add(channel.listeners)
    assert len(counts - {30, 0}) > 3


def test_a_stop_of_the_server_ends_it_cleanly_and_a_browser_resumes(
    comet: Comet, open_stream: Open
) -> None:
    channel = comet.create(scope=SITE, name="a")
    stream = open_stream(["a"])
    read_open(stream)
    where = stream.last_id
    in_loop(comet, inside(comet).drain.begin)
    assert stream.rest() == []
    assert (stream.over, stream.last_id) == (True, where)
    wait_for_listeners(channel, 0)
    late = open_stream(["a"], Last_Event_ID=where)
    assert late.status == 200
    while not late.over:
        late.read_chunk()
    # When to come back; without an empty line, at which httpx-sse would see an event.
    assert re.fullmatch(rb"retry: [1-5]\d{3}\n", b"".join(late.chunks))


def test_a_process_that_closes_elsewhere_is_told_before_the_end_of_its_channels(
    comet: Comet, server: Address, open_stream: Open
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    comet.create(scope=process, name="b")
    site = comet.create(scope=SITE, name="a")
    stream = open_stream(["a", "~b"], tab.url, Cookie=tab.cookie)
    read_open(stream)

    def close_as_a_thread_does_it_while_the_loop_is_at_work() -> None:
        process.closed = True
        for feed in client_of(process).place.directory.feeds():
            inside(comet).channels.ending.end(feed, "ended", keep=False)

    in_loop(comet, close_as_a_thread_does_it_while_the_loop_is_at_work)
    site.publish("after the end of the other one was seen")
    assert stream.next().name == "a"

    def tell_its_connections() -> None:
        for listener in list(client_of(process).listeners):
            listener.wake(Wake.CLOSED)

    in_loop(comet, tell_its_connections)
    assert [event.name for event in stream.rest()] == [":process-closed"]


def test_set_timeout_is_about_polls(comet: Comet, open_stream: Open) -> None:
    channel = comet.create(scope=SITE, name="a")
    stream = open_stream(["a"])
    read_open(stream)
    comet.activation.set_timeout(1, reset=True)
    channel.publish("x")
    assert stream.next().value == "x"


# Refusals and limits


def refused(server: Address, query: str, **headers: str) -> tuple[int, str]:
    with Sse.get(server, f"/comet/events{query}", **headers) as stream:
        return stream.status, stream.body().decode()


def test_only_get_is_allowed(server: Address) -> None:
    for method in ("POST", "PUT", "DELETE", "HEAD"):
        with Sse.get(server, "/comet/events?channel=a", method) as stream:
            assert (stream.status, stream.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "at least one channel"),
        ("?position=now", "at least one channel"),
        ("?channel=a&channel=a", "every channel once"),
        ("?channel=a&channel=b&position=now", "a position for each of 2 channels, got 1"),
        ("?channel=a&position=now&position=now", "a position for each of 1 channels, got 2"),
        ("?channel=a&position=then", "expected 'now', 'first', 'last:10' or a position"),
        ("?channel=a&format=xml", "format=json or format=text"),
        ("?channel=%FF", "UTF-8"),
    ],
)
def test_a_bad_request_names_what_is_wrong(server: Address, query: str, reason: str) -> None:
    status, text = refused(server, query)
    assert status == 400
    assert reason in text


@pytest.mark.parametrize("id_", ["e.1,e.2", "now", "e", "e.1,", "ä.1"])
def test_a_bad_last_event_id_is_400(server: Address, id_: str) -> None:
    status, text = refused(server, "?channel=a", Last_Event_ID=id_)
    assert status == 400
    assert "expected a" in text


def test_128_channels_are_allowed_and_129_are_not(comet: Comet, open_stream: Open) -> None:
    names = [f"c{n}" for n in range(129)]
    for name in names:
        comet.create(scope=SITE, name=name)
    stream = open_stream(names[:128])
    assert len(read_open(stream)) == 128
    many = open_stream(names)
    assert (many.status, many.body()) == (400, b"expected at most 128 channels, got 129")


def test_a_foreign_page_is_403_and_an_allowed_one_may_read(make_server: MakeServer) -> None:
    friend = "http://friend.example"
    comet, server = make_server(allowed_origins=[friend])
    comet.create(scope=SITE, name="a")
    assert refused(server, "?channel=a", Origin="http://evil.example")[0] == 403
    with Sse.open(server, ["a"], Origin=friend) as stream:
        assert stream.status == 200
        assert stream.headers["access-control-allow-origin"] == friend
        read_open(stream)


def test_a_token_that_is_none_or_without_its_cookie_is_403(
    comet: Comet, server: Address, open_stream: Open
) -> None:
    tab, thief = Tab(server), Tab(server)
    for base, cookie in (("/comet/p/forged", tab.cookie), (tab.url, ""), (tab.url, thief.cookie)):
        assert open_stream(["~b"], base, Cookie=cookie).status == 403
    assert len(inside(comet).fanout.listeners) == 0


def test_what_is_below_it_is_404(server: Address) -> None:
    with Sse.get(server, "/comet/events/more?channel=a") as stream:
        assert stream.status == 404


def test_too_many_processes_is_429_before_anything_is_streamed(
    make_server: MakeServer, open_stream: Open
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, max_processes_per_session=1))
    comet.create(scope=SITE, name="a")
    tab = Tab(server)
    read_open(open_stream(["a"], tab.url, address=server, Cookie=tab.cookie))
    stream = open_stream(["~b"], address=server, Cookie=tab.cookie)
    assert stream.status == 429


def test_a_client_that_leaves_leaves_nothing(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    site, own = comet.create(scope=SITE, name="a"), comet.create(scope=process, name="b")
    for _ in range(3):
        stream = Sse.open(server, ["a", "~b", "~c"], tab.url, Cookie=tab.cookie)
        read_open(stream)
        stream.cut()
        wait_for_listeners(site, 0)
        wait_for_listeners(own, 0)
    assert client_of(process).reader is None
    assert client_of(process).listeners == set()
    assert client_of(process).connections == 0
    assert expected(client_of(process).place.directory) == {}
    assert len(inside(comet).fanout.listeners) == 0
