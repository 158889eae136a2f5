"""How many members of families live for one client alone, and for strangers together."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from asgi_comet import Comet, Session, TooManyFamilyChannels
from asgi_comet.channels.feed import Feed
from asgi_comet.identity.process import Claim
from asgi_comet.testing._inspect import RUN_MEMBER, feed_of, inside, members
from tests.kit.declaring import Log, declare_rooms
from tests.kit.listening import Reader
from tests.kit.running import running
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


def stranger(session: Session | None = None) -> Reader:
    """A connection: of a session, or of nobody that is known."""
    reader = Reader()
    reader.claim = None if session is None else Claim.of(session)
    return reader


def ask(comet: Comet, reader: Reader, name: str) -> Feed:
    """Have a connection follow a member, which starts if need be."""
    feed = inside(comet).declarations.find(name, reader)
    assert feed is not None
    inside(comet).fanout.attach(reader, feed)
    return feed


def stop_following(comet: Comet, reader: Reader, feed: Feed) -> None:
    inside(comet).fanout.leave(reader, feed)


@pytest.mark.parametrize("known", [True, False])
async def test_max_family_channels_per_session_at_n_and_n_plus_one(known: bool) -> None:
    async with running(max_family_channels_per_session=2) as (comet, _):
        declare_rooms(comet, Log())
        session = Session("s", "alice") if known else None
        reader = stranger(session)
        again = stranger(session) if known else reader  # a session may have several connections
        first, second = ask(comet, reader, "room:1"), ask(comet, again, "room:2")
        setting = "max_family_channels_per_session"
        with pytest.raises(TooManyFamilyChannels, match=setting) as caught:
            ask(comet, again, "room:3")
        assert (caught.value.limit, caught.value.setting) == (2, setting)
        ask(comet, stranger(), "room:3")  # others have a share of their own
        ask(comet, stranger(Session("t")), "room:4")
        stop_following(comet, reader, first)
        ask(comet, again, "room:5")  # in place of the one that it has left
        assert (first.closed, second.closed) == ("ended", None)


async def test_a_member_that_others_listen_to_counts_for_nobody_alone() -> None:
    async with running(max_family_channels_per_session=1) as (comet, _):
        declare_rooms(comet, Log())
        reader, others = stranger(), [stranger(), stranger()]
        first = ask(comet, reader, "room:1")
        with pytest.raises(TooManyFamilyChannels):
            ask(comet, reader, "room:2")
        for other in others:
            ask(comet, other, "room:1")
        second = ask(comet, reader, "room:2")
        stop_following(comet, reader, second)
        for leaving in (reader, *others):
            stop_following(comet, leaving, first)  # and counts for the one that started it again
        ask(comet, reader, "room:3")
        assert (first.closed, second.closed) == ("ended", "ended")


async def test_a_member_that_was_published_to_of_late_goes_after_those_that_were_not() -> None:
    async with running(max_family_channels_per_session=3, linger=10) as (comet, clock):
        rooms = declare_rooms(comet, Log())
        feeds = []
        for name in ("1", "2", "3"):
            reader = stranger()
            feeds.append(ask(comet, reader, f"room:{name}"))
            stop_following(comet, reader, feeds[-1])
            clock.advance(1)
        rooms.publish(5, name="1")
        ask(comet, stranger(), "room:4")
        assert [feed.closed for feed in feeds] == [None, "ended", None]


async def test_what_strangers_leave_behind_is_bounded_and_ends_nothing_of_users() -> None:
    async with running(max_family_channels_per_session=2, linger=10) as (comet, _):
        declare_rooms(comet, Log())

        def visit(name: str, session: Session | None = None) -> Feed:
            reader = stranger(session)
            feed = ask(comet, reader, name)
            stop_following(comet, reader, feed)
            return feed

        user = visit("room:user", Session("u", "alice"))
        followed = ask(comet, stranger(), "room:followed")
        left = [visit("room:1"), visit("room:2", Session("s"))]
        assert [feed.closed for feed in left] == [None, None]
        left.append(visit("room:3"))
        assert [feed.closed for feed in left] == ["ended", None, None]
        assert (user.closed, followed.closed) == (None, None)


async def test_a_member_that_was_left_already_does_not_begin_to_wait_again() -> None:
    async with running(max_family_channels_per_session=2) as (comet, _):
        declare_rooms(comet, Log())
        reader = stranger()
        feeds = [ask(comet, reader, f"room:{n}") for n in range(2)]
        for feed in feeds:
            stop_following(comet, reader, feed)
        feeds[0].remove(reader)  # once more
        ask(comet, reader, "room:2")
        assert [feed.closed for feed in feeds] == ["ended", None]


async def test_who_is_known_without_a_session_is_a_connection_of_its_own() -> None:
    async with running(max_family_channels_per_session=1) as (comet, _):
        declare_rooms(comet, Log())
        for n in range(2):  # as `identify` knows them who send no cookie of ours
            ask(comet, stranger(Session("", "alice")), f"room:{n}")


async def test_a_member_that_has_ended_is_freed_at_once_without_the_collector() -> None:
    async with running(linger=10) as (comet, _):
        rooms = declare_rooms(comet, Log())
        reader = stranger()
        feed = ask(comet, reader, "room:1")
        await wait_all_tasks_blocked()
        (member,) = map(weakref.ref, members(comet, rooms))
        stop_following(comet, reader, feed)  # from now on a timer waits for somebody to come
        gc.collect()
        gc.disable()
        try:
            inside(comet).channels.ending.end_unused(feed)
            del feed
            await wait_all_tasks_blocked()
            assert member() is None
        finally:
            gc.enable()


async def test_a_listener_that_comes_before_the_member_counts_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(max_family_channels=1) as (comet, clock):
        rooms, reader = declare_rooms(comet, Log()), stranger()
        run = RUN_MEMBER.function

        def come_first(declarations: Any, declared: Any, member: Any) -> None:
            inside(comet).fanout.attach(reader, member.feed)  # as if another thread had started it
            run(declarations, declared, member)

        monkeypatch.setattr(*RUN_MEMBER, come_first)
        feed = feed_of(rooms.channel(name="1"))
        await wait_all_tasks_blocked()
        clock.advance(2)
        with pytest.raises(TooManyFamilyChannels):
            rooms.channel(name="2")
        assert feed.closed is None
        stop_following(comet, reader, feed)
