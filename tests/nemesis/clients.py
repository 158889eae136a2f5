"""Clients that go to another worker with each connection, and keep their positions.

They do what a page does that follows docs/wire.md, and write down what they see. A client has a
page, whose channels it follows as well, or none.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from asgi_comet.protocol.events import NO_DATA, Event, decode_answer, encode_poll
from asgi_comet.protocol.frames import CloseCode, decode_heard, encode_asked
from asgi_comet.protocol.sse import Decoder, Dispatched, encode_query, read_events
from tests.nemesis import browsers
from tests.nemesis.browsers import HOST, Page, post, request
from tests.nemesis.history import Journal
from tests.nemesis.names import told

BROKEN = (*browsers.BROKEN, WebSocketException)
LIVES = (2.0, 20.0)  # seconds that a stream is kept, at least and at most
PATIENCE = (3.0, 30.0)  # seconds of silence, after which a client tries another worker
AGAIN = (1.0, 3.0)  # seconds until a replaced client comes back, or one without a right asks again
REST = 0.5  # seconds until a client that was refused comes back
STARTS = ("now", "now", "last:3")
FORGETS = 0.02  # the share of connections with which a client begins a channel anew
CLOSES = 0.01  # the share of connections after which a page is closed, and opened again
FORSAKES = 0.005  # the share after which a page leaves without closing
ACKNOWLEDGES = 0.5  # the share of frames that a WebSocket acknowledges


class Client(ABC):
    """A client of one transport.

    Args:
        name: What the history calls it.
        channels: What it follows.
        ports: Of the workers.
        journal: Where it writes what it sees.
        chance: What it chooses by.
        page: The page whose channels it follows as well.

    Attributes:
        positions: Where it is on each channel, or how it begins.
        settled: Whether it neither closes its page nor begins anew.
        connected: Whether a connection is open.
        denied: The channels that it may not read, when it last asked.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[str],
        ports: Sequence[int],
        journal: Journal,
        chance: random.Random,
        page: Page | None = None,
    ) -> None:
        self.name = name
        self.page = page
        self.positions: dict[str, str] = {}
        self.settled = False
        self.connected = False
        self.denied: set[str] = set()
        self.port = chance.choice(ports)
        self._ports = ports
        self._journal = journal
        self._chance = chance
        self._patience = chance.choice(PATIENCE)
        self._number = 0
        self._process = ""
        self._answered = True
        self._rest = 0.0
        self._refused: dict[str, float] = {}
        self._acknowledged: dict[str, str] = {}
        for channel in channels:
            self._begin(channel)

    async def run(self) -> None:
        """Follow the channels until cancelled."""
        while True:
            others = [port for port in self._ports if port != self.port]
            self.port = self._chance.choice(others or self._ports)
            if not self.settled and self._chance.random() < FORGETS:
                self._begin(self._chance.choice([one for one in self.positions if one[0] != "~"]))
            try:
                async with asyncio.timeout(self._chance.uniform(*LIVES)):
                    if await self._arrive():
                        await self._connect()
            except BROKEN:
                pass
            await self._leave()

    async def _connect(self) -> None:
        self.connected = True
        try:
            await self.connect()
        finally:
            self.connected = False
            if self.page is not None:
                self._journal.write("disconnect", client=self.name, process=self._process)

    @abstractmethod
    async def connect(self) -> None:
        """Follow the channels on one connection."""

    async def _arrive(self) -> bool:
        """Open the page if need be; tell whether there is one."""
        page = self.page
        if page is None:
            return True
        if not await page.open(self.port):
            self._rest = REST
            return False
        self._process = page.process
        if page.number != self._number:
            self._number = page.number
            for channel in page.own:
                self._refused.pop(channel, None)
                self._acknowledged.pop(channel, None)
                self._begin(channel, "first")
        browser = page.browser
        about = {"browser": browser.name, "user": browser.user, "process": self._process}
        self._write("connect", generation=browser.generation, **about)
        self._answered = False
        for channel in page.own:
            self._resume(channel)
        return True

    def _resume(self, channel: str) -> None:
        """Go on from where the page is, and acknowledge by it."""
        assert self.page is not None
        position = self.page.positions.get(channel, self.positions[channel])
        if self.page.readers > 1 and "." in position:
            self._write("resume", channel=self._told(channel), position=position)
        self.positions[channel] = position
        self._acknowledge(channel)

    def _acknowledge(self, channel: str) -> bool:
        """Write down that a position is acknowledged, which is then sent; `False` if it was."""
        position = self.positions[channel]
        if channel[0] != "~" or "." not in position or self._acknowledged.get(channel) == position:
            return False
        self._acknowledged[channel] = position
        self._write("ack", channel=self._told(channel), position=position)
        return True

    async def _leave(self) -> None:
        page, chance = self.page, self._chance
        if page is not None and not self.settled and self.port:
            if page.retired or chance.random() < CLOSES:
                await page.close(self.port)
            elif chance.random() < FORSAKES:
                page.forsake()
        rest, self._rest = self._rest, 0.0
        await asyncio.sleep(rest + chance.uniform(0.05, 0.3))

    # What transports need

    @property
    def base(self) -> str:
        return "/comet" if self.page is None else self.page.url

    @property
    def headers(self) -> list[str]:
        return [] if self.page is None else self.page.browser.headers

    @property
    def wanted(self) -> dict[str, str]:
        """The channels to ask for now, and where each is to begin."""
        now = asyncio.get_running_loop().time()
        return {one: at for one, at in self.positions.items() if self._refused.get(one, 0.0) <= now}

    def answered(self) -> None:
        """Write down that the server has answered on this connection for the first time."""
        if not self._answered:
            self._answered = True
            self._write("answered")

    def is_over(self, status: int) -> bool:
        """Take note of a status by which a page is over."""
        if self.page is not None and status in (403, 410):
            self.page.gone(self._process, "closed" if status == 410 else "forbidden")
        return status in (403, 410)

    def refused(self, status: int) -> None:
        if not self.is_over(status):
            self._rest = REST

    def replaced(self) -> None:
        self._write("replaced")
        self._rest = self._chance.uniform(*AGAIN)

    def take(self, event: Event) -> None:
        """Write down an event."""
        channel, position, data, error, reason, _ = event
        if error == "replaced":
            self.replaced()
        if error == "process-closed":
            self.is_over(410)
        if not channel:
            return
        self.answered()
        self.denied.discard(channel)
        name, place = self._told(channel), position or None
        if data is not NO_DATA:
            self._write("recv", channel=name, position=place, **data.get("value", data))
        elif error == "full":
            self._write("full", channel=name, position=place)
        elif error == "forbidden":
            self._write("forbidden", channel=name)
            self.denied.add(channel)
        elif error:
            self._write("closed", channel=name, reason=reason or error)
        else:
            self._write("there", channel=name, position=place)
        self._go_on(channel, place)

    def _go_on(self, channel: str, position: str | None) -> None:
        if position is None:
            self._refuse(channel)
            self._begin(channel, "first" if channel[0] == "~" else "")
            position = self.positions[channel]
        self.positions[channel] = position
        if self.page is not None and channel[0] == "~" and self.page.process == self._process:
            self.page.positions[channel] = position

    def _refuse(self, channel: str) -> None:
        """Ask for a channel again only in a while, or with the next process."""
        again = self._chance.uniform(*AGAIN)
        if self.page is not None and channel in ("~own0", "~own1"):
            self.page.retired, again = True, 1e9
        self._refused[channel] = asyncio.get_running_loop().time() + again

    def _begin(self, channel: str, start: str = "") -> None:
        self._write("begin", channel=self._told(channel))
        self.positions[channel] = start or self._chance.choice(STARTS)

    def _told(self, channel: str) -> str:
        return told(self._process, channel)

    def _write(self, event: str, **fields: Any) -> None:
        self._journal.write(event, client=self.name, **fields)


class PollClient(Client):
    async def connect(self) -> None:
        body = encode_poll(self.wanted).decode()
        path, within = f"{self.base}/poll", self._patience + 6
        answer, found = await post(self.port, path, body, within, self.headers)
        if answer.status != 200:
            self.refused(answer.status)
            return
        self.answered()
        content = decode_answer(found)
        if content.replaced:
            self.replaced()
        for event in content.events:
            self.take(event)


class SseClient(Client):
    async def connect(self) -> None:
        before = self.wanted
        async with request(self.port, "GET", self._path(before), "", self._head(before)) as (
            answer,
            reader,
        ):
            if answer.status != 200:
                self.refused(answer.status)
                return
            decoder = Decoder()
            async with aclosing(pieces(reader, self._patience, chunked=answer.chunked)) as found:
                async for piece in found:
                    # A stream tells of all channels before it ends.
                    goes_on = [self._understand(one, before) for one in decoder.feed(piece)]
                    if not all(goes_on):
                        return

    def _path(self, wanted: dict[str, str]) -> str:
        if not are_positions(wanted):
            return f"{self.base}/events?{encode_query(wanted)}"
        return f"{self.base}/events?{urlencode([('channel', channel) for channel in wanted])}"

    def _head(self, wanted: dict[str, str]) -> list[str]:
        last = [f"Last-Event-ID: {','.join(wanted.values())}"] if are_positions(wanted) else []
        return [*self.headers, *last]

    def _understand(self, dispatched: Dispatched, before: dict[str, str]) -> bool:
        """Take an event; tell whether the connection still brings all channels."""
        if dispatched.name == ":open":
            self.answered()
        for event in read_events(dispatched, list(before)):
            if event.data is not NO_DATA or event.error or before[event.channel] != event.position:
                self.take(event)
        return dispatched.name in (":open", *before)


class WebSocketClient(Client):
    async def connect(self) -> None:
        url = f"ws://{HOST}:{self.port}{self.base}/socket?ack=1"
        head = dict(line.split(": ", 1) for line in self.headers)
        options: dict[str, Any] = {"compression": None, "ping_interval": None, "proxy": None}
        try:
            async with connect(
                url, additional_headers=head, close_timeout=0.2, **options
            ) as socket:
                await socket.send(encode_asked(subscribe=self.wanted))
                while True:
                    async with asyncio.timeout(self._patience):
                        events = decode_heard(await socket.recv())
                    await self._take_events(socket, events)
        except InvalidStatus as refused:
            self.refused(refused.response.status_code)
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 0
            if code == CloseCode.PROCESS_CLOSED:
                self.is_over(410)
            elif code == CloseCode.REPLACED:
                self.replaced()

    async def _take_events(self, socket: Any, events: list[Event]) -> None:
        again: dict[str, str] = {}
        for event in events:
            self.take(event)
            if event.error and event.channel in self.wanted:
                self._acknowledge(event.channel)  # the server takes it so
                again[event.channel] = self.positions[event.channel]
        if again:
            await socket.send(encode_asked(subscribe=again))
        if self._chance.random() < ACKNOWLEDGES:
            new = {one: at for one, at in self.positions.items() if self._acknowledge(one)}
            if new:
                await socket.send(encode_asked(ack=new))


CLIENTS: tuple[type[Client], ...] = (PollClient, SseClient, WebSocketClient)


def are_positions(starts: dict[str, str]) -> bool:
    return all("." in start for start in starts.values())


async def pieces(
    reader: asyncio.StreamReader, patience: float, *, chunked: bool
) -> AsyncGenerator[bytes]:
    """Read a body piece by piece."""
    while True:
        async with asyncio.timeout(patience):
            piece = await (read_chunk(reader) if chunked else reader.read(-1))
        if not piece:
            return
        yield piece


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readuntil(b"\r\n"), 16)
    return (await reader.readexactly(size + 2))[:-2]
