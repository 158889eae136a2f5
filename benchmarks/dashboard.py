"""What an open dashboard costs the server: `python -m benchmarks.dashboard [MEMBERS] [TABS]`.

Everything runs in one process without sockets, and a clock that is advanced by hand makes each
sample. A sample is taken for the figures, the channels, the people and the workers at once, is
delivered to one stream, and may be followed by the request of a page that shows a list. Prints
the CPU time of 100 of each, and of as many seconds without a dashboard.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any

from asgi_comet import Comet, Settings
from asgi_comet.testing import ManualClock

MEMBERS, TABS, ROUNDS = 10_000, 2_000, 100
ROWS = 60  # that the page asks for
TURNS = 50  # of the event loop, until all tasks wait
TOKEN = "t" * 32
SCREENS = ("overview", "channels", "people", "workers")
KIND = {"content-type": "application/json"}

Message = MutableMapping[str, Any]


class Client:
    """A client of an ASGI application."""

    def __init__(self, comet: Comet) -> None:
        self._comet = comet
        self._cookie = ""
        self.read = asyncio.Event()
        self.body = b""

    async def request(self, method: str, path: str, query: str = "", body: Any = None) -> bytes:
        """Send a request, and return the body of the answer when it is complete."""
        waiting = [
            {"type": "http.request", "body": b"" if body is None else json.dumps(body).encode()}
        ]

        async def receive() -> Message:
            if waiting:
                return waiting.pop()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            for name, value in message.get("headers", ()):
                if name == b"set-cookie":
                    self._cookie = value.decode().partition(";")[0]
            self.body += message.get("body", b"")
            self.read.set()

        headers = {"authorization": f"Bearer {TOKEN}", "cookie": self._cookie, **KIND}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "scheme": "http",
        }
        await self._comet.app(scope, receive, send)
        return self.body

    async def open_tab(self) -> None:
        """Open a client process, and follow a channel."""
        opened = json.loads(await self.request("POST", "/open"))
        await self.request("GET", f"/p/{opened['process']}/events", "channel=room:0")


async def post(comet: Comet, path: str, body: Any = None) -> bytes:
    """Send a request of the page."""
    return await Client(comet).request("POST", path, body=body)


async def settle() -> None:
    """Return once all tasks wait."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def measure(work: Callable[[], Awaitable[None]]) -> list[float]:
    """Return the CPU time of each round, in seconds."""
    found = []
    for _ in range(ROUNDS):
        before = time.process_time()
        await work()
        found.append(time.process_time() - before)
    return found


def tell(what: str, times: list[float]) -> None:
    """Print a line."""
    middle, worst = statistics.median(times), max(times)
    print(f"{what}: median {middle * 1000:.2f} ms, longest {worst * 1000:.2f} ms of CPU")


async def run(members: int, tabs: int) -> None:
    """Measure, and print the results."""
    clock = ManualClock()
    settings = Settings(max_family_channels=members, linger=1e6, process_timeout=1e6)
    comet = Comet("k" * 32, admin=TOKEN, settings=settings, clock=clock)
    rooms = comet.family("room:{room}", type=str)
    async with comet.lifespan():
        for number in range(members):
            rooms.channel(room=str(number)).publish("hello")
        following: list[asyncio.Task[Any]] = [
            asyncio.create_task(Client(comet).open_tab()) for _ in range(tabs)
        ]
        await settle()

        async def second() -> None:
            clock.advance(1.0)
            await settle()

        tell("a second without a dashboard", await measure(second))
        page = Client(comet)
        query = "&".join(f"channel=:admin/{name}" for name in SCREENS)
        following.append(asyncio.create_task(page.request("GET", "/admin/events", query)))
        for _ in range(3):  # the first sample is before the page follows all of them
            clock.advance(1.1)
            await settle()

        async def tick() -> None:
            page.read.clear()
            page.body = b""
            clock.advance(1.1)
            await page.read.wait()
            await settle()
            assert page.body.count(b"event: :admin/") == len(SCREENS), page.body

        tell("a sample", await measure(tick))

        async def look(path: str, **asked: Any) -> None:
            await tick()
            found = json.loads(await post(comet, f"/admin/{path}", asked | {"count": ROWS}))
            assert len(found["rows"]) == ROWS

        channels = partial(look, "channels", of="room:{room}", start=members // 2)
        tell("a sample, and a page of channels", await measure(channels))
        people = partial(look, "people", start=tabs // 2)
        tell("a sample, and a page of people", await measure(people))
        for task in following:
            task.cancel()


def main() -> None:
    """Measure what the command line says."""
    given = [int(one) for one in sys.argv[1:]]
    members, tabs = [*given, *(MEMBERS, TABS)[len(given) :]]
    print(f"{members} members of a family, {tabs} tabs")
    asyncio.run(run(members, tabs))


if __name__ == "__main__":
    main()
