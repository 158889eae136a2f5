"""A held poll that the flush answers itself, where the server takes it at once; and where not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Outcome, Settings
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import feed_of, inside, left
from tests.kit.stage import KEY
from tests.kit.turns import settle

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"use_uvloop": request.param}


class Cycle:
    """A request as uvicorn serves it: `receive` tells the end once all is sent."""

    __module__ = "uvicorn.protocols.played"

    def __init__(self, channels: dict[str, str], **headers: str) -> None:
        self.headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._body: bytes | None = json.dumps({"channels": channels}).encode()
        self._news = asyncio.Event()
        self.sent: list[Any] = []
        self.full: dict[str, asyncio.Event] = {}  # at which message the client does not read
        self.error: dict[str, Exception] = {}
        self.begun: list[str] = []
        self.left = False

    async def receive(self) -> Any:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body}
        while not (self.left or self.answered):
            await self._news.wait()
            self._news.clear()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        kind = message["type"].rpartition(".")[2]
        self.begun.append(kind)
        if kind in self.full:
            await self.full[kind].wait()
        if kind in self.error:
            raise self.error[kind]
        self.sent.append(message)
        self._news.set()

    @property
    def answered(self) -> bool:
        return len(self.sent) == 2

    @property
    def events(self) -> Any:
        assert self.answered
        return json.loads(self.sent[1]["body"])["events"]

    def leave(self) -> None:
        self.left = True
        self._news.set()


class Scene:
    def __init__(self, comet: Comet, clock: ManualClock, tasks: asyncio.TaskGroup) -> None:
        self.comet = comet
        self.clock = clock
        self._tasks = tasks
        self._app = CometMiddleware(self._nothing, comet=comet)
        self.news: Channel[Any] = comet.create(scope=SITE, name="news")
        self.polls: list[asyncio.Task[None]] = []

    async def hold(self, cycle: Cycle) -> asyncio.Task[None]:
        scope = {"type": "http", "method": "POST", "path": "/comet/poll", "scheme": "http"}
        headers = [(b"host", b"x"), (b"content-type", b"application/json"), *cycle.headers]
        served = self._app({**scope, "headers": headers}, cycle.receive, cycle.send)
        task = self._tasks.create_task(served)
        self.polls.append(task)
        await settle()
        return task

    def after(self, offset: int = 0) -> dict[str, str]:
        return {"news": f"{feed_of(self.news).history.epoch}.{offset}"}

    async def _nothing(self, scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not for the application")


@asynccontextmanager
async def playing() -> AsyncIterator[Scene]:
    clock = ManualClock()
    comet = Comet(KEY, clock=clock, settings=Settings(jitter=0), allowed_origins=["https://a.b"])
    async with comet.lifespan(), asyncio.TaskGroup() as tasks:
        scene = Scene(comet, clock, tasks)
        await settle()
        yield scene
        await settle()
        assert all(task.done() for task in scene.polls)
        assert scene.news.listeners == 0
        assert left(comet).keys() <= {"channels", "sources"}


async def test_it_is_answered_without_its_task() -> None:
    async with playing() as scene:
        cycle = Cycle(scene.after())
        senders: list[bool] = []
        task = await scene.hold(cycle)
        plain = Cycle.send

        async def send(self: Cycle, message: Any) -> None:
            senders.append(asyncio.current_task() is task)
            await plain(self, message)

        Cycle.send = send  # type: ignore[method-assign]  # a bound method of it, still
        try:
            again = Cycle(scene.after())
            await scene.hold(again)
            scene.news.publish("a")
            await settle()
        finally:
            Cycle.send = plain  # type: ignore[method-assign]
        assert [event["data"] for event in cycle.events] == ["a"]
        assert again.sent[1]["body"] is cycle.sent[1]["body"]  # encoded once
        assert senders == [False, False]


async def test_messages_of_one_turn_are_one_answer() -> None:
    async with playing() as scene:
        cycle = Cycle(scene.after())
        await scene.hold(cycle)
        for text in "abc":
            scene.news.publish(text)
        await settle()
        assert [event["data"] for event in cycle.events] == ["a", "b", "c"]


async def test_a_poll_of_several_channels_is_answered_by_its_task() -> None:
    async with playing() as scene:
        other = scene.comet.create(scope=SITE, name="other")
        after = f"{feed_of(other).history.epoch}.0"
        cycle = Cycle({**scene.after(), "other": after})
        await scene.hold(cycle)
        scene.news.publish("a")
        other.publish("b")
        await settle()
        assert [event["data"] for event in cycle.events] == ["a", "b"]


async def test_a_page_of_an_allowed_origin_gets_its_headers() -> None:
    async with playing() as scene:
        cycle = Cycle(scene.after(), origin="https://a.b")
        await scene.hold(cycle)
        scene.news.publish("a")
        await settle()
        assert (b"access-control-allow-origin", b"https://a.b") in cycle.sent[0]["headers"]


async def test_where_the_answer_cannot_begin_its_task_answers() -> None:
    async with playing() as scene:
        cycle = Cycle(scene.after())
        cycle.full["start"] = asyncio.Event()
        await scene.hold(cycle)
        scene.news.publish("a")
        await settle()
        assert not cycle.sent
        scene.news.publish("b")
        await settle()
        cycle.full["start"].set()
        await settle()
        assert [event["data"] for event in cycle.events][:1] == ["a"]
        assert cycle.begun == ["start", "start", "body"]  # called off, and begun anew


async def test_where_the_body_waits_its_task_carries_on() -> None:
    async with playing() as scene:
        cycle = Cycle(scene.after())
        cycle.full["body"] = asyncio.Event()
        task = await scene.hold(cycle)
        delivery = scene.news.publish("a")
        await settle()
        assert len(cycle.sent) == 1
        cycle.full["body"].set()
        await settle()
        assert task.done()
        assert [event["data"] for event in cycle.events] == ["a"]
        assert cycle.begun == ["start", "body"]
        back = Cycle(scene.after(1))
        await scene.hold(back)
        assert await delivery is Outcome.SUCCESS
        back.leave()


async def test_a_body_that_is_not_taken_is_given_up() -> None:
    async with playing() as scene:
        cycle = Cycle(scene.after())
        cycle.full["body"] = asyncio.Event()
        task = await scene.hold(cycle)
        scene.news.publish("a")
        await settle()
        scene.clock.advance(10.2)
        await settle()
        assert task.done()
        assert not cycle.answered


@pytest.mark.parametrize("kind", ["start", "body"])
async def test_an_error_of_the_server_ends_this_one_only(kind: str) -> None:
    async with playing() as scene:
        broken, fine = Cycle(scene.after()), Cycle(scene.after())
        broken.error[kind] = OSError("broken pipe")
        task = await scene.hold(broken)
        await scene.hold(fine)
        delivery = scene.news.publish("a")
        await settle()
        assert task.done()
        assert not broken.answered
        assert [event["data"] for event in fine.events] == ["a"]
        back = Cycle(scene.after(1))
        await scene.hold(back)
        assert await delivery is Outcome.SUCCESS
        back.leave()


async def test_an_error_of_a_body_that_waited_ends_it() -> None:
    async with playing() as scene:
        cycle = Cycle(scene.after())
        cycle.full["body"], cycle.error["body"] = asyncio.Event(), RuntimeError("closed")
        task = await scene.hold(cycle)
        scene.news.publish("a")
        await settle()
        cycle.full["body"].set()
        await settle()
        assert task.done()
        assert not cycle.answered


async def test_what_comes_in_the_moment_it_leaves_is_not_answered() -> None:
    async with playing() as scene:
        cycle = Cycle(scene.after())
        task = await scene.hold(cycle)
        cycle.leave()
        await settle()
        assert task.done()
        scene.news.publish("a")
        await settle()
        assert [message["type"] for message in cycle.sent] == [
            "http.response.start",
            "http.response.body",
        ]
        assert cycle.sent[1]["body"] == b""


async def test_a_flush_that_has_nothing_new_for_it_leaves_it_held() -> None:
    async with playing() as scene:
        scene.news.publish("before")
        cycle = Cycle(scene.after(1))
        await scene.hold(cycle)
        inside(scene.comet).fanout.mark(feed_of(scene.news))
        await settle()
        assert not cycle.begun
        scene.news.publish("a")
        await settle()
        assert [event["data"] for event in cycle.events] == ["a"]


async def test_what_comes_before_it_is_held_is_not_answered_by_the_flush(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with playing() as scene:
        found = asyncio.Event()

        async def find(name: str) -> None:
            await found.wait()

        monkeypatch.setattr(inside(scene.comet).broker, "find", find)
        cycle = Cycle({**scene.after(), "elsewhere": "now"})
        await scene.hold(cycle)
        scene.news.publish("a")
        await settle()
        assert not cycle.begun
        found.set()
        await settle()
        assert len(cycle.events) == 2
