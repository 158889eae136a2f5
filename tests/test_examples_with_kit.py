"""Each example, tested with the test kit in at most ten lines; docs/testing.md shows each test."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

import pytest

from asgi_comet import ChannelClosed
from asgi_comet.testing import run
from asgi_comet.testing.reading import Transport
from examples import (
    eventsource,
    fastapi_database,
    fastapi_models,
    history,
    htmx,
    kinds,
    leaving,
    manual_notifications,
    members,
    notifications,
    own_cookie,
    quickstart,
    rooms,
    users,
    websocket,
    wire,
    workers,
)
from examples.auction import main as auction
from examples.fastapi_app import main as demo

pytestmark = pytest.mark.anyio

LINES = 10  # of a test, at most

WITHOUT = {
    "broker_contract": "is a test by itself",
    "follow": "is a client",
    "follow_once": "is a client",
    "listen": "is a client",
    "metrics": "has no page; tests/test_watching.py reads its figures",
    "tasks": "forks processes that share a Redis",
}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_quickstart() -> None:
    async with run(quickstart.app) as comet_app:
        tab = await comet_app.browser().open("/")
        news = tab.channel("news")
        await tab.post("/news", params={"text": "Hello"})
        assert await news.next() == "Hello"
        await news.expect_silence()
        await comet_app.check()


async def test_members() -> None:
    async with run(members.app) as comet_app:
        ada, eve = comet_app.browser().tab(), comet_app.browser().tab()
        await ada.post("/login/ada")
        kitchen = ada.channel("room:kitchen")
        await ada.post("/rooms/kitchen", params={"text": "Hello"})
        assert await kitchen.next() == "Hello"
        with pytest.raises(ChannelClosed):
            await eve.channel("room:kitchen").next()
        await comet_app.check()


async def test_rooms() -> None:
    async with run(rooms.app) as comet_app:
        tab = comet_app.browser().tab()
        await tab.post("/login/ada")
        kitchen = tab.channel("room:kitchen")
        assert (await kitchen.next()).startswith("It is ")
        await tab.post("/rooms/kitchen", json="Hello")
        assert await kitchen.next() == "Hello"
        # no check(): the source waits for the real clock


async def test_users() -> None:
    async with run(users.app) as comet_app:
        browser = comet_app.browser()
        tab, other = await browser.open("/"), await browser.open("/")
        changes = tab.channel("~comet")
        await other.post("/login/ada")
        assert (await tab.get("/online/ada")).json() == {"browsers": 1, "tabs": 2}
        assert await changes.next()
        await comet_app.check()


async def test_own_cookie() -> None:
    async with run(own_cookie.app) as comet_app:
        tab = comet_app.browser().tab()
        await tab.post("/login/ada")
        tab.channel("~comet")
        await comet_app.settle()
        assert [process.user for process in comet_app.comet.processes()] == ["ada"]
        await tab.post("/logout")
        assert tab.closed
        await comet_app.check()


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The users who got a mail."""
    found: list[str] = []
    monkeypatch.setattr(notifications, "send_mail", lambda user, message: found.append(user))
    return found


async def test_notifications(mails: list[str]) -> None:
    async with run(notifications.app) as comet_app:
        tab, other = comet_app.browser().tab(), comet_app.browser().tab()
        await tab.open_process()  # as `connect()` does in the page
        await other.open_process()
        messages = tab.channel((await tab.post("/threads/1/listen")).json())
        await other.post("/threads/1", json="Hello")
        assert (await messages.next())["value"]["text"] == "(log in to read it)"
        comet_app.clock.advance(30)
        await comet_app.check()
    assert sorted(mails) == ["ada", "bob", "eve"]


async def test_manual_notifications() -> None:
    async with run(manual_notifications.app) as comet_app:
        tab = comet_app.browser().tab()
        await tab.post("/login/ada")
        inbox = tab.channel((await tab.post("/start")).json())
        await comet_app.browser().tab().post("/notify/ada", json="Hello")
        assert await inbox.next() == "Hello"
        await comet_app.check()


async def test_leaving() -> None:
    async with run(leaving.app) as comet_app:
        tab, other = comet_app.browser().tab(), comet_app.browser().tab()
        log = other.channel("log")
        tab.channel("~comet")
        await tab.post("/here")
        assert "is here" in await log.next()
        await tab.close()
        assert "has left; 0 remain" in await log.next()
        await comet_app.check()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # a source of a channel is read once
async def test_kinds() -> None:
    async with run(importlib.reload(kinds).app) as comet_app:  # its source has one life
        tab = comet_app.browser().tab()
        room, ticker = tab.channel("room"), tab.channel("ticker")
        await tab.post("/room", json="Hello")
        assert await room.next() == "Hello"
        # Its source waits for the real clock.
        assert (await ticker.next(timeout=20))["symbol"] == "ACME"


async def test_fastapi_models() -> None:
    async with run(fastapi_models.app) as comet_app:
        tab = comet_app.browser().tab()
        await tab.open_process()
        desk = (await tab.post("/desk")).json()
        notes, temperature = tab.channel(desk["notes"]), tab.channel(desk["temperature"])
        assert await temperature.next() == 20.5
        assert await notes.next() == f"This is tab {desk['tab'][:6]}."
        await tab.post("/notes", json="Buy tea")
        assert await notes.next() == "Buy tea"
        await comet_app.check()


async def test_fastapi_database() -> None:
    async with run(fastapi_database.app) as comet_app:
        tab = comet_app.browser().tab()
        receipts = tab.channel("~receipts")
        await tab.post("/orders", params={"what": "tea"})
        assert (await receipts.next()).endswith("tea")
        await comet_app.check()


async def test_history() -> None:
    async with run(history.app) as comet_app:
        tab = await comet_app.browser().open("/")
        loaded = (await tab.get("/history")).json()
        messages = tab.channel("messages", start=loaded["reference"]["position"])
        await tab.post("/messages", content="Hello")
        assert (await messages.next())["text"] == "Hello"
        await comet_app.check()


async def test_htmx() -> None:
    async with run(htmx.app) as comet_app:
        tab = await comet_app.browser().open("/rooms/kitchen")
        kitchen = tab.channel("room:kitchen")
        await tab.post("/rooms/kitchen", content="Hello")
        assert (await kitchen.next())["text"] == "Hello"
        await comet_app.check()


@pytest.mark.parametrize("example", [eventsource, websocket])
@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_pages_without_our_client(example: Any, transport: Transport) -> None:
    async with run(example.app) as comet_app:
        tab = await comet_app.browser().open("/")
        news = tab.channel("news", transport=transport)
        await tab.post("/news", content="Hello")
        assert await news.next() == "Hello"
        await comet_app.check()


async def test_wire() -> None:
    async with run(wire.app) as comet_app:
        tab = comet_app.browser().tab()
        ticker, inbox = tab.channel("ticker"), tab.channel("~inbox", start="first")
        await tab.post("/ticker", params={"price": 1.5})
        assert await ticker.next() == {"price": 1.5}
        assert await inbox.next() == "Welcome"
        await comet_app.check()


async def test_workers() -> None:
    async with run(workers.app) as comet_app:  # one worker: COMET_BROKER is not set
        tab = await comet_app.browser().open("/")
        news = tab.channel("news")
        await tab.post("/news", params={"text": "Hello"})
        assert (await news.next()).startswith("Hello, in worker ")


async def test_auction() -> None:
    async with run(auction.app) as comet_app:
        ada = comet_app.browser()
        await ada.tab().post("/login/ada")
        tab = await ada.open("/rooms/2")
        room = tab.channel("room")
        await tab.post("/rooms/2/said", json="Hello")
        assert (await room.next())["text"] == "Hello"
        await comet_app.check()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # its events are of one event loop
async def test_demo() -> None:
    async with run(demo.app, base_url="http://127.0.0.1") as comet_app:
        tab = await comet_app.browser().open("/")
        wall = tab.channel("wall")
        await tab.post("/wall", json={"text": "Hello"})
        assert (await wall.next())["text"] == "Hello"


# This file


TREE = ast.parse(Path(__file__).read_text(encoding="utf-8"))
TESTS = [node for node in TREE.body if isinstance(node, ast.AsyncFunctionDef)]


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
def test_a_test_has_ten_lines_at_most(test: ast.AsyncFunctionDef) -> None:
    assert test.end_lineno is not None
    assert test.end_lineno - test.body[0].lineno < LINES


def test_each_example_has_a_test_or_a_reason() -> None:
    imported = {
        alias.name if node.module == "examples" else str(node.module).rpartition(".")[2]
        for node in TREE.body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("examples")
        for alias in node.names
    }
    folder = Path(__file__).parent.parent / "examples"
    examples = {path.stem for path in folder.glob("[!_]*.py")}
    examples |= {path.parent.name for path in folder.glob("*/main.py")}
    assert imported | WITHOUT.keys() == examples


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
def test_the_page_shows_the_test(test: ast.AsyncFunctionDef) -> None:
    code = ast.get_source_segment(Path(__file__).read_text(encoding="utf-8"), test)
    page = Path(__file__).parent.parent / "docs/testing.md"
    assert f"```python\n{code}\n```" in page.read_text(encoding="utf-8")
