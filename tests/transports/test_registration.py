"""Each row of the table in docs/wire.md#registration, and each limit, over real sockets."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from urllib.parse import unquote

import anyio
import pytest

from asgi_comet import Comet, Delivery, Outcome, Settings
from asgi_comet._runtime.timers import Timer
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import feed_of, inside
from tests.kit.loop import outcome
from tests.kit.registering import read_all
from tests.kit.serving import COMET, Address, hold_registration

MakeServer = Callable[..., tuple[Comet, Address]]


def head(length: int | str, more: str = "") -> bytes:
    return (
        f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {COMET}\r\nContent-Length: {length}\r\n"
        f"Connection: close\r\n{more}\r\n"
    ).encode()


@pytest.mark.parametrize("body", [b"", b"registration=", b"channels=a"])
def test_no_identifier_is_400_in_the_words_of_the_original(server: Address, body: bytes) -> None:
    answer = server.register(body)
    assert answer.status == 400
    assert answer.body == b"Empty or incorrect registration"
    assert answer.headers["content-type"].startswith("text/plain")


def test_a_message_is_answered_as_a_pair(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("news")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    channel.write("héllo: world\n")
    answer = held.answer()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.body == b"news:h%C3%A9llo%3A%20world%0A"
    wait_for_listeners(channel, 0)


def test_all_that_was_written_in_the_same_instant_is_one_answer(
    comet: Comet, server: Address
) -> None:
    channels = [comet.channels.create(f"c{n}") for n in range(128)]
    held = hold_registration(server, "registration=" + "%0A".join(c.id for c in channels))
    wait_for_listeners(channels[-1], 1)

    def write() -> None:
        for n, channel in enumerate(channels):
            channel.write(str(n))
        channels[0].write("again")

    inside(comet).loop.run(write)  # in one turn of the server's loop
    expected = [b"c0:0", b"c0:again", *(b"c%d:%d" % (n, n) for n in range(1, 128))]
    assert held.answer().pairs == expected


def test_a_request_on_many_channels_is_one_listener_of_each(comet: Comet, server: Address) -> None:
    a, b = comet.channels.create("a"), comet.channels.create("b")
    held = hold_registration(server, "registration=a%0Ab%0Aa")
    wait_for_listeners(b, 1)
    assert (a.listeners, len(inside(comet).fanout.listeners)) == (1, 1)
    a.write("x")
    assert held.answer().body == b"a:x"
    wait_for_listeners(b, 0)
    assert len(inside(comet).fanout.listeners) == 0
    assert len(inside(comet).timers) == 0


def test_a_channel_named_twice_in_two_spellings_is_told_once(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("été")
    held = hold_registration(server, "registration=%E9t%E9%0A%C3%A9t%C3%A9")
    wait_for_listeners(channel, 1)
    channel.write("x")
    assert held.answer().pairs == [b"%C3%A9t%C3%A9:x"]


def test_nothing_within_the_timeout_is_an_empty_answer(make_server: MakeServer) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    channel = comet.channels.create("news")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    clock.advance(19.9)
    assert channel.listeners == 1
    clock.advance(0.3)
    answer = held.answer()
    assert (answer.status, answer.body) == (200, b"")
    assert channel.listeners == 0


def test_an_identifier_that_names_no_channel_is_answered_at_once(server: Address) -> None:
    answer = server.register("registration=gone%0A%3Cb%3E")
    assert answer.status == 200
    assert answer.pairs == [b"gone:ENDED_CHANNEL", b"%3Cb%3E:ENDED_CHANNEL"]


def test_an_ended_identifier_beside_a_live_one(comet: Comet, server: Address) -> None:
    live = comet.channels.create("live")
    assert server.register("registration=gone%0Alive").pairs == [b"gone:ENDED_CHANNEL"]
    assert live.listeners == 0


def test_a_channel_that_ends_while_waiting_is_told_with_what_it_still_said(
    comet: Comet, server: Address
) -> None:
    a, b = comet.channels.create("a"), comet.channels.create("b")
    held = hold_registration(server, "registration=a%0Ab")
    wait_for_listeners(b, 1)

    def end() -> None:
        a.write("last words")
        b.write("b goes on")
        a.close()

    inside(comet).loop.run(end)
    assert held.answer().pairs == [b"a:last%20words", b"a:ENDED_CHANNEL", b"b:b%20goes%20on"]
    assert server.register("registration=a").pairs == [b"a:ENDED_CHANNEL"]


def test_a_channel_that_ended_before_the_request_was_counted_in(
    comet: Comet, server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = comet.channels.create("news")
    feed = feed_of(channel)
    channel.close()
    monkeypatch.setattr(inside(comet).channels, "find", lambda name: feed)  # as it was a moment ago
    assert server.register("registration=news").pairs == [b"news:ENDED_CHANNEL"]


def test_a_reader_overtaken_by_the_history_is_told_the_channel_ended(
    make_server: MakeServer,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=3))
    channel = comet.channels.create("fast")
    held = hold_registration(server, "registration=fast")
    wait_for_listeners(channel, 1)

    def write() -> None:
        for n in range(4):
            channel.write(str(n))

    inside(comet).loop.run(write)
    assert held.answer().pairs == [b"fast:ENDED_CHANNEL"]


def test_deactivated_is_503_and_so_is_deactivated_while_waiting(
    comet: Comet, server: Address
) -> None:
    channel = comet.channels.create("news")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    comet.activation.deactivate()
    for answer in (held.answer(), server.register("registration=news")):
        assert (answer.status, answer.body) == (503, b"")
        assert answer.headers["content-type"].startswith("text/plain")
        assert 5 <= int(answer.headers["retry-after"]) <= 15
    assert channel.listeners == 0
    comet.activation.activate()
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    channel.write("back")
    assert held.answer().body == b"news:back"


def test_deactivated_while_the_body_was_coming(comet: Comet, server: Address) -> None:
    comet.channels.create("news")
    with server.connect() as connection:
        connection.sendall(head(17))
        wait_until_read(comet)
        comet.activation.deactivate()
        connection.sendall(b"registration=news")
        assert b" 503 " in read_all(connection).split(b"\r\n")[0]


def wait_until_read(comet: Comet) -> None:
    """Wait until a request is reading its body: the deadline of the body is its first trace."""
    seen = threading.Event()
    timers = inside(comet).timers
    start = timers.start

    def watch(timer: Timer, seconds: float) -> None:
        start(timer, seconds)
        seen.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timers, "start", watch)
        assert len(timers) or seen.wait(10)


def test_reset_ends_held_requests_as_at_their_timeout(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("news")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    comet.activation.set_timeout(30)
    assert channel.listeners == 1
    comet.activation.set_timeout(30, reset=True)
    assert (held.answer().status, held.answer().body) == (200, b"")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_only_post_is_allowed(server: Address, method: str) -> None:
    answer = server.request(method, "/any/path", None, {"Content-Type": COMET})
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert answer.body == f"expected POST, got {method}".encode()


def test_options_of_a_page_of_ours_is_405(server: Address) -> None:
    assert server.request("OPTIONS", "/any/path", None, {"Content-Type": COMET}).status == 405


def test_a_foreign_origin_is_refused(comet: Comet, server: Address) -> None:
    comet.channels.create("news")
    answer = server.register("registration=gone", Origin="http://evil.example")
    assert (answer.status, answer.body) == (403, b"this page's origin is not allowed")
    assert server.register("registration=gone", Origin=server.url).status == 200


def test_a_body_at_the_limit_and_one_byte_over(server: Address) -> None:
    body = b"registration=x&padding=" + b"x" * (65536 - 23)
    assert server.register(body).status == 200
    answer = server.register(body + b"x")
    assert answer.status == 413
    assert answer.body == b"expected a body of at most 65536 bytes, 65537 declared"
    assert answer.headers["connection"] == "close"


def test_a_chunked_body_over_the_limit_is_counted_as_it_comes(server: Address) -> None:
    def chunks(count: int) -> bytes:
        return b"".join(b"1000\r\n" + b"x" * 4096 + b"\r\n" for _ in range(count))

    start = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with server.connect() as connection:
        connection.sendall(start + chunks(16) + b"0\r\n\r\n")
        assert b" 400 " in read_all(connection).split(b"\r\n")[0]  # no identifier, but read
    with server.connect() as connection:
        connection.sendall(start + chunks(16) + b"1\r\nx\r\n")
        answer = read_all(connection)
        assert b" 413 " in answer.split(b"\r\n")[0]
        assert answer.endswith(b"expected a body of at most 65536 bytes, more came")


def test_a_body_that_does_not_come_in_time_is_408(make_server: MakeServer) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    with server.connect() as connection:
        connection.sendall(head(100) + b"registration=")
        wait_until_read(comet)
        clock.advance(9.9)
        clock.advance(0.3)
        answer = read_all(connection)
    assert b" 408 " in answer.split(b"\r\n")[0]
    assert b"connection: close" in answer.lower()
    assert answer.endswith(b"expected the body within 10 s")
    assert len(inside(comet).timers) == 0


def test_a_client_that_leaves_before_its_body_is_complete(comet: Comet, server: Address) -> None:
    with server.connect() as connection:
        connection.sendall(head(100) + b"registration=")
        wait_until_read(comet)
    assert server.register("registration=gone").status == 200  # nothing was harmed


def test_128_channels_are_allowed_and_129_are_not(comet: Comet, server: Address) -> None:
    names = [f"c{n}" for n in range(129)]
    assert len(server.register("registration=" + "%0A".join(names[:128])).pairs) == 128
    answer = server.register("registration=" + "%0A".join(names))
    assert answer.status == 400
    assert answer.body == b"expected at most 128 channels in a registration, got more"


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("été", "%E9t%E9"),
        ("été", "%C3%A9t%C3%A9"),
        ("Ã©", "%C3%A9"),
        ("prix €", "prix%20%u20AC"),
        ("prix €", "prix+%E2%82%AC"),
        ("a+b", "a+b"),
        ("🎈", "%uD83C%uDF88"),
    ],
)
def test_every_spelling_finds_its_channel(
    comet: Comet, server: Address, name: str, sent: str
) -> None:
    channel = comet.channels.create(name)
    held = hold_registration(server, f"registration={sent}")
    wait_for_listeners(channel, 1)
    channel.write("x")
    identifier, _, message = held.answer().body.decode().partition(":")
    assert (unquote(identifier), message) == (name, "x")


def test_a_name_as_it_is_sent_wins_over_its_other_spellings(comet: Comet, server: Address) -> None:
    plus, space = comet.channels.create("a+b"), comet.channels.create("a b")
    held = hold_registration(server, "registration=a+b")
    wait_for_listeners(plus, 1)
    assert space.listeners == 0
    plus.write("x")
    assert held.answer().body == b"a%2Bb:x"


@pytest.mark.parametrize(
    "content_type", [f"{COMET}; charset=UTF-8", COMET.upper(), f"{COMET};x=y;z"]
)
def test_the_content_type_may_have_parameters(server: Address, content_type: str) -> None:
    answer = server.request("POST", "/", "registration=a", {"Content-Type": content_type})
    assert answer.pairs == [b"a:ENDED_CHANNEL"]


def test_a_client_that_leaves_is_noticed_and_a_later_write_fails(make_server: MakeServer) -> None:
    comet, server = make_server(settings=Settings(jitter=0, timeout=0.3))
    channel = comet.channels.create("news")
    comet.activation.set_timeout(60)
    with server.connect() as connection:
        connection.sendall(head(17) + b"registration=news")
        wait_for_listeners(channel, 1)
    wait_for_listeners(channel, 0, timeout=1)
    assert outcome(comet, lambda: channel.write("x")) is Outcome.FAILURE


def test_a_write_succeeds_when_the_answer_was_handed_over(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("news")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    delivery = channel.write("x")
    assert outcome(comet, lambda: delivery) is Outcome.SUCCESS
    assert held.answer().body == b"news:x"
    assert outcome(comet, lambda: delivery) is Outcome.SUCCESS  # asked again, later


def test_a_write_fails_at_once_when_every_listener_breaks(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("news")
    held = [hold_registration(server, "registration=news") for _ in range(2)]
    wait_for_listeners(channel, 2)

    def write_and_deactivate() -> Delivery:
        delivery = channel.write("x")
        comet.activation.deactivate()  # ends all listeners without the message
        return delivery

    assert outcome(comet, write_and_deactivate) is Outcome.FAILURE  # long before the timeout
    assert [one.answer().status for one in held] == [503, 503]


def test_what_is_written_between_two_requests_is_not_for_them(
    comet: Comet, server: Address
) -> None:
    channel = comet.channels.create("news")
    channel.write("before")
    held = hold_registration(server, "registration=news")
    wait_for_listeners(channel, 1)
    channel.write("now")
    assert held.answer().pairs == [b"news:now"]


def test_a_channel_too_many_is_told_as_ended(
    make_server: Callable[..., tuple[Comet, Address]],
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, max_family_channels=1))

    @comet.channel("room:{room}")
    async def room(room: str) -> AsyncIterator[str]:
        await anyio.sleep_forever()
        yield room

    room.channel(room="a")
    answer = server.register("registration=room%3Ab")
    assert answer.body == b"room%3Ab:ENDED_CHANNEL"
