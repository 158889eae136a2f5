"""Messages that a worker has dropped for want of room, and that only the broker has."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from asgi_comet import SITE, BrokerUnavailable, Channel, Comet, CometMiddleware, Settings
from asgi_comet.testing import JoinedBroker
from asgi_comet.testing._inspect import feed_of
from asgi_comet.testing.store import Store
from tests.kit.clients import Client, PollClient, SseClient, WebSocketClient
from tests.kit.loop import wait_in_loop
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY
from tests.kit.workers import own_workers

pytestmark = own_workers("a worker whose broker goes away amid an answer")


class Forgetful(JoinedBroker):
    """A broker that finds positions, and cannot read messages while it is away."""

    away = False

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked = threading.Event()

    async def recover(self, log: Any, after: int, max_bytes: int) -> Any:
        if self.away:
            self.asked.set()
            raise BrokerUnavailable("away")
        return await super().recover(log, after, max_bytes)


class Worker:
    """A `Comet` whose window of `news` has dropped three messages; the store has them."""

    def __init__(self, stack: ExitStack) -> None:
        self.broker = Forgetful(Store())
        self.comet = Comet(KEY, broker=self.broker, settings=Settings(jitter=0))
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news")
        self.newest: Channel[Any] = self.comet.create_newest(name="newest")
        app = Starlette(middleware=[Middleware(CometMiddleware, comet=self.comet)])
        self.address: Address = stack.enter_context(serve(app))
        for number in range(3):
            self.store(self.news, number)
        self.store(self.newest, "new")
        self.first = f"{feed_of(self.news).epoch}.1"  # the position of the first message
        feed_of(self.news).drop()
        feed_of(self.newest).drop()  # of which one message is all there is

    def store(self, channel: Channel[Any], value: Any) -> None:
        async def publish() -> None:
            await channel.publish(value).stored()

        wait_in_loop(self.comet, publish)


@pytest.fixture
def worker() -> Iterator[Worker]:
    with ExitStack() as stack:
        yield Worker(stack)


@pytest.mark.parametrize("kind", [PollClient, SseClient, WebSocketClient])
def test_what_was_dropped_is_read_from_the_broker(worker: Worker, kind: type[Client]) -> None:
    client = kind(None, worker.address)
    client.begin({"news": worker.first, "newest": "last:1"})
    assert sorted(values(client, 3), key=str) == [1, 2, "new"]
    worker.store(worker.news, 3)
    assert values(client, 1) == [3]
    client.cut()


@pytest.mark.parametrize("kind", [SseClient, WebSocketClient])
def test_a_stream_ends_if_the_broker_goes_away_and_the_client_comes_back(
    worker: Worker, kind: type[Client]
) -> None:
    worker.broker.away = True
    client = kind(None, worker.address)
    client.begin({"news": worker.first})
    assert worker.broker.asked.wait(20)
    worker.broker.away = False
    assert values(client, 2) == [1, 2]
    assert client.connected > 1
    client.cut()


def values(client: Client, count: int) -> list[Any]:
    found: list[Any] = []
    while len(found) < count:
        event = client.next()
        assert event.get("error") in (None, "restart"), event  # a socket is told to come back
        found += [event["data"]] if "data" in event else []
    return found


def test_a_poll_comes_again_if_the_broker_goes_away_amid_an_answer(worker: Worker) -> None:
    worker.broker.away = True
    body = json.dumps({"channels": {"news": worker.first}})
    head = {"Content-Type": "application/json"}
    answer = worker.address.request("POST", "/comet/poll", body, head)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    worker.broker.away = False
    answer = worker.address.request("POST", "/comet/poll", body, head)
    assert answer.status == 200
    assert [event["data"] for event in json.loads(answer.body)["events"]] == [1, 2]
