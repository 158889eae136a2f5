"""Browsers and their pages: a cookie jar, and client processes of one session.

A page is read by one client or by two at once, which take its channels from each other.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from tests.nemesis.history import Journal

HOST = "127.0.0.1"
UNKNOWN = "?"
"""The user of a browser that does not know whether its login was done."""

ANSWER = 30.0  # seconds until a request is given up


class Answer(NamedTuple):
    """The head of an answer."""

    status: int
    cookies: tuple[str, ...]
    chunked: bool
    length: int


class Browser:
    """A cookie jar.

    Attributes:
        name: What the history calls it.
        user: The user; `""` for a visitor.
        generation: How often a login or a logout has changed the cookie.
        lock: Held by what changes the cookie.
        left: The paths of processes that were not closed for certain.
    """

    def __init__(self, name: str, journal: Journal) -> None:
        self.name = name
        self.user = ""
        self.generation = 0
        self.lock = asyncio.Lock()
        self.journal = journal
        self.left: dict[str, str] = {}
        self._jar: dict[str, str] = {}
        self._acts = itertools.count(1)

    @property
    def headers(self) -> list[str]:
        pairs = "; ".join(f"{name}={value}" for name, value in self._jar.items())
        return [f"Cookie: {pairs}"] if pairs else []

    def keep(self, answer: Answer) -> None:
        """Keep the cookies that an answer sets."""
        for cookie in answer.cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            self._jar[name] = value

    async def ask(self, port: int, path: str, body: object = None) -> tuple[int, bytes]:
        """Ask a worker, and keep its cookie."""
        text = "" if body is None else json.dumps(body)
        async with (
            asyncio.timeout(ANSWER),
            request(port, "POST", path, text, self.headers) as (answer, reader),
        ):
            found = await reader.read(-1)
            self.keep(answer)
        return answer.status, found

    async def close_left(self, port: int, process: str) -> bool | None:
        """Close a process that may still be open; tell whether that is certain.

        Returns `None` if the worker has not answered.
        """
        self.journal.write("closing", process=process)
        try:
            status, _ = await self.ask(port, f"{self.left[process]}/close", "")
        except BROKEN:
            return None
        if status in (204, 403, 410):
            del self.left[process]
        return status in (204, 410)

    async def act(self, name: str, port: int, path: str, user: str = "") -> bool:
        """Do what changes users and rights; tell whether it was done for certain."""
        async with self.lock:
            act = f"{self.name} {next(self._acts)}"
            about = {"name": name, "browser": self.name, "user": user}
            self.journal.write("act", act=act, **about)
            if name in ("login", "logout"):
                self.user = UNKNOWN  # until it is certain
            status = await self._attempt(port, path, {"user": user} if user else None)
            done = status == 200
            if name in ("login", "logout") and done:
                self.generation += 1
                self.user = user
            found = {"generation": self.generation, "done": done, "status": status}
            self.journal.write("acted", act=act, **about, **found)
        return done

    async def _attempt(self, port: int, path: str, body: object) -> int:
        try:
            return (await self.ask(port, path, body))[0]
        except BROKEN:
            return 0


class Page:
    """A page of a browser: a client process, which is opened again when it has closed.

    Args:
        browser: The browser.
        own: The names of the channels of the process that the page follows.
        topics: The keys that the page listens on, by notifier.
        readers: How many clients read the page.

    Attributes:
        process: The client process; `""` while there is none.
        url: The path of its endpoints.
        positions: Where the page is on its own channels.
        number: How many processes the page has had.
    """

    def __init__(
        self, browser: Browser, own: Sequence[str], topics: dict[str, str], readers: int
    ) -> None:
        self.browser = browser
        self.own = own
        self.readers = readers
        self.process = ""
        self.url = ""
        self.port = 0
        self.positions: dict[str, str] = {}
        self.number = 0
        self.retired = False
        self._topics = topics

    async def open(self, port: int) -> bool:
        """Open a process, unless there is one; tell whether there is."""
        async with self.browser.lock:
            if self.process:
                return True
            status, body = await self.browser.ask(port, "/page", {"topics": self._topics})
            if status != 200:
                return False
            opened = json.loads(body)
            self.process, self.url, self.port = opened["process"], opened["url"], port
            self.positions, self.retired = {}, False
            self.number += 1
            self._write("opened", browser=self.browser.name, readers=self.readers)
            return True

    def gone(self, process: str, how: str) -> None:
        """Take note that a process is closed, or is of a session without this cookie."""
        if process == self.process:
            self._write("gone", how=how)
            self.process = ""

    async def close(self, port: int) -> None:
        """Close the process."""
        await self.close_anywhere([port])

    async def close_anywhere(self, ports: Iterable[int]) -> bool | None:
        """Close the process at the first worker that answers; tell whether that is certain.

        Returns `None` if no worker has answered.
        """
        process, done = self.process, None
        if not process:
            return True
        self.forsake()
        for port in ports:
            done = await self.browser.close_left(port, process)
            if done is not None:
                break
        return done

    def forsake(self) -> None:
        """Leave without a word: the process expires."""
        if self.process:
            self.browser.left[self.process] = self.url
            self.process = ""

    def _write(self, event: str, **fields: Any) -> None:
        self.browser.journal.write(event, process=self.process, **fields)


BROKEN = (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError)


@asynccontextmanager
async def request(
    port: int, method: str, path: str, body: str, headers: Sequence[str] = ()
) -> AsyncIterator[tuple[Answer, asyncio.StreamReader]]:
    """Ask a worker; the body of its answer is still to be read."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: close", *headers]
        if body or method == "POST":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
        writer.write("\r\n".join([*lines, "", body]).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        cookies = [line[11:].strip() for line in head if line.lower().startswith("set-cookie:")]
        chunked = any(line.lower() == "transfer-encoding: chunked" for line in head)
        lengths = [line[15:] for line in head if line.lower().startswith("content-length:")]
        status, length = int(head[0].split(" ", 2)[1]), int(*lengths)
        yield Answer(status, tuple(cookies), chunked, length), reader
    finally:
        writer.transport.abort()


async def post(
    port: int, path: str, body: str, within: float, headers: Sequence[str] = ()
) -> tuple[Answer, bytes]:
    """Return the head and the body of an answer that ends with its connection."""
    async with (
        asyncio.timeout(within),
        request(port, "POST", path, body, headers) as (answer, reader),
    ):
        found = await reader.read(-1)
    if len(found) < answer.length:
        raise EOFError("the worker was killed between the head of its answer and the body")
    return answer, found
