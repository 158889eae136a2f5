"""Who may read a channel: asked at subscription and at every resume, and taken away again."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from asgi_comet import SITE, Channel, Comet, DeclaredChannel, Outcome, Settings
from asgi_comet.channels.feed import Feed
from asgi_comet.core.messages import Message
from asgi_comet.identity.guard import Guard, Guards
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import inside
from tests.kit.clients import BROKEN, Client, MakeClient, PollClient, SseClient, by_hand_only
from tests.kit.loop import in_loop
from tests.kit.people import WHO, who
from tests.kit.processes import process_of
from tests.kit.serving import Address, Tab
from tests.kit.stage import application
from tests.kit.streams import PATIENCE, Sse, Ws
from tests.kit.workers import Workers, one_worker, own_workers


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


class Rule:
    """An `authorize` that each test replaces, of the same channel in all workers.

    Attributes:
        ask: Called with the worker that is asked, and the connection; in a worker thread.
    """

    def __init__(self) -> None:
        self.ask: Callable[[Comet, HTTPConnection], bool]

    def of(self, comet: Comet) -> Callable[[HTTPConnection], bool]:
        """Return the function of one worker."""
        return lambda connection: self.ask(comet, connection)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def channel(workers: Workers, comet: Comet, gate: Gate) -> Channel[Any]:
    """A channel that every worker makes before the server starts."""
    made = [one.create(scope=SITE, name="c", authorize=gate) for one in workers.of(comet)]
    return made[0]


@pytest.fixture
def rule() -> Rule:
    return Rule()


@pytest.fixture
def guarded(workers: Workers, comet: Comet, rule: Rule) -> Channel[Any]:
    """Another one."""
    every = workers.of(comet)
    made = [one.create(scope=SITE, name="guarded", authorize=rule.of(one)) for one in every]
    return made[0]


@pytest.fixture
def server(
    workers: Workers,
    comet: Comet,
    channel: Channel[Any],
    guarded: Channel[Any],
    room: DeclaredChannel[..., str],
) -> Iterator[Address]:
    """The server starts when all that every worker makes is made."""
    with workers.serve(application, comet) as address:
        yield address


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


def test_it_can_ask_for_the_session_and_the_process(
    workers: Workers,
    comet: Comet,
    server: Address,
    make_client: MakeClient,
    guarded: Channel[Any],
    rule: Rule,
) -> None:
    asked: list[Any] = []

    def ask(worker: Comet, connection: HTTPConnection) -> bool:
        session, process = worker.session(), worker.process()
        assert session is not None
        asked.append((session.id, process.id, session.user))
        return True

    rule.ask = ask
    workers.identify(comet, who)
    tab = Tab(server, {WHO: "alice"})
    process = process_of(comet, tab)
    follow(make_client(tab), guarded)
    assert asked[0] == (process.session.id, process.id, "alice")


def test_who_may_not_is_told_so(channel: Channel[Any], gate: Gate, client: Client) -> None:
    gate.open = False
    channel.publish("secret")
    begin(client, {"c": "now"})
    assert client.error() == client.told("forbidden")
    wait_for_listeners(channel, 0)


@pytest.fixture
def seats(workers: Workers, comet: Comet, gate: Gate) -> None:
    for one in workers.of(comet):

        @one.channel("seat:{room}/{seat}", authorize=gate)
        async def seat(room: str, seat: int) -> AsyncIterator[str]:
            yield f"{room} {seat}"
            await anyio.sleep_forever()


@pytest.mark.usefixtures("seats")
def test_the_parameters_are_the_words_of_the_name(gate: Gate, client: Client) -> None:
    client.follow({"seat:blue/7": "last:1"})
    assert client.data(1) == ["blue 7"]
    assert gate.asked[0] == {"room": "blue", "seat": 7}


@by_hand_only()
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


# Made again


def made_again(worker: Comet, former: Channel[Any], rule: Callable[..., bool]) -> Channel[Any]:
    """Close a channel, and make another one of the name, which has a message."""
    former.close()
    again: Channel[Any] = worker.create(scope=SITE, name="guarded", authorize=rule)
    again.publish("secret")
    return again


@own_workers("a channel again in the one worker that is asked, at once")
def test_a_channel_that_is_made_again_while_the_former_rule_is_asked_has_its_own_rule(
    guarded: Channel[Any], rule: Rule, client: Client
) -> None:
    made = [guarded]

    def ask(worker: Comet, connection: HTTPConnection) -> bool:
        made.append(made_again(worker, made[-1], lambda connection: False))
        return True

    rule.ask = ask
    begin(client, {"guarded": "last:1"})
    assert client.error() == client.told("forbidden")
    _, again = made
    wait_for_listeners(again, 0)


@own_workers("a channel again in the one worker that is asked, at once")
@by_hand_only()
def test_a_client_comes_back_when_a_channel_is_made_again_all_the_time(
    guarded: Channel[Any], rule: Rule, client: Client
) -> None:
    made = [guarded]

    def ask(worker: Comet, connection: HTTPConnection) -> bool:
        made.append(made_again(worker, made[-1], rule.of(worker)))
        return True

    rule.ask = ask
    begin(client, {"guarded": "last:1"})
    assert unanswered(client)
    assert len(made) == 3
    rule.ask = lambda *_: True
    client.cut()
    follow(client, made[-1])
    made[-1].publish("then")
    assert client.data(1) == ["then"]


@own_workers("a channel again in the one worker that is asked, at once")
def test_a_channel_without_a_rule_that_another_thread_makes_with_one_has_this_rule(
    comet: Comet, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Channel[Any]] = []

    def find(name: str) -> Guard | None:
        found = Guards.find(guards, name)
        if not made:
            made.append(comet.create(scope=SITE, name=name, authorize=lambda connection: False))
            made[0].publish("secret")
        return found

    guards = inside(comet).guard
    monkeypatch.setattr(guards, "find", find)
    begin(client, {"late": "last:1"})
    assert client.error() == client.told("forbidden")
    wait_for_listeners(made[0], 0)


# Revoked


@pytest.mark.parametrize("whose", ["user", "session", "process"])
def test_a_right_that_is_taken_away_ends_the_delivery(
    workers: Workers,
    comet: Comet,
    server: Address,
    channel: Channel[Any],
    make_client: MakeClient,
    whose: str,
) -> None:
    workers.identify(comet, who)
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
    guarded: Channel[Any], rule: Rule, client: Client, tab: Tab
) -> None:
    asked: list[bool] = []

    def ask(worker: Comet, connection: HTTPConnection) -> bool:
        asked.append(len(asked) == 0)
        if asked[-1]:
            worker.revoke("guarded", process=process_of(worker, tab))
        return asked[-1]

    rule.ask = ask
    begin(client, {"guarded": "now"})
    assert client.error() == client.told("forbidden")
    assert asked[0]
    assert not any(asked[1:])
    wait_for_listeners(guarded, 0)


def test_a_right_that_is_taken_away_while_another_is_asked_about(
    channel: Channel[Any], gate: Gate, rule: Rule, client: Client, tab: Tab
) -> None:
    def ask(worker: Comet, connection: HTTPConnection) -> bool:
        if gate.open:
            gate.open = False
            worker.revoke("c", process=process_of(worker, tab))
        return True

    rule.ask = ask
    begin(client, {"c": channel.reference()["position"], "guarded": "now"})
    event = client.next()
    while "error" not in event:  # where it is on the other
        event = client.next()
    assert (event["channel"], event["error"]) == ("c", client.told("forbidden")[0])
    wait_for_listeners(channel, 0)


def test_a_right_that_is_taken_away_while_the_broker_is_asked(
    workers: Workers,
    make_server: Callable[..., tuple[Comet, Address]],
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=2))
    tab = Tab(server)
    channel = comet.create(scope=SITE, name="c")
    follower = make_client(tab)
    follow(follower, channel)

    process = process_of(comet, tab)

    async def recover(one: Comet, feed: Feed, after: int, max_bytes: int) -> list[Message]:
        one.revoke("c", process=process)
        return [Message(after + 1, b"1")]

    def publish() -> None:
        for n in range(3):
            channel.publish(n)

    for one in workers.of(comet):
        monkeypatch.setattr(inside(one).broker, "recover", partial(recover, one))
    in_loop(comet, publish)
    assert follower.error() == follower.told("forbidden")


def test_a_connection_without_a_cookie_is_known_by_what_the_application_says(
    workers: Workers, comet: Comet, server: Address, channel: Channel[Any]
) -> None:
    workers.identify(comet, lambda connection: connection.headers.get("authorization"))
    held = PollClient(None, server)
    held.follow({"c": "now"})
    wait_for_listeners(channel, 1)
    comet.revoke(channel, user="somebody else")
    channel.publish("still")
    assert held.data(1) == ["still"]


# A refusal tells nothing


@pytest.fixture
def room(workers: Workers, comet: Comet, gate: Gate) -> DeclaredChannel[..., str]:
    def declare(one: Comet) -> DeclaredChannel[..., str]:
        @one.channel("room:{room}", authorize=gate)
        async def room(room: str) -> AsyncIterator[str]:
            await anyio.sleep_forever()
            yield room

        return room

    declared = [declare(one) for one in workers.of(comet)]
    return declared[0]


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
    workers: Workers,
    comet: Comet,
    server: Address,
    gate: Gate,
    room: DeclaredChannel[..., str],
) -> None:
    gate.open = False
    living = room.channel(room="living")
    workers.store(comet, living, "a secret")
    told = {name: asked_for(server, f"room:{name}") for name in ("living", "absent")}
    same = [answer.replace(b"living", b"absent") for answer in told["living"]]
    assert same == told["absent"]
    assert b"forbidden" in same[0]
    wait_for_listeners(living, 0)
    for one in workers.of(comet):
        assert inside(one).channels.find("room:absent") is None, "a refusal started a channel"


@by_hand_only()
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


@one_worker("another worker may have a channel of any name")
def test_what_neither_lives_nor_is_declared_has_another_name(comet: Comet, server: Address) -> None:
    with pytest.raises(ValueError, match="lives or is declared, got 'rooom:a'"):
        comet.revoke("rooom:a", user="alice")


@pytest.mark.parametrize(
    "refusal",
    [PermissionError(), HTTPException(401), HTTPException(403), HTTPException(404)],
    ids=["permission", "401", "403", "404"],
)
def test_what_endpoints_raise_to_refuse_is_a_refusal(
    server: Address, rule: Rule, refusal: Exception
) -> None:
    def ask(worker: Comet, connection: HTTPConnection) -> bool:
        raise refusal

    rule.ask = ask
    client = PollClient(None, server)
    begin(client, {"guarded": "now"})
    assert client.error() == ("forbidden", None)


def test_another_error_of_theirs_is_none(server: Address, rule: Rule) -> None:
    def ask(worker: Comet, connection: HTTPConnection) -> bool:
        raise HTTPException(500)

    rule.ask = ask
    client = PollClient(None, server)
    begin(client, {"guarded": "now"})
    assert client.error() == ("deactivated", None)  # 503: it is to come back


def has_one(workers: Workers, comet: Comet) -> bool:
    """Return whether a client has the first message, as far as its worker knows."""
    feeds = [inside(one).channels.find("c") for one in workers.of(comet)]
    return Outcome.SUCCESS in [feed and feed.outcomes.of(1) for feed in feeds]


def test_who_may_not_read_a_channel_cannot_acknowledge_it(
    workers: Workers, comet: Comet, server: Address, channel: Channel[Any], gate: Gate
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
        assert not has_one(workers, comet)
        socket.say(ack={"c": position}, subscribe={"nobody": "now"})
        socket.next()
        assert has_one(workers, comet)


def test_who_lost_the_right_cannot_acknowledge_what_came_before(
    workers: Workers, comet: Comet, server: Address, channel: Channel[Any], gate: Gate
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
    assert not has_one(workers, comet)


def test_a_tab_acknowledges_by_a_request_what_its_stream_follows(
    workers: Workers, comet: Comet, server: Address, channel: Channel[Any]
) -> None:
    tab = Tab(server)
    with Sse.open(server, ["c"], tab.url, Cookie=tab.cookie) as stream:
        assert stream.next().name == ":open"
        channel.publish("for the reader")
        position = stream.next().id
        assert not has_one(workers, comet)
        assert tab.post(f"{tab.url}/ack", {"c": position}).status == 204
        assert has_one(workers, comet)
        stream.cut()
