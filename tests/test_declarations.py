"""Declared channels: what may be declared, when a source runs, and what its failure means."""

from __future__ import annotations

import gc
import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import pytest

from asgi_comet import (
    CLIENT_PROCESS,
    SITE,
    ChannelClosed,
    ChannelFull,
    ClientProcess,
    Comet,
    DeclaredChannel,
    Delivery,
    InvalidDeclaration,
    InvalidName,
    Message,
    NoClientProcess,
    NonUniqueChannelName,
    ProcessClosed,
    TooManyFamilyChannels,
    TooManyVirtualChannels,
)
from asgi_comet.channels.feed import Feed
from asgi_comet.declare.declarations import Declarations
from asgi_comet.declare.restarting import PAUSE, PAUSE_AT_LEAST, PAUSE_AT_MOST
from asgi_comet.declare.shares import GRACE
from asgi_comet.testing._inspect import (
    CHOOSE_PAUSE,
    START_SITE,
    client_of,
    declaration_of,
    feed_of,
    inside,
    live_feeds,
    point_at,
    tables,
)
from tests.kit.declaring import Log, declare_rooms
from tests.kit.listening import Reader
from tests.kit.processes import open_in
from tests.kit.running import advance, make_clocked, running
from tests.kit.stage import TOKEN, application
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


def find(comet: Comet, name: str) -> Feed:
    feed = inside(comet).declarations.find(name)
    assert feed is not None
    return feed


def find_own(comet: Comet, process: ClientProcess, name: str) -> Feed:
    feed = inside(comet).declarations.find_own(client_of(process), name)
    assert feed is not None
    return feed


def come(comet: Comet, feed: Feed) -> Reader:
    reader = Reader()
    inside(comet).fanout.listeners.add(reader)
    inside(comet).fanout.attach(reader, feed)
    return reader


def leave(comet: Comet, reader: Reader) -> None:
    inside(comet).fanout.detach(reader)


# What a declaration is


async def nothing() -> AsyncIterator[int]:
    return
    yield


def may(connection: object, allowed: bool = False, **words: object) -> bool:
    return allowed


async def of_room(room: str) -> AsyncIterator[int]:
    return
    yield


async def of_number(user: int) -> AsyncIterator[int]:
    return
    yield


async def of_process(process: ClientProcess) -> AsyncIterator[int]:
    return
    yield


def test_the_decorator_leaves_something_that_is_called_like_the_function() -> None:
    comet, _ = make_clocked()
    allowed = partial(may, allowed=True)
    declared = comet.channel("room:{room}", authorize=allowed)(of_room)
    assert isinstance(declared, DeclaredChannel)
    assert (declared.name, declaration_of(declared).authorize) == ("room:{room}", allowed)
    assert inspect.isasyncgen(declared("42"))
    assert inspect.unwrap(declared) is of_room
    assert declared.__name__ == "of_room"  # type: ignore[attr-defined]  # so has it this
    assert repr(declared) == "<DeclaredChannel 'room:{room}' live=0>"
    own = comet.unlimited("unread")(of_process)
    assert repr(own) == "<DeclaredChannel '~unread' live=0>"
    assert declaration_of(own).authorize is None


async def coroutine() -> int:
    return 1


def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "came"),
    [
        (coroutine, "got coroutine, an async function without yield"),
        (generator, "got generator, a generator function that is not async"),
        (lambda: None, "got test_declarations"),
        (nothing(), "got nothing"),
        (7, "got int"),
    ],
)
def test_only_an_async_generator_function_can_be_declared(function: Any, came: str) -> None:
    comet, _ = make_clocked()
    came = came.replace("test_declarations", "<lambda>")
    with pytest.raises(InvalidDeclaration, match="expected an async generator function") as caught:
        comet.channel("c")(function)
    assert came in str(caught.value)
    assert inside(comet).declarations.match("c") is None


def test_one_that_is_declared_already_says_so() -> None:
    comet, _ = make_clocked()
    declared = comet.channel("room:{room}")(of_room)
    twice: Any = declared
    with pytest.raises(InvalidDeclaration, match=r"declared already, as 'room:\{room\}'; for anot"):
        comet.newest("seat:{room}")(twice)
    own: Any = comet.unlimited("unread")(of_process)
    with pytest.raises(InvalidDeclaration, match="declared already, as '~unread'"):
        comet.unlimited("again")(own)
    assert inside(comet).declarations.match("seat:1") is None
    assert declared.function is not None
    seats = comet.newest("seat:{room}")(declared.function)
    assert seats.channel(room="1").id == "seat:1"


async def of_after(after: object) -> AsyncIterator[int]:
    yield 1


async def of_two(a: str, b: str) -> AsyncIterator[int]:
    yield 1


async def by_place(room: str, /) -> AsyncIterator[int]:
    yield 1


async def of_any(**room: str) -> AsyncIterator[int]:
    yield 1


async def of_unknown(room: Missing) -> AsyncIterator[int]:  # type: ignore[name-defined]  # noqa: F821 - tested
    yield 1


async def of_strange(room: Log) -> AsyncIterator[int]:
    yield 1


async def of_keyword(*, process: ClientProcess) -> AsyncIterator[int]:
    yield 1


async def strange() -> AsyncIterator[Log]:
    yield Log()


@pytest.mark.parametrize(
    ("declare", "reason"),
    [
        (lambda c: c.channel("c")(of_room), r"words \[\], got \['room'\]"),
        (lambda c: c.channel("r:{room}")(nothing), r"words \['room'\], got \[\]"),
        (lambda c: c.channel("r:{a}")(of_two), r"words \['a'\], got \['a', 'b'\]"),
        (lambda c: c.newest("r:{room}")(by_place), "parameters that are given by name, got room"),
        (lambda c: c.channel("r:{room}")(of_any), r"given by name, got \*\*room"),
        (lambda c: c.channel("c", continues=True)(nothing), "after=None, got no such parameter"),
        (lambda c: c.channel("c", continues=True)(of_after), "after=None, got after"),
        (lambda c: c.channel("c", scope=CLIENT_PROCESS, continues=True), "continues for a channel"),
        (lambda c: c.channel("r:{room}")(of_unknown), "type that pydantic knows for room, got"),
        (lambda c: c.channel("r:{room}")(of_strange), "type that pydantic knows for room, got"),
        (lambda c: c.channel("c")(strange), "expected a type that pydantic can encode"),
        (lambda c: c.channel("c", type=Log)(nothing), "expected a type that pydantic can encode"),
        (lambda c: c.channel("r:{r r}"), "expected words like"),
        (lambda c: c.channel("c", size=0), "at least 1, got 0"),
        (lambda c: c.channel("c", linger="10"), "linger to be a number of seconds, .* got '10'"),
        (lambda c: c.channel("c", authorize=7), "expected authorize to be a function, got int"),
        (lambda c: c.newest("c", authorize=of_two), r"take the connection, and \[\] by name, got"),
        (lambda c: c.channel("r:{room}", authorize=lambda connection: True), "unexpected keyword"),
        (lambda c: c.channel("{connection}", authorize=may), "multiple values"),
        (lambda c: c.channel("c", scope="site"), "expected scope to be SITE or CLIENT_PROCESS"),
        (lambda c: c.unlimited("c")(nothing), r"one parameter, .* got \[\]"),
        (lambda c: c.unlimited("c")(of_two), r"got \['a: str', 'b: str'\]|got \[\"a: 'str'\""),
        (lambda c: c.channel("c", scope=CLIENT_PROCESS)(of_keyword), "one parameter"),
        (lambda c: c.unlimited("c:{room}"), r"expected no words, got \['room'\]: each client"),
        (
            lambda c: c.channel("c", scope=CLIENT_PROCESS, authorize=may),
            "expected no authorize: only its own client process",
        ),
    ],
)
def test_a_declaration_that_cannot_work_fails_with_the_reason(
    declare: Callable[[Comet], Any], reason: str
) -> None:
    comet, _ = make_clocked()
    with pytest.raises(InvalidDeclaration, match=reason):
        declare(comet)


@pytest.mark.parametrize("name", ["", "~own", "open", 5])
def test_an_invalid_name_fails_where_it_is_declared(name: Any) -> None:
    comet, _ = make_clocked()
    for declare in (comet.channel, comet.newest, comet.unlimited):
        with pytest.raises(InvalidName):
            declare(name)


def test_a_name_of_our_own_is_reserved_in_client_processes_but_not_at_the_site() -> None:
    comet, _ = make_clocked()
    with pytest.raises(InvalidName, match="~comet is reserved"):
        comet.unlimited("comet")
    with pytest.raises(InvalidName, match="~comet is reserved"):
        comet.create(scope=open_in(comet), name="comet")
    comet.channel("comet")(nothing)


# Whose a name is


def test_a_name_is_taken_from_its_declaration_on() -> None:
    comet, _ = make_clocked()
    comet.channel("ticker")(nothing)
    comet.channel("room:{room}")(of_room)
    comet.channel("inbox", scope=CLIENT_PROCESS)(of_process)
    inside(comet).channels.reserved.add_own("messages", None)  # what a notifier does
    process = open_in(comet)
    for name in ("ticker", "room:1"):
        with pytest.raises(NonUniqueChannelName):
            comet.create(scope=SITE, name=name)
        with pytest.raises(NonUniqueChannelName):
            comet.create_newest(name=name)
        with pytest.raises(NonUniqueChannelName):
            comet.channels.create(name)
        comet.create(scope=process, name=name)
    for name in ("inbox", "messages"):
        with pytest.raises(NonUniqueChannelName, match=f"~{name}"):
            comet.create(scope=process, name=name)
        with pytest.raises(NonUniqueChannelName, match=f"~{name}"):
            comet.create_unlimited(nothing, scope=process, name=name)
        with pytest.raises(NonUniqueChannelName, match=f"~{name}"):
            comet.unlimited(name)(of_process)
        with pytest.raises(NonUniqueChannelName, match=f"~{name}"):
            inside(comet).channels.reserved.add_own(name, None)
        comet.create(scope=SITE, name=name)
    with pytest.raises(NonUniqueChannelName):
        comet.newest("ticker")(nothing)
    with pytest.raises(NonUniqueChannelName):
        comet.newest("room:{room}")(of_room)


def test_a_declaration_cannot_take_the_name_of_a_live_channel() -> None:
    comet, _ = make_clocked()
    news, room = comet.channels.create("news"), comet.channels.create("room:1")
    comet.channels.create("user:nobody")
    comet.channel("user:{user}")(of_number)  # which that does not fit
    with pytest.raises(NonUniqueChannelName, match="'news'"):
        comet.channel("news")(nothing)
    with pytest.raises(NonUniqueChannelName, match="'room:1'"):
        comet.channel("room:{room}")(of_room)
    inbox = comet.create(scope=open_in(comet), name="inbox")
    with pytest.raises(NonUniqueChannelName, match="'~inbox'"):
        comet.unlimited("inbox")(of_process)
    for channel in (news, room, inbox):
        channel.close()
    comet.unlimited("inbox")(of_process)
    comet.channel("news")(nothing)
    comet.channel("room:{room}")(of_room)


def test_families_that_could_match_the_same_name_are_refused() -> None:
    comet, _ = make_clocked()
    comet.channel("room:{room}")(of_room)
    with pytest.raises(InvalidDeclaration, match=r"no name that 'room:\{room\}' matches, too"):
        comet.newest("{room}:x")(of_room)
    comet.newest("room:{room}:x")(of_room)


def test_an_exact_name_wins_over_a_family_whichever_is_declared_first() -> None:
    comet, _ = make_clocked()
    exact = comet.channel("room:lobby")(nothing)
    family = comet.channel("room:{room}")(of_room)
    later = comet.channel("room:hall")(nothing)
    match = inside(comet).declarations.match
    for name, declared, words in [
        ("room:lobby", declaration_of(exact), {}),
        ("room:hall", declaration_of(later), {}),
        ("room:x", declaration_of(family), {"room": "x"}),
    ]:
        found = match(name)
        assert found is not None
        assert (found.declared, found.parameters) == (declared, words)
    for name in ("room", "room:", "room:a:b", "room:a\n", "room:" + "x" * 256, "~room:1"):
        assert match(name) is None
    with pytest.raises(InvalidName, match="another one is declared"):
        family.channel(room="lobby")


def test_a_family_may_be_declared_around_a_live_exact_name() -> None:
    comet, _ = make_clocked()
    channel = comet.channel("room:lobby")(nothing).channel()
    family = comet.channel("room:{room}")(of_room)
    assert family.channel(room="1").id == "room:1"
    assert find(comet, "room:lobby") is feed_of(channel)


async def test_a_word_may_have_any_name() -> None:
    async with running() as (comet, _):
        seen: list[str] = []

        @comet.channel("room:{self}/{process}", authorize=lambda connection, **words: True)
        async def rooms(self: str, process: str) -> AsyncIterator[str]:
            seen.append(self + process)
            yield self

        assert rooms.channel(self="a", process="b").id == "room:a/b"
        await wait_all_tasks_blocked()
        assert seen == ["ab"]
        assert inspect.isasyncgen(rooms(self="a", process="b"))


def test_words_are_converted_and_what_does_not_fit_matches_nothing() -> None:
    comet, _ = make_clocked()

    @comet.newest("user:{user}/{key}", authorize=may)
    async def users(key: uuid.UUID, user: int) -> AsyncIterator[int]:
        yield user

    key = uuid.uuid4()
    match = inside(comet).declarations.match(f"user:42/{key}")
    assert match is not None
    assert match.parameters == {"user": 42, "key": key}
    assert match.authorize is may
    for name in (f"user:x/{key}", "user:42/key", "user:42"):
        assert inside(comet).declarations.match(name) is None
        assert inside(comet).declarations.find(name) is None
    comet.channels.create("user:x/y")  # so it is free
    assert users.channel(user=42, key=key).id == f"user:42/{key}"
    texts: Any = {"user": "42", "key": str(key)}
    assert users.channel(**texts).id == f"user:42/{key}"


def test_a_word_without_a_type_is_text() -> None:
    comet, _ = make_clocked()

    @comet.channel("room:{room}")
    async def rooms(room):  # type: ignore[no-untyped-def]  # tested
        yield room

    match = inside(comet).declarations.match("room:42")
    assert match is not None
    assert match.parameters == {"room": "42"}


def test_a_source_may_be_a_method_or_partial() -> None:
    comet, _ = make_clocked()
    comet.channel("room:{name}")(Log().named)
    comet.channel("user:{name}")(partial(Log().named))
    assert inside(comet).declarations.match("room:1") is not None


# Channels of the site


async def test_a_site_channel_starts_with_each_lifespan() -> None:
    made, log = make_clocked(), Log()
    comet, _ = made
    declared = comet.channel("ticker")(log.source)
    channel = declared.channel()
    epochs = set()
    for _ in range(2):
        async with running(made):
            assert log.said == ["started"]
            (feed,) = live_feeds(comet, declared)
            assert find(comet, "ticker") is feed is feed_of(channel)
            await log.do(1)
            channel.publish(2)
            assert feed.history.top == 2
            epochs.add(feed.history.epoch)
        assert log.said == ["started", "closed"]
        assert (live_feeds(comet, declared), len(inside(comet).channels)) == (
            [],
            0,
        )
        log.said.clear()
    assert len(epochs) == 2


async def test_a_site_channel_can_be_used_before_the_lifespan() -> None:
    made, log = make_clocked(), Log()
    comet, _ = made
    declared = comet.channel("ticker")(log.source)
    channel = declared.channel()
    channel.publish("early")
    assert feed_of(declared.channel()) is feed_of(channel)
    assert (channel.name, channel.id, channel.listeners) == ("ticker", "ticker", 0)
    assert channel.reference()["channel"] == "ticker"
    assert declared.reference("first") == channel.reference("first")
    assert '"ticker"' in comet.script(ticker=channel)
    await wait_all_tasks_blocked()
    assert log.said == []
    async with running(made):
        await log.do("late")
        assert (len(feed_of(channel).history), feed_of(declared.channel())) == (2, feed_of(channel))
    with pytest.raises(ChannelClosed):
        channel.publish("between")
    between = declared.channel()
    between.publish("between")
    channel.publish("as well")
    assert feed_of(between).history.top == 2
    async with running(made):
        assert log.said == ["started", "closed", "started"]
        assert feed_of(declared.channel()) is feed_of(between)


async def test_one_that_is_declared_while_the_lifespan_runs_starts_at_once() -> None:
    async with running() as (comet, _):
        log = Log()
        comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        assert log.said == ["started"]


async def test_one_that_another_thread_declares_as_the_lifespan_begins_starts_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, first, second = make_clocked(), Log(), Log()
    comet, _ = made
    comet.channel("first")(first.source)
    start = START_SITE.function

    def start_late(declarations: Declarations, declared: DeclaredChannel[Any, Any]) -> Any:
        monkeypatch.undo()
        comet.channel("second")(second.source)
        return start(declarations, declared)

    monkeypatch.setattr(*START_SITE, start_late)
    async with running(made):
        assert (first.said, second.said) == (["started"], ["started"])


async def test_a_site_channel_that_ends_stays_ended_until_the_next_lifespan() -> None:
    made, log = make_clocked(linger=10), Log()
    comet, clock = made
    declared = comet.channel("ticker")(log.source)
    async with running(made):
        await log.do("last", StopAsyncIteration)
        assert (find(comet, "ticker").closed, log.said) == ("ended", ["started", "closed"])
        await advance(clock, 10.2)
        assert inside(comet).declarations.find("ticker") is None
        assert feed_of(declared.channel()).closed == "ended"
        with pytest.raises(NonUniqueChannelName):
            comet.channels.create("ticker")
    async with running(made):
        assert log.said == ["started", "closed", "started"]
        assert find(comet, "ticker").closed is None
        declared.channel().close()
        assert log.said == ["started", "closed", "started"]
        await wait_all_tasks_blocked()
        assert log.said == ["started", "closed", "started", "closed"]
    async with running(made):  # while what the closed one held could still be read
        assert find(comet, "ticker").closed is None


async def test_too_many_channels_stop_the_application_from_starting() -> None:
    comet, _ = make_clocked(max_virtual_channels=1)
    comet.channel("a")(nothing)
    comet.channel("b")(nothing)
    with pytest.raises(TooManyVirtualChannels):
        async with comet.lifespan():
            pass
    assert not inside(comet).loop.running


async def test_a_source_gets_its_type_from_the_function() -> None:
    made = make_clocked()
    comet, _ = made
    declared = comet.channel("c")(nothing)
    with pytest.raises(ValueError, match="integer"):
        declared.channel().publish("many")  # type: ignore[arg-type]  # tested
    sized = comet.channel("d", size=2, type=str)(Log().source).channel()
    sized.publish("text")
    assert feed_of(sized).history.size == 2


# Families


async def test_a_member_starts_when_it_is_first_asked_for_and_is_shared() -> None:
    async with running() as (comet, _):
        log = Log()
        rooms = declare_rooms(comet, log, authorize=may)
        feed = find(comet, "room:42")
        assert find(comet, "room:42") is feed
        assert feed.authorize is may
        await wait_all_tasks_blocked()
        assert log.said == ["started 42"]
        other = find(comet, "room:43")
        assert live_feeds(comet, rooms) == [feed, other]
        await wait_all_tasks_blocked()
        assert log.said == ["started 42", "started 43"]


@pytest.mark.parametrize("comes", [True, False], ids=["listened to", "never listened to"])
async def test_a_member_is_stopped_linger_seconds_after_the_last_listener(comes: bool) -> None:
    async with running(linger=10) as (comet, clock):
        log = Log()
        rooms = declare_rooms(comet, log)
        feed = find(comet, "room:42")
        await wait_all_tasks_blocked()
        if comes:
            first, second = come(comet, feed), come(comet, feed)
            await advance(clock, 100)
            leave(comet, first)
            await advance(clock, 100)
            leave(comet, second)
        await advance(clock, 9.9)
        assert log.said == ["started 42"]
        await advance(clock, 0.3)
        assert log.said == ["started 42", "closed 42"]
        assert (feed.closed, inside(comet).channels.find("room:42")) == ("ended", None)
        assert (len(inside(comet).timers), live_feeds(comet, rooms)) == (0, [])
        assert len(inside(comet).channels) == 0
        assert find(comet, "room:42") is not feed
        await wait_all_tasks_blocked()
        assert log.said == ["started 42", "closed 42", "started 42"]


async def test_a_listener_that_comes_back_keeps_the_member() -> None:
    async with running(linger=10) as (comet, clock):
        log = Log()
        declare_rooms(comet, log)
        feed = find(comet, "room:42")
        for _ in range(5):
            reader = come(comet, feed)
            await advance(clock, 1)
            leave(comet, reader)
            await advance(clock, 9.5)
        assert (feed.closed, log.said) == (None, ["started 42"])


async def test_a_reference_lets_a_member_wait_for_another_linger() -> None:
    async with running(linger=10) as (comet, clock):
        rooms = declare_rooms(comet, Log())
        channel = rooms.channel(name="42")
        await wait_all_tasks_blocked()
        await advance(clock, 5)
        channel.reference()
        with pytest.raises(TypeError, match=r"'room:\{name\}' is a family: write \.channel\(name="):
            rooms.reference()
        await advance(clock, 9.8)
        assert feed_of(channel).closed is None
        await advance(clock, 0.4)
        assert feed_of(channel).closed == "ended"
        with pytest.raises(ChannelClosed):
            channel.publish("nobody")


async def test_a_member_that_is_asked_for_before_the_lifespan_lingers_from_its_start() -> None:
    made = make_clocked(linger=10)
    comet, clock = made
    channel = declare_rooms(comet, Log()).channel(name="42")
    assert (channel.name, channel.id) == ("room:42", "room:42")
    clock.advance(100)
    async with running(made):
        assert feed_of(channel).closed is None
        await advance(clock, 10.2)
        assert feed_of(channel).closed == "ended"


async def test_a_member_can_be_asked_for_in_any_thread() -> None:
    async with running() as (comet, _):
        log = Log()
        rooms = declare_rooms(comet, log)
        channels = [await anyio.to_thread.run_sync(lambda: rooms.channel(name="1"))]
        channels.append(rooms.channel(name="1"))
        assert feed_of(channels[0]) is feed_of(channels[1])
        await wait_all_tasks_blocked()
        assert log.said == ["started 1"]


async def test_the_words_of_a_member_must_be_those_of_the_family() -> None:
    comet, _ = make_clocked()
    rooms = declare_rooms(comet, Log())
    for wrong in ({}, {"nam": "1"}, {"name": "1", "more": "2"}, {"process": "1"}):
        with pytest.raises(TypeError, match=r"expected the words \['name'\] of channel"):
            rooms.channel(**wrong)
    for value in ("", "a:b", "a/b", 7, "a\nb", "x" * 256):
        with pytest.raises(InvalidName):
            rooms.channel(name=value)

    async def source(process: str) -> AsyncIterator[str]:
        yield process

    family = comet.channel("job:{process}")(source)
    assert family.channel(process="1").id == "job:1"
    assert family.channel("2").id == "job:2"


async def test_words_too_many_are_told_which_were_expected() -> None:
    comet, _ = make_clocked()
    rooms = declare_rooms(comet, Log())
    news = comet.channel("news")(Log().source)
    expected = r"words \['name'\] of channel 'room:\{name\}', got \['a', 'b'\]"
    with pytest.raises(TypeError, match=expected):
        rooms.channel("a", "b")
    with pytest.raises(TypeError, match=r"words \[\] of channel 'news', got \['a'\]"):
        news.channel("a")  # type: ignore[call-arg]  # that is what is tested


async def test_a_member_that_ends_starts_again_once_what_it_held_is_forgotten() -> None:
    async with running(linger=10) as (comet, clock):
        log = Log()
        rooms = declare_rooms(comet, log)
        feed = find(comet, "room:42")
        reader = come(comet, feed)
        await wait_all_tasks_blocked()
        await log.do("last", StopAsyncIteration)
        leave(comet, reader)
        assert (feed.closed, live_feeds(comet, rooms)) == ("ended", [])
        await advance(clock, 9.9)
        assert find(comet, "room:42") is feed
        assert feed_of(rooms.channel(name="42")) is feed
        await advance(clock, 0.3)
        assert find(comet, "room:42") is not feed
        await wait_all_tasks_blocked()
        assert log.said == ["started 42", "closed 42", "started 42"]


async def test_a_member_that_ends_before_anybody_comes_is_left_alone() -> None:
    async with running(linger=10) as (comet, clock):
        log = Log()
        declare_rooms(comet, log)
        feed = find(comet, "room:42")
        await wait_all_tasks_blocked()
        await advance(clock, 5)
        await log.do(StopAsyncIteration)
        await advance(clock, 5.3)
        assert inside(comet).channels.find("room:42") is feed
        await advance(clock, 5)
        assert inside(comet).channels.find("room:42") is None
        assert len(inside(comet).timers) == 0


async def test_max_family_channels_at_n_and_n_plus_one_disturbs_nobody() -> None:
    async with running(max_family_channels=3, linger=10) as (comet, clock):
        log = Log()
        rooms = declare_rooms(comet, log)
        users = comet.newest("user:{name}")(log.named)
        feeds = [find(comet, "room:1"), find(comet, "room:2"), find(comet, "user:1")]
        readers = [come(comet, feed) for feed in feeds]
        await wait_all_tasks_blocked()
        with pytest.raises(TooManyFamilyChannels, match="at most 3 live members") as caught:
            find(comet, "room:3")
        assert caught.value.limit == 3
        with pytest.raises(TooManyFamilyChannels):
            users.channel(name="2")
        await wait_all_tasks_blocked()
        assert find(comet, "room:2") is feeds[1]
        assert [feed.closed for feed in feeds] == [None] * 3
        assert sorted(log.said) == ["started 1", "started 1", "started 2"]
        assert inside(comet).channels.find("room:3") is None
        comet.channels.create("other")  # which is no member
        leave(comet, readers[0])
        await advance(clock, 10.2)
        assert live_feeds(comet, rooms) == [feeds[1]]
        find(comet, "room:3")
        with pytest.raises(TooManyFamilyChannels):
            find(comet, "room:4")


async def test_members_that_linger_make_room_the_longest_first() -> None:
    async with running(max_family_channels=3, linger=10) as (comet, clock):
        log = Log()
        rooms = declare_rooms(comet, log)
        users = comet.newest("user:{name}")(log.named)
        first, second = find(comet, "room:1"), find(comet, "room:2")
        await advance(clock, GRACE)
        readers = [come(comet, first), come(comet, first)]
        third = find(comet, "room:3")
        leave(comet, readers.pop())
        leave(comet, readers.pop())  # so it lingers since now, and the second since it was made
        assert len(inside(comet).channels) == 3  # as many as may be
        await advance(clock, GRACE)
        fourth = find(comet, "user:4")
        await wait_all_tasks_blocked()
        assert [f.closed for f in (first, second, third, fourth)] == [None, "ended", None, None]
        assert sorted(log.said) == ["closed 2", *(f"started {n}" for n in range(1, 5))]
        assert (inside(comet).channels.find("room:2"), len(inside(comet).channels)) == (None, 3)
        await advance(clock, 5)
        assert feed_of(rooms.channel(name="3")) is third  # which is asked for, and so not the next
        users.channel(name="5")
        assert (first.closed, third.closed, fourth.closed) == ("ended", None, None)
        assert len(live_feeds(comet, rooms)) == 1
        rooms.channel(name="6")
        assert (third.closed, fourth.closed) == (None, "ended")


async def test_members_with_listeners_or_asked_for_just_now_stay_and_the_next_is_refused() -> None:
    async with running(max_family_channels=3, linger=10) as (comet, clock):
        rooms = declare_rooms(comet, Log())
        listened = [find(comet, "room:1"), find(comet, "room:2")]
        for feed in listened:
            come(comet, feed)
        await advance(clock, 100)
        asked = rooms.channel(name="3")
        await advance(clock, GRACE - 0.01)
        with pytest.raises(TooManyFamilyChannels):
            find(comet, "room:4")
        assert feed_of(asked).closed is None
        await advance(clock, 0.02)
        assert find(comet, "room:4").closed is None
        assert feed_of(asked).closed == "ended"
        come(comet, find(comet, "room:4"))
        await advance(clock, 100)
        with pytest.raises(TooManyFamilyChannels):
            rooms.channel(name="5")
        assert [feed.closed for feed in listened] == [None, None]


async def test_a_stranger_who_asks_for_many_members_keeps_nobody_else_out() -> None:
    async with running(max_family_channels=100, linger=10) as (comet, clock):
        declare_rooms(comet, Log())
        others = comet.channel("other:{name}")(Log().named)
        read = find(comet, "room:read")
        come(comet, read)
        for n in range(10):
            for m in range(99):
                leave(comet, come(comet, find(comet, f"room:{n}-{m}")))
            await advance(clock, GRACE)
        assert feed_of(others.channel(name="1")).closed is None
        assert (read.closed, len(inside(comet).channels)) == (None, 100)
        await wait_all_tasks_blocked()
        await advance(clock, 10.2)
        assert (len(inside(comet).channels), tables(comet)["members"]) == (1, 1)


async def test_a_member_that_has_ended_is_not_kept_among_those_that_linger() -> None:
    async with running() as (comet, _):
        log = Log()
        rooms = declare_rooms(comet, log)
        feed = find(comet, "room:1")
        reader = come(comet, feed)
        await wait_all_tasks_blocked()
        rooms.channel(name="1").close()
        leave(comet, reader)
        assert tables(comet)["members"] == 0


async def test_max_virtual_channels_holds_for_members_too() -> None:
    async with running(max_virtual_channels=1) as (comet, _):
        declare_rooms(comet, Log())
        find(comet, "room:1")
        with pytest.raises(TooManyVirtualChannels):
            find(comet, "room:2")
        assert find(comet, "room:1").closed is None


async def test_a_member_that_is_asked_for_as_the_server_stops_ends_at_once() -> None:
    log = Log()
    async with running() as (comet, _):
        declare_rooms(comet, log)
        inside(comet).declarations.stop()
        inside(comet).channels.stop()
        assert find(comet, "room:1").closed == "ended"
    assert log.said == []


# Channels of client processes


@pytest.mark.parametrize("unlimited", [True, False])
async def test_each_process_that_asks_has_its_own_until_it_closes(unlimited: bool) -> None:
    async with running() as (comet, _):
        log = Log()

        how = comet.unlimited("own") if unlimited else comet.channel("own", scope=CLIENT_PROCESS)
        declared = how(log.own)
        one, other = open_in(comet), open_in(comet)
        feed = find_own(comet, one, "~own")
        assert find_own(comet, one, "~own") is feed
        channel = declared.channel(one)
        assert (feed_of(channel), channel.name, channel.id) == (feed, "own", "~own")
        assert feed_of(declared.channel(process=other)) is not feed
        assert inside(comet).declarations.find_own(client_of(one), "~other") is None
        inside(comet).broker.want(feed, 1)
        await wait_all_tasks_blocked()
        assert f"started {one.id}" in log.said
        assert len(live_feeds(comet, declared)) == 2
        one.close()
        await wait_all_tasks_blocked()
        assert f"closed {one.id}" in log.said
        assert f"closed {other.id}" not in log.said
        assert live_feeds(comet, declared) == [feed_of(declared.channel(other))]
        with pytest.raises(ProcessClosed):
            declared.channel(one)
        with pytest.raises(ProcessClosed):
            find_own(comet, one, "~own")


async def test_what_is_no_process_says_what_is_expected() -> None:
    async with running() as (comet, _):
        declared = comet.unlimited("own")(of_process)
        with pytest.raises(NoClientProcess):
            declared.channel()  # type: ignore[call-arg]  # of the current one
        with pytest.raises(TypeError, match="expected a client process, got int"):
            declared.channel(7)  # type: ignore[arg-type]  # that is what is tested
        with pytest.raises(TypeError, match="expected a client process, got str"):
            declared.channel(room="42")  # type: ignore[call-arg]  # that is what is tested
        with pytest.raises(TypeError, match=r"expected a client process only, got \[.*'room'\]"):
            declared.channel(7, room="42")  # type: ignore[call-arg, arg-type]  # the same


async def test_a_process_channel_that_nobody_reads_is_full_and_stays_so() -> None:
    async with running() as (comet, _):
        log = Log()
        declared = comet.channel("own", scope=CLIENT_PROCESS, size=2)(log.own)
        process = open_in(comet)
        channel = declared.channel(process)
        await wait_all_tasks_blocked()
        await log.do(1, 2, 3)
        assert (feed_of(channel).closed, inside(comet).channels.restarts) == ("full", 0)
        assert log.said[-1].startswith("closed")
        with pytest.raises(ChannelFull):
            channel.publish(4)
        assert find_own(comet, process, "~own") is feed_of(channel)


async def test_a_reader_that_waited_for_an_unlimited_channel_gets_its_first_value() -> None:
    async with running() as (comet, _):
        log, reader = Log(), Reader()
        declared = comet.unlimited("own")(log.own)
        process = open_in(comet)
        inside(comet).fanout.listeners.add(reader)
        client_of(process).place.directory.expect("~own", reader)
        feed = feed_of(declared.channel(process))
        await wait_all_tasks_blocked()
        await log.do("first", "second")
        assert (feed.history.top, reader.cursors[feed]) == (1, 0)


async def test_one_that_closes_as_its_channel_starts_leaves_no_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as (comet, _):
        log = Log()
        declared = comet.channel("own", scope=CLIENT_PROCESS)(log.own)
        process = open_in(comet)
        make_feed = inside(comet).channels.make_feed

        def make_late(*args: Any, **more: Any) -> Feed:
            feed = make_feed(*args, **more)
            process.close()
            return feed

        monkeypatch.setattr(inside(comet).channels, "make_feed", make_late)
        assert feed_of(declared.channel(process)).closed == "ended"
        await wait_all_tasks_blocked()
        assert (log.said, live_feeds(comet, declared)) == ([], [])


# Failures


def test_pauses_grow_and_are_bounded() -> None:
    for failures in (1, 2, 3, 7, 1000):
        longest = min(PAUSE * 2 ** (min(failures, 20) - 1), PAUSE_AT_MOST)
        pauses = [CHOOSE_PAUSE.function(failures) for _ in range(1000)]
        assert min(pauses) >= PAUSE_AT_LEAST
        assert longest / 2 < max(pauses) <= longest


FAILURE = ValueError("broken")


async def test_a_source_that_raises_is_started_again_and_logged_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as (comet, clock):
        log = Log()
        declared = comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        channel = declared.channel()
        await log.do("a", "b")
        before = feed_of(channel)
        other = comet.channels.create("other")
        with caplog.at_level(logging.WARNING, "asgi_comet"):
            await log.do(FAILURE)
        after = feed_of(channel)
        assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
        assert all("'ticker'" in record.getMessage() for record in caplog.records)
        assert (inside(comet).channels.restarts, log.said) == (1, ["started", "closed"])
        assert after is find(comet, "ticker") is before.successor
        assert before.closed is not None
        assert (after.closed, after.history.top, len(inside(comet).channels)) == (None, 0, 2)
        assert after.history.epoch != before.history.epoch
        assert (after.directory, after.history.size) == (before.directory, before.history.size)
        channel.publish("meanwhile")
        await advance(clock, 0.7)
        assert log.said == ["started", "closed", "started"]
        await log.do("c")
        assert after.history.top == 2
        assert feed_of(other).closed is None
        assert live_feeds(comet, declared) == [after]


async def test_the_old_source_has_closed_before_the_next_begins() -> None:
    async with running() as (comet, clock):
        said: list[str] = []
        closing = anyio.Event()

        @comet.channel("ticker", type=int)
        async def ticker() -> AsyncIterator[str]:
            said.append("started")
            try:
                if said == ["started"]:
                    yield "which does not fit"
                await anyio.sleep_forever()
            finally:
                if said == ["started"]:
                    await closing.wait()
                said.append("closed")

        await wait_all_tasks_blocked()
        assert inside(comet).channels.restarts == 1
        await advance(clock, 5)
        assert said == ["started"]
        closing.set()
        await wait_all_tasks_blocked()
        assert said == ["started", "closed"]
        await advance(clock, 0.7)
        assert said == ["started", "closed", "started"]


async def test_a_source_that_ran_for_a_minute_counts_as_if_it_had_never_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def choose(failures: int) -> float:
        asked.append(failures)
        return 1.0

    monkeypatch.setattr(*CHOOSE_PAUSE, choose)
    async with running() as (comet, clock):
        log = Log()
        comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        for ran in (0.0, 59.0, 60.0, 0.0):
            await advance(clock, ran)
            await log.do(FAILURE)
            await advance(clock, 1.2)
        assert asked == [1, 2, 1, 2]
        assert inside(comet).channels.restarts == 4


async def test_a_newest_channel_goes_on_where_it_was() -> None:
    async with running() as (comet, clock):
        log = Log()
        declared = comet.newest("temperature")(log.source)
        await wait_all_tasks_blocked()
        feed = feed_of(declared.channel())
        await log.do(20)
        reader = come(comet, feed)
        await log.do(FAILURE)
        assert (feed_of(declared.channel()), feed.closed, feed.history.top) == (feed, None, 1)
        await advance(clock, 0.7)
        await log.do(21)
        assert (feed.history.top, reader.cursors[feed], reader.woken is not None) == (2, 1, True)


@pytest.mark.parametrize("how", ["lingers out", "closes", "stops"])
async def test_what_waits_to_start_again_can_be_stopped(how: str) -> None:
    made, log = make_clocked(linger=0.2), Log()
    comet, clock = made
    rooms = declare_rooms(comet, log)
    own = comet.channel("own", scope=CLIENT_PROCESS)(log.own)
    async with running(made):
        process = open_in(comet)
        client_of(process).connect()
        declared = own if how == "closes" else rooms
        feed = feed_of(declared.channel(process)) if how == "closes" else find(comet, "room:1")
        if how != "closes":
            come(comet, feed)
        await wait_all_tasks_blocked()
        for _ in range(6):  # so that the pause is long
            await log.do(FAILURE)
            if how != "closes":
                come(comet, feed.latest)
            await advance(clock, 40)
        await log.do(FAILURE)
        starts = log.said.count(log.said[0])
        assert len(inside(comet).background) == 1
        if how == "lingers out":
            await advance(clock, 0.4)
        elif how == "closes":
            process.close()
        if how != "stops":
            await wait_all_tasks_blocked()
            assert (len(inside(comet).background), feed.latest.closed) == (0, "ended")
            assert live_feeds(comet, declared) == []
            await advance(clock, 100)
    assert log.said.count(log.said[0]) == starts
    assert feed.latest.closed == "ended"
    assert len(inside(comet).background) == 0


async def test_one_that_is_closed_while_its_source_closes_is_not_started_again() -> None:
    async with running() as (comet, clock):
        starts, closing = list[int](), anyio.Event()

        @comet.channel("ticker", type=int)
        async def ticker() -> AsyncIterator[str]:
            starts.append(1)
            try:
                yield "which does not fit"
            finally:
                await closing.wait()

        await wait_all_tasks_blocked()
        channel = ticker.channel()
        assert inside(comet).channels.restarts == 1
        channel.close()
        assert feed_of(channel).closed == "ended"
        closing.set()
        await wait_all_tasks_blocked()
        assert len(inside(comet).background) == 0  # it does not wait to be started again
        await advance(clock, 100)
        assert starts == [1]


async def test_readers_of_before_do_not_count_for_the_member_that_was_started_again() -> None:
    async with running(linger=10) as (comet, clock):
        log = Log()
        declare_rooms(comet, log, authorize=may)
        before = find(comet, "room:42")
        old = come(comet, before)
        await wait_all_tasks_blocked()
        await log.do(FAILURE)
        after = find(comet, "room:42")
        assert after is before.successor
        assert (after.authorize, after.uses) == (may, before.uses)
        new = come(comet, after)
        leave(comet, old)
        await advance(clock, 30)
        assert after.closed is None
        leave(comet, new)
        await advance(clock, 10.3)
        assert after.closed == "ended"


async def test_a_failing_member_that_nobody_listens_to_lingers_no_longer() -> None:
    async with running(linger=10) as (comet, clock):
        log = Log()
        rooms = declare_rooms(comet, log)
        find(comet, "room:42")
        await wait_all_tasks_blocked()
        for _ in range(3):
            await advance(clock, 3)
            await log.do(FAILURE)
        assert len(live_feeds(comet, rooms)) == 1
        await advance(clock, 1.2)
        assert live_feeds(comet, rooms) == []
        assert len(inside(comet).channels) == 0


async def test_the_readers_of_a_member_that_fails_have_a_whole_linger_to_come_back() -> None:
    async with running(linger=10) as (comet, clock):
        log = Log()
        rooms = declare_rooms(comet, log)
        come(comet, find(comet, "room:42"))
        await advance(clock, 100)
        await log.do(FAILURE)
        await advance(clock, 9.9)
        (member,) = live_feeds(comet, rooms)
        assert member.closed is None
        await advance(clock, 0.3)
        assert member.closed == "ended"


async def test_a_channel_of_the_site_keeps_nothing_of_its_incarnations_but_the_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "asgi_comet")  # for a traceback keeps what it is about
    made = make_clocked()
    comet, clock = made
    log = Log()
    comet.channel("ticker")(log.source)
    for _ in range(2):
        async with running(made):
            old = set()
            for _ in range(2):
                await log.do("a")
                old.add(find(comet, "ticker").history.epoch)
                await log.do(ValueError("broken"))
                await advance(clock, 1)
            feed = find(comet, "ticker")
            gc.collect()
            feeds = [one for one in gc.get_objects() if type(one) is Feed]
            assert old.isdisjoint(one.history.epoch for one in feeds)
            assert feed.history.epoch in {one.history.epoch for one in feeds}


async def test_what_ends_in_the_very_moment_its_source_fails_stays_ended() -> None:
    async with running() as (comet, clock):
        log = Log()
        declared = comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        feed = feed_of(declared.channel())
        feed.directory.end(feed, keep=True)  # what another thread does first
        await log.do(FAILURE)
        assert inside(comet).channels.find("ticker") is feed
        inside(comet).channels.ending.end(feed, "ended")  # and then
        await advance(clock, 100)
        assert log.said == ["started", "closed"]


async def test_an_unlimited_channel_is_asked_anew_after_a_failure() -> None:
    async with running() as (comet, clock):
        log = Log()
        declared = comet.unlimited("own", ahead=9)(log.own)
        channel = declared.channel(open_in(comet))
        before = feed_of(channel)
        inside(comet).broker.want(before, 5)
        await wait_all_tasks_blocked()
        await log.do("a", FAILURE)
        after = feed_of(channel)
        await advance(clock, 0.7)
        assert (after is before, len(log.said)) == (False, 2)
        inside(comet).broker.want(before, 9)  # what a reader of before still asks
        await wait_all_tasks_blocked()
        assert len(log.said) == 2
        inside(comet).broker.want(after, 1)
        await wait_all_tasks_blocked()
        await log.do("b", "c")
        assert after.history.top == 1


async def test_a_value_that_does_not_fit_is_a_failure() -> None:
    async with running() as (comet, _):
        log = Log()
        comet.channel("ticker", type=int)(log.source)
        await wait_all_tasks_blocked()
        await log.do("text")
        assert (inside(comet).channels.restarts, log.said) == (1, ["started", "closed"])


async def test_publishing_and_closing_as_a_source_is_started_again_reach_the_next() -> None:
    async with running() as (comet, _):
        log = Log()
        declared = comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        channel = declared.channel()
        old = feed_of(channel)
        new = inside(comet).channels.renew(old)
        old.lineage = None  # what the publisher saw before

        def publish(feed: Feed, data: bytes, id_: str | None = None) -> Delivery:
            new.succeed(old)
            del inside(comet).channels.appending.publish  # the real one again
            return inside(comet).channels.appending.publish(feed, data, id_)

        inside(comet).channels.appending.publish = publish  # type: ignore[method-assign]  # in this very moment
        channel.publish("x")
        assert (old.history.top, new.history.top) == (0, 1)

        old.lineage = None
        point_at(channel, old)

        def end(feed: Feed, reason: str) -> None:
            new.succeed(old)
            del inside(comet).channels.ending.end  # the real one again
            inside(comet).channels.ending.end(feed, reason)

        inside(comet).channels.ending.end = end  # type: ignore[method-assign,assignment]  # the same again
        channel.close()
        assert new.closed == "ended"


async def test_no_incarnation_keeps_those_before_it() -> None:
    async with running() as (comet, _):
        declared = comet.channel("ticker")(Log().source)
        await wait_all_tasks_blocked()
        first = feed_of(declared.channel())
        between = id(inside(comet).channels.renew(first))
        newest = inside(comet).channels.renew(first.latest)
        await wait_all_tasks_blocked()
        gc.collect()
        assert between not in {id(one) for one in gc.get_objects() if type(one) is Feed}
        assert first.latest is newest


async def test_what_threads_publish_meanwhile_is_in_one_incarnation_each() -> None:
    async with running() as (comet, _):
        declared = comet.channel("ticker", type=int)(Log().source)
        channel = declared.channel()
        feeds = [feed_of(channel)]

        def publish() -> None:
            for number in range(5000):
                channel.publish(number)

        async with anyio.create_task_group() as threads:
            for _ in range(2):
                threads.start_soon(anyio.to_thread.run_sync, publish)
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
                feeds.append(inside(comet).channels.renew(feeds[-1]))
        assert sum(feed.history.top for feed in feeds) == 10_000
        assert feed_of(channel) is feeds[-1] is feeds[0].latest


# What clients see of it: the poll, until each transport has a test of its own


def client(comet: Comet) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(application(comet))
    return httpx.AsyncClient(transport=transport, base_url="http://a")


async def poll(page: httpx.AsyncClient, start: str, url: str = "/comet", **more: Any) -> Any:
    channels = {more.pop("name", "ticker"): start}
    answer = await page.post(f"{url}/poll", json={"channels": channels, **more})
    assert answer.status_code == 200
    return answer.json()["events"]


async def test_readers_are_told_full_with_the_position_to_read_on_from() -> None:
    async with running() as (comet, clock), client(comet) as page:
        log = Log()
        comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        await log.do(1, 2)
        told, *read = await poll(page, "last:2")
        assert [event["data"] for event in read] == [1, 2]
        held: list[Any] = []
        async with anyio.create_task_group() as tasks:

            async def hold() -> None:
                held.extend(await poll(page, read[-1]["position"]))

            tasks.start_soon(hold)
            await wait_all_tasks_blocked()
            await log.do(FAILURE)
        (full,) = held
        assert (full["channel"], full["error"]) == ("ticker", "full")
        assert full["position"].endswith(".0")
        assert full["position"] != told["position"]
        await advance(clock, 0.7)
        await log.do(3)
        again = await poll(page, full["position"])
        assert [event["data"] for event in again] == [3]
        # one who was away meanwhile
        assert await poll(page, read[-1]["position"]) == [
            {"channel": "ticker", "error": "full", "position": again[0]["position"]}
        ]


async def test_a_source_that_goes_on_where_the_channel_stands_costs_its_readers_nothing() -> None:
    async with running() as (comet, clock), client(comet) as page:
        begun: list[Message | None] = []

        @comet.channel("ticker", continues=True)
        async def count(after: Message | None = None) -> AsyncIterator[int]:
            begun.append(after)
            first = 1 if after is None else after.value + 1
            yield first
            yield first + 1
            if len(begun) < 3:
                raise OSError("the line is cut")

        await wait_all_tasks_blocked()
        for _ in range(2):
            await advance(clock, 1.7)
        read = await poll(page, "last:9")
        assert [event["data"] for event in read[1:7]] == [1, 2, 3, 4, 5, 6]
        assert {event["position"].partition(".")[0] for event in read[1:7]} == {
            read[0]["position"].partition(".")[0]
        }
        assert [after and (after.offset, after.value) for after in begun] == [None, (2, 2), (4, 4)]


async def test_a_reader_gets_what_it_had_not_before_it_is_told_full() -> None:
    async with running() as (comet, _), client(comet) as page:
        log = Log()
        comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        (told,) = await poll(page, "now")
        held: list[Any] = []
        async with anyio.create_task_group() as tasks:

            async def hold() -> None:
                held.extend(await poll(page, told["position"]))

            tasks.start_soon(hold)
            await wait_all_tasks_blocked()
            await log.do(1, 2, FAILURE)
        assert [event.get("data", event.get("error")) for event in held] == [1, 2, "full"]


async def test_a_registration_at_a_process_never_skips_what_a_new_incarnation_has() -> None:
    async with running() as (comet, clock), client(comet) as page:
        log = Log()
        comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        url = (await page.post("/comet/open")).json()["url"]

        async def register() -> str:
            kind = {"Content-Type": "application/x-ocsigen-comet"}
            answer = await page.post(f"{url}/poll", content=b"registration=ticker", headers=kind)
            return answer.text

        found: list[str] = []
        async with anyio.create_task_group() as tasks:

            async def hold() -> None:
                found.append(await register())

            tasks.start_soon(hold)
            await wait_all_tasks_blocked()
            await log.do(1)
        await log.do(FAILURE)
        await advance(clock, 0.7)
        await log.do(2, 3, 4)
        assert [*found, await register()] == ["ticker:1", "ticker:ENDED_CHANNEL"]


async def test_the_status_tells_how_often_sources_were_started_again() -> None:
    async with running() as (comet, _), client(comet) as page:
        log = Log()
        comet.channel("ticker")(log.source)
        await wait_all_tasks_blocked()
        await log.do(FAILURE)
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        status = (await page.get("/comet/admin/status", headers=bearer)).json()
        assert status["restarts"] == 1


# Channels that are created, with somebody who guards them


def test_a_created_site_channel_may_be_guarded() -> None:
    comet, _ = make_clocked()
    for channel in (
        comet.create(scope=SITE, authorize=may),
        comet.create_newest(authorize=may),
    ):
        assert feed_of(channel).authorize is may
    assert feed_of(comet.create(scope=SITE)).authorize is None
    wrong: Any = 7
    for create in (partial(comet.create, scope=SITE), comet.create_newest):
        with pytest.raises(TypeError, match="expected authorize to be a function, got int"):
            create(authorize=wrong)
    with pytest.raises(ValueError, match="authorize for a channel of the site only"):
        comet.create(scope=open_in(comet), authorize=may)


def test_a_decorator_without_a_name_says_how_it_is_written() -> None:
    comet, _ = make_clocked()

    async def ticker() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(InvalidDeclaration, match=r'as in @comet.channel\("ticker"\), got the func'):
        comet.channel(ticker)  # type: ignore[arg-type]
