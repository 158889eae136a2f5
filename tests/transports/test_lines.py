from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.transports.lines import Line, OneTask, TwoTasks
from tests.kit.turns import settle

pytestmark = pytest.mark.anyio


class Talking:
    """A client that says what it is given."""

    def __init__(self) -> None:
        self.received = 0
        self._news = anyio.Event()
        self._said: list[Any] = []

    def say(self, text: str, type_: str = "websocket.receive") -> None:
        self._said.append({"type": type_, "text": text})
        self._news.set()

    async def receive(self) -> Any:
        while not self._said:
            self._news = anyio.Event()
            await self._news.wait()
        self.received += 1
        return self._said.pop(0)


Make = Callable[[Talking], Line]


@pytest.fixture(params=[OneTask, TwoTasks])
def make(request: pytest.FixtureRequest, anyio_backend: Any) -> Make:
    kind = TwoTasks if anyio_backend[0] == "trio" else request.param  # OneTask is for asyncio
    return lambda client: kind(client.receive)


def text(message: Any) -> str | None:
    return None if message is None else message["text"]


async def test_what_the_client_says_comes_in_order(make: Make) -> None:
    client = Talking()
    line = make(client)
    async with line.open():
        for n in range(100):
            client.say(str(n))
        assert [text(await line.next()) for _ in range(100)] == [str(n) for n in range(100)]


async def test_roused_before_it_waits_it_does_not_wait(make: Make) -> None:
    line = make(Talking())
    async with line.open():
        line.rouse()
        line.rouse()
        assert await line.next() is None


async def test_roused_while_it_waits_it_goes_on(make: Make) -> None:
    client, found = Talking(), list[Any]()
    line = make(client)

    async def listen() -> None:
        async with line.open():
            for _ in range(3):
                found.append(text(await line.next()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await settle()
        line.rouse()
        line.rouse()
        await settle()
        assert found == [None]  # once, however often it was roused
        client.say("a")
        await settle()
        assert found == [None, "a"]
        line.rouse()
    assert found == [None, "a", None]


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("first", ["say", "rouse"])
async def test_roused_in_the_moment_of_a_message_neither_is_lost(
    make: Make, first: str, turns: int
) -> None:
    client, found = Talking(), list[Any]()
    line = make(client)

    async def listen() -> None:
        async with line.open():
            while len(found) < 40:
                found.append(text(await line.next()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        for n in range(20):
            await settle()
            if first == "say":
                client.say(str(n))
            else:
                line.rouse()
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            if first == "say":
                line.rouse()
            else:
                client.say(str(n))
    assert [one for one in found if one is not None] == [str(n) for n in range(20)]
    assert found.count(None) == 20


async def test_a_client_is_heard_one_message_ahead_at_most(make: Make) -> None:
    client = Talking()
    line = make(client)
    async with line.open():
        for n in range(5):
            client.say(str(n))
        for n in range(5):
            await settle()
            assert client.received <= n + 1
            assert text(await line.next()) == str(n)


@pytest.mark.parametrize("type_", ["http.disconnect", "websocket.disconnect"])
async def test_nothing_is_received_after_the_client_has_left(make: Make, type_: str) -> None:
    client = Talking()
    line = make(client)
    async with line.open():
        client.say("bye", type_)
        client.say("never")
        assert text(await line.next()) == "bye"
        await settle()
        assert client.received == 1


async def test_a_cancellation_passes_and_leaves_no_task(make: Make) -> None:
    line = make(Talking())

    async def listen() -> None:
        async with line.open():
            await line.next()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await settle()
        tasks.cancel_scope.cancel()
    line.rouse()  # nobody hears it any more


async def test_what_was_heard_is_not_lost_by_being_called_off() -> None:
    """A wrapped `receive` has the message in hand and waits for something else."""
    client, more = Talking(), anyio.Event()

    async def receive() -> Any:
        message = await client.receive()
        await more.wait()
        return message

    line = TwoTasks(receive)
    async with line.open():
        client.say("in hand")
        await settle()
        line.rouse()
        assert await line.next() is None
        more.set()
        assert text(await line.next()) == "in hand"


def test_only_where_receive_may_be_called_off_send_may_be_run_by_others() -> None:
    assert (OneTask.direct, TwoTasks.direct) == (True, False)
