"""A process of clients, HTTP publishers and an operator: `python -m tests.nemesis.loader SETUP`.

The setup is JSON: `name`, `journal`, `ports`, `kinds`, `clients`, `publishers`, `seed`, `people`,
`notifiers`, `twice` (whether two clients read some pages in turn), `acts` (seconds between two acts
of the operator), `trials` (acts, after which it says so).
Lines on standard input tell it what to do: `quiet`, `loud`, `act`, `burst`, `close`, and at the end
`finish TOPS`, where `TOPS` is JSON and says where each channel ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.nemesis.acts import Operator
from tests.nemesis.browsers import Browser, Page, post
from tests.nemesis.clients import BROKEN, CLIENTS, Client, PollClient
from tests.nemesis.history import Journal
from tests.nemesis.names import NOTIFIERS, OWN, burst, choose, choose_own, ids_of, told

PAUSE = 0.3  # seconds between two bursts of a publisher
ANSWER = 90.0  # seconds until a publisher gives up a request
CATCH_UP = 30.0  # seconds in which all clients reach the end
OFTEN = 0.4  # the share of bursts that are on a channel of a page
TABS = (1, 1, 2, 3)  # pages of a browser
TWICE = 0.2  # the share of pages that two clients read
LONG = 5000  # messages of a long burst
REFUSED = (ConnectionRefusedError,)


class Loader:
    """The clients, publishers and the operator of one process."""

    def __init__(self, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._journal = Journal(Path(setup["journal"]))
        self._loud = asyncio.Event()
        self._loud.set()
        self._chance = random.Random(f"{setup['seed']} {setup['name']}")
        self._browsers: list[Browser] = []
        self._pages: list[Page] = []
        self._clients: list[Client] = []
        if setup["people"]:
            self._make_pages()
        else:
            self._clients = [self._make_client(number, None) for number in range(setup["clients"])]
        self._operator = Operator(self._browsers, setup, self._journal)

    async def run(self) -> None:
        """Run until told to finish, or until the run has gone."""
        async with asyncio.TaskGroup() as tasks:
            acts = [client.run() for client in self._clients]
            acts += [self._publish(number) for number in range(self._setup["publishers"])]
            if self._browsers:
                acts.append(self._operator.run())
            running = [tasks.create_task(act) for act in acts]
            await self._obey(tasks)
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await self._operator.leave(self._pages)

    def _make_pages(self) -> None:
        setup, chance, numbers = self._setup, self._chance, itertools.count()
        while len(self._clients) < setup["clients"]:
            browser = Browser(f"{setup['name']}-b{len(self._browsers)}", self._journal)
            self._browsers.append(browser)
            for _ in range(chance.choice(TABS)):
                own, topics = choose_own(chance, setup["notifiers"])
                readers = 2 if setup["twice"] and chance.random() < TWICE else 1
                page = Page(browser, own, topics, readers)
                self._pages.append(page)
                self._clients += [self._make_client(next(numbers), page) for _ in range(readers)]

    def _make_client(self, number: int, page: Page | None) -> Client:
        setup = self._setup
        chance = random.Random(f"{setup['seed']} {setup['name']} {number}")
        kind = CLIENTS[number % len(CLIENTS)]
        name = f"{kind.__name__.removesuffix('Client').lower()}-{setup['name']}-{number}"
        channels = choose(setup["kinds"], chance)
        return kind(name, channels, setup["ports"], self._journal, chance, page)

    async def _obey(self, tasks: asyncio.TaskGroup) -> None:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        told: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "act": self._operator.act_twice,
            "burst": self._publish_long,
            "close": self._close_some,
        }
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
                case _:
                    tasks.create_task(told[word]())

    async def _finish(self, tops: dict[str, str]) -> None:
        """Write down where the clients are, once they are at the end, or should be."""
        behind = self._clients
        for client in self._clients:
            client.settled = True
        self._operator.stopped = True
        for _ in range(int(CATCH_UP / 0.1)):
            behind = [one for one in behind if self._is_behind(one, tops)]
            if not behind:
                break
            await asyncio.sleep(0.1)
        for client in self._clients:
            for channel, position in client.positions.items():
                if channel not in client.denied:
                    self._write_final(client, channel, position)

    def _is_behind(self, client: Client, tops: dict[str, str]) -> bool:
        return any(
            position != tops.get(channel)
            for channel, position in client.positions.items()
            if channel[0] != "~" and channel not in client.denied
        )

    def _write_final(self, client: Client, channel: str, position: str) -> None:
        page = client.page
        if channel[0] == "~" and page is not None:
            position = page.positions.get(channel, position)
            channel = told(page.process, channel)
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
            page = chance.choice(self._pages) if self._pages else None
            if page is not None and page.process and chance.random() < OFTEN:
                channel = told(page.process, f"~{chance.choice(list(OWN))}")
                ids = ids_of(publisher, numbers, chance.choice([1, 2, 5]))
                await self._ask(page.port, channel, ids)  # only this worker has the channel
                if setup["notifiers"]:
                    await self._notify(publisher, chance)
            else:
                channel, ids = burst(publisher, numbers, setup["kinds"], chance)
                await self._ask(chance.choice(setup["ports"]), channel, ids)

    async def _notify(self, publisher: str, chance: random.Random) -> None:
        path = f"/notify?name={chance.choice(NOTIFIERS)}&publisher={publisher}"
        try:
            await post(chance.choice(self._setup["ports"]), path, "", ANSWER)
        except BROKEN:
            return

    async def _publish_long(self) -> None:
        """Publish a long burst to a page that has a stream open."""
        streams = [one for one in self._clients if one.connected and one.page is not None]
        pages = [
            one.page
            for one in streams
            if one.page and one.page.process and not isinstance(one, PollClient)
        ]
        if pages:
            page = self._chance.choice(pages)
            body = json.dumps({"channel": told(page.process, "~own0"), "count": LONG})
            try:
                answer, _ = await post(page.port, "/long", body, ANSWER)
                text = f"burst: {answer.status}"
            except BROKEN as error:
                text = f"burst: {type(error).__name__}"
            self._journal.write("note", text=text)

    async def _close_some(self) -> None:
        """Close a page, which must work also while Redis is full, if any worker is alive."""
        page = self._chance.choice([one for one in self._pages if one.process])
        ports, what = list(self._setup["ports"]), f"close {page.process}"
        self._chance.shuffle(ports)
        done = await page.close_anywhere(ports)
        if done is None:  # another fault has killed the workers
            self._journal.write("note", text="close: no worker answered")
        else:
            self._journal.write("must", what=what, done=done)

    async def _ask(self, port: int, channel: str, ids: list[str]) -> None:
        for id_ in ids:
            self._journal.write("call", channel=channel, id=id_, run=f"http {ids[0]}")
        try:
            body = json.dumps({"channel": channel, "ids": ids})
            answer, content = await post(port, "/publish", body, ANSWER)
            status = answer.status
            found = json.loads(content) if status == 200 else [self._lost(f"{status}")] * len(ids)
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
