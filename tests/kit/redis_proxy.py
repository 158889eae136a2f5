"""A proxy before a Redis, in the loop of the test: it cuts, splits, holds back and loses bytes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from asgi_comet.brokers.redis.address import Address, parse_address
from tests.kit.redis import RedisServer

# Small frames, which come in one piece.
FRAME = re.compile(rb">3\r\n\$7\r\nmessage\r\n\$\d+\r\n[^\r]*\r\n\$\d+\r\n([^\r]*)\r\n")

TURNS = 4  # of the loop, in which the other side reads what was written


class Harm:
    """What is done to the bytes of the connections that begin from now on.

    Attributes:
        cut: After how many bytes of replies the connection ends, once.
        piece: How many bytes of replies are written at a time.
        deaf: Whether requests are held back, until `RedisProxy.release`.
        mute: Whether replies are lost.
        lost: What frames begin with that are lost; nothing for `None`.
    """

    def __init__(self) -> None:
        self.cut: int | None = None
        self.piece: int | None = None
        self.deaf = False
        self.mute = False
        self.lost: bytes | None = None


class RedisProxy:
    """Passes bytes between workers and a Redis.

    Args:
        server: Where the connections lead to.
        name: The name of its socket; another one for each proxy of a Redis.

    Attributes:
        harm: What is done to the connections there are, and to those to come.
        passed: How many bytes of replies have passed.
        links: How many connections there were.
        server: Where the connections to come lead to.
    """

    def __init__(self, server: RedisServer, name: str = "p") -> None:
        self.harm = Harm()
        self.passed = 0
        self.links = 0
        self.server = server
        self._path = server.folder / name
        self._held: list[tuple[asyncio.StreamWriter, bytes]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"redis+unix://{self._path}"

    @property
    def address(self) -> Address:
        return parse_address(self.url)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[RedisProxy]:
        Path(self._path).unlink(missing_ok=True)
        listening = await asyncio.start_unix_server(self._accept, self._path)
        try:
            yield self
        finally:
            listening.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for writer, _ in self._held:
                writer.transport.abort()
            await turns()

    def reset(self) -> None:
        """End all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    @contextmanager
    def away(self) -> Iterator[None]:
        """End all connections, and hold back requests of others while the context lasts."""
        self.harm.deaf = True
        self.reset()
        yield
        self.harm.deaf = False
        self.reset()

    async def release(self) -> None:
        """Let the requests go that were held back, also those of connections that have ended."""
        held, self._held = self._held, []
        for writer, data in held:
            with contextlib.suppress(OSError):  # Redis has ended it
                write(writer, data)
                await writer.drain()
                await turns()
            writer.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.links += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_redis, to_redis = await asyncio.open_unix_connection(self.server.path)
        except OSError:  # Redis is away
            writer.transport.abort()
            return
        self._writers.add(writer)
        replies = asyncio.create_task(self._pass_replies(from_redis, writer))
        try:
            await self._pass_requests(reader, to_redis)
        finally:
            replies.cancel()
            self._writers.discard(writer)
            writer.transport.abort()
            if all(to_redis is not held for held, _ in self._held):
                to_redis.transport.abort()

    async def _pass_requests(
        self, reader: asyncio.StreamReader, to_redis: asyncio.StreamWriter
    ) -> None:
        while data := await read(reader):
            if self.harm.deaf:
                self._held.append((to_redis, data))
            else:
                write(to_redis, data)

    async def _pass_replies(
        self, from_redis: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await read(from_redis):
            if self.harm.mute:
                continue
            if self.harm.lost is not None:
                data = FRAME.sub(self._lose, data)
            if self.harm.cut is not None:
                data, rest = data[: self.harm.cut], data[self.harm.cut :]
                self.harm.cut -= len(data)
                await self._write(writer, data)
                if rest or self.harm.cut == 0:
                    self.harm.cut = None
                    break
            else:
                await self._write(writer, data)
        writer.transport.abort()

    def _lose(self, frame: re.Match[bytes]) -> bytes:
        return b"" if frame[1].startswith(self.harm.lost or b"") else frame[0]

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        size = self.harm.piece or len(data) or 1
        for begin in range(0, len(data), size):
            write(writer, data[begin : begin + size])
            self.passed += len(data[begin : begin + size])
            if self.harm.piece is not None:
                await turns()


async def read(reader: asyncio.StreamReader) -> bytes:
    """Read what has come; nothing comes from a connection that was reset."""
    try:
        return await reader.read(65536)
    except OSError:
        return b""


def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write, unless the connection was lost, for which uvloop raises an error."""
    if not writer.is_closing():
        writer.write(data)


async def turns(count: int = TURNS) -> None:
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)
