"""How long a test with the test kit takes, start-up included: `python -m benchmarks.kit`.

Prints the median of 20 tests, and the slowest, on asyncio and on trio. Each test makes the
application anew, starts it, reads over one transport, checks the promise, and stops everything.
"""

from __future__ import annotations

import statistics
import time

import anyio
from fastapi import FastAPI

from asgi_comet import SITE, Comet, CometMiddleware
from asgi_comet.testing import run

REPETITIONS = 20


def make_app() -> FastAPI:
    """Make an application with one channel."""
    comet = Comet("k" * 32)
    news = comet.create(scope=SITE, name="news", type=str)
    app = FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)

    @app.post("/news")
    def post(text: str) -> None:
        news.publish(text)

    return app


async def check_news() -> None:
    """Be a whole test."""
    async with run(make_app()) as comet_app:
        tab = comet_app.browser().tab()
        news = tab.channel("news")
        await tab.post("/news", params={"text": "Hello"})
        assert await news.next() == "Hello"
        await news.expect_silence()
        await comet_app.check()


def measure(backend: str) -> list[float]:
    """Return the milliseconds of each test, a first one left out."""
    found = []
    for _ in range(1 + REPETITIONS):
        begun = time.perf_counter()
        anyio.run(check_news, backend=backend)
        found.append(1000 * (time.perf_counter() - begun))
    return found[1:]


if __name__ == "__main__":
    for backend in ("asyncio", "trio"):
        times = measure(backend)
        print(f"{backend}: median {statistics.median(times):.0f} ms, slowest {max(times):.0f} ms")
