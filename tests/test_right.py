"""The right of a worker to read a source."""

from __future__ import annotations

import pytest

from asgi_comet.channels.right import Right

pytestmark = pytest.mark.anyio


async def test_a_right_that_is_not_held_cannot_be_lost() -> None:
    lost: list[str] = []
    right = Right(lambda: lost.append("lost"))
    right.take()
    assert (right.taken, lost) == (False, [])
    right.give(None)
    assert await right.wait()
    for _ in range(2):
        right.take()
    assert (right.taken, lost) == (True, ["lost"])
