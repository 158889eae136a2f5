"""Browsers and their tabs, as a test drives them.

Must not know how requests are sent (`traffic.py`), nor how messages are read (`reading.py`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import httpx

from asgi_comet.position import Position
from asgi_comet.testing.lines import Cutting
from asgi_comet.testing.pages import read_page
from asgi_comet.testing.reading import ChannelReader, Transport
from asgi_comet.testing.traffic import Sender, Traffic, soon
from asgi_comet.testing.workplace import Workplace

__all__ = ["Browser", "Tab"]


class Browser:
    """A browser: cookies, and tabs. Made by `CometApp.browser`.

    Args:
        place: Where the application runs.
        user: The answer of `identify`, if given.
        headers: Sent with every request.

    Attributes:
        http: The client of httpx that sends ordinary requests.
        tabs: The tabs that were opened, closed ones included.
    """

    def __init__(self, place: Workplace, user: Any, headers: Mapping[str, str]) -> None:
        self._sender = Sender(place, user, headers)
        self.http: httpx.AsyncClient = self._sender.http
        self.tabs: list[Tab] = []
        self._place = place

    async def open(self, path: str = "/", **options: Any) -> Tab:
        """Load a page in a new tab, with what `comet.script()` has put there.

        Args:
            path: The path of the page.
            **options: As of `httpx.AsyncClient.get`.

        Raises:
            AssertionError: The answer is an error.
        """
        tab = self.tab()
        answer = await tab.get(path, **options)
        if answer.is_error:
            raise AssertionError(f"expected a page at {path}, got {answer.status_code}")
        tab.load(answer.text)
        return tab

    def tab(self) -> Tab:
        """Return a new tab without a page."""
        tab = Tab(self, self._place, Traffic(self._place, self._sender))
        self.tabs.append(tab)
        return tab

    def duplicate(self, tab: Tab) -> Tab:
        """Return a new tab with the page and the client process of another one."""
        new = self.tab()
        new.page, new.traffic.process = tab.page, tab.process
        return new


class Tab:
    """A tab of a browser. Its requests carry the header `Comet-Process`.

    Attributes:
        browser: Its browser.
        page: The values of `comet.script()` in the page.
        traffic: Its connections, which `check()` looks at.
    """

    def __init__(self, browser: Browser, place: Workplace, traffic: Traffic) -> None:
        self.browser: Browser = browser
        self.page: dict[str, Any] = {}
        self.traffic: Traffic = traffic
        self._place = place

    @property
    def process(self) -> str:
        """The token of its client process; empty as long as it has none."""
        return self.traffic.process

    @property
    def closed(self) -> bool:
        """Whether its client process has closed."""
        return self.traffic.closed

    @property
    def channels(self) -> list[ChannelReader]:
        """The channels that it reads, or has read."""
        return list(self.traffic.channels)

    def load(self, html: str) -> None:
        """Take the values of `comet.script()` from a page."""
        self.page = read_page(html)
        self.traffic.process = self.page.get("process", "")

    async def open_process(self) -> str:
        """Return the token of its client process, which is opened if there is none yet."""
        await soon(self.traffic.open_process(), "open")
        return self.process

    # Ordinary requests

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send a request as the page would, with `Comet-Process`.

        Args:
            method: The method.
            url: The URL, or a path.
            **options: As of `httpx.AsyncClient.request`.
        """
        http = self.browser.http
        async with self._place.watch.act():
            headers = {"Comet-Process": self.process} if self.process else {}
            headers |= dict(options.pop("headers", None) or {})
            request = self.traffic.last = http.build_request(
                method, url, headers=headers, **options
            )
            return await http.send(request)

    async def get(self, url: str, **options: Any) -> httpx.Response:
        """Send a GET request, see `request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> httpx.Response:
        """Send a POST request, see `request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> httpx.Response:
        """Send a PUT request, see `request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> httpx.Response:
        """Send a PATCH request, see `request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> httpx.Response:
        """Send a DELETE request, see `request`."""
        return await self.request("DELETE", url, **options)

    # Channels

    def channel(
        self,
        name: str | Mapping[str, str],
        *,
        start: str | Position | None = None,
        transport: Transport = "websocket",
    ) -> ChannelReader:
        """Read a channel.

        Args:
            name: The name that `comet.script()` was given, or that the server knows; or a
                reference, which an endpoint that returns a `Channel` answers with.
            start: `now`, `first`, `last:10` or a position; by default what the page says, else
                `now`.
            transport: `websocket`, `sse`, `poll` or `registration`. All own channels of the tab
                and all that are read by registration have one connection, of the newest transport.

        Raises:
            ValueError: There is no such transport.
        """
        if transport not in {"websocket", "sse", "poll", "registration"}:
            raise ValueError(
                "expected 'websocket', 'sse', 'poll' or 'registration' as transport, "
                f"got {transport!r:.80}"
            )
        known: Mapping[str, Mapping[str, str]] = self.page.get("channels", {})
        told = known.get(name, {"channel": name}) if isinstance(name, str) else name
        traffic = self.traffic
        traffic.process = traffic.process or told.get("url", "").partition("/p/")[2]
        begin = str(start or told.get("position", "now"))
        return traffic.read(told["channel"], begin, transport)

    def duplicate(self) -> Tab:
        """Return a tab with the same page and client process, as browsers duplicate one."""
        return self.browser.duplicate(self)

    def leave(self) -> None:
        """Leave without a word, as a device does whose battery is empty."""
        self.traffic.leave()

    async def close(self) -> None:
        """Close the tab: its client process closes, too."""
        self.leave()
        if self.process:
            await self.post(self._place.url(f"p/{self.process}/close"))
        await self._place.watch.settle()

    # Faults

    @asynccontextmanager
    async def cut(self, where: Cutting) -> AsyncGenerator[None]:
        """Cut the connections that read channels, and let none be opened meanwhile.

        Requests of the page itself are not concerned.

        Args:
            where: `before answer`: at once. `after answer`: when the server has sent something,
                which is lost. `inside a frame`: the same, and half of it arrives.
        """
        async with self._faulty(self.traffic.line.cut(where)):
            yield

    @asynccontextmanager
    async def stall(self) -> AsyncGenerator[None]:
        """Take nothing from the connections that read channels, which stay open."""
        async with self._faulty(self.traffic.line.stall()):
            yield

    @asynccontextmanager
    async def _faulty(self, fault: AbstractContextManager[None]) -> AsyncGenerator[None]:
        await self._place.watch.settle()
        with fault:
            await self._place.watch.settle()  # until the server knows
            yield
            await self._place.watch.settle()
        await self._place.watch.settle()

    async def repeat(self) -> httpx.Response | None:
        """Send the last request of the tab once more, as a network may, of any kind.

        Returns:
            The answer; `None` if the server holds the request.

        Raises:
            RuntimeError: The tab has sent none.
        """
        return await self.traffic.repeat()
