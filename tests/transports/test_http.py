from __future__ import annotations

from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from asgi_comet import Comet, Settings
from asgi_comet.testing import ManualClock
from asgi_comet.transports.http import ClientGone, Refusal, answer, read_body
from tests.conftest import KEY

pytestmark = pytest.mark.anyio


def scope(**headers: str) -> dict[str, Any]:
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return {"type": "http", "method": "POST", "headers": raw}


class Receiving:
    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)

    async def __call__(self) -> dict[str, Any]:
        if not self.messages:
            await anyio.sleep_forever()
        return self.messages.pop(0)


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def test_a_body_in_pieces_is_joined() -> None:
    comet = Comet(KEY)
    receive = Receiving(body(b"a", True), {"type": "http.request", "more_body": True}, body(b"b"))
    async with comet.lifespan():
        assert await read_body(comet._hub, scope(), receive) == b"ab"
        assert len(comet._hub.timers) == 0


@pytest.mark.parametrize("length", ["x", "-1", "1 0", ""])
async def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    comet = Comet(KEY)
    async with comet.lifespan():
        with pytest.raises(Refusal, match="Content-Length") as caught:
            await read_body(comet._hub, scope(content_length=length), Receiving())
    assert caught.value.status == 400


async def test_a_body_without_a_declared_length_is_counted_as_it_comes() -> None:
    comet = Comet(KEY, settings=Settings(body_limit=4))
    async with comet.lifespan():
        receive = Receiving(body(b"ab", True), body(b"cd"))
        assert await read_body(comet._hub, scope(), receive) == b"abcd"
        with pytest.raises(Refusal, match="at most 4 bytes, more came") as caught:
            await read_body(comet._hub, scope(), Receiving(body(b"ab", True), body(b"cde")))
    assert caught.value.status == 413


async def test_a_client_that_leaves_while_sending() -> None:
    comet = Comet(KEY)
    async with comet.lifespan():
        with pytest.raises(ClientGone):
            await read_body(comet._hub, scope(), Receiving({"type": "http.disconnect"}))
        assert len(comet._hub.timers) == 0


async def test_a_body_that_does_not_come_in_time() -> None:
    clock = ManualClock()
    comet = Comet(KEY, clock=clock, settings=Settings(body_timeout=5))
    found: list[int] = []

    async def run() -> None:
        with pytest.raises(Refusal, match="expected the body within 5 s") as caught:
            await read_body(comet._hub, scope(), Receiving(body(b"a", True)))
        found.append(caught.value.status)

    async with comet.lifespan(), anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await wait_all_tasks_blocked()
        clock.advance(4.9)
        await wait_all_tasks_blocked()
        assert found == []
        clock.advance(0.3)
    assert found == [408]


async def test_an_answer_that_is_not_taken_is_given_up() -> None:
    clock = ManualClock()
    comet = Comet(KEY, clock=clock, settings=Settings(send_timeout=10))
    found: list[bool] = []

    async def send(message: Any) -> None:
        await anyio.sleep_forever()

    async def run() -> None:
        found.append(await answer(comet._hub, send, b"text/plain", b"x"))

    async with comet.lifespan(), anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await wait_all_tasks_blocked()
        clock.advance(9)
        await wait_all_tasks_blocked()
        assert found == []
        clock.advance(1.2)
    assert found == [False]


async def test_an_answer_to_a_broken_connection_is_not_handed_over() -> None:
    comet = Comet(KEY)

    async def send(message: Any) -> None:
        raise OSError("gone")

    async with comet.lifespan():
        assert await answer(comet._hub, send, b"text/plain", b"x") is False
        assert len(comet._hub.timers) == 0
