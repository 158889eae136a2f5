from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import pytest

from asgi_comet import SITE, Channel, ChannelClosed, ClientProcess, Comet
from asgi_comet._runtime.signals import chained_signals
from asgi_comet.channels.feed import Wake
from asgi_comet.lifespan import PATIENCE
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import feed_of, inside, lifespan_of, patience_of
from tests.kit.listening import Ear, attach
from tests.kit.processes import open_in
from tests.kit.stage import KEY
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


async def test_it_can_run_again_after_it_stopped() -> None:
    comet = Comet(KEY)
    for _ in range(3):
        async with comet.lifespan():
            inside(comet).loop.check()
        assert not inside(comet).loop.running


async def test_entered_again_inside_it_counts() -> None:
    comet = Comet(KEY)
    async with comet.lifespan():
        async with comet.lifespan("an application"):
            inside(comet).loop.check()
        inside(comet).loop.check()
    assert not inside(comet).loop.running


async def test_a_second_event_loop_at_a_time_is_refused() -> None:
    comet = Comet(KEY)

    async def again() -> None:
        async with comet.lifespan():
            pytest.fail("ran")

    async with comet.lifespan():
        with pytest.raises(RuntimeError, match="one event loop per Comet"):
            await anyio.to_thread.run_sync(lambda: anyio.run(again))
        inside(comet).loop.check()


async def test_an_error_inside_comes_out_as_it_is() -> None:
    comet = Comet(KEY)
    with pytest.raises(LookupError, match="mine"):
        async with comet.lifespan():
            raise LookupError("mine")
    assert not inside(comet).loop.running


async def test_a_cancellation_inside_ends_it() -> None:
    comet = Comet(KEY)
    with anyio.move_on_after(0.01) as scope:
        async with comet.lifespan():
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not inside(comet).loop.running


async def test_at_its_end_held_requests_are_answered_as_at_their_timeout() -> None:
    comet = Comet(KEY)
    ear = Ear()
    async with comet.lifespan():
        attach(inside(comet).fanout, ear, feed_of(comet.channels.create("news")))
    assert ear.woken is Wake.TIMEOUT


async def test_a_crashed_task_is_logged_and_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Ear):
        def rouse(self) -> None:
            raise LookupError("broken listener")

    clock = ManualClock()
    comet = Comet(KEY, clock=clock)
    channel, ear = comet.channels.create("news"), Ear()
    with caplog.at_level(logging.ERROR, "asgi_comet.lifespan"):
        async with comet.lifespan():
            attach(inside(comet).fanout, Broken(), feed_of(channel))
            inside(comet).fanout.end(Wake.TIMEOUT)
            await wait_all_tasks_blocked()
            assert "a task crashed and is started again" in caplog.text
            attach(inside(comet).fanout, ear, feed_of(channel))
            channel.write("y")
            await wait_all_tasks_blocked()
            assert ear.woken is None
            clock.advance(1.1)
            await wait_all_tasks_blocked()
            assert ear.woken is Wake.MESSAGE


def declare(comet: Comet) -> list[str]:
    """A channel of the site that says when its source begins, and when it closes."""
    said: list[str] = []

    @comet.channel("ticker")
    async def ticker() -> AsyncIterator[int]:
        said.append("begins")
        try:
            yield 1
            await anyio.sleep_forever()
        finally:
            said.append("closes")

    return said


async def test_around_an_application_sources_are_read_from_begin_to_finish() -> None:
    comet = Comet(KEY)
    said = declare(comet)
    for _ in range(2):
        said.clear()
        async with lifespan_of(comet).around() as lifespan:
            await wait_all_tasks_blocked()
            assert said == []
            lifespan.begin()
            lifespan.begin()
            await wait_all_tasks_blocked()
            assert said == ["begins"]
            await lifespan.finish()
            assert said == ["begins", "closes"]
            await lifespan.finish()
            inside(comet).loop.check()
        assert said == ["begins", "closes"]


async def test_around_one_that_never_starts_no_source_is_read() -> None:
    comet = Comet(KEY)
    said = declare(comet)
    channel: Channel[str] = comet.create(scope=SITE, name="other")
    with suppress(LookupError):
        async with lifespan_of(comet).around():
            channel.publish("x")
            await wait_all_tasks_blocked()
            raise LookupError("no database")
    assert said == []
    assert (len(inside(comet).background), inside(comet).loop.running) == (0, False)


async def test_entered_within_sources_are_read_from_there_to_the_end_of_the_last() -> None:
    comet = Comet(KEY)
    said = declare(comet)
    async with lifespan_of(comet).around() as lifespan:
        async with comet.lifespan():
            await wait_all_tasks_blocked()
            assert said == ["begins"]
            async with comet.lifespan():
                lifespan.begin()
            await wait_all_tasks_blocked()
            assert said == ["begins"]
        assert said == ["begins", "closes"]
        said.clear()
        async with comet.lifespan():  # once more: it is as if the server started
            await wait_all_tasks_blocked()
            assert (said, inside(comet).drain.begun) == (["begins"], False)
            process = open_in(comet, "a session")
        assert (said, process.closed) == (["begins", "closes"], True)


async def test_what_an_application_publishes_as_it_starts_and_stops_goes_through() -> None:
    comet = Comet(KEY)
    said: list[object] = []

    @comet.channel("news")
    async def news() -> AsyncIterator[str]:
        said.append("news")
        await anyio.sleep_forever()
        yield ""

    @comet.newest("room:{room}")
    async def rooms(room: int) -> AsyncIterator[str]:
        said.append(room)
        await anyio.sleep_forever()
        yield ""

    for _ in range(2):
        said.clear()
        async with lifespan_of(comet).around() as lifespan:
            before = news.channel()
            before.publish("we start")
            rooms.channel(room=1).publish("welcome")
            await anyio.to_thread.run_sync(lambda: rooms.channel(room=1).publish("again"))
            await wait_all_tasks_blocked()
            assert said == []
            lifespan.begin()
            await wait_all_tasks_blocked()
            assert sorted(map(str, said)) == ["1", "news"]
            assert feed_of(news.channel()) is feed_of(before)
            assert feed_of(before).history.top == 1
            await lifespan.finish()
            news.channel().publish("we stop")
            assert feed_of(rooms.channel(room=1)).closed == "ended"
            await wait_all_tasks_blocked()
            assert len(said) == 2
        assert len(inside(comet).background) == 0


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "created with a source"])
async def test_callbacks_of_tabs_find_the_channels_of_the_site_alive(
    declared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    comet, delivered = Comet(KEY), list[int]()

    async def talk() -> AsyncIterator[str]:
        await anyio.sleep_forever()
        yield ""

    channel = comet.channel("talk")(talk).channel() if declared else comet.create(talk, scope=SITE)

    async def say_goodbye(tab: ClientProcess) -> None:
        await anyio.lowlevel.checkpoint()
        delivered.append((await channel.publish("left").stored()).offset)

    async with comet.lifespan():
        await wait_all_tasks_blocked()
        for number in range(3):
            open_in(comet, f"session {number}").on_close(say_goodbye)
    assert sorted(delivered) == [1, 2, 3]
    assert feed_of(channel).closed == "ended"
    assert caplog.records == []


async def test_a_source_that_comes_after_the_stop_is_closed_and_never_read() -> None:
    comet, said = Comet(KEY), list[str]()

    class Late:
        def __aiter__(self) -> Late:
            return self

        async def __anext__(self) -> int:
            raise AssertionError("read")

        async def aclose(self) -> None:
            said.append("closed")

    async with lifespan_of(comet).around() as lifespan:
        lifespan.begin()
        await lifespan.finish()
        channel = comet.create(Late(), scope=SITE, name="late")
        assert feed_of(channel).closed == "ended"
    assert said == ["closed"]


async def test_callbacks_that_take_long_do_not_keep_the_channels_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comet, said = Comet(KEY), list[str | None]()

    async def say_nothing() -> AsyncIterator[str]:
        await anyio.sleep_forever()
        yield ""

    channel = comet.create(say_nothing, scope=SITE)

    async def stay(tab: ClientProcess) -> None:
        while feed_of(channel).closed is None:
            await anyio.lowlevel.checkpoint()
        said.append(feed_of(channel).closed)

    monkeypatch.setattr("asgi_comet.lifespan.HEAD_START", 0.01)
    async with comet.lifespan():
        open_in(comet, "a session").on_close(stay)
        await wait_all_tasks_blocked()
    assert said == ["ended"]


async def test_a_channel_made_before_is_there_again_for_the_next_lifespan_but_empty() -> None:
    comet = Comet(KEY)
    news: Channel[str] = comet.create(scope=SITE, name="news")
    score: Channel[int] = comet.create_newest(name="score")
    unnamed = comet.channels.create()
    epochs = set[str]()
    for number in range(3):
        news.publish(f"before {number}")
        score.publish(number)
        async with comet.lifespan():
            history = feed_of(news).history
            assert [message.data for message in history.after(0) or ()] == [
                f'"before {number}"'.encode()
            ]
            epochs.add(history.epoch)
            news.publish("while it runs")
            unnamed.write("x")
            ear = Ear()
            attach(inside(comet).fanout, ear, feed_of(news))
        for channel in (news, score, unnamed):
            assert (len(feed_of(channel).history), feed_of(channel).closed) == (0, None)
            assert inside(comet).channels.find(channel.id) is feed_of(channel)
        assert history.epoch != feed_of(news).history.epoch
        assert ear.woken is Wake.TIMEOUT
    assert len(epochs) == 3
    news.close()
    assert len(inside(comet).channels) == 2


async def test_a_channel_made_while_it_runs_ends_with_it_and_frees_its_name() -> None:
    comet = Comet(KEY)
    early = comet.create(scope=SITE, name="early")
    for _ in range(2):
        async with comet.lifespan():
            channel: Channel[str] = comet.create(scope=SITE, name="news")
            gone = comet.create(scope=SITE, name="gone")
            gone.publish("kept for a while")
            gone.close()
            assert inside(comet).channels.find("gone") is not None
        assert inside(comet).channels.find("gone") is None
        with pytest.raises(ChannelClosed):
            channel.publish("x")
    early.close()
    async with comet.lifespan():
        late = comet.create(scope=SITE, name="early")  # its namesake was there before
    with pytest.raises(ChannelClosed):
        late.publish("x")
    assert len(inside(comet).channels) == 0


async def test_sources_that_do_not_close_hold_it_up_once() -> None:
    clock = ManualClock()
    comet = Comet(KEY, clock=clock)
    waited: list[float] = []

    async def wait_idle() -> None:
        waited.append(patience_of(comet))
        await anyio.sleep(0.01)

    async with lifespan_of(comet).around() as lifespan:
        inside(comet).background.wait_idle = wait_idle  # type: ignore[method-assign]  # a slow one
        lifespan.begin()
        await lifespan.finish()
    first, second = waited
    assert (first, second < PATIENCE) == (PATIENCE, True)
    async with lifespan_of(comet).around():
        pass
    assert waited[2] == PATIENCE


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_task_is_left() -> None:
    before = asyncio.all_tasks()
    async with Comet(KEY).lifespan():
        assert len(asyncio.all_tasks()) == len(before) + 3
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_signal_drains_and_reaches_the_server(number: signal.Signals) -> None:
    heard: list[int] = []
    previous = signal.signal(number, lambda n, frame: heard.append(n))
    try:
        comet, ear = Comet(KEY), Ear()
        ours = signal.getsignal(number)
        async with comet.lifespan():
            attach(inside(comet).fanout, ear, feed_of(comet.channels.create("news")))
            os.kill(os.getpid(), number)
            with anyio.fail_after(5):
                while ear.woken is None:
                    await anyio.lowlevel.checkpoint()
            assert ear.woken is Wake.TIMEOUT
            assert inside(comet).drain.begun
        assert heard == [number]
        assert signal.getsignal(number) is ours
    finally:
        signal.signal(number, previous)


def test_a_signal_with_its_default_action_is_left_alone() -> None:
    previous = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with chained_signals(lambda: None):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_who_chained_us_in_turn_stays() -> None:
    def theirs(number: int, frame: object) -> None:
        pass

    previous = signal.signal(signal.SIGTERM, theirs)
    try:
        with chained_signals(lambda: None):
            chained = signal.getsignal(signal.SIGTERM)
            assert chained is not theirs
            signal.signal(signal.SIGTERM, lambda n, f: None)
            later = signal.getsignal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is later
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_outside_of_the_main_thread_nothing_is_done() -> None:
    before = signal.getsignal(signal.SIGINT)
    during: list[object] = []

    def run() -> None:
        with chained_signals(lambda: None):
            during.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == [before]


async def test_a_task_that_ends_is_logged_and_started_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    comet, runs = Comet(KEY, clock=clock), list[int]()

    async def ends() -> None:
        runs.append(1)

    monkeypatch.setattr(inside(comet).background, "run", ends)
    async with comet.lifespan():
        await wait_all_tasks_blocked()
        clock.advance(1.1)
        await wait_all_tasks_blocked()
        assert len(runs) == 2
    assert "a task ended and is started again" in caplog.text
