"""Clients that go to another worker with each connection, and keep their positions.

They do what a page does that follows docs/wire.md, and write down what they see.
"""

from __future__ import annotations

import asyncio
import json
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.nemesis.history import Journal

HOST = "127.0.0.1"
BROKEN = (OSError, EOFError, asyncio.LimitOverrunError, WebSocketException, TimeoutError)
LIVES = (2.0, 20.0)  # seconds that a stream is kept, at least and at most
PATIENCE = (3.0, 30.0)  # seconds of silence, after which a client tries another worker
STARTS = ("now", "now", "last:3")
FORGETS = 0.02  # the share of connections with which a client begins a channel anew


class Client(ABC):
    """A client of one transport.

    Args:
        name: What the history calls it.
        channels: What it follows.
        ports: Of the workers.
        journal: Where it writes what it sees.
        chance: What it chooses by.

    Attributes:
        positions: Where it is on each channel, or how it begins.
    """

    def __init__(
        self,
        name: str,
        channels: Sequence[str],
        ports: Sequence[int],
        journal: Journal,
        chance: random.Random,
    ) -> None:
        self.name = name
        self.positions: dict[str, str] = {}
        self._ports = ports
        self._port = chance.choice(ports)
        self._journal = journal
        self._chance = chance
        self._patience = chance.choice(PATIENCE)
        for channel in channels:
            self._begin(channel)

    async def run(self) -> None:
        """Follow the channels until cancelled."""
        while True:
            self._port = self._chance.choice([port for port in self._ports if port != self._port])
            if self._chance.random() < FORGETS:
                self._begin(self._chance.choice(list(self.positions)))
            with suppress(*BROKEN):
                async with asyncio.timeout(self._chance.uniform(*LIVES)):
                    await self.connect()
            await asyncio.sleep(self._chance.uniform(0.05, 0.3))

    @abstractmethod
    async def connect(self) -> None:
        """Follow the channels on one connection."""

    def _begin(self, channel: str) -> None:
        self._write("begin", channel)
        self.positions[channel] = self._chance.choice(STARTS)

    def take(self, event: dict[str, Any]) -> None:
        """Write down an event, in the shape of the poll."""
        channel = event.get("channel")
        if channel is None:
            return
        position = event.get("position")
        match event:
            case {"data": data}:
                self._write("recv", channel, position=position, **data)
            case {"error": "full"}:
                self._write("full", channel, position=position)
            case {"error": error}:
                self._write("closed", channel, reason=event.get("reason", error))
            case _:
                self._write("there", channel, position=position)
        if position is None:
            self._begin(channel)
        else:
            self.positions[channel] = position

    def _write(self, event: str, channel: str, **fields: Any) -> None:
        self._journal.write(event, client=self.name, channel=channel, **fields)


class PollClient(Client):
    async def connect(self) -> None:
        body = json.dumps({"channels": self.positions})
        status, answer = await post(self._port, "/comet/poll", body, self._patience + 6)
        if status == 200:
            for event in json.loads(answer)["events"]:
                self.take(event)
        else:
            await asyncio.sleep(0.5)


class SseClient(Client):
    async def connect(self) -> None:
        before = dict(self.positions)
        async with request(self._port, *self._head()) as (status, reader):
            if status != 200:
                await asyncio.sleep(0.5)
                return
            async with aclosing(blocks(reader, self._patience)) as found:
                async for fields in found:
                    if not self._understand(fields, before):
                        return

    def _head(self) -> tuple[str, ...]:
        query = [("channel", channel) for channel in self.positions]
        if all(start not in STARTS for start in self.positions.values()):
            last = ",".join(self.positions.values())
            return "GET", f"/comet/events?{urlencode(query)}", "", f"Last-Event-ID: {last}"
        query += [("position", start) for start in self.positions.values()]
        return "GET", f"/comet/events?{urlencode(query)}", ""

    def _understand(self, fields: dict[str, str], before: dict[str, str]) -> bool:
        """Take an event; tell whether the connection still brings all channels."""
        name = fields.get("event", "")
        if not name:
            return True
        value, places = json.loads(fields["data"]), fields.get("id", "").split(",")
        if name == ":open":
            for channel, position in value["positions"].items():
                if before[channel] in STARTS:
                    self.take({"channel": channel, "position": position})
            return True
        channel = value["channel"] if name in (":full", ":closed", ":forbidden") else name
        if channel not in self.positions:  # :deactivated, and others that end the connection
            return False
        place = places[list(self.positions).index(channel)]
        if name == channel:
            self.take({"channel": channel, "position": place, "data": value})
            return True
        event = {"error": name[1:], **value}
        self.take(event if place == "-" else {**event, "position": place})
        return False


class WebSocketClient(Client):
    async def connect(self) -> None:
        url = f"ws://{HOST}:{self._port}/comet/socket"
        async with connect(
            url, compression=None, ping_interval=None, close_timeout=0.2, proxy=None
        ) as socket:
            await socket.send(json.dumps({"subscribe": self.positions}))
            while True:
                async with asyncio.timeout(self._patience):
                    frame = json.loads(await socket.recv())
                for event in frame.get("events", ()):
                    self.take(event)
                    if "error" in event and "channel" in event:
                        channel = event["channel"]
                        again = {channel: self.positions[channel]}
                        await socket.send(json.dumps({"subscribe": again}))


CLIENTS: tuple[type[Client], ...] = (PollClient, SseClient, WebSocketClient)


@asynccontextmanager
async def request(
    port: int, method: str, path: str, body: str, *headers: str
) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """Ask a worker; the body of its answer is still to be read."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}:{port}", "Connection: close", *headers]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
        writer.write("\r\n".join([*lines, "", body]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        yield int(head.split(b" ", 2)[1]), reader
    finally:
        writer.transport.abort()


async def post(port: int, path: str, body: str, within: float) -> tuple[int, bytes]:
    """Return the status and the body of an answer that ends with its connection."""
    async with asyncio.timeout(within), request(port, "POST", path, body) as (status, reader):
        answer = await reader.read(-1)
    return status, answer


async def blocks(reader: asyncio.StreamReader, patience: float) -> AsyncGenerator[dict[str, str]]:
    """Read the fields of events from a chunked body, one event after the other."""
    text = ""
    while True:
        async with asyncio.timeout(patience):
            size = int(await reader.readuntil(b"\r\n"), 16)
            chunk = await reader.readexactly(size + 2)
        if not size:
            return
        text += chunk[:-2].decode()
        *whole, text = text.split("\n\n")
        for block in whole:
            lines = [line for line in block.split("\n") if not line.startswith(":")]
            yield dict(line.partition(": ")[::2] for line in lines if line)
