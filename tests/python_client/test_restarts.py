"""Servers and programs are killed and started again while messages flow: each message, once."""

from __future__ import annotations

import faulthandler
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from asgi_comet.client import AsyncClient, Client
from asgi_comet.client.wanted import TRANSPORTS, Transport
from tests.kit.programs import ROOT
from tests.kit.reborn import Reborn, make, reborn
from tests.kit.redis import RedisServer
from tests.kit.rotating import rotate
from tests.python_client.conftest import in_background

pytestmark = pytest.mark.slow

RESTARTS = 50
ROUND = 200  # messages between two restarts
TOTAL = RESTARTS * ROUND
PATIENCE = 60.0  # seconds until a message that does not come is missed
HANGS = 400.0  # seconds, after which a test shows where it hangs; longer than for other tests


class Reader:
    """What a follower has read so far."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self._grown = threading.Condition()

    def note(self, value: Any) -> None:
        with self._grown:
            self.seen.append(value)
            self._grown.notify_all()

    def wait(self, count: int) -> None:
        """Return once it has read so many of the numbers, which count up from 0."""
        with self._grown:
            assert self._grown.wait_for(lambda: [-1, *self.seen[-1:]][-1] >= count - 1, PATIENCE)


class Blocking(Reader):
    """A program that follows in a thread."""

    def __init__(self, url: str, transport: Transport) -> None:
        super().__init__()

        def follow() -> None:
            with Client(url, transports=[transport]) as comet:
                for message in comet.channel("news", start="first", type=int):
                    self.note(message.data)
                    if len(self.seen) == TOTAL:
                        break

        self.done: Future[None] = in_background(follow)


class Tasks(Reader):
    """A program that follows in a task."""

    def __init__(self, url: str, transport: Transport) -> None:
        super().__init__()

        async def follow() -> None:
            async with AsyncClient(url, transports=[transport]) as comet:
                async for message in comet.channel("news", start="first", type=int):
                    self.note(message.data)
                    if len(self.seen) == TOTAL:
                        break

        self.done: Future[None] = in_background(lambda: anyio.run(follow))


class Program(Reader):
    """A program in a process of its own, which is killed and started again.

    Args:
        url: The URL of the endpoints.
        module: Which one.
        path: Where it keeps positions.

    Attributes:
        starts: How many messages it had read at each of its starts.
    """

    def __init__(self, url: str, module: str, path: Path) -> None:
        super().__init__()
        self.starts: list[int] = []
        self._command = [sys.executable, "-m", module, url, "news", str(path)]
        self.start()

    def start(self) -> None:
        self.starts.append(len(self.seen))
        self._process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def _read(self, lines: Iterator[str]) -> None:
        for line in lines:
            if line.endswith("\n"):  # else it was killed while it wrote
                self.note(int(line))

    def kill(self) -> None:
        self._process.kill()
        self._reader.join(PATIENCE)
        self._process.communicate()

    def close(self) -> None:
        self.kill()


def kill_while_messages_flow(
    redis: RedisServer, workers: list[Reborn], readers: Sequence[Reader]
) -> None:
    """Publish, and kill one worker after the other, and each program."""
    faulthandler.dump_traceback_later(HANGS, exit=True)
    chance = random.Random(7)
    comet, channel = make(redis.url)
    numbers = iter(range(TOTAL))
    with comet.publishing():
        for turn in range(RESTARTS):
            for reader in readers:
                reader.wait((turn - 1) * ROUND)  # the channel holds a thousand
            before = chance.randrange(ROUND)
            for _ in range(before):
                channel.publish(next(numbers))
            readers[turn % len(readers)].wait(turn * ROUND + chance.randrange(before + 1))
            killed: list[Reborn | Program] = [workers[turn % len(workers)]]
            killed += [one for one in readers if isinstance(one, Program) and turn % 5 == 0]
            for one in killed:
                one.kill()
            for _ in range(ROUND - before):
                channel.publish(next(numbers))
            for one in killed:
                one.start()
        for reader in readers:
            reader.wait(TOTAL)


@pytest.mark.long(2)
def test_none_is_missing_and_none_comes_twice_when_servers_and_programs_are_killed(
    redis: RedisServer, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        workers = stack.enter_context(reborn(redis.url, 1))
        url = f"{workers[0].address.url}/comet"
        readers = make_readers(url)
        saving = Program(url, "tests.python_client.program", tmp_path / "positions.json")
        stack.callback(saving.close)
        storing = Program(url, "examples.follow_once", tmp_path / "data.sqlite")
        stack.callback(storing.close)
        kill_while_messages_flow(redis, workers, [*readers, saving, storing])
        check(readers)
    # The message whose body ran when the program was killed may come again.
    again = {at for at in saving.starts if at and saving.seen[at] == saving.seen[at - 1]}
    assert [one for at, one in enumerate(saving.seen) if at not in again] == [*range(TOTAL)]
    # Positions that are stored with the data count each message once.
    with closing(sqlite3.connect(tmp_path / "data.sqlite")) as database:
        found: list[int] = []
        while len(found) < TOTAL:  # the program has printed the last one, and stores it now
            rows = database.execute("SELECT value FROM messages ORDER BY rowid")
            found = [int(value) for (value,) in rows]
        assert found == [*range(TOTAL)]


def test_none_is_missing_and_none_comes_twice_over_three_workers(redis: RedisServer) -> None:
    with reborn(redis.url, 3) as workers, rotate([one.address for one in workers]) as proxy:
        readers = make_readers(f"{proxy.url}/comet")
        kill_while_messages_flow(redis, workers, readers)
        check(readers)


def make_readers(url: str) -> list[Blocking | Tasks]:
    return [kind(url, transport) for kind in (Blocking, Tasks) for transport in TRANSPORTS]


def check(readers: Sequence[Blocking | Tasks]) -> None:
    for reader in readers:
        reader.done.result(PATIENCE)
        assert reader.seen == [*range(TOTAL)]
