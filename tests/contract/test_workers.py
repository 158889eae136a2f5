"""Several workers: channels of one are followed on another, whatever happens between them."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_comet import (
    SITE,
    Channel,
    Comet,
    CometMiddleware,
    NonUniqueChannelName,
    Outcome,
    Settings,
)
from asgi_comet.channels import sharing
from asgi_comet.channels.source import AHEAD
from asgi_comet.testing import JoinedBroker, join, wait_for_listeners
from asgi_comet.testing._inspect import inside, live_feeds
from tests.kit.clients import Client, PollClient, Question, SseClient, WebSocketClient
from tests.kit.loop import in_loop, soon, turn, wait_in_loop
from tests.kit.serving import Address, Held, serve
from tests.kit.stage import KEY
from tests.kit.workers import own_workers

pytestmark = own_workers("three workers on a store in memory, whose frames the tests hold back")

CLIENTS: list[type[Client]] = [PollClient, SseClient, WebSocketClient]


SETTINGS = Settings(jitter=0, linger=0.2, max_family_channels_per_session=2)


class Worker:
    """A `Comet` with its server, which makes the same channels as its siblings at import."""

    def __init__(self, broker: JoinedBroker, size: int) -> None:
        self.broker = broker
        self.comet = Comet(KEY, broker=broker, settings=SETTINGS)
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news", size=size)
        self.other: Channel[Any] = self.comet.create(scope=SITE, name="other", size=size)
        self.app = Starlette(
            routes=[Route("/room/{name}", self._make, methods=["POST"])],
            middleware=[Middleware(CometMiddleware, comet=self.comet)],
        )
        self.address: Address

    async def _make(self, request: Request) -> JSONResponse:
        room: Channel[Any] = self.comet.create(scope=SITE, name=request.path_params["name"])
        room.publish("first")
        return JSONResponse(room.reference("first"))

    def stored(self, channel: Channel[Any], value: Any) -> str:
        """Publish, and return the position once the message is stored."""
        found: list[str] = []

        async def publish() -> None:
            found.append(str(await channel.publish(value).stored()))

        wait_in_loop(self.comet, publish)
        return found[0]


Workers = list[Worker]


@pytest.fixture
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    size = getattr(request, "param", 100)
    with ExitStack() as stack:
        made = [Worker(broker, size) for broker in join(3)]
        for worker in made:
            worker.address = stack.enter_context(serve(worker.app))
        for worker in made:  # each is known to the others, and follows
            assert worker.address.request("GET", "/comet/comet.js").status == 200
            worker.stored(worker.other, "ready")
        yield made


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__.removesuffix("Client").lower())
def follow(request: pytest.FixtureRequest, workers: Workers) -> Iterator[Callable[..., Client]]:
    made: list[Client] = []

    def follow(worker: int, starts: dict[str, str]) -> Client:
        client: Client = request.param(None, workers[worker].address)
        made.append(client)
        client.follow(starts)
        return client

    yield follow
    for client in made:
        client.cut()


Follow = Callable[..., Client]


def test_what_one_worker_publishes_is_followed_on_every_other(
    workers: Workers, follow: Follow
) -> None:
    clients = [follow(number, {"news": "now"}) for number in range(3)]
    for number in range(30):
        workers[number % 3].stored(workers[number % 3].news, number)
    for client in clients:
        assert client.data(30) == list(range(30))


def test_the_listeners_of_all_workers_are_counted(workers: Workers, follow: Follow) -> None:
    clients = [follow(number, {"news": "now"}) for number in (0, 1, 1)]
    for worker in workers:
        wait_for_listeners(worker.news, 3)
    clients[1].cut()
    wait_for_listeners(workers[2].news, 2)
    assert workers[2].news.listeners == 0
    with pytest.raises(TimeoutError, match="4 listeners on channel 'news' in all workers"):
        wait_for_listeners(workers[0].news, 4, timeout=0)


def test_the_order_of_one_caller_is_kept_without_waiting(workers: Workers, follow: Follow) -> None:
    client = follow(1, {"news": "now"})
    for number in range(90):
        workers[0].news.publish(number)
    assert client.data(90) == list(range(90))


def test_a_client_goes_on_with_another_worker_where_it_was(
    workers: Workers, follow: Follow
) -> None:
    client = follow(0, {"news": "now"})
    workers[2].stored(workers[2].news, 0)
    assert client.data(1) == [0]
    client.cut()
    workers[2].stored(workers[2].news, 1)
    client.address = workers[1].address
    client.resume()
    workers[2].stored(workers[2].news, 2)
    assert client.data(2) == [1, 2]


def test_a_client_that_is_ahead_of_a_worker_is_not_told_full(
    workers: Workers, follow: Follow
) -> None:
    """Its position is beyond what that worker has heard of: only the broker may say `full`."""
    client = follow(0, {"news": "now"})
    workers[1].broker.hold()
    workers[0].stored(workers[0].news, "a")
    assert client.data(1) == ["a"]
    client.cut()
    client.address = workers[1].address
    client.resume()
    workers[0].stored(workers[0].news, "b")
    workers[1].broker.let_go()
    assert client.data(1) == ["b"]


def shuffled(broker: JoinedBroker) -> Iterator[None]:
    broker.hold()
    yield
    broker.let_go(shuffled=True)


def doubled(broker: JoinedBroker) -> Iterator[None]:
    broker.repeat(3)
    yield
    broker.repeat(1)


def lost(broker: JoinedBroker) -> Iterator[None]:
    broker.lose(7)
    yield


def lost_and_shuffled(broker: JoinedBroker) -> Iterator[None]:
    broker.lose(3)
    yield from shuffled(broker)


def disconnected(broker: JoinedBroker) -> Iterator[None]:
    broker.disconnect()
    yield
    broker.reconnect()


@pytest.mark.parametrize("fault", [shuffled, doubled, lost, lost_and_shuffled, disconnected])
def test_whatever_happens_to_frames_every_message_comes_once_and_in_order(
    workers: Workers, follow: Follow, fault: Callable[[JoinedBroker], Iterator[None]]
) -> None:
    client = follow(1, {"news": "now"})
    for number in range(5):
        workers[0].stored(workers[0].news, number)
    trouble = fault(workers[1].broker)
    next(trouble)
    for number in range(5, 15):
        workers[0].stored(workers[0].news, number)
    next(trouble, None)
    assert client.data(15) == list(range(15))
    workers[2].stored(workers[2].news, 15)
    assert client.data(1) == [15]


@pytest.mark.parametrize("workers", [5], indirect=True)
def test_what_is_held_nowhere_any_more_is_told(workers: Workers, follow: Follow) -> None:
    client = follow(1, {"news": "now"})
    workers[1].broker.disconnect()
    for number in range(9):
        workers[0].stored(workers[0].news, number)
    workers[1].broker.reconnect()
    event = client.next()
    assert event["error"] == "full"
    assert event["position"].endswith(".9")
    if not client.stays:
        client.positions["news"] = event["position"]
        client.ensure_connected()
        wait_for_listeners(workers[1].news, 1)
    workers[0].stored(workers[0].news, 9)
    if client.stays:
        client = follow(1, {"news": event["position"]})
    assert client.data(1) == [9]


def test_a_log_of_another_epoch_is_told_full_with_where_to_go_on(
    workers: Workers, follow: Follow
) -> None:
    client = follow(1, {"news": "now"})
    before = workers[0].stored(workers[0].news, "before")
    assert client.data(1) == ["before"]
    workers[0].broker.store.renew("news")
    after = workers[0].stored(workers[0].news, "after")
    assert after.partition(".")[0] != before.partition(".")[0]
    event = client.next()
    assert event["error"] == "full"
    # A stream is told where the other epoch begins, a poll that comes later where it stands.
    missed = event["position"].endswith(".2")
    again = follow(2, {"news": event["position"]})
    workers[0].stored(workers[0].news, "later")
    assert again.data(1 if missed else 2) == (["later"] if missed else ["after", "later"])


def test_a_channel_that_ends_ends_everywhere(workers: Workers, follow: Follow) -> None:
    client = follow(2, {"news": "now"})
    workers[0].stored(workers[0].news, "last words")
    workers[0].news.close()
    assert client.data(1) == ["last words"]
    assert client.error() == ("closed", "ended")


def test_a_channel_that_is_made_again_is_read_where_the_one_before_it_has_ended(
    workers: Workers, follow: Follow
) -> None:
    first, second = workers[0], inside(workers[1].comet).channels
    make = partial(first.comet.create, scope=SITE, name="again")
    before: Channel[str] = make()
    first.stored(before, "old")
    client = follow(1, {"again": "now"})
    client.cut()
    before.close()
    known = second.find("again")
    assert known is not None
    assert soon(workers[1].comet, lambda: known.closed is not None)
    position = first.stored(make(), "new")
    client.resume()
    assert client.next() == {"channel": "again", "error": "full", "position": position}
    client.cut()
    client = follow(1, {"again": "last:1"})
    assert client.data(1) == ["new"]


def test_a_channel_that_is_made_in_a_request_is_known_everywhere_when_the_answer_comes(
    workers: Workers, follow: Follow
) -> None:
    answer = workers[0].address.request("POST", "/room/kitchen")
    reference = json.loads(answer.body)
    assert reference["channel"] == "kitchen"
    client = follow(1, {"kitchen": "last:10"})
    assert client.data(1) == ["first"]
    assert workers[2].address.request("POST", "/room/kitchen").status == 500  # the name is taken


def test_nobody_follows_a_channel_that_nobody_here_reads(workers: Workers) -> None:
    workers[0].address.request("POST", "/room/kitchen")
    kitchen = workers[0].broker.store.followers("kitchen")
    assert kitchen == {workers[0].broker}
    client = WebSocketClient(None, workers[1].address)
    client.follow({"kitchen": "now"})
    assert workers[0].broker.store.followers("kitchen") == {workers[0].broker, workers[1].broker}
    client.cut()
    while workers[1].broker in workers[0].broker.store.followers("kitchen"):
        workers[1].address.request("GET", "/comet/comet.js")
    assert len(inside(workers[1].comet).channels) == 2  # its own two


def test_without_the_broker_a_client_is_told_to_come_back(workers: Workers) -> None:
    workers[0].address.request("POST", "/room/kitchen")
    workers[1].broker.disconnect()
    body = json.dumps({"channels": {"kitchen": "now"}})
    answer = workers[1].address.request(
        "POST", "/comet/poll", body, {"Content-Type": "application/json"}
    )
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"


def test_a_request_that_makes_a_channel_without_the_broker_is_told_to_come_back(
    workers: Workers,
) -> None:
    workers[0].broker.disconnect()
    answer = workers[0].address.request("POST", "/room/blue")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    workers[0].broker.reconnect()


async def enter(connection: HTTPConnection) -> bool:
    """Let each client in, and run a function of the test."""
    connection.app.state.entered()
    return True


def test_who_asks_for_a_channel_whose_name_is_taken_meanwhile_comes_back(workers: Workers) -> None:
    late = workers[1]

    def make() -> None:
        late.comet.create(scope=SITE, name="kitchen", authorize=enter)

    late.comet.guard(enter)
    # The name is found to be taken while the client waits.
    late.app.state.entered = late.broker.reconnect
    workers[0].address.request("POST", "/room/kitchen")
    late.broker.disconnect()
    in_loop(late.comet, make)
    body = json.dumps({"channels": {"kitchen": "last:1"}})
    headers = {"Content-Type": "application/json"}
    assert late.address.request("POST", "/comet/poll", body, headers).status == 503
    client = PollClient(None, late.address)
    client.follow({"kitchen": "last:1"})
    assert client.data(1) == ["first"]


def test_a_member_is_not_ended_for_another_while_the_broker_is_away(workers: Workers) -> None:
    comet = workers[0].comet
    rooms = comet.family("room:{room}")

    def ask(room: int) -> int:
        body = json.dumps({"channels": {f"room:{room}": "now"}, "idle": True})
        headers = {"Content-Type": "application/json"}
        return workers[0].address.request("POST", "/comet/poll", body, headers).status

    assert [ask(room) for room in range(2)] == [200, 200]
    workers[0].broker.disconnect()
    assert ask(2) == 503
    assert len(live_feeds(comet, rooms)) == 2


def test_what_waits_is_stored_when_the_broker_is_back(workers: Workers, follow: Follow) -> None:
    client = follow(1, {"news": "now"})
    workers[0].broker.disconnect()
    for number in range(3):
        workers[0].news.publish(number)
    workers[0].broker.reconnect()
    assert client.data(3) == [0, 1, 2]


def test_a_source_is_read_at_most_64_values_ahead_of_what_is_stored(
    workers: Workers, follow: Follow
) -> None:
    read: list[int] = []
    stored = threading.Event()

    async def numbers() -> AsyncIterator[int]:
        yield 0
        await anyio.to_thread.run_sync(stored.wait)
        for number in range(1, 1000):
            read.append(number)
            yield number

    async def make() -> None:
        source: Any = numbers()
        channel = workers[0].comet.create(source, scope=SITE, name="numbers", size=1000)
        await channel.publish(-1).stored()

    wait_in_loop(workers[0].comet, make)
    client = follow(1, {"numbers": "last:1000"})
    assert sorted(client.data(2)) == [-1, 0]
    workers[0].broker.disconnect()
    stored.set()
    assert soon(workers[0].comet, lambda: len(read) == AHEAD + 1)
    turn(workers[0].comet, 1000)
    assert len(read) == AHEAD + 1
    workers[0].broker.reconnect()
    assert client.data(999) == list(range(1, 1000))


def test_a_name_that_another_worker_has_is_refused(workers: Workers) -> None:
    workers[0].address.request("POST", "/room/kitchen")

    async def make() -> None:
        room: Channel[Any] = workers[1].comet.create(scope=SITE, name="kitchen")
        await room.publish("x").stored()

    with pytest.raises(NonUniqueChannelName):
        wait_in_loop(workers[1].comet, make)


def test_a_position_that_a_worker_does_not_know_of_a_channel_that_has_ended(
    workers: Workers, follow: Follow
) -> None:
    workers[1].broker.hold()
    place = workers[0].stored(workers[0].news, "a")
    workers[0].news.close()
    while workers[0].broker.store.why_closed("news") is None:
        pass  # the store is told behind
    client = follow(1, {"news": place})
    assert client.error() == ("closed", "ended")


def test_all_from_the_first_message_on(workers: Workers, follow: Follow) -> None:
    for number in range(3):
        workers[0].stored(workers[0].news, number)
    client = follow(1, {"news": "first"})
    assert client.data(3) == [0, 1, 2]


@pytest.mark.parametrize("workers", [3], indirect=True)
def test_the_first_message_is_no_longer_held_on_any_worker(
    workers: Workers, follow: Follow
) -> None:
    for number in range(5):
        workers[0].stored(workers[0].news, number)
    client = follow(1, {"other": "now"})
    client.cut()
    client.begin({"news": "first"})
    assert client.error()[0] == "full"


def test_the_outcome_of_what_was_published_elsewhere_is_known(workers: Workers) -> None:
    socket = WebSocketClient(None, workers[0].address)
    socket.follow({"news": "now"})
    deliveries = [workers[0].news.publish("x")]
    assert socket.data(1) == ["x"]
    socket.resume()  # with the position of the message
    found: list[Outcome] = []

    async def ask() -> None:
        found.append(await deliveries[0])

    wait_in_loop(workers[0].comet, ask)
    assert found == [Outcome.SUCCESS]
    socket.cut()


def test_a_client_that_comes_while_a_channel_is_opened_waits_for_it(workers: Workers) -> None:
    workers[0].broker.disconnect()
    answer = Held(lambda: workers[0].address.request("POST", "/room/kitchen"))
    while "kitchen" not in inside(workers[0].comet).channels.site.directory.names():
        pass
    body = json.dumps({"channels": {"kitchen": "last:1"}})
    poll = Question(workers[0].address, "/comet/poll", "application/json", body, "")
    workers[0].address.request("GET", "/comet/comet.js")  # the poll has come by now
    workers[0].broker.reconnect()
    assert answer.answer().status == 200
    assert poll.answer().status == 200


def test_a_request_is_told_to_come_back_once_if_its_channels_are_not_known_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharing, "PATIENCE", 0)
    (broker,) = join(1)
    comet = Comet(KEY, broker=broker, settings=SETTINGS)
    made: list[Channel[Any]] = []

    async def make(request: Request) -> JSONResponse:
        made.extend(comet.create(scope=SITE, name=name) for name in ("one", "two"))
        return JSONResponse("made")

    routes = [Route("/make", make, methods=["POST"])]
    with serve(
        Starlette(routes=routes, middleware=[Middleware(CometMiddleware, comet=comet)])
    ) as address:
        broker.disconnect()
        answer = address.request("POST", "/make")
        assert (answer.status, len(made)) == (503, 2)
        assert "retry-after" in answer.headers
        broker.reconnect()
