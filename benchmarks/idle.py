"""How long the loop stands still while event streams are idle: `python -m benchmarks.idle [N]`.

The server runs in a process of its own. For a minute nothing is published, so each stream gets four
heartbeats, and Python's garbage collector runs as it likes. Then one message is published.
Prints the longest stretch in which the server's loop did not turn, of both.
"""

from __future__ import annotations

import asyncio
import sys

from .held import ask
from .servers import raise_open_files, server

REQUEST = (
    b"GET /comet/events?channel=sse&position=now HTTP/1.1\r\nHost: localhost\r\n"
    b"Accept: text/event-stream\r\n\r\n"
)
AT_ONCE = 250  # connections opened at a time: fewer than the server's backlog
SECONDS = 60.0  # of idleness
STREAMS = 15_000


class Drain(asyncio.Protocol):
    """A client that reads and forgets, and notes when the message has come."""

    def __init__(self, waiting: set[Drain], message: bytes) -> None:
        self._waiting = waiting
        self._message = message

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._waiting.add(self)
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Look for the message."""
        if self._message in data:
            self._waiting.discard(self)


async def until(port: int, streams: int) -> None:
    """Return once the server has that many listeners."""
    while (await asyncio.to_thread(ask, port, "GET", "/listeners"))["sse"] < streams:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


async def play(port: int, streams: int) -> None:
    """Open all streams, leave them idle, publish once, and print the two longest stretches."""
    loop, waiting, transports = asyncio.get_running_loop(), set[Drain](), list[asyncio.Transport]()
    while len(transports) < streams:
        count = min(AT_ONCE, streams - len(transports))
        opening = (
            loop.create_connection(lambda: Drain(waiting, b"x" * 100), "127.0.0.1", port)
            for _ in range(count)
        )
        transports += [transport for transport, _ in await asyncio.gather(*opening)]
        await until(port, len(transports))
    await asyncio.to_thread(ask, port, "GET", "/lag")
    await asyncio.sleep(SECONDS)
    idle = await asyncio.to_thread(ask, port, "GET", "/lag")
    await asyncio.to_thread(ask, port, "POST", "/publish")
    while waiting:  # noqa: ASYNC110 - an event for each stream would cost the client more
        await asyncio.sleep(0.1)
    told = await asyncio.to_thread(ask, port, "GET", "/lag")
    print(
        f"{streams} event streams: idle for {SECONDS:g} s p99 {idle['p99'] * 1e3:.1f} ms, longest "
        f"{idle['max'] * 1e3:.0f} ms; one message to all: longest {told['max'] * 1e3:.0f} ms"
    )
    for transport in transports:
        transport.close()


def main() -> None:
    """Run with as many streams as open files permit."""
    streams = raise_open_files(int(sys.argv[1]) if len(sys.argv) > 1 else STREAMS)
    with server("benchmarks.faults_server:app", {}) as port:
        asyncio.run(play(port, streams))


if __name__ == "__main__":
    main()
