"""Histories that are bounded by age, and `max_age=` where channels are made and declared."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asgi_comet import CLIENT_PROCESS, SITE, Channel, Comet, InvalidDeclaration
from asgi_comet.core.aged import AgedHistory, Dated
from asgi_comet.core.history import Received
from asgi_comet.core.messages import First, Last, Message, Now
from asgi_comet.position import Position
from asgi_comet.protocol.events import encode_messages
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import feed_of, inside
from tests.kit.running import make_clocked, running
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


# The history


def history(size: int = 10, max_age: float = 60) -> AgedHistory:
    return AgedHistory(size=size, max_bytes=100, max_age=max_age, epoch="e")


def test_a_message_is_held_up_to_its_age_and_no_longer() -> None:
    aged = history()
    aged.age(100)
    aged.append(b"a")
    aged.age(130)
    aged.append(b"b")
    assert not aged.age(160)
    assert aged.after(0) == [Dated(1, b"a", 100), Dated(2, b"b", 130)]
    assert aged.age(160.001)
    assert (aged.first, aged.top, aged.bytes) == (2, 2, 1)
    assert aged.after(0) is None
    assert aged.age(500)
    assert (aged.first, aged.top, aged.bytes, aged.after(2)) == (3, 2, 0, [])
    assert aged.append(b"c") == 3


def test_received_messages_have_their_own_times_or_that_of_now() -> None:
    aged = history()
    aged.age(100)
    run = [Dated(1, b"a", 50), Message(2, b"b")]
    assert aged.receive("e", 1, run) is Received.APPENDED
    assert aged.age(111)
    assert aged.after(1) == [Dated(2, b"b", 100)]


class AgedMachine(RuleBasedStateMachine):
    """The history against a list of all messages and their times."""

    @initialize(size=st.integers(1, 5), max_age=st.integers(1, 9))
    def start(self, size: int, max_age: int) -> None:
        self.history = AgedHistory(size=size, max_bytes=100, max_age=max_age, epoch="e")
        self.now = 0
        self.history.age(0)
        self.everything: list[tuple[bytes, int]] = []
        self.dropped = 0

    @rule(message=st.binary(max_size=3))
    def append(self, message: bytes) -> None:
        self.everything.append((message, self.now))
        assert self.history.append(message) == len(self.everything)
        self.dropped = max(self.dropped, len(self.everything) - self.history.size)

    @rule(seconds=st.integers(0, 5))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        old = [t for _, t in self.everything if t < self.now - self.history.max_age]
        assert self.history.age(self.now) == (len(old) > self.dropped)
        self.dropped = max(self.dropped, len(old))

    @invariant()
    def agrees(self) -> None:
        run = self.history.after(self.dropped)
        assert run is not None
        assert [message.data for message in run] == [d for d, _ in self.everything[self.dropped :]]
        assert self.history.bytes == sum(len(message.data) for message in run)
        assert self.history.first == self.dropped + 1


TestAgedHistoryAgainstAList = AgedMachine.TestCase


# Channels


def make() -> tuple[ManualClock, Channel[Any]]:
    comet, clock = make_clocked()
    return clock, comet.create(scope=SITE, name="news", max_age=60)


def test_whoever_reads_places_or_publishes_sees_no_message_that_is_too_old() -> None:
    clock, channel = make()
    feed = feed_of(channel)
    for number in range(3):
        channel.publish(number)
        clock.advance(30)
    assert feed.locate(Last(9)) == 1  # 0 is 90 s old, 1 is 60
    clock.advance(1)
    assert feed.first == 3
    clock.advance(30)
    assert feed.first == 4
    assert (feed.top, feed.history.bytes) == (3, 0)
    assert feed.locate(Now()) == feed.locate(Last(9)) == 3
    assert feed.locate(First()) is None
    assert feed.locate(Position(feed.epoch, 1)) == 1
    assert channel.reference("last:9")["position"].endswith(".3")
    channel.publish("again")
    assert feed.first == 4


@pytest.mark.parametrize(
    "use",
    [
        lambda feed: feed.locate(Now()),
        lambda feed: feed.proves(Now()),
        lambda feed: feed.render(encode_messages, 1),
        lambda feed: feed.read(1, 2),
        lambda feed: feed.append(b"x"),
        lambda feed: feed.receive(feed.epoch, 2, [Message(2, b"x")]),
        lambda feed: feed.first,
    ],
    ids=["locate", "proves", "render", "read", "append", "receive", "first"],
)
def test_each_use_drops_what_is_too_old(use: Callable[[Any], object]) -> None:
    clock, channel = make()
    feed = feed_of(channel)
    channel.publish("old")
    clock.advance(61)
    assert len(feed.history) == 1  # there is no timer
    use(feed)
    assert feed.history.first == 2


def test_an_encoded_run_is_not_served_once_its_messages_are_too_old() -> None:
    clock, channel = make()
    feed = feed_of(channel)
    channel.publish("a")
    kept = feed.render(encode_messages, 0, 1000)
    assert kept is not None
    assert feed.render(encode_messages, 0, 1000) is kept
    clock.advance(61)
    assert feed.render(encode_messages, 0, 1000) is None
    assert feed.read(0, 1) is None
    assert feed.chunks.size == 0


def test_a_channel_without_it_holds_its_messages_for_ever() -> None:
    comet, clock = make_clocked()
    channel = comet.create(scope=SITE, name="news")
    channel.publish("a")
    clock.advance(10**9)
    assert feed_of(channel).first == 1
    assert feed_of(channel).spec.max_age is None


async def test_another_incarnation_has_the_same_bound() -> None:
    comet, clock = make_clocked()
    channel = comet.create(scope=SITE, name="news", max_age=60)
    async with running((comet, clock)):
        pass
    async with running((comet, clock)):
        feed = feed_of(channel)
        channel.publish("a")
        assert (feed.spec.max_age, feed.first) == (60, 1)
        clock.advance(61)
        assert feed.first == 2


async def test_declared_channels_and_families_have_it() -> None:
    comet, clock = make_clocked()

    @comet.channel("ticker", max_age=60)
    async def ticker() -> AsyncIterator[int]:
        yield 1

    @comet.channel("room:{room}", max_age=60)
    async def talk(room: str) -> AsyncIterator[str]:
        yield room

    said = comet.family("said:{room}", max_age=60)
    text = comet.channels.create("text", max_age=60)
    async with running((comet, clock)):
        said.publish("x", room="a")
        text.write("x")
        talk.channel(room="a")
        await wait_all_tasks_blocked()
        rooms = [talk.channel(room="a"), said.channel(room="a")]
        channels: list[Channel[Any]] = [ticker.channel(), *rooms, text]
        feeds = [feed_of(channel) for channel in channels]
        assert [(len(feed.history), feed.first) for feed in feeds] == [(1, 1)] * 4
        clock.advance(61)
        assert [feed.first for feed in feeds] == [2] * 4


# What is refused

WRONG: list[Any] = [0, -1, math.inf, math.nan, "60", b"", [60], True]


@pytest.mark.parametrize("max_age", WRONG, ids=repr)
def test_an_age_that_is_no_positive_number_is_refused(max_age: Any) -> None:
    comet = Comet("k" * 32)
    expected = r"expected max_age to be a number of seconds, above 0, got "
    with pytest.raises(ValueError, match=expected):
        comet.create(scope=SITE, name="a", max_age=max_age)
    with pytest.raises(ValueError, match=expected):
        comet.channels.create("a", max_age=max_age)
    with pytest.raises(InvalidDeclaration, match=expected) as refused:
        comet.channel("a", max_age=max_age)
    assert refused.value.name == "a"
    with pytest.raises(InvalidDeclaration, match=expected):
        comet.family("a:{b}", max_age=max_age)
    assert len(inside(comet).channels) == 0


def test_channels_of_client_processes_have_none() -> None:
    comet = Comet("k" * 32)
    with pytest.raises(ValueError, match=r"expected max_age for a channel of the site only"):
        comet.create(name="inbox", max_age=60)
    with pytest.raises(InvalidDeclaration, match=r"expected no max_age: a process channel drops"):
        comet.channel("inbox", scope=CLIENT_PROCESS, max_age=60)
