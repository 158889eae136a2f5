from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.app import CometApp
from asgi_comet.http.exchange import ClientGone, Exchange, Refusal, answer, read_body
from asgi_comet.testing._inspect import app_of, inside, left
from asgi_comet.transports.checking import check_waiting
from tests.kit.running import Clocked, running
from tests.kit.stage import TOKEN
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio

Send = Callable[[Any], Awaitable[None]]


class Receiving:
    """What a client sends; `at_once` tells whether it is all there when it is asked for."""

    def __init__(self, *messages: dict[str, Any], at_once: bool = True) -> None:
        self.messages = list(messages)
        self.at_once = at_once

    async def __call__(self) -> dict[str, Any]:
        if not self.messages:
            await anyio.sleep_forever()
        if not self.at_once:
            await anyio.lowlevel.checkpoint()
        return self.messages.pop(0)


async def take(message: Any) -> None:
    pass


async def never_take(message: Any) -> None:
    await anyio.sleep_forever()


def exchange(
    receive: Callable[[], Awaitable[Any]] | None = None, send: Send = take, **headers: str
) -> Exchange:
    raw = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": raw}
    return Exchange(scope, receive or Receiving(), send, "", "/")


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


@asynccontextmanager
async def reading(**settings: Any) -> AsyncIterator[Clocked]:
    """Run a `Comet` that has nothing left in the end."""
    async with running(**settings) as (comet, clock):
        yield comet, clock
        assert left(comet) == {}


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_in_one_piece_or_many(at_once: bool) -> None:
    async with reading() as (comet, _):
        whole = Receiving(body(b"ab"), at_once=at_once)
        assert await read_body(inside(comet), exchange(whole)) == b"ab"
        parts = [body(b"a", True), {"type": "http.request", "more_body": True}, body(b"b")]
        pieces = Receiving(*parts, at_once=at_once)
        assert await read_body(inside(comet), exchange(pieces)) == b"ab"


async def test_a_receive_that_is_no_coroutine_is_awaited() -> None:
    class Future:
        def __await__(self) -> Any:
            yield from anyio.lowlevel.checkpoint().__await__()
            return body(b"ab")

    async with reading() as (comet, _):
        assert await read_body(inside(comet), exchange(lambda: Future())) == b"ab"  # noqa: PLW0108


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_body_without_a_declared_length_is_counted_as_it_comes(at_once: bool) -> None:
    async with reading(body_limit=4) as (comet, _):
        good = Receiving(body(b"ab", True), body(b"cd"), at_once=at_once)
        assert await read_body(inside(comet), exchange(good)) == b"abcd"
        for bad in ([body(b"ab", True), body(b"cde")], [body(b"abcde")]):
            with pytest.raises(Refusal, match="at most 4 bytes, more came") as caught:
                await read_body(inside(comet), exchange(Receiving(*bad, at_once=at_once)))
            assert caught.value.status == 413


@pytest.mark.parametrize("length", ["x", "-1", "1 0", ""])
async def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    async with reading() as (comet, _):
        with pytest.raises(Refusal, match="Content-Length") as caught:
            await read_body(inside(comet), exchange(content_length=length))
    assert caught.value.status == 400


async def test_a_length_of_any_number_of_digits_is_too_much() -> None:
    async with reading() as (comet, _):
        with pytest.raises(Refusal, match=r"at most 65536 bytes, 9+ declared") as caught:
            await read_body(inside(comet), exchange(content_length="9" * 5000))
    assert caught.value.status == 413


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_client_that_leaves_while_sending(at_once: bool) -> None:
    async with reading() as (comet, _):
        leaving = Receiving({"type": "http.disconnect"}, at_once=at_once)
        with pytest.raises(ClientGone):
            await read_body(inside(comet), exchange(leaving))


@pytest.mark.parametrize("first", [[], [body(b"a", True)]])
async def test_a_body_that_does_not_come_in_time(first: list[Any]) -> None:
    found: list[int] = []

    async def run() -> None:
        with pytest.raises(Refusal, match="expected the body within 5 s") as caught:
            await read_body(inside(comet), exchange(Receiving(*first)))
        found.append(caught.value.status)

    async with reading(body_timeout=5) as (comet, clock), anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await wait_all_tasks_blocked()
        clock.advance(4.9)
        await wait_all_tasks_blocked()
        assert found == []
        clock.advance(0.3)
        await wait_all_tasks_blocked()
        assert found == [408]


async def test_nobody_waits_for_a_body_when_the_server_stops() -> None:
    found: list[Refusal] = []

    async def run() -> None:
        with pytest.raises(Refusal, match="the server stops") as caught:
            await read_body(inside(comet), exchange())
        found.append(caught.value)

    async with reading() as (comet, _), anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await wait_all_tasks_blocked()
        inside(comet).drain.begin()
        await wait_all_tasks_blocked()
        assert [refusal.status for refusal in found] == [503]
        with pytest.raises(Refusal, match="the server stops"):
            check_waiting(inside(comet))


async def test_an_answer_that_is_not_taken_is_given_up() -> None:
    found: list[bool] = []

    async def run() -> None:
        found.append(await answer(inside(comet), exchange(send=never_take), b"text/plain", b"x"))

    async with reading(send_timeout=10) as (comet, clock), anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await wait_all_tasks_blocked()
        clock.advance(9)
        await wait_all_tasks_blocked()
        assert found == []
        clock.advance(1.2)
        await wait_all_tasks_blocked()
        assert found == [False]


async def test_an_answer_that_is_taken_slowly_is_taken() -> None:
    sent: list[Any] = []

    async def slowly(message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        sent.append(message["type"])

    async with reading() as (comet, _):
        assert await answer(inside(comet), exchange(send=slowly), b"text/plain", b"x")
    assert sent == ["http.response.start", "http.response.body"]


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("the transport is closed")])
@pytest.mark.parametrize("at_once", [True, False])
async def test_an_answer_to_a_broken_connection_is_not_handed_over(
    error: Exception, at_once: bool
) -> None:
    async def send(message: Any) -> None:
        if not at_once:
            await anyio.lowlevel.checkpoint()
        raise error

    async with reading() as (comet, _):
        assert await answer(inside(comet), exchange(send=send), b"text/plain", b"x") is False


REQUESTS = [
    ("GET", "/poll", {}),
    ("POST", "/poll", {"content-type": "application/json"}),
    ("GET", "/admin/status", {"authorization": f"Bearer {TOKEN}"}),
    ("GET", "/nothing", {}),
    ("POST", "/open", {}),
]


@pytest.mark.parametrize(("method", "path", "headers"), REQUESTS)
async def test_no_answer_waits_longer_than_the_limit_or_raises_what_the_socket_says(
    method: str, path: str, headers: dict[str, str]
) -> None:
    async def broken(message: Any) -> None:
        raise OSError("gone")

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": raw}
    done: list[bool] = []

    async def run(app: CometApp) -> None:
        await app(dict(scope), Receiving(body(b"")), never_take)
        done.append(True)

    async with reading(send_timeout=10) as (comet, clock), anyio.create_task_group() as tasks:
        await comet.app(dict(scope), Receiving(body(b"")), broken)
        tasks.start_soon(run, app_of(comet))
        await wait_all_tasks_blocked()
        assert done == []
        clock.advance(10.2)
        await wait_all_tasks_blocked()
        assert done == [True]
        for process in comet.processes():
            process.close()


async def test_a_wait_that_was_stepped_is_carried_on_under_cancellation() -> None:
    cleaned: list[str] = []

    async def receive() -> Any:
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append("up")

    async with reading() as (comet, _):
        with anyio.move_on_after(0.01) as scope:
            await read_body(inside(comet), exchange(receive))
        assert scope.cancelled_caught
        assert cleaned == ["up"]
