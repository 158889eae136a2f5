"""Connections of a client on asyncio or trio.

Owns connections and the client process. Must not know which step is next: `protocol/following.py`
says so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import anyio.abc
import httpx
from anyio import sleep

from asgi_comet.client.frames import Frames
from asgi_comet.client.replies import JSON, LOST, log_pause, read_process, read_reply, tell_lost
from asgi_comet.client.target import Target
from asgi_comet.protocol.following import FIRST_EVENT
from asgi_comet.protocol.steps import (
    Close,
    Lost,
    OpenProcess,
    OpenSocket,
    OpenStream,
    Pause,
    Post,
    Read,
    Reply,
    Send,
    Step,
)

__all__ = ["AsyncConnection", "AsyncLine"]

GOODBYE = 1.0  # seconds to close a connection, or a client process, properly


class AsyncLine:
    """Requests of one client, and its client process.

    Args:
        target: Where the client connects.

    Attributes:
        target: The same.
    """

    def __init__(self, target: Target) -> None:
        self.target: Target = target
        self._http = httpx.AsyncClient(
            headers=target.headers,
            cookies=target.cookies,
            timeout=None,  # noqa: S113 - each step has its own
            verify=target.tls or True,
        )
        self._opening = anyio.Lock()
        self._process = target.process

    async def process(self) -> str:
        """Return the token of the client process; open one first."""
        async with self._opening:
            if not self._process:
                self._process = read_process(await self.ask("open", b"{}", FIRST_EVENT))
            return self._process

    def check(self) -> None:
        """Check that the client is open.

        Raises:
            RuntimeError: It is not.
        """
        if self._http.is_closed:
            raise RuntimeError("expected a client that is open, got one that has been closed")

    def forget(self) -> None:
        """Forget the client process, which has closed."""
        self._process = self.target.process

    async def ask(self, path: str, body: bytes, within: float) -> Reply:
        """Send a request.

        Raises:
            Lost: There was no reply in time.
        """
        url = f"{self.target.url}/{path}"
        try:
            with anyio.fail_after(within):
                request = self._http.build_request("POST", url, content=body, headers=JSON)
                request.stream = _Body(body)
                return read_reply(await self._http.send(request))
        except LOST as error:
            raise tell_lost(error) from error

    async def open_stream(self, path: str) -> httpx.Response:
        """Ask for an event stream; its head is read, or all of what is none."""
        request = self._http.build_request("GET", f"{self.target.url}/{path}")
        response = await self._http.send(request, stream=True)
        if response.status_code != 200:
            await response.aread()
        return response

    def make_frames(self, path: str) -> Frames:
        """Return a WebSocket whose handshake is to be sent."""
        url = f"{self.target.url}/{path}"
        cookie = self._http.build_request("GET", url).headers.get("Cookie")
        return Frames(url, self.target.headers | ({"Cookie": cookie} if cookie else {}))

    async def close(self) -> None:
        """Close the client process, if this client has opened it, and all connections."""
        if self._process != self.target.process:
            with anyio.CancelScope(shield=True), suppress(Lost):
                await self.ask(f"p/{self._process}/close", b"", GOODBYE)
            self.forget()
        await self._http.aclose()


class AsyncConnection:
    """Runs steps, over one connection at a time."""

    def __init__(self, line: AsyncLine) -> None:
        self._line = line
        self._base = ""
        self._open: _Stream | _Socket | None = None

    async def run(self, step: Step) -> object:
        """Run a step; return what came of it, or `Lost`.

        Raises:
            RuntimeError: The client has been closed.
        """
        self._line.check()
        try:
            return await self._run(step)
        except Lost as lost:
            return lost
        except LOST as error:
            return tell_lost(error)

    async def _run(self, step: Step) -> object:
        match step:
            case OpenProcess():
                token = await self._line.process()
                self._base = "" if self._line.target.process else f"p/{token}/"
            case Post():
                return await self._line.ask(self._base + step.path, step.body, step.within)
            case OpenStream():
                with anyio.fail_after(step.within):
                    response = await self._line.open_stream(self._base + step.path)
                    self._open = _Stream(response)
                    return read_reply(response)
            case OpenSocket():
                with anyio.fail_after(step.within):
                    frames = self._line.make_frames(self._base + step.path)
                    self._open = await _connect(self._line.target, frames)
                    await self._open.shake_hands()
            case Read() if self._open is not None:
                with anyio.fail_after(step.within):
                    return await self._open.read()
            case Send() if isinstance(self._open, _Socket):
                await self._open.send(step.text)
            case Pause():
                log_pause(self._line.target, step)
                await sleep(step.seconds)
            case Close():
                await self.close()
        return None

    async def close(self) -> None:
        """Close the stream or the WebSocket, if one is open."""
        held, self._open = self._open, None
        if held is not None:
            with anyio.move_on_after(GOODBYE, shield=True):
                await held.close()


class _Body(httpx.AsyncByteStream):
    """The body of a request. That of httpx is a generator, of which trio warns if a write fails."""

    def __init__(self, body: bytes) -> None:
        self._pieces = iter([body])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


class _Stream:
    """An event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()

    async def read(self) -> bytes:
        return await anext(self._pieces, b"")

    async def close(self) -> None:
        await self._response.aclose()
        with suppress(*LOST):
            # The generators inside httpx end by the error, else they are left to the collector,
            # of which trio warns.
            async for _ in self._pieces:
                pass


class _Socket:
    """A WebSocket."""

    def __init__(self, stream: anyio.abc.ByteStream, frames: Frames) -> None:
        self._stream = stream
        self._frames = frames

    async def shake_hands(self) -> None:
        await self._flush()
        while not self._frames.opened:
            await self._feed()

    async def send(self, text: str) -> None:
        self._frames.send(text)
        await self._flush()

    async def read(self) -> str:
        while (text := self._frames.next()) is None:
            await self._feed()
        return text

    async def _feed(self) -> None:
        """Take bytes, and answer pings."""
        try:
            data = await self._stream.receive()
        except anyio.EndOfStream:
            data = b""
        self._frames.feed(data)
        await self._flush()

    async def _flush(self) -> None:
        if output := self._frames.output():
            await self._stream.send(output)

    async def close(self) -> None:
        self._frames.close()
        try:
            with suppress(*LOST):
                await self._flush()
        finally:
            await anyio.aclose_forcefully(self._stream)


async def _connect(target: Target, frames: Frames) -> _Socket:
    if target.tls is None:
        return _Socket(await anyio.connect_tcp(target.host, target.port), frames)
    stream = await anyio.connect_tcp(
        target.host, target.port, ssl_context=target.tls, tls_standard_compatible=False
    )
    return _Socket(stream, frames)
