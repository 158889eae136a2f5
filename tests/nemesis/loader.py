"""A process of clients and HTTP publishers: `python -m tests.nemesis.loader SETUP`.

The setup is JSON: `name`, `journal`, `ports`, `kinds`, `clients`, `publishers`, `seed`.
Lines on standard input tell it what to do: `quiet`, `loud`, and at the end `finish TOPS`, where
`TOPS` is JSON and says where each channel ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from pathlib import Path
from typing import Any

from tests.nemesis.clients import BROKEN, CLIENTS, Client, post
from tests.nemesis.history import Journal
from tests.nemesis.names import burst, choose

PAUSE = 0.3  # seconds between two bursts of a publisher
ANSWER = 90.0  # seconds until a publisher gives up a request
CATCH_UP = 30.0  # seconds in which all clients reach the end
REFUSED = (ConnectionRefusedError,)


class Loader:
    """The clients and publishers of one process."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._journal = Journal(Path(setup["journal"]))
        self._loud = asyncio.Event()
        self._loud.set()
        self._busy = 0
        self._clients = [self._make_client(number) for number in range(setup["clients"])]

    async def run(self) -> None:
        """Run until told to finish, or until the run has gone."""
        async with asyncio.TaskGroup() as tasks:
            acts = [client.run() for client in self._clients]
            acts += [self._publish(number) for number in range(self._setup["publishers"])]
            running = [tasks.create_task(act) for act in acts]
            await self._obey()
            for task in running:
                task.cancel()

    def _make_client(self, number: int) -> Client:
        setup = self._setup
        chance = random.Random(f"{setup['seed']} {setup['name']} {number}")
        kind = CLIENTS[number % len(CLIENTS)]
        name = f"{kind.__name__.removesuffix('Client').lower()}-{setup['name']}-{number}"
        channels = choose(setup["kinds"], chance)
        return kind(name, channels, setup["ports"], self._journal, chance)

    async def _obey(self) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            word, _, rest = line.decode().strip().partition(" ")
            match word:
                case "quiet":
                    self._loud.clear()
                case "loud":
                    self._loud.set()
                case "finish":
                    await self._finish(json.loads(rest))
                    return

    async def _finish(self, tops: dict[str, str]) -> None:
        """Write down where the clients are, once they are at the end, or should be."""
        behind = self._clients
        for _ in range(int(CATCH_UP / 0.1)):
            behind = [
                one for one in behind if any(p != tops.get(c) for c, p in one.positions.items())
            ]
            if not behind:
                break
            await asyncio.sleep(0.1)
        for client in self._clients:
            for channel, position in client.positions.items():
                fields = {"client": client.name, "channel": channel, "position": position}
                self._journal.write("final", **fields)

    async def _publish(self, number: int) -> None:
        """Publish through any worker, in bursts."""
        setup = self._setup
        publisher, numbers = f"http-{setup['name']}-{number}", itertools.count(1)
        chance = random.Random(f"{setup['seed']} {publisher}")
        while True:
            await asyncio.sleep(chance.random() * 2 * PAUSE)
            await self._loud.wait()
            channel, ids = burst(publisher, numbers, setup["kinds"], chance)
            await self._ask(chance.choice(setup["ports"]), channel, ids)

    async def _ask(self, port: int, channel: str, ids: list[str]) -> None:
        for id_ in ids:
            self._journal.write("call", channel=channel, id=id_, run=f"http {ids[0]}")
        try:
            body = json.dumps({"channel": channel, "ids": ids})
            status, answer = await post(port, "/publish", body, ANSWER)
            found = json.loads(answer) if status == 200 else [self._lost(f"{status}")] * len(ids)
        except (*BROKEN, ValueError) as error:
            maybe = not isinstance(error, REFUSED)
            found = [self._lost(f"{type(error).__name__}: {error}", maybe=maybe)] * len(ids)
        for id_, outcome in zip(ids, found, strict=True):
            self._journal.write("ok" if "position" in outcome else "fail", id=id_, **outcome)

    def _lost(self, error: str, *, maybe: bool = True) -> dict[str, Any]:
        return {"maybe": maybe, "error": error}


async def load(setup: dict[str, Any]) -> None:
    await Loader(setup).run()


if __name__ == "__main__":
    asyncio.run(load(json.loads(sys.argv[1])))
