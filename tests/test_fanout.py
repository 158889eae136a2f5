from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet._runtime.counters import Counters
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.timers import BATCH, Timers
from asgi_comet.channels.chunks import KEPT
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Encoder, Feed, Wake
from asgi_comet.channels.kind import Kind
from asgi_comet.core.history import History
from asgi_comet.core.messages import Message
from asgi_comet.errors import ChannelClosed
from asgi_comet.node.drain import Drain
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import encoded, encoded_bytes
from tests.kit.listening import Ear, attach
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


def make_feed(size: int = 10, max_bytes: int = 100) -> Feed:
    history = History(size=size, max_bytes=max_bytes)
    return Feed("f", Kind.SITE, history, Directory(threading.Lock()))


@asynccontextmanager
async def flushing() -> AsyncIterator[Fanout]:
    loop = LoopThread()
    loop.enter()
    fanout = Fanout(loop, ManualClock(), Counters())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fanout.run)
        yield fanout
        tasks.cancel_scope.cancel()


def render(feed: Feed, after: int, encoder: Encoder | None = None) -> tuple[Any, int] | None:
    rendered = feed.render(encoder or encode, after)
    return None if rendered is None else (rendered.data, rendered.upto)


def write(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
    return [m.data for m in messages]


encode = Encoder(write, lambda parts: b"f" + b"".join(parts), around=1)


def publish(fanout: Fanout, feed: Feed, data: bytes) -> None:
    feed.append(data)
    fanout.appended(feed)


async def test_a_publish_wakes_its_listeners_once_and_nobody_else() -> None:
    async with flushing() as fanout:
        one, other, ear, deaf = make_feed(), make_feed(), Ear(), Ear()
        attach(fanout, ear, one)
        attach(fanout, deaf, other)
        publish(fanout, one, b"a")
        publish(fanout, one, b"b")
        await wait_all_tasks_blocked()
        assert (ear.roused, ear.woken, deaf.roused) == (1, Wake.MESSAGE, 0)
        assert render(one, ear.cursors[one]) == (b"fab", 2)


async def test_one_who_came_after_the_message_is_not_woken_by_it() -> None:
    async with flushing() as fanout:
        feed, early, late = make_feed(), Ear(), Ear()
        attach(fanout, early, feed)
        publish(fanout, feed, b"a")
        attach(fanout, late, feed)  # before the flush
        await wait_all_tasks_blocked()
        assert (early.woken, late.woken) == (Wake.MESSAGE, None)
        publish(fanout, feed, b"b")
        await wait_all_tasks_blocked()
        assert late.woken is Wake.MESSAGE


async def test_a_publish_from_another_thread_wakes_too() -> None:
    async with flushing() as fanout:
        feed, ear = make_feed(), Ear()
        attach(fanout, ear, feed)
        await anyio.to_thread.run_sync(publish, fanout, feed, b"a")
        await wait_all_tasks_blocked()
        assert ear.woken is Wake.MESSAGE


async def test_those_who_waited_for_a_feed_join_it_unless_they_have_left() -> None:
    async with flushing() as fanout:
        feed, there, gone = make_feed(), Ear(), Ear()
        turned = Ear()
        for ear in (there, turned):
            fanout.listeners.add(ear)
        for ear in (there, gone):
            names = feed.directory
            assert isinstance(names, Directory)
            names.expect(feed.name, ear)
        feed.append(b"first")
        fanout.join([there, gone, turned], feed)
        await wait_all_tasks_blocked()
        assert (there.woken, there.cursors, there.expected) == (Wake.MESSAGE, {feed: 0}, ())
        assert turned.cursors == {}  # it waits for this one no more
        assert (gone.woken, list(feed.listeners)) == (None, [there])


async def test_a_listener_hears_what_comes_after_it_was_attached() -> None:
    async with flushing() as fanout:
        feed, ear = make_feed(), Ear()
        publish(fanout, feed, b"before")
        attach(fanout, ear, feed)
        await wait_all_tasks_blocked()
        assert ear.roused == 0
        publish(fanout, feed, b"after")
        assert render(feed, ear.cursors[feed]) == (b"fafter", 2)


async def test_counts_are_exact_and_observers_are_told() -> None:
    async with flushing() as fanout:
        feed, ears, told = make_feed(), [Ear(), Ear()], list[int]()
        feed.observers = (told.append,)
        for ear in ears:
            attach(fanout, ear, feed)
        assert (len(feed.listeners), len(fanout.listeners), feed.uses) == (2, 2, 2)
        for ear in [*ears, *ears]:
            fanout.detach(ear)
        assert (len(feed.listeners), len(fanout.listeners)) == (0, 0)
        assert told == [1, 2, 1, 0, 0, 0]


async def test_closing_wakes_and_refuses_further_messages() -> None:
    async with flushing() as fanout:
        feed, ear = make_feed(), Ear()
        attach(fanout, ear, feed)
        assert fanout.close(feed, "ended")
        assert not fanout.close(feed, "failed")
        await wait_all_tasks_blocked()
        assert ear.woken is Wake.MESSAGE
        with pytest.raises(ChannelClosed, match="'f', which has ended") as caught:
            publish(fanout, feed, b"x")
        assert (caught.value.name, caught.value.reason) == ("f", "ended")


async def test_everybody_can_be_ended_and_the_first_reason_counts() -> None:
    async with flushing() as fanout:
        feed, ear, late = make_feed(), Ear(), Ear()
        attach(fanout, ear, feed)
        fanout.end(Wake.DEACTIVATED)
        attach(fanout, late, feed)
        Drain(fanout, Timers(ManualClock())).begin()
        ear.expire()
        await wait_all_tasks_blocked()
        assert {ear.woken, late.woken} <= {Wake.DEACTIVATED, Wake.TIMEOUT}
        assert (ear.roused, late.woken) == (1, Wake.TIMEOUT)


async def test_ten_thousand_listeners_are_woken_in_batches() -> None:
    async with flushing() as fanout:
        feed, ears, turns = make_feed(), [Ear() for _ in range(10_000)], list[int]()
        for ear in ears:
            attach(fanout, ear, feed)
        publish(fanout, feed, b"x")
        while not turns or turns[-1] < len(ears):
            await anyio.lowlevel.checkpoint()
            turns.append(sum(ear.roused for ear in ears))
        steps = [b - a for a, b in zip([0, *turns], turns, strict=False)]
        assert max(steps) <= 2 * BATCH


async def test_a_run_is_encoded_once_for_all_who_stand_at_the_same_place() -> None:
    feed, calls = make_feed(), list[int]()

    def count(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
        calls.append(len(messages))
        return [b"x" * 10 for _ in messages]

    counting = Encoder(count, b"".join)
    for _ in range(3):
        feed.append(b"m")
    first = feed.render(counting, 0)
    assert feed.render(counting, 0) is first
    assert render(feed, 1, counting) == (b"x" * 20, 3)
    assert calls == [3, 2]
    feed.append(b"m")
    assert render(feed, 0, counting) == (b"x" * 40, 4)
    assert calls == [3, 2, 4]


async def test_what_is_kept_encoded_is_a_few_answers_at_n_and_n_plus_one() -> None:
    feed = make_feed(size=100, max_bytes=10_000)
    for _ in range(50):
        feed.append(b"m" * 30)

    def kept() -> int:
        assert encoded_bytes(feed) == sum(r.size for r in encoded(feed).values())
        return encoded_bytes(feed)

    for after in range(KEPT):
        feed.render(encode, after, 61)  # two messages and one byte
        assert kept() == 61 * (after + 1)
    feed.render(encode, KEPT, 61)
    assert kept() == 61
    feed.append(b"m")
    assert (encoded(feed), encoded_bytes(feed)) == ({}, 0)


async def test_of_runs_without_a_limit_one_is_kept() -> None:
    feed = make_feed()
    for _ in range(3):
        feed.append(b"m")
    for after in range(3):
        feed.render(encode, after)
        assert [upto for _, upto, _ in encoded(feed)] == [after]


async def test_what_is_kept_encoded_goes_with_the_last_listener() -> None:
    async with flushing() as fanout:
        feed, ears = make_feed(), [Ear(), Ear()]
        for ear in ears:
            attach(fanout, ear, feed)
        feed.append(b"m")
        feed.render(encode, 0)
        fanout.detach(ears[0])
        assert encoded_bytes(feed) == 2
        fanout.detach(ears[1])
        assert (encoded(feed), encoded_bytes(feed)) == ({}, 0)


async def test_a_gap_is_told() -> None:
    feed = make_feed(size=2)
    for _ in range(4):
        feed.append(b"m")
    assert render(feed, 1) is None
    assert render(feed, 2) == (b"fmm", 4)


class Broken(Ear):
    def notice(self, feed: Feed, now: float) -> None:
        raise LookupError("mine")


async def test_a_listener_that_fails_is_dropped_and_the_others_hear(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with flushing() as fanout:
        feed, ears = make_feed(), [Ear(), Broken(), Ear()]
        for ear in ears:
            attach(fanout, ear, feed)
        publish(fanout, feed, b"x")
        await wait_all_tasks_blocked()
        assert [ear.woken for ear in ears] == [Wake.MESSAGE, Wake.GONE, Wake.MESSAGE]
        assert "LookupError: mine" in caplog.text
