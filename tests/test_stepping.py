from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

from asgi_comet._runtime.stepping import Suspended, advance, is_direct, step
from tests.kit.serving import serve


async def wait(times: int) -> str:
    for _ in range(times):
        await anyio.lowlevel.checkpoint()
    return f"{times} times"


async def test_what_does_not_wait_is_done_at_once() -> None:
    assert advance(wait(0)) == (True, "0 times")


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_what_waits_is_carried_on(times: int) -> None:
    done, rest = advance(wait(times))
    assert not done
    assert not isinstance(rest, str)
    assert await rest == f"{times} times"


async def test_what_is_no_coroutine_is_left_as_it_is() -> None:
    class Awaitable:
        def __await__(self) -> Any:
            return wait(1).__await__()

    given: Any = Awaitable()
    done, rest = advance(given)
    assert (done, rest) == (False, given)
    assert await given == "1 times"


async def test_errors_come_through_at_once_and_later() -> None:
    async def fail(times: int) -> None:
        await wait(times)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        advance(fail(0))
    done, rest = advance(fail(2))
    assert not done
    assert rest is not None
    with pytest.raises(LookupError, match="mine"):
        await rest


async def test_a_cancellation_reaches_the_coroutine_which_may_go_on_waiting() -> None:
    seen: list[str] = []

    async def stubborn() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await wait(2)
            seen.append("cleaned up")

    with anyio.move_on_after(0.01) as scope:
        _, rest = advance(stubborn())
        assert rest is not None
        await rest
    assert scope.cancelled_caught
    assert seen == ["cleaned up"]


async def test_what_waits_may_be_carried_on_by_another_task() -> None:
    seen: list[str] = []

    async def waiting() -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        seen.append(anyio.get_current_task().name or "")

    done, rest = advance(waiting())
    assert not done
    carrying: Any = rest

    async def finish() -> None:
        assert await carrying is None

    async with anyio.create_task_group() as group:
        group.start_soon(finish, name="another")
    assert seen == ["another"]


async def test_what_it_waits_for_may_have_come_meanwhile() -> None:
    event = anyio.Event()
    done, rest = advance(event.wait())
    assert not done
    event.set()
    carrying: Any = rest
    with anyio.fail_after(10):
        await carrying


@pytest.fixture
def closed() -> list[str]:
    return []


@pytest.fixture
def waiting(closed: list[str]) -> Callable[[int], Coroutine[Any, Any, None]]:
    async def waiting(times: int) -> None:
        try:
            await wait(times)
        finally:
            closed.append("closed")

    return waiting


Waiting = Callable[[int], Coroutine[Any, Any, None]]


async def test_one_that_is_given_up_is_closed_where_it_waits(
    waiting: Waiting, closed: list[str]
) -> None:
    _, rest = advance(waiting(1))
    assert isinstance(rest, Suspended)
    assert closed == []
    rest.close()
    assert closed == ["closed"]
    rest.close()
    assert closed == ["closed"]


async def test_one_that_is_over_can_be_closed_and_nothing_happens(
    waiting: Waiting, closed: list[str]
) -> None:
    _, rest = advance(waiting(2))
    assert isinstance(rest, Suspended)
    await rest
    rest.close()
    assert closed == ["closed"]


async def test_one_that_waits_inside_another_is_closed_with_it(
    waiting: Waiting, closed: list[str]
) -> None:
    async def outer() -> None:
        _, rest = advance(waiting(2))
        assert isinstance(rest, Suspended)
        await rest

    _, rest = advance(outer())
    assert isinstance(rest, Suspended)
    rest.close()
    assert closed == ["closed"]


@types.coroutine
def ask(question: str) -> Generator[str, str, str]:
    """Wait for what an event loop answers."""
    answer = yield question
    return answer


def carry_on(coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """What an event loop works with."""
    done, rest = advance(coroutine)
    assert not done
    assert isinstance(rest, Suspended)
    return rest.__await__()


def test_what_passes_between_it_and_the_event_loop_is_handed_on() -> None:
    async def asking() -> list[str]:
        return [await ask("first?"), await ask("second?")]

    carrying = carry_on(asking())
    assert next(carrying) == "first?"
    assert carrying.send("one") == "second?"
    with pytest.raises(StopIteration) as stop:
        carrying.send("two")
    assert stop.value.value == ["one", "two"]


def test_an_error_thrown_in_may_be_dealt_with_inside() -> None:
    async def asking() -> str:
        try:
            return await ask("first?")
        except LookupError as error:
            return f"{error}, {await ask('second?')}"

    carrying = carry_on(asking())
    assert next(carrying) == "first?"
    assert carrying.throw(LookupError("mine")) == "second?"
    with pytest.raises(StopIteration) as stop:
        carrying.send("two")
    assert stop.value.value == "mine, two"


def test_one_that_is_given_up_while_it_is_carried_on_is_closed(closed: list[str]) -> None:
    async def asking() -> None:
        try:
            await ask("first?")
            await ask("second?")
        finally:
            closed.append("closed")

    coroutine = asking()  # held here, so that it is not closed because nobody holds it
    carrying = carry_on(coroutine)
    next(carrying)
    carrying.send("one")
    assert closed == []
    carrying.close()
    assert closed == ["closed"]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


async def test_a_step_that_is_done_leaves_nothing(waiting: Waiting, closed: list[str]) -> None:
    assert step(waiting(0)) is None
    assert closed == ["closed"]


@pytest.mark.parametrize("times", [1, 3])
async def test_a_step_that_waits_leaves_what_carries_it_on(
    times: int, waiting: Waiting, closed: list[str]
) -> None:
    rest = step(waiting(times))
    assert rest is not None
    assert closed == []
    await rest
    assert closed == ["closed"]


async def test_an_error_in_a_step_comes_through() -> None:
    async def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        step(fail())


# Whose `send` may be run by any task


class Probe:
    """An application that tells of each connection whether its ends are known not to care."""

    def __init__(self) -> None:
        self.found: list[tuple[bool, bool]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.found.append((is_direct(receive), is_direct(send)))
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})


class Passing:
    """A middleware that hands on what it was given."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Wrapping(Passing):
    """A middleware with a `send` of its own."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            with anyio.CancelScope():
                await send(message)

        await self.app(scope, receive, wrapped if scope["type"] != "lifespan" else send)


class Partial(Passing):
    """One that is no function."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, functools.partial(send))


class Method(Passing):
    """One with a `send` of its own that is a method."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inner = send
        await self.app(scope, receive, self.send)

    async def send(self, message: Message) -> None:
        await self.inner(message)


def visit(app: ASGIApp, http: str) -> None:
    with serve(app, http=http) as address:
        assert address.request("GET", "/").status == 204
        with (
            connect(f"ws://{address.host}:{address.port}/") as socket,
            pytest.raises(ConnectionClosedOK),
        ):
            socket.recv()


def starlette(probe: Probe, *middleware: type[Passing]) -> Starlette:
    return Starlette(
        routes=[Mount("/", app=probe)], middleware=[Middleware(one) for one in middleware]
    )


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_that_of_uvicorn_is_direct_for_http_and_for_websockets(http: str) -> None:
    bare, mounted, below = Probe(), Probe(), Probe()
    applications: list[tuple[Probe, ASGIApp]] = [
        (bare, without_lifespan(bare)),
        (mounted, starlette(mounted)),
        (below, starlette(below, Passing, Passing)),
    ]
    for probe, app in applications:
        visit(app, http)
        assert probe.found == [(True, True)] * 2


@pytest.mark.parametrize("wrapper", [Wrapping, Partial, Method])
def test_of_any_wrapper_but_those_of_starlette_it_is_not_known(wrapper: type[Passing]) -> None:
    inside, outside = Probe(), Probe()
    visit(starlette(inside, wrapper), "httptools")
    visit(wrapper(starlette(outside)), "httptools")
    for probe in (inside, outside):
        assert probe.found == [(True, False)] * 2


def test_nothing_else_is_direct() -> None:
    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        pass

    for call in (receive, send, Method(Probe()).send, functools.partial(send, {}), wait, len):
        other: Any = call
        assert not is_direct(other)


def without_lifespan(app: ASGIApp) -> ASGIApp:
    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            raise LookupError("there is none")
        await app(scope, receive, send)

    return served
