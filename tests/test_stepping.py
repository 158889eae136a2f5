from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.stepping import advance

pytestmark = pytest.mark.anyio


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


async def test_one_that_is_given_up_is_closed() -> None:
    seen: list[str] = []

    async def waiting() -> None:
        try:
            await anyio.lowlevel.checkpoint()
        finally:
            seen.append("closed")

    _, rest = advance(waiting())
    carrying: Any = rest
    carrying.send(None)
    carrying.close()
    assert seen == ["closed"]
