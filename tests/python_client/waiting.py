"""A program that follows an own channel, and waits after the first message."""

from __future__ import annotations

import sys

import anyio

from asgi_comet.client import AsyncClient, Client


def follow_in_thread(url: str) -> None:
    with Client(url) as comet:
        for message in comet.channel("~steps", start="first"):
            print(message.data, flush=True)


async def follow_in_task(url: str) -> None:
    async with AsyncClient(url) as comet:
        async for message in comet.channel("~steps", start="first"):
            print(message.data, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "thread":
        follow_in_thread(sys.argv[2])
    else:
        anyio.run(follow_in_task, sys.argv[2], backend=sys.argv[1])
