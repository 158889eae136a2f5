"""Sources for declared channels that log what happens to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from asgi_comet import ClientProcess, Comet, DeclaredChannel
from tests.kit.turns import wait_all_tasks_blocked


class Log:
    """Sources that note what happens to them, and yield, end or raise as they are told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.go = anyio.Event()
        self.plan: list[Any] = []

    @property
    def source(self) -> Callable[[], AsyncGenerator[Any, None]]:
        """What is declared: it has no parameter."""

        async def source() -> AsyncGenerator[Any, None]:
            async with aclosing(self.named("")) as values:
                async for value in values:
                    yield value

        return source

    async def own(self, process: ClientProcess) -> AsyncGenerator[Any, None]:
        async with aclosing(self.named(process.id)) as values:
            async for value in values:
                yield value

    async def named(self, name: str) -> AsyncGenerator[Any, None]:
        self.said.append(f"started {name}".strip())
        try:
            while True:
                while self.plan:
                    step = self.plan.pop(0)
                    if isinstance(step, Exception):
                        raise step
                    if step is StopAsyncIteration:
                        return
                    yield step
                self.go = anyio.Event()
                await self.go.wait()
        finally:
            self.said.append(f"closed {name}".strip())

    async def do(self, *steps: Any) -> None:
        """Have the source that runs do something."""
        self.plan += steps
        self.go.set()
        await wait_all_tasks_blocked()


def declare_rooms(comet: Comet, log: Log, **options: Any) -> DeclaredChannel[Any, Any]:
    return comet.channel("room:{name}", **options)(log.named)
