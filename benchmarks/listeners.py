"""One queue per listener: how the peers that bring no channels of their own are told to be used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

queues: set[asyncio.Queue[str]] = set()


async def publish(texts: list[str]) -> None:
    """Put the texts into every queue, in one turn of the loop."""
    for queue in queues:
        for text in texts:
            queue.put_nowait(text)


async def listen() -> AsyncIterator[str]:
    """Yield what is published from now on."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    queues.add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        queues.discard(queue)
