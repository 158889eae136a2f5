"""Streams that do not go as fast as what is published, and what becomes of them.

First with a server played by the test, on every event loop and along both paths: the direct one, on
which the flush runs `send` itself, and the slow one through the connection's own task. Then over
real sockets.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet import SITE, Channel, Comet, Outcome, Settings
from asgi_comet._runtime.timers import BATCH
from asgi_comet.channels.feed import Wake
from asgi_comet.identity.process import Claim, Session
from asgi_comet.middleware import CometMiddleware
from asgi_comet.protocol.frames import HEARTBEAT
from asgi_comet.protocol.sse import COMMENT, Decoder
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import awaited, feed_of, inside, left
from asgi_comet.transports.streaming import BURST, GRACE
from tests.kit.loop import in_loop, outcome
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import ASYNC_BACKENDS, KEY, application
from tests.kit.streams import Sse, Ws
from tests.kit.turns import settle

# A server played by the test


class Wire:
    """What a server gives the application, and what a client gets of it.

    Attributes:
        sent: What the server took.
        block: Whether `send` waits from now on until `free`.
        error: What `send` raises.
        on_send: Called at the beginning of each `send`.
    """

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.block = False
        self.error: Exception | None = None
        self.on_send: Callable[[], None] = lambda: None
        self.waiting = 0
        self._free = anyio.Event()
        self.said: list[Any] = []
        self._news = anyio.Event()

    def say(self, message: dict[str, Any]) -> None:
        self.said.append(message)
        self._news.set()

    def frame(self, **frame: Any) -> None:
        self.say({"type": "websocket.receive", "text": json.dumps(frame)})

    def leave(self) -> None:
        self.say({"type": "http.disconnect"})

    def free(self) -> None:
        self.block = False
        self._free.set()

    async def receive(self) -> Any:
        while not self.said:
            self._news = anyio.Event()
            await self._news.wait()
        return self.said.pop(0)

    async def send(self, message: Any) -> None:
        self.on_send()
        if self.error is not None:
            raise self.error
        if self.block:
            self._free = anyio.Event()
            self.waiting += 1
            try:
                await self._free.wait()
            finally:
                self.waiting -= 1
            if self.error is not None:
                raise self.error
        self.sent.append(message)

    @property
    def data(self) -> list[Any]:
        """The values of all messages, in the order in which they were sent."""
        found = []
        for message in self.sent:
            if message["type"] == "http.response.body":
                events = Decoder().feed(message["body"])
                found += [json.loads(e.data) for e in events if not e.name.startswith(":")]
            elif message["type"] == "websocket.send":
                events_ = json.loads(message["text"]).get("events", [])
                found += [event["data"] for event in events_ if "data" in event]
        return found

    @property
    def errors(self) -> list[str]:
        text = "".join(
            message["body"].decode() if "body" in message else message.get("text") or ""
            for message in self.sent
        )
        return [word for word in ("full", "closed", "forbidden") if word in text]

    @property
    def beats(self) -> int:
        marks = (COMMENT, HEARTBEAT)
        return sum(1 for m in self.sent if m.get("body", m.get("text")) in marks)


class ServersOwn(Wire):
    """One whose functions are known not to care which task runs them."""

    __module__ = "uvicorn.protocols.played"


class Scene:
    """A running `Comet`, and streams on it.

    Attributes:
        scopes: What cancels each stream's task.
        over: The wires whose stream has ended.
    """

    def __init__(self, comet: Comet, clock: ManualClock, tasks: Any, kind: str, wire: Any) -> None:
        self.comet = comet
        self.clock = clock
        self.kind = kind
        self.over: list[Wire] = []
        self.scopes: dict[Wire, anyio.CancelScope] = {}
        self._tasks = tasks
        self.make_wire = wire

        async def nothing(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("not for the application")

        self._app = CometMiddleware(nothing, comet=comet)

    async def open(
        self,
        *channels: str,
        wire: Wire | None = None,
        base: str = "/comet",
        headers: Any = (),
        **starts: str,
    ) -> Wire:
        """Open a stream on channels."""
        wire = wire or self.make_wire()
        asked = {**dict.fromkeys(channels, "now"), **starts}
        scope: dict[str, Any] = {"method": "GET", "headers": list(headers), "scheme": "http"}
        if self.kind == "sse":
            query = "&".join([*(f"channel={c}" for c in asked),
                              *(f"position={s}" for s in asked.values())])  # fmt: skip
            scope |= {"type": "http", "path": f"{base}/events", "query_string": query.encode()}
            wire.say({"type": "http.request", "body": b"", "more_body": False})
        else:
            scope |= {"type": "websocket", "path": f"{base}/socket", "query_string": b""}
            wire.say({"type": "websocket.connect"})
            if asked:
                wire.frame(subscribe=asked)
        self._tasks.start_soon(self._serve, wire, scope)
        await settle()
        return wire

    async def _serve(self, wire: Wire, scope: Any) -> None:
        with anyio.CancelScope() as self.scopes[wire]:
            await self._app(scope, wire.receive, wire.send)
        self.over.append(wire)

    def check_that_nothing_is_left(self) -> None:
        node = inside(self.comet)
        assert left(self.comet).keys() <= {"channels", "processes", "sessions"}
        for feed in node.channels.site.directory.feeds():
            assert len(feed.listeners) == 0
            assert awaited(feed) == 0


Play = Callable[..., Any]


@pytest.fixture(params=["sse", "websocket"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[ServersOwn, Wire], ids=["direct", "slow"])
def play(request: pytest.FixtureRequest, kind: str) -> Play:
    @asynccontextmanager
    async def playing(**settings: Any) -> AsyncIterator[Scene]:
        clock = ManualClock()
        comet = Comet(KEY, clock=clock, settings=Settings(jitter=0, **settings))
        async with comet.lifespan(), anyio.create_task_group() as tasks:
            scene = Scene(comet, clock, tasks, kind, request.param)
            await settle()
            yield scene
            for wire in set(scene.scopes) - set(scene.over):
                wire.free()
                wire.leave()
            await settle()
            assert set(scene.over) == set(scene.scopes)
            scene.check_that_nothing_is_left()

    return playing


pytestmark = pytest.mark.anyio


async def publish(channel: Channel[Any], *values: Any) -> None:
    for value in values:
        channel.publish(value)
    await settle()


async def test_what_is_published_goes_out_in_order(play: Play) -> None:
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        for n in range(10):
            await publish(channel, n)
        assert wire.data == list(range(10))


async def test_more_than_one_write_of_one_turn_goes_out_in_order(play: Play) -> None:
    async with play(answer_bytes=50) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        await publish(channel, *range(100))
        assert wire.data == list(range(100))


async def test_while_a_send_waits_nothing_piles_up_and_then_all_comes_in_order(
    play: Play,
) -> None:
    async with play(answer_bytes=50) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        slow, fast = await scene.open("a"), await scene.open("a")
        slow.block = True
        for n in range(20):
            await publish(channel, [n, "x" * 20])
            assert slow.waiting == 1  # one, whatever comes
        assert [n for n, _ in fast.data] == list(range(20))
        assert slow.data == []
        slow.free()
        await settle()
        assert [n for n, _ in slow.data] == list(range(20))


@pytest.mark.parametrize("channels", [["a"], ["a", "b"]])
async def test_a_reader_that_does_not_read_is_given_up_after_send_timeout(
    play: Play, channels: list[str]
) -> None:
    async with play(send_timeout=7) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        scene.comet.create(scope=SITE, name="b")
        slow, fast = await scene.open(*channels), await scene.open(*channels)
        slow.block = True
        await publish(channel, 1, 2)
        scene.clock.advance(6.9)
        await settle()
        assert scene.over == []
        scene.clock.advance(0.3)
        await settle()
        assert scene.over == [slow]
        assert (slow.waiting, channel.listeners) == (0, 1)
        await publish(channel, 3)
        assert fast.data == [1, 2, 3]


@pytest.mark.parametrize(("send_timeout", "patience"), [(10, 1), (18, 3)])
async def test_a_sign_of_life_that_waits_is_waited_for_no_longer_than_the_message_before(
    play: Play, send_timeout: float, patience: float
) -> None:
    """A server may take a message beyond its water mark at once and have the next write wait."""
    async with play(send_timeout=send_timeout) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        slow = await scene.open("a")
        await publish(channel, 1)
        slow.block = True
        scene.clock.advance(15.2)
        await settle()
        assert slow.waiting == 1
        scene.clock.advance(patience - 0.2)
        await settle()
        assert scene.over == []
        scene.clock.advance(0.4)
        await settle()
        assert (scene.over, channel.listeners) == ([slow], 0)


async def test_after_a_sign_of_life_that_waited_messages_have_their_own_time(play: Play) -> None:
    async with play(send_timeout=10) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        slow = await scene.open("a")
        slow.block = True
        scene.clock.advance(15.2)
        await settle()
        slow.free()
        await settle()
        assert slow.beats == 1
        slow.block = True
        await publish(channel, 1)
        scene.clock.advance(9.9)
        await settle()
        assert scene.over == []
        slow.free()
        await settle()
        scene.clock.advance(14.8)  # of silence, since the message was taken
        await settle()
        assert (slow.data, slow.beats) == ([1], 1)
        scene.clock.advance(0.5)
        await settle()
        assert slow.beats == 2


@pytest.mark.parametrize("channels", [["a"], ["a", "b"]])
async def test_a_client_that_has_much_to_catch_up_lets_others_have_their_turn(
    play: Play, channels: list[str]
) -> None:
    async with play(answer_bytes=10) as scene:  # a write per message
        channel = scene.comet.create(scope=SITE, name="a", size=10 * BURST)
        scene.comet.create(scope=SITE, name="b")
        early = await scene.open(*channels)
        turns = list[int]()

        async def take_turns() -> None:
            while len(turns) < 50:
                await anyio.lowlevel.checkpoint()
                turns.append(len(early.data))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_turns)
            await publish(channel, *range(10 * BURST))
        late = await scene.open(a="last:1000")
        for wire in (early, late):
            while len(wire.data) < 10 * BURST:
                await settle()
            assert wire.data == list(range(10 * BURST))
        assert max(b - a for a, b in zip([0, *turns], turns, strict=False)) <= 2 * BURST


async def test_a_reader_that_reads_in_the_last_moment_stays(play: Play) -> None:
    async with play(send_timeout=7) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        slow = await scene.open("a")
        slow.block = True
        await publish(channel, 1)
        scene.clock.advance(6.9)
        await settle()
        slow.free()
        await settle()
        scene.clock.advance(3)
        await publish(channel, 2)
        assert (slow.data, scene.over) == ([1, 2], [])


async def test_the_head_of_a_stream_is_given_up_likewise(play: Play) -> None:
    async with play(send_timeout=7) as scene:
        scene.comet.create(scope=SITE, name="a")
        wire = Wire()
        wire.block = True
        await scene.open("a", wire=wire)
        assert wire.waiting == 1
        scene.clock.advance(7.2)
        await settle()
        assert (scene.over, wire.sent) == ([wire], [])


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("closed")])
async def test_a_connection_that_breaks_is_forgotten_quietly(
    play: Play, error: Exception, late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        broken, other = await scene.open("a"), await scene.open("a")
        broken.block, broken.error = late, None if late else error
        await publish(channel, 1)
        broken.error = error
        broken.free()
        await settle()
        assert scene.over == [broken]
        await publish(channel, 2)
        assert other.data == [1, 2]
    assert [r for r in caplog.records if r.name.startswith("asgi_comet.transports")] == []


@pytest.mark.parametrize("play", [ServersOwn], indirect=True)  # else it fails in its own task
@pytest.mark.parametrize("anyio_backend", ASYNC_BACKENDS[:2])
async def test_a_server_that_fails_harms_no_other_stream_and_is_logged(
    kind: str, play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        broken, other = await scene.open("a"), await scene.open("a")
        broken.error = LookupError("a bug")
        await publish(channel, 1)
        assert other.data == [1]
        assert scene.over == [broken]
        await publish(channel, 2)
        assert other.data == [1, 2]
    assert "a bug" in caplog.text


async def test_cancelled_while_a_send_waits_it_leaves_nothing(play: Play) -> None:
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        wire.block = True
        await publish(channel, 1)
        assert wire.waiting == 1
        scene.scopes[wire].cancel()
        await settle()
        assert (scene.over, wire.waiting) == ([wire], 0)
        scene.check_that_nothing_is_left()


async def test_cancelled_in_the_moment_of_a_send_it_leaves_nothing(play: Play) -> None:
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        wire.block = True
        wire.on_send = scene.scopes[wire].cancel
        await publish(channel, 1)
        assert (scene.over, wire.waiting) == ([wire], 0)
        scene.check_that_nothing_is_left()


async def test_a_client_that_leaves_in_the_moment_of_a_send_leaves_nothing(play: Play) -> None:
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        wire.block = True
        wire.on_send = wire.leave
        await publish(channel, 1)
        wire.error = OSError("gone")
        wire.free()
        await settle()
        assert (scene.over, wire.waiting) == ([wire], 0)
        scene.check_that_nothing_is_left()


@pytest.mark.parametrize("how", ["deactivate", "stop"])
async def test_the_end_does_not_wait_long_for_a_slow_reader(play: Play, how: str) -> None:
    async with play(send_timeout=100) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        slow, fast = await scene.open("a"), await scene.open("a")
        slow.block = True
        await publish(channel, 1)
        if how == "stop":
            inside(scene.comet).drain.begin()
        else:
            scene.comet.activation.deactivate()
        await settle()
        assert scene.over == [fast]
        scene.clock.advance(GRACE + 0.2)
        await settle()
        assert scene.over == [fast, slow]
        assert slow.waiting == 0


async def test_a_slow_reader_that_makes_it_hears_the_end(play: Play) -> None:
    async with play(send_timeout=100) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        slow = await scene.open("a")
        slow.block = True
        await publish(channel, 1)
        scene.comet.activation.deactivate()
        await settle()
        slow.free()
        await settle()
        assert slow.data == [1]
        last = slow.sent[-1]
        if scene.kind == "sse":
            assert b":deactivated" in last["body"]
        else:
            assert last["code"] == 1013


async def test_ended_in_the_turn_in_which_a_send_began_to_wait_it_does_not_wait_long(
    play: Play,
) -> None:
    async with play(send_timeout=100) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        slow = await scene.open("a")
        (stream,) = inside(scene.comet).fanout.listeners
        slow.block = True
        loop = inside(scene.comet).loop
        slow.on_send = lambda: loop.run_soon(lambda: stream.wake(Wake.DEACTIVATED))
        await publish(channel, 1)
        scene.clock.advance(GRACE + 0.2)
        await settle()
        assert scene.over == [slow]


async def test_silence_is_broken_by_a_sign_of_life_but_not_while_a_send_waits(play: Play) -> None:
    async with play(send_timeout=100) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        scene.clock.advance(15.2)
        await settle()
        assert wire.beats == 1
        wire.block = True
        scene.clock.advance(15.2)
        await settle()
        assert (wire.beats, wire.waiting) == (1, 1)  # the sign of life itself waits
        scene.clock.advance(15.2)
        await settle()
        assert (wire.beats, wire.waiting) == (1, 1)
        await publish(channel, 1)
        wire.free()
        await settle()
        assert (wire.beats, wire.data) == (2, [1])


async def test_overtaken_while_a_send_waits_is_full(play: Play) -> None:
    async with play(history_size=2) as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        wire.block = True
        await publish(channel, 1)
        await publish(channel, *range(2, 6))
        wire.free()
        await settle()
        assert (wire.data, wire.errors) == ([1], ["full"])
        await publish(channel, 6)
        assert wire.data == [1]  # it says from where it goes on


@pytest.mark.parametrize("kind", ["websocket"])
async def test_unsubscribed_in_the_moment_of_a_gap_nothing_is_told(play: Play) -> None:
    async with play(history_size=2) as scene:
        gap, other = (scene.comet.create(scope=SITE, name=name) for name in "ab")
        wire = await scene.open("a", "b")
        for n in range(3):
            gap.publish(n)
        wire.frame(unsubscribe=["a"])
        await settle()
        await publish(other, "x")
        assert wire.data[-1:] == ["x"]
        assert gap.listeners == 0


@pytest.mark.parametrize("kind", ["websocket"])
async def test_a_stream_that_turns_to_another_channel_during_a_flush_hears_only_that(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asgi_comet.channels.fanout.BATCH", 1)  # a turn between any two listeners
    async with play() as scene:
        a, b = (scene.comet.create(scope=SITE, name=name) for name in "ab")
        wires = [await scene.open("a") for _ in range(4)]
        a.publish("x")
        for wire in wires:
            wire.frame(unsubscribe=["a"], subscribe={"b": "now"})
        await settle()
        await publish(b, "y")
        assert [wire.data[-1:] for wire in wires] == [["y"]] * 4
        assert scene.over == []
    assert "crashed" not in caplog.text


async def test_what_is_published_while_it_opens_is_neither_missed_nor_doubled(play: Play) -> None:
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = scene.make_wire()
        left = iter(range(10))

        def publish_one() -> None:
            for n in left:
                channel.publish(n)
                return

        wire.on_send = publish_one  # with its head, with where it is, with each message
        await scene.open(wire=wire, a=str(feed_of(channel).history.position))
        assert wire.data == list(range(10))


async def test_the_end_of_a_channel_comes_after_what_waited(play: Play) -> None:
    async with play(answer_bytes=10) as scene:
        a, b = (scene.comet.create(scope=SITE, name=name) for name in "ab")
        wire = await scene.open("a", "b")
        wire.block = True
        for n in range(5):
            a.publish(n)
            b.publish(10 + n)
        a.close()
        await settle()
        wire.free()
        await settle()
        assert sorted(wire.data) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
        assert wire.errors == ["closed"]
        await publish(b, "goes on")
        assert wire.data[-1] == "goes on"
        scene.clock.advance(10.3)  # what remains of the channel lingers that long
        await settle()


@pytest.mark.parametrize("change", ["deactivate", "stop"])
async def test_ended_during_the_handshake_it_does_not_stay_open(play: Play, change: str) -> None:
    async with play() as scene:
        scene.comet.create(scope=SITE, name="a")
        wire = scene.make_wire()
        node = inside(scene.comet)
        act = scene.comet.activation.deactivate if change == "deactivate" else node.drain.begin

        def once() -> None:
            wire.on_send = lambda: None
            act()

        wire.on_send = once
        await scene.open("a", wire=wire)
        assert scene.over == [wire]


# Outcomes


async def publish_and_await(
    tasks: Any, channel: Channel[Any], value: Any, found: list[Outcome]
) -> None:
    async def wait() -> None:
        found.append(await channel.publish(value))

    tasks.start_soon(wait)
    await settle()


async def test_a_delivery_whose_only_stream_breaks_before_it_fails_at_once(play: Play) -> None:
    found: list[Outcome] = []
    async with play() as scene, anyio.create_task_group() as tasks:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        wire.block = True
        await publish(channel, 1)
        await publish_and_await(tasks, channel, 2, found)
        assert found == []
        scene.scopes[wire].cancel()
        await settle()
        assert found == [Outcome.FAILURE]


async def test_a_delivery_in_a_send_that_is_given_up_fails(play: Play) -> None:
    found: list[Outcome] = []
    async with play(send_timeout=3) as scene, anyio.create_task_group() as tasks:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        wire.block = True
        await publish_and_await(tasks, channel, 1, found)
        scene.clock.advance(3.2)
        await settle()
        assert found == [Outcome.FAILURE]


async def test_a_delivery_to_clients_that_acknowledge_nothing_is_unknown_in_the_end(
    play: Play,
) -> None:
    found: list[Outcome] = []
    async with play() as scene, anyio.create_task_group() as tasks:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        await publish_and_await(tasks, channel, 1, found)
        wire.leave()
        await settle()
        assert (wire.data, found) == ([1], [])  # it may yet come back and acknowledge
        scene.clock.advance(20.2)
        await settle()
        assert found == [Outcome.UNKNOWN]


@pytest.mark.parametrize("kind", ["websocket"])
async def test_a_delivery_succeeds_once_one_of_many_acknowledges(play: Play) -> None:
    found: list[Outcome] = []
    async with play() as scene, anyio.create_task_group() as tasks:
        channel = scene.comet.create(scope=SITE, name="a")
        wires = [await scene.open("a") for _ in range(3)]
        await publish_and_await(tasks, channel, 1, found)
        assert found == []
        wires[1].frame(ack={"a": str(feed_of(channel).history.position)})
        await settle()
        assert found == [Outcome.SUCCESS]


@pytest.mark.parametrize("kind", ["websocket"])
async def test_unsubscribing_before_it_was_sent_is_a_failure(play: Play) -> None:
    found: list[Outcome] = []
    async with play() as scene, anyio.create_task_group() as tasks:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        wire.block = True
        await publish(channel, 1)
        await publish_and_await(tasks, channel, 2, found)
        wire.frame(unsubscribe=["a"])
        wire.leave()
        wire.error = OSError("gone")
        wire.free()
        await settle()
        assert found == [Outcome.FAILURE]


# Real sockets


def through_a_middleware(app: Any) -> Any:
    """A middleware around `send`, of which we cannot know whether it cares about tasks."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        async def pass_on(message: Any) -> None:
            await send(message)

        await app(scope, receive, pass_on)

    return wrapped


@pytest.fixture(params=["direct", "slow"])
def real(request: pytest.FixtureRequest) -> Iterator[tuple[Comet, Address, ManualClock, ExitStack]]:
    """A real server, and a stack on which connections are closed before it stops."""
    clock = ManualClock()
    comet = Comet(KEY, clock=clock, settings=Settings(jitter=0))
    app: Any = application(comet)
    if request.param == "slow":
        app = through_a_middleware(app)
    with serve(app) as address, ExitStack() as stack:
        yield comet, address, clock, stack


BIG = "x" * (256 * 1024 - 10)


def read_nothing(address: Address, kind: str, position: str) -> socket.socket:
    """Open a stream, and read no more of it than the kernel does by itself."""
    connection = socket.socket()
    connection.settimeout(20)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.host, address.port))
    host = f"Host: {address.host}:{address.port}"
    if kind == "sse":
        path = f"/comet/events?channel=a&position={position}"
        connection.sendall(f"GET {path} HTTP/1.1\r\n{host}\r\n\r\n".encode())
    else:
        connection.sendall(
            f"GET /comet/socket HTTP/1.1\r\n{host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1)
        frame = json.dumps({"subscribe": {"a": position}}).encode()
        assert len(frame) < 126
        connection.sendall(bytes([0x81, 0x80 | len(frame), 0, 0, 0, 0]) + frame)
    return connection


def read_events(connection: socket.socket) -> list[str]:
    """Read what there was after all, to the end; return the ids of whole events."""
    raw = b""
    while chunk := connection.recv(1 << 20):
        raw += chunk
    lines = [line for line in raw.split(b"\n\n") if b"event: a\n" in line]
    return [line.rpartition(b"id: ")[2].decode() for line in lines if b"\nid: " in line]


def test_a_slow_reader_holds_one_write_is_given_up_and_resumes(
    real: tuple[Comet, Address, ManualClock, ExitStack], kind: str
) -> None:
    comet, address, clock, stack = real
    channel = comet.create(scope=SITE, name="a")
    epoch = feed_of(channel).history.epoch
    other = stack.enter_context(Sse.open(address, {"a": f"{epoch}.0"}))
    stack.callback(other.cut)
    assert other.next().name == ":open"
    slow = stack.enter_context(read_nothing(address, kind, f"{epoch}.0"))
    wait_for_listeners(channel, 2)
    for n in range(24):
        channel.publish([n, BIG])
        assert other.next().value[0] == n
    (stuck,) = [
        one
        for one in inside(comet).fanout.listeners
        if feed_of(channel).history.top - one.cursors[feed_of(channel)] > 0
    ]
    reached = stuck.cursors[feed_of(channel)]
    assert 0 < reached < 24  # it is a place in the history, and never a queue
    clock.advance(10.3)
    wait_for_listeners(channel, 1)
    assert len(inside(comet).timers) == 1  # of the other
    channel.publish([24, "small"])
    while (event := other.next()).name == "#":
        pass
    assert event.value == [24, "small"]
    if kind == "sse":
        got = read_events(slow)
        assert got == [f"{epoch}.{n}" for n in range(1, len(got) + 1)]
        assert reached - 1 <= len(got) <= reached
        again = stack.enter_context(Sse.open(address, ["a"], Last_Event_ID=got[-1]))
        stack.callback(again.cut)
        assert again.next().name == ":open"
        rest = [event.value[0] for event in again.take(25 - len(got))]
        assert rest == list(range(len(got), 25))


def test_several_channels_with_more_than_one_write_come_complete_and_in_order(
    real: tuple[Comet, Address, ManualClock, ExitStack], kind: str
) -> None:
    comet, address, _, stack = real
    channels = {name: comet.create(scope=SITE, name=name) for name in "abc"}
    starts = {name: str(feed_of(c).history.position) for name, c in channels.items()}

    def publish() -> None:
        for n in range(8):
            for channel in channels.values():
                channel.publish([n, "x" * 100_000])

    publish()
    seen: dict[str, list[int]] = {name: [] for name in channels}
    if kind == "sse":
        stream = stack.enter_context(Sse.open(address, {**starts}))
        stack.callback(stream.cut)
        assert stream.next().name == ":open"
        in_loop(comet, publish)
        for one in stream.take(48):
            seen[one.name].append(one.value[0])
    else:
        socket_ = stack.enter_context(Ws(address))
        socket_.say(subscribe=starts)
        in_loop(comet, publish)
        for event in socket_.take(48):
            seen[event["channel"]].append(event["data"][0])
    assert all(found == [*range(8), *range(8)] for found in seen.values())


def test_publishing_in_a_loop_while_500_streams_open_shows_no_gap_and_no_double(
    real: tuple[Comet, Address, ManualClock, ExitStack],
) -> None:
    comet, address, _, stack = real
    channel = comet.create(scope=SITE, name="a", size=100_000)
    stop = threading.Event()

    def publish() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            channel.publish(n)
            turn = threading.Event()
            inside(comet).loop.run(turn.set)  # not faster than the server can
            turn.wait(20)

    address.request("GET", "/comet/comet.js")  # answered, so there is a loop
    publisher = threading.Thread(target=publish)
    publisher.start()
    stack.callback(publisher.join)
    stack.callback(stop.set)
    for number in range(500):
        if number % 3:
            stream = Sse.open(address, ["a"])
            with stream:
                first = int(stream.next().value["positions"]["a"].split(".")[1])
                found = [event.value for event in stream.take(3)]
                stream.cut()
        else:
            with Ws(address) as socket_:
                socket_.say(subscribe={"a": "now"})
                first = int(socket_.next()["position"].split(".")[1])
                found = [event["data"] for event in socket_.take(3)]
        assert found == [first + 1, first + 2, first + 3]


def test_the_outcomes_of_a_write_over_real_streams(
    real: tuple[Comet, Address, ManualClock, ExitStack],
) -> None:
    comet, address, clock, stack = real
    channel = comet.create(scope=SITE, name="a")
    stream = stack.enter_context(Sse.open(address, ["a"]))
    stack.callback(stream.cut)
    assert stream.next().name == ":open"
    unknown = channel.publish(1)
    assert stream.next().value == 1
    clock.advance(20.2)
    assert outcome(comet, lambda: unknown) is Outcome.UNKNOWN
    socket_ = stack.enter_context(Ws(address))
    socket_.say(subscribe={"a": "now"})
    socket_.next()
    delivery = channel.publish(2)
    event = socket_.next()
    socket_.say(ack={"a": event["position"]})
    assert outcome(comet, lambda: delivery) is Outcome.SUCCESS
    assert outcome(comet, lambda: unknown) is Outcome.UNKNOWN


def test_an_event_stream_acknowledges_by_coming_back(server: Address, comet: Comet) -> None:
    tab = Tab(server)
    from tests.kit.processes import process_of

    inbox = comet.create(scope=process_of(comet, tab), name="b")
    first = Sse.open(server, ["~b"], tab.url, Cookie=tab.cookie)
    assert first.next().name == ":open"
    delivery = inbox.publish(1)
    inbox.publish(2)
    assert [event.value for event in first.take(2)] == [1, 2]
    assert len(feed_of(inbox).history) == 2
    first.cut()
    with Sse.open(server, ["~b"], tab.url, Cookie=tab.cookie, Last_Event_ID=first.last_id) as again:
        assert again.next().name == ":open"
        assert outcome(comet, lambda: delivery) is Outcome.SUCCESS
        assert len(feed_of(inbox).history) == 0
        again.cut()


async def test_ended_for_two_reasons_at_once_the_first_counts(play: Play, kind: str) -> None:
    async with play() as scene:
        scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a")
        fanout = inside(scene.comet).fanout
        fanout.end(Wake.DEACTIVATED)
        fanout.end(Wake.CLOSED)
        await settle()
        last = wire.sent[-1]
        if kind == "sse":
            assert b":deactivated" in last["body"]
        else:
            assert last["code"] == 1013


class WrappedReceive(ServersOwn):
    """Something around the application receives for it, and may lose what it has if called off."""

    def __init__(self) -> None:
        super().__init__()
        self.called_off = 0
        inner = super().receive

        async def receive() -> Any:
            try:
                return await inner()
            except BaseException:
                self.called_off += 1
                raise

        self.receive = receive  # type: ignore[method-assign]  # that is the wrapping


async def test_a_receive_that_is_wrapped_is_not_called_off_while_the_stream_goes_on(
    play: Play,
) -> None:
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wire = await scene.open("a", wire=WrappedReceive())
        wire.block = True
        await publish(channel, 1, 2)
        wire.free()
        await settle()
        await publish(channel, 3)
        assert wire.data == [1, 2, 3]
        assert wire.called_off == 0


async def test_a_flood_of_frames_leaves_the_others_their_turns(play: Play, kind: str) -> None:
    if kind == "sse":
        return
    async with play() as scene:
        wire = await scene.open()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while len(wire.said):
                turns += 1
                await anyio.lowlevel.checkpoint()

        for _ in range(200):
            wire.frame(unsubscribe=["x"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
        assert turns >= 100


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("play", [ServersOwn], indirect=True)
async def test_a_stream_that_is_cancelled_during_a_flush_is_sent_nothing_more(play: Play) -> None:
    async with play() as scene:
        channel = scene.comet.create(scope=SITE, name="a")
        wires = [await scene.open("a") for _ in range(BATCH + 2)]
        last = wires[-1]
        wires[0].on_send = scene.scopes[last].cancel
        channel.publish(1)
        await settle()
        assert wires[-2].data == [1]
        assert last.data == []


@pytest.mark.parametrize("kind", ["websocket"], indirect=True)
@pytest.mark.parametrize("closed", [False, True])
async def test_a_socket_whose_handshake_is_not_taken_was_never_a_connection(
    play: Play, closed: bool
) -> None:
    async with play(send_timeout=7) as scene:
        node = inside(scene.comet)
        process = node.clients.open(Claim.of(Session("session"))).process
        other = node.clients.open(Claim.of(Session("session"))).process
        wire = scene.make_wire()
        wire.block = True
        cookie = node.requests.make_cookie({"scheme": "http"}, "session")[1].partition(b";")[0]
        await scene.open(wire=wire, base=process.url, headers=[(b"cookie", cookie)])
        assert (wire.waiting, process.connections) == (1, 0)
        if closed:
            process.close()
        scene.clock.advance(7.2)
        await settle()
        assert (scene.over, wire.sent) == ([wire], [])
        assert (process.connections, other.connections) == (0, 0)
        other.close()
        process.close()
        await settle()
