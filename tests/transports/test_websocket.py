"""WebSocket over real sockets: docs/wire.md#websocket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from asgi_comet import SITE, Channel, Comet, Settings
from asgi_comet.channels.feed import Feed
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import client_of, expected, feed_of, inside
from tests.kit.loop import in_loop
from tests.kit.processes import default_of, process_of
from tests.kit.serving import Address, Tab
from tests.kit.streams import Ws

MakeServer = Callable[..., tuple[Comet, Address]]
Open = Callable[..., Ws]


@pytest.fixture
def open_socket(server: Address) -> Iterator[Open]:
    """Open a WebSocket, which is cut before the server stops."""
    with ExitStack() as stack:

        def open_(base: str = "/comet", address: Address = server, **more: Any) -> Ws:
            return stack.enter_context(Ws(address, base, **more))

        yield open_


@pytest.fixture
def small(make_server: MakeServer) -> tuple[Comet, Address]:
    return make_server(settings=Settings(jitter=0, max_channels_per_request=2))


def where(event: dict[str, Any]) -> str:
    position: str = event["position"]
    return position


# The handshake


@pytest.mark.parametrize(
    ("protocols", "chosen"),
    [
        (("comet.v1",), "comet.v1"),
        (("other", "comet.v1"), "comet.v1"),
        (("other",), None),
        ((), None),
    ],
)
def test_the_subprotocol_is_ours_or_none(
    comet: Comet, open_socket: Open, protocols: tuple[str, ...], chosen: str | None
) -> None:
    comet.create(scope=SITE, name="a")
    socket = open_socket(protocols=protocols)
    assert socket.connection.subprotocol == chosen
    socket.say(subscribe={"a": "now"})
    assert socket.next()["channel"] == "a"


def test_a_refusal_comes_before_it_is_accepted(comet: Comet, server: Address) -> None:
    tab, thief = Tab(server), Tab(server)
    for base, origin, cookie in (
        ("/comet", "http://evil.example", ""),
        ("/comet/p/forged", None, tab.cookie),
        (tab.url, None, ""),
        (tab.url, None, thief.cookie),
        ("/comet/nothing", None, ""),
        ("/comet/p/forged/more", None, ""),
    ):
        with pytest.raises(InvalidStatus) as caught:
            Ws(server, base, cookie, origin)
        assert caught.value.response.status_code in (403, 404)
    assert len(inside(comet).fanout.listeners) == 0


# What the client says


def test_subscribe_tells_where_it_is_and_then_what_comes(comet: Comet, open_socket: Open) -> None:
    channel = comet.create(scope=SITE, name="a")
    epoch = feed_of(channel).history.epoch
    socket = open_socket()
    socket.say(subscribe={"a": "now"})
    assert socket.frame() == {"events": [{"channel": "a", "position": f"{epoch}.0"}]}
    channel.publish({"price": 1.5})
    event = {"channel": "a", "position": f"{epoch}.1", "data": {"price": 1.5}}
    assert socket.frame() == {"events": [event]}


def test_messages_of_one_turn_on_all_channels_are_one_frame(
    comet: Comet, open_socket: Open
) -> None:
    channels = [comet.create(scope=SITE, name=name) for name in "ab"]
    socket = open_socket()
    socket.say(subscribe={"a": "now", "b": "now"})
    socket.take(2)

    def publish() -> None:
        for channel in channels:
            for n in range(50):
                channel.publish(n)

    in_loop(comet, publish)
    assert len(socket.frame()["events"]) == 100


def test_channels_come_and_go(comet: Comet, open_socket: Open) -> None:
    a, b = (comet.create(scope=SITE, name=name) for name in "ab")
    socket = open_socket()
    socket.say(subscribe={"a": "now"})
    socket.next()
    socket.say(subscribe={"b": "now"})
    socket.next()
    b.publish(1)
    assert (socket.next()["channel"], a.listeners, b.listeners) == ("b", 1, 1)
    socket.say(unsubscribe=["a", "never"])
    wait_for_listeners(a, 0)
    a.publish("unheard")
    b.publish(2)
    assert socket.next()["data"] == 2
    socket.say(unsubscribe=["b"], subscribe={"a": "last:1"})
    assert [event.get("data") for event in socket.take(2)] == [None, "unheard"]
    assert b.listeners == 0


def test_subscribing_again_begins_at_the_new_start(comet: Comet, open_socket: Open) -> None:
    channel = comet.create(scope=SITE, name="a")
    for n in range(3):
        channel.publish(n)
    socket = open_socket()
    socket.say(subscribe={"a": "now"})
    socket.next()
    socket.say(subscribe={"a": "last:2"})
    assert [event.get("data") for event in socket.take(3)] == [None, 1, 2]
    assert channel.listeners == 1
    socket.say(unsubscribe=["a"], subscribe={"a": "last:1"})  # in this order
    assert [event.get("data") for event in socket.take(2)] == [None, 2]


def test_what_ended_can_be_subscribed_again(comet: Comet, open_socket: Open) -> None:
    comet.create(scope=SITE, name="a").close()
    socket = open_socket()
    for _ in range(2):
        socket.say(subscribe={"a": "now", "gone": "now"})
        told = sorted((e["channel"], e.get("reason", "")) for e in socket.take(3))
        assert told == [("a", ""), ("a", "ended"), ("gone", "unknown")]
    again = comet.create(scope=SITE, name="a")
    socket.say(subscribe={"a": "now"})
    socket.next()
    again.publish("x")
    assert socket.next()["data"] == "x"


def test_ack_acknowledges(comet: Comet, server: Address, open_socket: Open) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="inbox", size=3)
    socket = open_socket(tab.url, cookie=tab.cookie)
    socket.say(subscribe={"~inbox": "now"})
    socket.next()
    for n in range(10):
        inbox.publish(n)
        event = socket.next()
        assert event["data"] == n
        socket.say(ack={"~inbox": where(event), "~gone": "e.1", "nothing": "e.1"})
    socket.say(subscribe={"~other": "now"})
    socket.next()
    assert len(feed_of(inbox).history) == 0


def test_an_ack_that_means_nothing_changes_nothing(comet: Comet, open_socket: Open) -> None:
    comet.create(scope=SITE, name="a")
    socket = open_socket()
    socket.say(ack={"~inbox": "e.1", "a": "other.5"})
    socket.say(subscribe={"a": "now"})
    assert socket.next()["channel"] == "a"


def test_many_frames_at_once_are_obeyed_in_order(comet: Comet, open_socket: Open) -> None:
    channel = comet.create(scope=SITE, name="a")
    channel.publish("x")
    socket = open_socket()
    for _ in range(200):
        socket.say(subscribe={"a": "last:1"})
        socket.say(unsubscribe=["a"])
    socket.say(subscribe={"a": "now"})
    found = socket.take(1)
    while "data" in found[-1] or found[-1]["position"].endswith(".0"):
        found.append(socket.next())
    assert 200 <= len(found) <= 401  # a message may be too late, where it is is told each time
    assert channel.listeners == 1
    channel.publish("y")
    assert socket.next()["data"] == "y"


def test_frames_and_messages_cross_without_losing_either(comet: Comet, open_socket: Open) -> None:
    channel = comet.create(scope=SITE, name="a")
    for name in ("b", "c"):
        comet.create(scope=SITE, name=name)
    socket = open_socket()
    socket.say(subscribe={"a": "now"})
    socket.next()
    for n in range(300):
        channel.publish(n)
        socket.say(subscribe={"bc"[n % 2]: "now"})
    found = socket.take(600)
    assert [event["data"] for event in found if "data" in event] == list(range(300))
    assert [event["channel"] for event in found if "data" not in event] == ["b", "c"] * 150


# Client processes


def test_without_a_cookie_own_channels_are_forbidden_and_the_others_go_on(
    comet: Comet, open_socket: Open
) -> None:
    channel = comet.create(scope=SITE, name="a")
    socket = open_socket()
    socket.say(subscribe={"~inbox": "now", "a": "now"})
    told = socket.take(2)
    assert {"channel": "~inbox", "error": "forbidden"} in told
    channel.publish("x")
    assert socket.next()["data"] == "x"


def test_the_own_channels_of_a_cookie_are_those_of_its_default_process(
    comet: Comet, server: Address, open_socket: Open
) -> None:
    tab = Tab(server)
    socket = open_socket(cookie=tab.cookie)
    socket.say(subscribe={"~inbox": "now"})
    assert socket.next() == {"channel": "~inbox", "position": "new.0"}
    default = default_of(comet, tab)
    assert client_of(default).connections == 1
    comet.create(scope=default, name="inbox").publish("x")
    assert socket.next()["data"] == "x"
    socket.say(subscribe={"~other": "now"})
    socket.next()
    assert client_of(default).connections == 1
    in_loop(comet, default.close)
    assert socket.closed() == 4001
    assert (client_of(default).connections, client_of(default).listeners) == (0, set())


def test_too_many_processes_closes_it_with_the_reason(
    make_server: MakeServer, open_socket: Open
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, max_processes_per_session=1))
    comet.create(scope=SITE, name="a")
    tab = Tab(server)
    first = open_socket(tab.url, server, cookie=tab.cookie)
    first.say(subscribe={"a": "now"})
    first.next()
    second = open_socket("/comet", server, cookie=tab.cookie)
    second.say(subscribe={"~inbox": "now"})
    assert "client process" in second.frame()["error"]
    assert second.closed() == 1013


def test_unsubscribing_its_own_channels_frees_the_reader(
    comet: Comet, server: Address, open_socket: Open
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    site, own = comet.create(scope=SITE, name="a"), comet.create(scope=process, name="b")
    first, second = (open_socket(tab.url, cookie=tab.cookie) for _ in range(2))
    first.say(subscribe={"a": "now", "~b": "now", "~expected": "now"})
    first.take(3)
    first.say(unsubscribe=["~b"])
    wait_for_listeners(own, 0)
    assert client_of(process).reader is not None  # it still waits for another one of its own
    first.say(unsubscribe=["~expected"], subscribe={"a": "now"})
    first.next()
    assert client_of(process).reader is None
    second.say(subscribe={"~b": "now"})
    second.next()
    site.publish("x")
    assert first.next()["data"] == "x"  # so it was not replaced


def test_a_channel_that_is_over_frees_the_reader_and_its_place(
    small: tuple[Comet, Address], open_socket: Open
) -> None:
    comet, server = small
    tab = Tab(server)
    process = process_of(comet, tab)
    site = comet.create(scope=SITE, name="a")
    socket = open_socket(tab.url, server, cookie=tab.cookie)
    for _ in range(3):
        socket.say(subscribe={"a": "now", "~b": "now"})
        socket.take(2)
        comet.create(scope=process, name="b").close()
        assert socket.next() == {"channel": "~b", "error": "closed", "reason": "ended"}
        socket.say(subscribe={"a": "now", "new": "now"})
        assert {"channel": "new", "error": "closed", "reason": "unknown"} in socket.take(2)
        assert client_of(process).reader is None
    assert site.listeners == 1


# Close codes


def test_replaced_by_a_newer_connection_is_4000(
    comet: Comet, server: Address, open_socket: Open
) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="b")
    older, newer = (open_socket(tab.url, cookie=tab.cookie) for _ in range(2))
    older.say(subscribe={"~b": "now"})
    position = where(older.next())
    newer.say(subscribe={"~b": position})
    assert older.closed() == 4000
    wait_for_listeners(inbox, 1)
    inbox.publish("x")
    assert newer.next()["data"] == "x"


def test_a_closed_process_is_4001_while_open_and_after(
    comet: Comet, server: Address, open_socket: Open
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    socket = open_socket(tab.url, cookie=tab.cookie)
    socket.say(subscribe={"~b": "now"})
    socket.next()
    in_loop(comet, process.close)
    assert socket.closed() == 4001
    for cookie in (tab.cookie, ""):
        assert open_socket(tab.url, cookie=cookie).closed() == 4001


def test_deactivated_is_1013_while_open_and_after(comet: Comet, open_socket: Open) -> None:
    comet.create(scope=SITE, name="a")
    socket = open_socket()
    socket.say(subscribe={"a": "now"})
    socket.next()
    comet.activation.deactivate()
    assert socket.closed() == 1013
    assert open_socket().closed() == 1013
    comet.activation.activate()
    again = open_socket()
    again.say(subscribe={"a": "now"})
    again.next()


def test_a_stop_of_the_server_is_1012_while_open_and_after(comet: Comet, open_socket: Open) -> None:
    comet.create(scope=SITE, name="a")
    socket = open_socket()
    socket.say(subscribe={"a": "now"})
    socket.next()
    in_loop(comet, inside(comet).drain.begin)
    assert socket.closed() == 1012
    assert open_socket().closed() == 1012


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ("", "expected"),
        ("x", "expected"),
        ("[]", "expected"),
        ("{}", "'subscribe', 'unsubscribe' or 'ack', got nothing"),
        ('{"more": 1}', "got 'more'"),
        ('{"subscribe": {"a": "then"}}', "expected 'now', 'first', 'last:10' or a position"),
        ('{"subscribe": []}', "expected"),
        ('{"unsubscribe": "a"}', "to be a list of channels"),
        ('{"unsubscribe": [1]}', "to be a list of channels"),
        ('{"ack": {"~a": "now"}}', "expected a position"),
        (b"binary", "expected text, got bytes"),
    ],
)
def test_a_bad_message_is_told_and_4400(
    comet: Comet, open_socket: Open, frame: str | bytes, reason: str
) -> None:
    socket = open_socket()
    socket.connection.send(frame)
    told = socket.frame()
    assert told.keys() == {"error"}
    assert reason in told["error"]
    assert socket.closed() == 4400
    assert len(inside(comet).fanout.listeners) == 0


def test_what_was_obeyed_before_a_bad_message_is_told_first(
    comet: Comet, open_socket: Open
) -> None:
    comet.create(scope=SITE, name="a").publish("x")
    socket = open_socket()
    socket.say(subscribe={"a": "last:1"})
    socket.connection.send("bad")
    found = [*socket.take(1)]
    frame = socket.frame()
    while "events" in frame:
        found += frame["events"]
        frame = socket.frame()
    assert "error" in frame
    assert found[0]["channel"] == "a"
    assert socket.closed() == 4400


@pytest.mark.parametrize("kind", [str, bytes])
def test_64_kib_are_allowed_and_one_byte_more_is_1009(
    comet: Comet, open_socket: Open, kind: type
) -> None:
    comet.create(scope=SITE, name="a")
    text = json.dumps({"subscribe": {"a": "now"}})
    fits = text.replace(" ", " " * (64 * 1024 - len(text) + 1), 1)
    assert len(fits) == 64 * 1024
    socket, over = open_socket(), open_socket()
    if kind is str:
        socket.connection.send(fits)
        assert socket.next()["channel"] == "a"
        over.connection.send(fits + " ")
    else:
        socket.connection.send(b"x" * 64 * 1024)
        assert "error" in socket.frame()
        over.connection.send(b"x" * (64 * 1024 + 1))
    assert over.closed() == 1009


def test_the_size_is_counted_in_bytes(comet: Comet, open_socket: Open) -> None:
    socket = open_socket()
    socket.connection.send('{"subscribe": {"' + "ä" * (32 * 1024) + '": "now"}}')
    assert socket.closed() == 1009


def test_128_channels_on_one_socket_are_allowed_and_129_are_not(
    comet: Comet, server: Address, open_socket: Open
) -> None:
    tab = Tab(server)
    for n in range(100):
        comet.create(scope=SITE, name=f"c{n}")
    socket = open_socket(tab.url, cookie=tab.cookie)
    socket.say(subscribe={f"c{n}": "now" for n in range(100)})
    socket.take(100)
    socket.say(subscribe={f"~c{n}": "now" for n in range(28)})
    socket.take(28)
    socket.say(unsubscribe=["c0"], subscribe={"~one": "now"})
    socket.next()
    socket.say(subscribe={"~two": "now"})
    assert socket.frame() == {"error": "expected at most 128 channels on one WebSocket, got 129"}
    assert socket.closed() == 4400
    process = process_of(comet, tab)
    assert expected(client_of(process).place.directory) == {}


@pytest.mark.parametrize("part", ["subscribe", "ack", "unsubscribe"])
def test_129_channels_in_one_frame_are_too_many(open_socket: Open, part: str) -> None:
    names = [f"c{n}" for n in range(129)]
    socket = open_socket()
    socket.say(**{part: names if part == "unsubscribe" else dict.fromkeys(names, "e.1")})
    assert "at most 128 channels" in socket.frame()["error"]
    assert socket.closed() == 4400


# Time


def test_silence_is_broken_by_an_empty_frame_every_15_seconds(
    make_server: MakeServer, open_socket: Open
) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    channel = comet.create(scope=SITE, name="a")
    socket = open_socket(address=server)
    socket.say(subscribe={"a": "now"})
    socket.next()
    for _ in range(50):  # it lives longer than an event stream
        clock.advance(15.2)
        assert socket.frame() == {"events": []}
    clock.advance(10)
    channel.publish("x")
    socket.next()
    clock.advance(10)
    channel.publish("y")
    assert socket.frame()["events"][0]["data"] == "y"


def test_set_timeout_is_about_polls(comet: Comet, open_socket: Open) -> None:
    channel = comet.create(scope=SITE, name="a")
    socket = open_socket()
    socket.say(subscribe={"a": "now"})
    socket.next()
    comet.activation.set_timeout(1, reset=True)
    channel.publish("x")
    assert socket.next()["data"] == "x"


def test_a_channel_of_another_worker_is_asked_of_the_broker(
    make_server: MakeServer, open_socket: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    comet, server = make_server()
    made: list[Channel[Any]] = []

    async def adopt(name: str) -> Feed | None:
        if name != "elsewhere":
            return None
        made.append(comet.create(scope=SITE, name=name))
        return feed_of(made[0])

    monkeypatch.setattr(inside(comet).channels, "adopt", adopt)
    socket = open_socket(address=server)
    socket.say(subscribe={"elsewhere": "now", "nowhere": "now"})
    told = {event["channel"]: event for event in socket.take(2)}
    assert told["nowhere"]["reason"] == "unknown"
    socket.say(unsubscribe=["elsewhere"], subscribe={"elsewhere": where(told["elsewhere"])})
    wait_for_listeners(made[0], 1)
    made[0].publish("x")
    assert socket.next()["data"] == "x"


def test_a_client_that_leaves_leaves_nothing(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    site, own = comet.create(scope=SITE, name="a"), comet.create(scope=process, name="b")
    for politely in (True, False):
        socket = Ws(server, tab.url, tab.cookie)
        socket.say(subscribe={"a": "now", "~b": "now", "~c": "now"})
        socket.take(3)
        if politely:
            socket.connection.close()
        socket.cut()
        wait_for_listeners(site, 0)
        wait_for_listeners(own, 0)
        assert (
            client_of(process).reader,
            client_of(process).listeners,
            client_of(process).connections,
        ) == (None, set(), 0)
        assert expected(client_of(process).place.directory) == {}
        assert len(inside(comet).fanout.listeners) == 0
