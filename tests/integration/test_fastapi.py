"""Sessions of a database in a FastAPI application: none is open while requests are held."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Literal

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI

from asgi_comet import Comet, CometMiddleware
from asgi_comet.testing import wait_for_listeners
from examples import fastapi_database as example
from examples.fastapi_database import Session, get_session
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY
from tests.kit.streams import PATIENCE, Sse, Ws
from tests.kit.tabs import Page
from tests.kit.workers import own_workers

pytestmark = own_workers("an example, whose database sessions in one process it counts")

MANY = 20
Scope = Literal["request", "function"]


@pytest.fixture
def server() -> Iterator[Address]:
    Session.orders.clear()
    Session.seen.clear()
    with serve(example.app) as address:
        yield address
    assert Session.open == 0


def customer(server: Address) -> Page:
    page = Page(server)
    page.jar["key"] = "secret of ada"
    return page


def order(page: Page) -> int:
    answer = page.say("/orders?what=tea")
    assert answer.status == 200, answer
    number = json.loads(answer.body)
    assert isinstance(number, int)
    return number


def test_no_session_is_open_while_polls_streams_and_sockets_are_held(server: Address) -> None:
    """Neither of a `yield` dependency, nor of `identify`, `authorize` or a source."""
    pages = [customer(server) for _ in range(MANY)]
    number = order(pages[0])
    pages[0].take("~receipts", 1)
    name = f"order:{number}"
    channel = example.states.channel(number=number)
    pages[0].positions[name] = "last:1"
    assert pages[0].take(name, 1) == ["tea: received"]
    with ExitStack() as stack:
        held = []
        for index, page in enumerate(pages):
            page.positions[name] = "now"
            assert page.follow(name) == []
            if index % 3 == 0:
                held.append(page.hold(page.positions))
            elif index % 3 == 1:
                sse = Sse.open(server, {name: page.positions[name]}, page.url, Cookie=page.cookie)
                assert stack.enter_context(sse).next().name == ":open"
            else:
                socket = stack.enter_context(Ws(server, page.url, page.cookie))
                socket.say(subscribe={name: "now"})
                assert socket.next()["channel"] == name
        wait_for_listeners(channel, MANY, PATIENCE)
        assert Session.open == 0
        assert Session.most >= 1
        channel.publish("sent")
        for one in held:
            assert b"sent" in one.answer().body


def test_a_stranger_follows_no_order(server: Address) -> None:
    page, stranger = customer(server), Page(server)
    number = order(page)
    page.take("~receipts", 1)
    stranger.jar["key"] = "a guess"
    (event,) = stranger.poll({f"order:{number}": "now"})
    assert event["error"] == "forbidden"


def test_no_session_is_open_while_an_outcome_is_awaited(server: Address) -> None:
    page = customer(server)
    number = order(page)
    assert Session.open == 0  # the task waits
    assert Session.seen == set()
    assert page.take("~receipts", 1) == [f"order {number}: tea"]
    changed = threading.Event()
    for _ in range(100):
        if Session.seen == {number}:
            break
        changed.wait(0.1)
    assert Session.seen == {number}


@pytest.mark.parametrize(("scope", "open_"), [("request", 1), ("function", 0)])
def test_a_task_of_the_background_holds_what_is_of_the_request(scope: Scope, open_: int) -> None:
    """What FastAPI does, and why the documents say `scope="function"`."""
    comet, app = Comet(KEY), FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)
    found: list[int] = []
    done = threading.Event()

    async def task() -> None:
        found.append(Session.open)
        done.set()

    @app.post("/")
    async def endpoint(
        later: BackgroundTasks,
        session: Session = Depends(get_session, scope=scope),  # noqa: B008 - the scope is tested
    ) -> None:
        later.add_task(task)

    with serve(app) as address:
        assert address.request("POST", "/").status == 200
        assert done.wait(PATIENCE)
    assert found == [open_]
