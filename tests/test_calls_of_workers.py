"""Calls that wait for other workers: in worker threads, and before an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_comet import SITE, Channel, Comet, CometMiddleware, MustAwait, NotRunning, Settings
from asgi_comet.testing import JoinedBroker, join, wait_for_listeners
from tests.kit.clients import SseClient
from tests.kit.serving import Address, Answer, Held, serve
from tests.kit.stage import KEY


class Worker:
    """A worker whose answers wait until what it published is stored."""

    def __init__(self, broker: JoinedBroker, settle: Any) -> None:
        self.broker = broker
        self.comet = Comet(KEY, broker=broker, settings=Settings(jitter=0, settle=settle))
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news")
        paths = {"/count": self.count, "/wrong": self.wrong, "/publish": self.publish}
        paths["/make"] = self.make
        self.app = Starlette(
            routes=[Route(path, one, methods=["POST"]) for path, one in paths.items()],
            middleware=[Middleware(CometMiddleware, comet=self.comet)],
        )
        self.address: Address

    def count(self, request: Request) -> Response:  # in a worker thread
        return JSONResponse(self.comet.call(self.news.count()))

    async def wrong(self, request: Request) -> Response:
        with pytest.raises(MustAwait, match="write: await the coroutine"):
            self.comet.call(self.news.count())
        return JSONResponse(await self.news.count())

    async def publish(self, request: Request) -> Response:
        self.news.publish("x")
        return Response(status_code=204)

    async def make(self, request: Request) -> Response:
        for name in ("a", "b"):
            self.comet.channels.create(name)
        return Response(status_code=204)


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> Iterator[list[Worker]]:
    settle = getattr(request, "param", "changes")
    with ExitStack() as stack:
        made = [Worker(broker, settle) for broker in join(2)]
        for worker in made:
            worker.address = stack.enter_context(serve(worker.app))
        yield made


def post(worker: Worker, path: str) -> Any:
    return worker.address.request("POST", path)


def test_a_worker_thread_calls_a_coroutine(workers: list[Worker]) -> None:
    client = SseClient(None, workers[0].address)
    client.follow({"news": "now"})
    wait_for_listeners(workers[1].news, 1)
    assert post(workers[1], "/count").body == b"1"
    assert post(workers[1], "/wrong").body == b"1"
    client.cut()


def test_nothing_is_called_while_no_server_runs() -> None:
    comet = Comet(KEY)
    channel = comet.create(scope=SITE, name="news")
    with pytest.raises(NotRunning):
        comet.call(channel.count())


@pytest.mark.parametrize("workers", ["all"], indirect=True)
def test_an_answer_waits_until_what_was_published_is_stored(workers: list[Worker]) -> None:
    (one, two), order = workers, list[str]()
    one.broker.disconnect()

    def publish() -> Answer:
        answer: Answer = post(one, "/publish")
        order.append("answered")
        return answer

    held = Held(publish)
    for _ in range(20):  # in which the other one would be answered
        assert post(two, "/count").body == b"0"
    order.append("reconnected")
    one.broker.reconnect()
    assert held.answer().status == 204
    assert order == ["reconnected", "answered"]
    assert one.broker.store.read("news", 0).top == 1


def test_else_the_message_is_stored_behind_the_answer(workers: list[Worker]) -> None:
    workers[0].broker.disconnect()
    assert post(workers[0], "/publish").status == 204
    assert workers[0].broker.store.read("news", 0).top == 0
    workers[0].broker.reconnect()


def test_a_request_that_makes_several_channels_is_503_without_the_store(
    workers: list[Worker],
) -> None:
    workers[0].broker.disconnect()
    answer = post(workers[0], "/make")
    assert answer.status == 503
    assert "retry-after" in answer.headers
    workers[0].broker.reconnect()
