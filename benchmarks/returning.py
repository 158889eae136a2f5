"""Clients that come back by the documented rules: `EventSource`, and a WebSocket of `comet.js`.

Owns when each tries again. All clients of a process are tasks of one loop.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event

import uvloop

from .frames import encode_text
from .http import make_head, make_tail
from .servers import raise_open_files
from .visitors import HOST, UPGRADE

RESTART = bytes([0x88, 2, 1012 >> 8, 1012 & 0xFF])  # a close frame
AT_ONCE = 100  # connections opened at a time in the beginning

Found = tuple[str, float, float]  # the kind, and the seconds until it first tried and was back


class EventSource:
    """Comes back as long after a loss, or a failure, as the server last said."""

    kind = "sse"
    request = make_head("GET", "/comet/events?channel=sse") + make_tail()

    def __init__(self) -> None:
        self._retry = 3.0  # a browser's own, until it is told

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Return once it follows."""
        writer.write(self.request)
        told = await reader.readuntil(b"event: :open")
        found = re.search(rb"retry: (\d+)", told)
        assert found is not None
        self._retry = int(found[1]) / 1000

    def lost(self, last: bytes) -> None:
        """The connection was lost, or could not be made."""

    def pause(self) -> float:
        """Return how long it waits before it tries."""
        return self._retry


class CometSocket:
    """Waits as `comet.js` does: full jitter of 0.5 s that doubles up to 20 s.

    After a close with 1012 it waits for 0.5 to 1.5 s at least.
    """

    kind = "websocket"
    request = make_head("GET", "/comet/socket", *UPGRADE) + make_tail()

    def __init__(self) -> None:
        self._failures = 0
        self._told = False

    async def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Return once it follows."""
        writer.write(self.request)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(encode_text('{"subscribe": {"websocket": "now"}}'))
        await reader.readuntil(b'"position"')
        self._failures = 0

    def lost(self, last: bytes) -> None:
        """The connection was lost, or could not be made; `last` are the last bytes of it."""
        self._told = last.endswith(RESTART)

    def pause(self) -> float:
        """Return how long it waits before it tries."""
        backoff = random.uniform(0, min(20.0, 0.5 * 2.0**self._failures))  # noqa: S311 - a delay
        self._failures += 1
        least = random.uniform(0.5, 1.5) if self._told else 0.0  # noqa: S311 - a delay
        return max(backoff, least)


async def follow(
    client: EventSource | CometSocket, port: int, lost: Event, found: asyncio.Queue[Found]
) -> None:
    """Follow until the server is lost, come back, and follow on."""
    gone, first, back = 0.0, 0.0, False
    while True:
        last = b""
        try:
            reader, writer = await asyncio.open_connection(HOST, port, limit=4096)
            await client.begin(reader, writer)
            if gone and not back:
                found.put_nowait((client.kind, first, time.monotonic() - gone))
                back = True
            last = await read_to_the_end(reader)
            writer.close()
        except (OSError, EOFError):
            pass
        if lost.is_set():
            gone = gone or time.monotonic()
            client.lost(last)
            await asyncio.sleep(client.pause())
            first = first or time.monotonic() - gone


class Spread(EventSource):
    """Reconnects after a random pause of 1 to `seconds` seconds, independent of the server.

    Args:
        seconds: The longest pause.
    """

    kind = "spread"

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def pause(self) -> float:
        """Return how long it waits before it tries."""
        return random.uniform(1.0, self._seconds)  # noqa: S311 - a delay


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    """Return the last bytes that came."""
    last = b""
    try:
        while piece := await reader.read(4096):
            last = piece
    except OSError:
        pass
    return last


async def play_all(port: int, count: int, lost: Event, spread: float | None) -> list[Found]:
    """Return how each of them came back."""
    found: asyncio.Queue[Found] = asyncio.Queue()
    tasks = []
    for number in range(count):
        client = CometSocket() if number % 2 else EventSource()
        if spread is not None:
            client = Spread(spread)
        tasks.append(asyncio.create_task(follow(client, port, lost, found)))
        if number % AT_ONCE == 0:
            await asyncio.sleep(0.05)
    return [await found.get() for _ in tasks]


def play(
    port: int, count: int, lost: Event, results: Queue[list[Found]], spread: float | None
) -> None:
    """Play that many clients in this process, tell how they came back, and stay until killed."""
    gc.disable()  # its pauses would delay clients
    raise_open_files()

    async def stay() -> None:
        results.put(await play_all(port, count, lost, spread))
        await asyncio.sleep(3600)

    uvloop.run(stay())
