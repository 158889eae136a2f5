"""Who may read a channel: asked at subscription and at every resume, and taken away again."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from asgi_comet import SITE, Channel, Comet, DeclaredChannel, Outcome, Settings
from asgi_comet.channels.feed import Feed
from asgi_comet.core.messages import Message
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import feed_of, inside
from tests.kit.clients import BROKEN, Client, MakeClient, PollClient, SseClient
from tests.kit.loop import in_loop
from tests.kit.people import WHO, who
from tests.kit.processes import process_of
from tests.kit.serving import Address, Tab
from tests.kit.streams import PATIENCE, Sse, Ws


class Gate:
    """An `authorize` that counts, and says what it is told to say."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.open = True
        self.fails = 0
        self._again = threading.Condition()

    def wait_for(self, count: int) -> None:
        """Wait until it has been asked that often; then it must not have been more."""
        with self._again:
            assert self._again.wait_for(lambda: len(self.asked) >= count, PATIENCE)
            assert len(self.asked) == count

    async def __call__(self, connection: HTTPConnection, **parameters: Any) -> bool:
        assert connection.headers["host"]
        with self._again:
            self.asked.append(parameters)
            self._again.notify_all()
        if self.fails:
            self.fails -= 1
            raise OSError("the database is away")
        return self.open


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def channel(comet: Comet, gate: Gate) -> Channel[Any]:
    return comet.create(scope=SITE, name="c", authorize=gate)


def begin(client: Client, starts: dict[str, str]) -> None:
    """Ask for channels, without waiting to be told where it is."""
    client.positions = dict(starts)
    if isinstance(client, SseClient):
        client.names = list(starts)
    client.resume()


def follow(client: Client, channel: Channel[Any], start: str = "now") -> None:
    client.follow({channel.id: start})
    wait_for_listeners(channel, 1)


# Asked


def test_it_is_asked_at_subscription_and_at_every_resume_and_never_per_message(
    channel: Channel[Any], gate: Gate, client: Client
) -> None:
    follow(client, channel)
    begun = client.connected
    gate.wait_for(begun)
    for n in range(3):
        channel.publish(n)
        assert client.data(1) == [n]
        client.ensure_connected()
        gate.wait_for(client.connected)
    assert client.connected == begun + (0 if client.stays else 3)
    client.cut()
    wait_for_listeners(channel, 0)
    client.resume()
    gate.wait_for(begun + (1 if client.stays else 4))


def test_it_can_ask_for_the_session_and_the_process(comet: Comet, client: Client, tab: Tab) -> None:
    asked: list[Any] = []

    def authorize(connection: HTTPConnection) -> bool:  # in a worker thread
        session = comet.session()
        asked.append((session, comet.process(), session and session.user))
        return True

    process = process_of(comet, tab)
    process.session.user = "alice"
    follow(client, comet.create(scope=SITE, name="mine", authorize=authorize))
    assert asked[0] == (process.session, process, "alice")


def test_who_may_not_is_told_so(channel: Channel[Any], gate: Gate, client: Client) -> None:
    gate.open = False
    channel.publish("secret")
    begin(client, {"c": "now"})
    assert client.error() == client.told("forbidden")
    assert channel.listeners == 0


def test_the_parameters_are_the_words_of_the_name(comet: Comet, gate: Gate, client: Client) -> None:
    @comet.channel("room:{room}/{seat}", authorize=gate)
    async def room(room: str, seat: int) -> AsyncIterator[str]:
        yield f"{room} {seat}"
        await anyio.sleep_forever()

    client.follow({"room:blue/7": "last:1"})
    assert client.data(1) == ["blue 7"]
    assert gate.asked[0] == {"room": "blue", "seat": 7}


def test_a_client_comes_back_when_the_application_could_not_say(
    channel: Channel[Any], gate: Gate, client: Client
) -> None:
    gate.fails = 1
    begin(client, {"c": "now"})
    assert unanswered(client)
    client.positions = {"c": "now"}
    client.cut()
    follow(client, channel)
    channel.publish("then")
    assert client.data(1) == ["then"]


def unanswered(client: Client) -> bool:
    """Tell whether it is told nothing but to come back."""
    try:
        events = client.read()
    except BROKEN:
        return True
    return all(event.get("error") in ("restart", "deactivated") for event in events)


# Revoked


@pytest.mark.parametrize("whose", ["user", "session", "process"])
def test_a_right_that_is_taken_away_ends_the_delivery(
    comet: Comet, server: Address, channel: Channel[Any], make_client: MakeClient, whose: str
) -> None:
    comet.identify(who)
    alice = Tab(server, {WHO: "alice"})
    bob = Tab(server, {WHO: "bob"})
    theirs, hers = make_client(bob), make_client(alice)
    hers.follow({"c": "now"})
    wait_for_listeners(channel, 1)
    theirs.follow({"c": "now"})
    wait_for_listeners(channel, 2)
    process = process_of(comet, alice)
    concerned: dict[str, Any] = {"user": "alice", "session": process.session, "process": process}

    comet.revoke(channel, **{whose: concerned[whose]})
    channel.publish("for bob")
    assert hers.error() == hers.told("forbidden")
    assert theirs.data(1) == ["for bob"]


def test_what_was_published_before_it_is_taken_away_comes_and_nothing_after(
    comet: Comet, channel: Channel[Any], gate: Gate, client: Client, tab: Tab
) -> None:
    other = comet.create(scope=SITE, name="other")
    client.follow({"c": "now", "other": "now"})
    wait_for_listeners(other, 1)
    channel.publish("before")
    assert client.data(1) == ["before"]
    client.ensure_connected()
    gate.wait_for(client.connected)

    gate.open = False
    comet.revoke("c", process=process_of(comet, tab))
    channel.publish("after")
    assert client.error() == client.told("forbidden")
    if isinstance(client, SseClient):
        return  # the stream has ended for good, as docs/wire.md has it
    client.positions.pop("c", None)
    client.ensure_connected()
    wait_for_listeners(other, 1)
    other.publish("goes on")
    assert client.next()["data"] == "goes on"


def test_a_right_that_is_taken_away_while_it_is_asked_about_is_asked_about_again(
    comet: Comet, server: Address, client: Client, tab: Tab
) -> None:
    asked: list[bool] = []

    def authorize(connection: HTTPConnection) -> bool:  # in a worker thread
        asked.append(len(asked) == 0)
        if asked[-1]:
            comet.revoke("guarded", process=process_of(comet, tab))
        return asked[-1]

    channel = comet.create(scope=SITE, name="guarded", authorize=authorize)
    begin(client, {"guarded": "now"})
    assert client.error() == client.told("forbidden")
    assert asked[0]
    assert not any(asked[1:])
    assert channel.listeners == 0


def test_a_right_that_is_taken_away_while_another_is_asked_about(
    comet: Comet, channel: Channel[Any], gate: Gate, client: Client, tab: Tab
) -> None:
    async def authorize(connection: HTTPConnection) -> bool:
        if gate.open:
            gate.open = False
            comet.revoke(channel, process=process_of(comet, tab))
        return True

    comet.create(scope=SITE, name="other", authorize=authorize)
    begin(client, {"c": channel.reference()["position"], "other": "now"})
    event = client.next()
    while "error" not in event:  # where it is on the other
        event = client.next()
    assert (event["channel"], event["error"]) == ("c", client.told("forbidden")[0])
    assert channel.listeners == 0


def test_a_right_that_is_taken_away_while_the_broker_is_asked(
    make_server: Callable[..., tuple[Comet, Address]],
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=2))
    tab = Tab(server)
    channel = comet.create(scope=SITE, name="c")
    follower = make_client(tab)
    follow(follower, channel)

    async def recover(feed: Feed, after: int, max_bytes: int) -> list[Message]:
        comet.revoke("c", process=process_of(comet, tab))
        return [Message(after + 1, b"1")]

    def publish() -> None:
        for n in range(3):
            channel.publish(n)

    monkeypatch.setattr(inside(comet).broker, "recover", recover)
    in_loop(comet, publish)
    assert follower.error() == follower.told("forbidden")


def test_a_connection_without_a_cookie_is_known_by_what_the_application_says(
    comet: Comet, server: Address, channel: Channel[Any]
) -> None:
    comet.identify(lambda connection: connection.headers.get("authorization"))
    held = PollClient(None, server)
    held.follow({"c": "now"})
    wait_for_listeners(channel, 1)
    comet.revoke(channel, user="somebody else")
    channel.publish("still")
    assert held.data(1) == ["still"]


# A refusal tells nothing


@pytest.fixture
def room(comet: Comet, gate: Gate) -> DeclaredChannel[..., str]:
    @comet.channel("room:{room}", authorize=gate)
    async def room(room: str) -> AsyncIterator[str]:
        await anyio.sleep_forever()
        yield room

    return room


def asked_for(server: Address, name: str) -> list[bytes]:
    """The answers to one who may not, on each transport."""
    poll = server.request(
        "POST",
        "/comet/poll",
        json.dumps({"channels": {name: "now"}}),
        {"Content-Type": "application/json"},
    )
    with Sse.open(server, {name: "now"}) as stream:
        told = b"".join(event.data.encode() for event in stream.rest())
    with Ws(server) as socket:
        socket.say(subscribe={name: "now"})
        frame = json.dumps(socket.frame()).encode()
    return [poll.body, told, frame, server.register(f"registration={name}").body]


def test_it_is_the_same_whether_or_not_the_channel_lives(
    comet: Comet, server: Address, gate: Gate, room: DeclaredChannel[..., str]
) -> None:
    gate.open = False
    living = room.channel(room="living")
    living.publish("a secret")
    told = {name: asked_for(server, f"room:{name}") for name in ("living", "absent")}
    same = [answer.replace(b"living", b"absent") for answer in told["living"]]
    assert same == told["absent"]
    assert b"forbidden" in same[0]
    assert living.listeners == 0
    assert inside(comet).channels.find("room:absent") is None, "a refusal started a channel"


def test_a_family_loses_its_readers_in_all_its_channels(
    comet: Comet, room: DeclaredChannel[..., str], client: Client, tab: Tab
) -> None:
    client.follow({"room:a": "now", "room:b": "now"})
    for name in "ab":
        wait_for_listeners(room.channel(room=name), 1)
    comet.revoke(room, process=process_of(comet, tab))
    assert client.error() == client.told("forbidden")
    if not isinstance(client, SseClient):  # there one ends all
        assert client.error() == client.told("forbidden")


def test_nobody_knows_a_connection_without_a_cookie_if_nobody_identifies(
    comet: Comet, server: Address, channel: Channel[Any]
) -> None:
    held = PollClient(None, server)
    held.follow({"c": "now"})
    wait_for_listeners(channel, 1)
    comet.revoke(channel, user="alice")
    channel.publish("still")
    assert held.data(1) == ["still"]


@pytest.mark.parametrize("given", [{}, {"user": "alice", "session": "s"}])
def test_whose_right_is_taken_away_must_be_said(comet: Comet, given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"expected one of .*, got {len(given)} of them"):
        comet.revoke("c", **given)


def test_nobody_loses_a_right_to_what_does_not_live(
    comet: Comet, server: Address, channel: Channel[Any], room: DeclaredChannel[..., str]
) -> None:
    for nothing in (room, "room:{room}", "room:absent", channel, "c"):
        comet.revoke(nothing, user="alice")
    channel.close()
    comet.revoke(channel, user="alice")
    with pytest.raises(ValueError, match="lives or is declared, got 'rooom:a'"):
        comet.revoke("rooom:a", user="alice")


@pytest.mark.parametrize(
    "refusal",
    [PermissionError(), HTTPException(401), HTTPException(403), HTTPException(404)],
    ids=["permission", "401", "403", "404"],
)
def test_what_endpoints_raise_to_refuse_is_a_refusal(
    comet: Comet, server: Address, refusal: Exception
) -> None:
    def authorize(connection: HTTPConnection) -> bool:
        raise refusal

    comet.create(scope=SITE, name="guarded", authorize=authorize)
    client = PollClient(None, server)
    begin(client, {"guarded": "now"})
    assert client.error() == ("forbidden", None)


def test_another_error_of_theirs_is_none(comet: Comet, server: Address) -> None:
    def authorize(connection: HTTPConnection) -> bool:
        raise HTTPException(500)

    comet.create(scope=SITE, name="guarded", authorize=authorize)
    client = PollClient(None, server)
    begin(client, {"guarded": "now"})
    assert client.error() == ("deactivated", None)  # 503: it is to come back


def test_who_may_not_read_a_channel_cannot_acknowledge_it(
    comet: Comet, server: Address, channel: Channel[Any], gate: Gate
) -> None:
    reader, stranger = Tab(server), Tab(server)
    with Ws(server, reader.url, reader.cookie) as socket:
        socket.say(subscribe={"c": "now"})
        socket.next()
        channel.publish("for the reader")
        position = socket.next()["position"]
        gate.open = False
        assert stranger.post(f"{stranger.url}/ack", {"c": position}).status == 204
        with Ws(server, stranger.url, stranger.cookie) as other:
            other.say(subscribe={"c": "now"}, ack={"c": position})
            assert other.next()["error"] == "forbidden"
            other.say(ack={"c": position}, subscribe={"nobody": "now"})
            other.next()
        assert feed_of(channel).outcomes.of(1) is not Outcome.SUCCESS
        socket.say(ack={"c": position}, subscribe={"nobody": "now"})
        socket.next()
        assert feed_of(channel).outcomes.of(1) is Outcome.SUCCESS


def test_who_lost_the_right_cannot_acknowledge_what_came_before(
    comet: Comet, server: Address, channel: Channel[Any], gate: Gate
) -> None:
    tab = Tab(server)
    with Ws(server, tab.url, tab.cookie) as socket:
        socket.say(subscribe={"c": "now"})
        socket.next()
        channel.publish("before")
        position = socket.next()["position"]
        gate.open = False
        comet.revoke(channel, process=process_of(comet, tab))
        assert socket.next()["error"] == "forbidden"
        socket.say(ack={"c": position}, subscribe={"nobody": "now"})
        socket.next()
    assert tab.post(f"{tab.url}/ack", {"c": position}).status == 204
    assert feed_of(channel).outcomes.of(1) is not Outcome.SUCCESS


def test_a_tab_acknowledges_by_a_request_what_its_stream_follows(
    server: Address, channel: Channel[Any]
) -> None:
    tab = Tab(server)
    with Sse.open(server, ["c"], tab.url, Cookie=tab.cookie) as stream:
        assert stream.next().name == ":open"
        channel.publish("for the reader")
        position = stream.next().id
        assert feed_of(channel).outcomes.of(1) is not Outcome.SUCCESS
        assert tab.post(f"{tab.url}/ack", {"c": position}).status == 204
        assert feed_of(channel).outcomes.of(1) is Outcome.SUCCESS
        stream.cut()
