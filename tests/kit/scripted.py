"""An application on Redis, and scripts that publish to its clients.

As `tests.kit.scripted:app` it is served; `python -m tests.kit.scripted 100 8` runs a hundred
scripts, eight at a time: each is a process of its own that connects, publishes and ends.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import AsyncIterator
from multiprocessing.context import ForkProcess
from typing import Any

import anyio
from anyio import sleep
from starlette.applications import Starlette

from asgi_comet import SITE, Channel, Comet, CometMiddleware
from tests.kit.forking import fork, wait
from tests.kit.stage import KEY

EACH = 5  # messages of one script

comet = Comet(KEY, broker=os.environ.get("COMET_BROKER", "redis://127.0.0.1/0"))
news: Channel[Any] = comet.create(scope=SITE, name="news", size=10_000)
rooms = comet.family("room:{room}", type=int)


@comet.channel("ticker", size=10_000)
async def ticker() -> AsyncIterator[int]:
    for number in itertools.count():
        yield number
        await sleep(0.05)


app = CometMiddleware(Starlette(), comet=comet)


def script(number: int) -> None:
    with comet.publishing():
        for count in range(EACH):
            news.publish([number, count])
            rooms.publish(count, room=str(number))


def main(scripts: int, at_once: int) -> None:
    anyio.run(sleep, 0)  # loads what each script would load again
    running: list[ForkProcess] = []
    codes: list[int | None] = []
    for number in range(scripts):
        if len(running) == at_once:
            codes.append(wait(running.pop(0)))
        running.append(fork(script, number))
    codes += map(wait, running)
    sys.exit(any(codes))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
