"""A proxy between workers and Redis, in a thread of its own, which understands what passes.

Each worker has a socket of its own, so that a fault may hit one worker or all. No bytes are lost
within a connection, as TCP loses none: a hole holds them back, a lost reply ends the connection.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from asgi_comet.brokers.redis import lua
from asgi_comet.brokers.redis.lua import Script
from tests.nemesis.resp import PUSH, Splitter, words_of

T = TypeVar("T")
NAMES = {v.sha.encode(): n.lower() for n, v in vars(lua).items() if isinstance(v, Script)}
UNANSWERED = ("subscribe", "unsubscribe")  # but by pushes
SOON = 10.0  # seconds until a fault that waits for traffic gives up


def name_of(request: bytes) -> str:
    """Return which script, or else which command, a request is."""
    words = words_of(request, 2)
    return NAMES.get(words[-1], words[0].decode().lower())


class Link:
    """One connection of a worker.

    Attributes:
        asked: What Redis has not answered yet, and whether the worker is to see the reply.
        holding: Which requests wait at a gate.
        late: Whether only a batch waits there.
    """

    def __init__(self, worker: int) -> None:
        self.worker = worker
        self.asked: deque[tuple[str, bool]] = deque()
        self.holding: list[str] = []
        self.late = False
        self.requests, self.replies = asyncio.Event(), asyncio.Event()
        self.requests.set()
        self.replies.set()
        self.writers: list[asyncio.StreamWriter] = []

    def cut(self) -> None:
        """End it on both sides."""
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """The proxy of all workers.

    Args:
        folder: Where its sockets are; short, for a socket's path is bounded.
        workers: How many.
        upstream: The socket of Redis.

    Attributes:
        seen: How often each worker has run each script.
    """

    def __init__(self, folder: Path, workers: int, upstream: Path) -> None:
        self.paths = [folder / f"p{worker}" for worker in range(workers)]
        self.seen: list[Counter[str]] = [Counter() for _ in self.paths]
        self._upstream = upstream
        self._links: set[Link] = set()
        self._deaf: set[int] = set()
        self._mute: set[int] = set()
        self._delay: Callable[[], float] | None = None
        self._drop = ""
        self._dropped = threading.Event()
        self._hold = ""
        self._held = threading.Event()
        self._cut = ""
        self._twice = False
        self._servers: list[asyncio.Server] = []
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, daemon=True)

    # Called by the nemesis, in another thread

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SOON)
        self._loop.close()

    def reset(self, workers: Iterable[int]) -> None:
        """End the connections of workers."""

        def cut() -> None:
            for link in self._of(workers):
                link.cut()

        self._soon(cut)

    def hole(self, workers: Iterable[int], *, requests: bool) -> None:
        """Hold back what passes in one direction, on connections that begin later as well."""
        of = list(workers)

        def close() -> None:
            (self._deaf if requests else self._mute).update(of)
            for link in self._of(of):
                (link.requests if requests else link.replies).clear()

        self._soon(close)

    def heal(self) -> None:
        """Let everything pass that is held back, at its usual speed."""

        def open_all() -> None:
            self._deaf.clear()
            self._mute.clear()
            self._delay = None
            for link in self._links:
                link.requests.set()
                link.replies.set()

        self._soon(open_all)

    def slow(self, delay: Callable[[], float]) -> None:
        """Have everything that passes wait for seconds."""
        self._soon(lambda: self._set_delay(delay))

    def twice(self, on: bool) -> None:
        """Send every script twice; workers see the second reply."""
        self._soon(lambda: self._set_twice(on))

    def drop_reply(self, script: str) -> bool:
        """Lose the next reply to a script, with its connection; tell whether one came."""
        self._dropped.clear()
        self._soon(lambda: self._set_drop(script))
        dropped = self._dropped.wait(SOON)
        self._soon(lambda: self._set_drop(""))
        return dropped

    def hold_after(self, script: str, seconds: float) -> bool:
        """Hold back what follows the next reply to a script; tell whether one came."""
        self._held.clear()
        self._soon(lambda: self._set_hold(script))
        held = self._held.wait(SOON)
        self._soon(lambda: self._set_hold(""))
        if held:
            time.sleep(seconds)
        self.heal()
        return held

    def cut_after(self, command: str) -> bool:
        """End the connection on which a command comes, once Redis has it; tell whether it came."""
        self._dropped.clear()
        self._soon(lambda: self._set_cut(command))
        came = self._dropped.wait(SOON)
        self._soon(lambda: self._set_cut(""))
        return came

    def late(self, worker: int) -> str:
        """Hold back requests of a connection that then ends, and release them two batches later."""
        return self._call(self._be_late(worker))

    def move(self, upstream: Path) -> None:
        """Connect to another Redis from now on."""

        def move() -> None:
            self._upstream = upstream
            for link in self._links:
                link.cut()

        self._soon(move)

    # In the proxy's thread

    def _set_delay(self, delay: Callable[[], float]) -> None:
        self._delay = delay

    def _set_twice(self, on: bool) -> None:
        self._twice = on

    def _set_drop(self, script: str) -> None:
        self._drop = script

    def _set_hold(self, script: str) -> None:
        self._hold = script

    def _set_cut(self, command: str) -> None:
        self._cut = command

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _soon(self, act: Callable[[], object]) -> None:
        async def acting() -> None:
            act()

        self._call(acting())

    def _call(self, acting: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(acting, self._loop).result(5 * SOON)

    def _of(self, workers: Iterable[int]) -> list[Link]:
        of = set(workers)
        return [link for link in self._links if link.worker in of]

    async def _listen(self) -> None:
        for worker, path in enumerate(self.paths):
            self._servers.append(await asyncio.start_unix_server(self._accept(worker), path))

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.1)  # until the transports have closed their sockets

    def _accept(self, worker: int) -> Callable[..., Coroutine[Any, Any, None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            link = Link(worker)
            link.writers.append(writer)
            self._links.add(link)
            try:
                await self._serve(link, reader, writer)
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                self._links.discard(link)
                link.cut()

        return serve

    async def _serve(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        from_redis, to_redis = await asyncio.open_unix_connection(self._upstream)
        link.writers.append(to_redis)
        if link.worker in self._deaf:
            link.requests.clear()
        if link.worker in self._mute:
            link.replies.clear()
        pumps = [
            asyncio.create_task(self._pass_requests(link, reader, to_redis)),
            asyncio.create_task(self._pass_replies(link, from_redis, writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pass_requests(
        self, link: Link, reader: asyncio.StreamReader, to_redis: asyncio.StreamWriter
    ) -> None:
        splitter = Splitter()
        while data := await reader.read(65536):
            requests = splitter.feed(data)
            link.holding = [name_of(request) for request in requests]
            if not link.late or "append" in link.holding:
                await self._pass(link.requests)
            self.seen[link.worker].update(link.holding)
            if to_redis.is_closing():
                return
            for name, request in zip(link.holding, requests, strict=True):
                to_redis.write(self._note(link, name, request))
            cut, link.holding = bool(self._cut) and self._cut in link.holding, []
            await to_redis.drain()
            if cut:
                self._cut = ""
                self._dropped.set()
                return

    def _note(self, link: Link, name: str, request: bytes) -> bytes:
        """Expect the reply to a request; return what Redis is sent."""
        if name in UNANSWERED:
            return request
        if self._twice and name in NAMES.values():
            link.asked.append((name, False))
            request += request
        link.asked.append((name, True))
        return request

    async def _pass_replies(
        self, link: Link, from_redis: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        splitter = Splitter()
        while data := await from_redis.read(65536):
            values = splitter.feed(data)
            await self._pass(link.replies)
            for value in values:
                name, shown = ("", True) if value[0] == PUSH else link.asked.popleft()
                if name and name == self._drop:
                    self._drop = ""
                    self._dropped.set()
                    return
                if shown and not writer.is_closing():
                    writer.write(value)
                if name and name == self._hold:
                    self._hold = ""
                    link.replies.clear()
                    self._held.set()
                    await link.replies.wait()
            with suppress(ConnectionError):  # a worker that has gone away
                await writer.drain()

    async def _pass(self, gate: asyncio.Event) -> None:
        if self._delay is not None:
            await asyncio.sleep(self._delay())
        await gate.wait()

    async def _be_late(self, worker: int) -> str:
        links = self._of([worker])
        if not links:
            return "no connection"
        link = links[0]
        link.late = True
        link.requests.clear()
        await until(lambda: "append" in link.holding)
        held = list(link.holding)
        link.writers[0].transport.abort()
        target = self.seen[worker]["append"] + 2
        came = await until(lambda: self.seen[worker]["append"] >= target)
        alive = link in self._links
        link.requests.set()
        kept = "still connected" if alive else "killed before"
        return f"{', '.join(held) or 'nothing'} held, {'' if came else 'no '}two batches, {kept}"


async def until(reached: Callable[[], bool]) -> bool:
    """Wait for traffic, which has no event of its own; at most `SOON`."""
    for _ in range(int(SOON / 0.02)):
        if reached():
            return True
        await asyncio.sleep(0.02)
    return False
