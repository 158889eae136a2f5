"""A proxy that gives each connection to the next of several servers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle

from tests.kit.serving import Address, bound_socket

CHUNK = 2**16


@contextmanager
def rotate(servers: Sequence[Address]) -> Iterator[Address]:
    """Pass each connection on to the next server; the tests' clients make one for each request."""
    listening = bound_socket()
    turn = cycle(servers)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    open_: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            server = next(turn)
            with suppress(OSError, asyncio.CancelledError):  # `run` ends it
                there = await asyncio.open_connection(server.host, server.port, limit=CHUNK)
                open_.add(task)
                await _join((reader, writer), there)
        finally:
            open_.discard(task)
            writer.transport.abort()

    async def run() -> None:
        proxy = await asyncio.start_server(accept, sock=listening, limit=CHUNK)
        await stop.wait()
        loop.remove_reader(listening)
        await _end(open_)
        proxy.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        yield Address(*listening.getsockname())
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        assert not thread.is_alive()


async def _end(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel the tasks of all connections, also of those that begin just now.

    Call before the server closes: a closed server cannot begin with a connection, and leaves its
    socket open.
    """
    this = asyncio.current_task()
    while asyncio.all_tasks() != {this}:
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
    for _ in range(2):  # the last sockets are closed
        await asyncio.sleep(0)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(client: Stream, server: Stream) -> None:
    """Copy both ways; when one way breaks, both connections end."""
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_copy(client[0], server[1]))
            tasks.create_task(_copy(server[0], client[1]))
    except* OSError:
        pass
    finally:
        for _, writer in (client, server):
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
