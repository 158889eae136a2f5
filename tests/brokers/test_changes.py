"""Changes that all workers make: push is switched off, a right is revoked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Settings
from asgi_comet.brokers.base import Broker
from asgi_comet.errors import Unconfirmed
from tests.kit.clients import SseClient
from tests.kit.cluster import Make, Store, make_brokers
from tests.kit.loop import wait_in_loop
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import KEY, TOKEN

ADMIN = {"Authorization": f"Bearer {TOKEN}"}


def may(connection: Any) -> bool:
    return connection.query_params.get("refuse") is None and not REFUSED


REFUSED: list[str] = []


class Worker:
    """A `Comet` with its server, and endpoints that make changes."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.comet = Comet(KEY, broker=broker, settings=Settings(jitter=0), admin=TOKEN)
        self.comet.guard(may)
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news", authorize=may)
        self.app = Starlette(
            routes=[
                Route("/login", self.login, methods=["POST"]),
                Route("/page", self.page, methods=["POST"]),
                Route("/deactivate", self.deactivate, methods=["POST"]),
                Route("/revoke", self.revoke, methods=["POST"]),
            ],
            middleware=[Middleware(CometMiddleware, comet=self.comet)],
        )
        self.address: Address

    async def login(self, request: Request) -> Response:
        self.comet.login((await request.body()).decode())
        return Response(status_code=204)

    async def page(self, request: Request) -> Response:
        process = self.comet.open_process()
        return JSONResponse({"process": process.url.rpartition("/")[2]})

    async def deactivate(self, request: Request) -> Response:
        self.comet.activation.deactivate()
        return Response(status_code=204)

    async def revoke(self, request: Request) -> Response:
        self.comet.revoke("news", user="ann")
        return Response(status_code=204)

    @property
    def active(self) -> bool:
        return self.comet.activation.active

    def admin(self, path: str) -> tuple[int, Any]:
        answer = self.address.request("POST", f"/comet/admin/{path}", "", ADMIN)
        return answer.status, json.loads(answer.body) if answer.status == 200 else None


Start = Callable[[], Worker]


@pytest.fixture(params=["joined", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    return make_brokers(request, request.param, timeout=0.5)


@pytest.fixture
def start(make: Make) -> Iterator[Start]:
    """Serve one more worker on the store; at most four."""
    brokers = make(4)
    REFUSED.clear()
    with ExitStack() as stack:

        def start() -> Worker:
            worker = Worker(brokers.pop(0))
            worker.address = stack.enter_context(serve(worker.app))
            assert worker.address.request("GET", "/comet/comet.js").status == 200
            return worker

        yield start


@pytest.fixture
def workers(start: Start) -> list[Worker]:
    return [start() for _ in range(3)]


@pytest.fixture
def store(request: pytest.FixtureRequest, workers: list[Worker]) -> Iterator[Store]:
    found = Store(request, [worker.broker for worker in workers])
    yield found
    found.come_back()


# The switch


def test_a_request_is_answered_once_all_workers_have_made_a_change(workers: list[Worker]) -> None:
    one, *_ = workers
    assert [worker.active for worker in workers] == [True] * 3
    assert one.address.request("POST", "/deactivate").status == 204
    assert [worker.active for worker in workers] == [False] * 3


def test_a_thread_goes_on_once_all_workers_have_made_a_change(workers: list[Worker]) -> None:
    one, other, _ = workers
    for _ in range(20):
        one.comet.activation.deactivate()
        assert [worker.active for worker in workers] == [False] * 3
        other.comet.activation.activate()
        assert [worker.active for worker in workers] == [True] * 3
    one.comet.activation.set_timeout(7)
    assert [worker.comet.activation.timeout for worker in workers] == [7.0] * 3


def test_an_awaited_change_tells_how_many_workers_have_made_it(workers: list[Worker]) -> None:
    found: list[tuple[int, list[bool]]] = []

    async def deactivate() -> None:
        count = await workers[0].comet.activation.deactivate()
        found.append((count, [worker.active for worker in workers]))

    wait_in_loop(workers[0].comet, deactivate)
    assert found == [(3, [False] * 3)]


def test_an_operator_is_told_how_many_workers_have_made_a_change(workers: list[Worker]) -> None:
    status, told = workers[1].admin("deactivate")
    assert (status, told["confirmed"], told["active"]) == (200, 3, False)
    assert [worker.active for worker in workers] == [False] * 3
    status, told = workers[2].admin("activate")
    assert (status, told["confirmed"]) == (200, 3)
    assert [worker.active for worker in workers] == [True] * 3


def test_a_change_of_which_a_worker_does_not_know_the_kind_is_logged(
    workers: list[Worker], caplog: pytest.LogCaptureFixture
) -> None:
    people = workers[0].broker.people
    assert people is not None

    async def tell() -> None:
        assert await people.tell_all('newer {"a": 1}') == 3

    wait_in_loop(workers[0].comet, tell)
    assert caplog.text.count("an event of another worker is of an unknown kind: 'newer'") == 3
    assert workers[0].admin("deactivate")[0] == 200


def test_a_worker_that_starts_later_makes_the_change_too(
    workers: list[Worker], start: Start
) -> None:
    workers[0].comet.activation.set_timeout(9)
    workers[0].comet.activation.deactivate()
    late = start()
    assert not late.active
    assert late.comet.activation.timeout == 9
    assert late.admin("activate")[1]["confirmed"] == 4
    assert [worker.active for worker in workers] == [True] * 3


def test_a_change_that_the_others_may_not_know_is_unconfirmed(
    workers: list[Worker], store: Store
) -> None:
    _, away, _ = workers
    store.leave()
    with pytest.raises(Unconfirmed):
        away.comet.activation.deactivate()
    assert not away.active
    assert away.admin("deactivate")[0] == 503
    assert away.address.request("POST", "/deactivate").status == 503

    found: list[BaseException] = []

    async def deactivate() -> None:
        try:
            await away.comet.activation.deactivate()
        except Unconfirmed as error:
            found.append(error)

    wait_in_loop(away.comet, deactivate)
    assert len(found) == 1
    store.come_back()
    while True:
        try:
            away.comet.activation.deactivate()
            break
        except Unconfirmed:
            continue
    assert [worker.active for worker in workers] == [False] * 3


# Rights


def follow(worker: Worker, user: str, at_end: ExitStack) -> SseClient:
    """Follow the news as a user, through a worker."""
    tab = Tab(worker.address)
    headers = {"Cookie": tab.cookie}
    tab.keep(worker.address.request("POST", "/login", user, headers))
    client = SseClient(tab, worker.address)
    at_end.callback(client.cut)
    client.follow({"news": "last:0"})
    return client


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("through", ["request", "thread"])
def test_a_revoked_right_is_revoked_in_all_workers(
    workers: list[Worker], at_end: ExitStack, through: str
) -> None:
    anns = [follow(worker, "ann", at_end) for worker in workers]
    bobs = [follow(worker, "bob", at_end) for worker in workers]
    workers[0].news.publish("before")
    for client in (*anns, *bobs):
        assert client.data(1) == ["before"]
    REFUSED.append("ann")
    if through == "request":
        assert workers[1].address.request("POST", "/revoke").status == 204
    else:
        workers[1].comet.revoke("news", user="ann")
    workers[2].news.publish("after")
    for client in anns:
        assert client.next()["error"] == "forbidden"
    for client in bobs:
        assert client.data(1) == ["after"]
