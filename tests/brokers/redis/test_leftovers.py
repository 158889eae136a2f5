"""What is left in Redis when all channels have ended and all workers have stopped."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asgi_comet import Comet, CometMiddleware
from asgi_comet.brokers.redis import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.testing._inspect import inside
from asgi_comet.testing._inspect_redis import redis_tables
from asgi_comet.testing.party import Party
from tests.kit.clients import SseClient
from tests.kit.redis import Client, RedisServer
from tests.kit.servers import Kind, Running, running
from tests.kit.serving import Address
from tests.kit.stage import KEY

APP = "tests.kit.redis_kinds:app"
STOP = 20.0  # seconds
ENDED = 600_000  # ms that the record of a channel that has ended stays, so that workers hear of it


class Readers:
    """Clients that follow one channel each."""

    def __init__(self, at_end: ExitStack) -> None:
        self._clients: dict[str, SseClient] = {}
        self._at_end = at_end

    def follow(self, address: Address, *names: str) -> None:
        for name in names:
            self._clients[name] = client = SseClient(None, address)
            self._at_end.callback(client.cut)
            client.follow({name: "last:1"})
            assert client.data(1) == [0]

    def end(self, name: str) -> tuple[str, str]:
        """Return how a channel ends; a reader whose source has moved is told `full` before."""
        client = self._clients.pop(name)
        while (event := client.next()).get("error") != "closed":
            if event.get("error") == "full":
                client.follow({name: event["position"]})
        client.cut()
        return event["error"], event["reason"]

    def cut(self, name: str) -> None:
        self._clients.pop(name).cut()


@pytest.fixture
def workers(redis: RedisServer) -> Iterator[list[Running]]:
    with ExitStack() as stack:
        made = [
            stack.enter_context(
                running(Kind("uvicorn", ("--no-access-log",)), APP, COMET_BROKER=redis.url)
            )
            for _ in range(3)
        ]
        for worker in made:
            worker.wait_for("running on")
        yield made


@pytest.mark.slow
def test_only_constant_keys_are_left_when_all_is_closed(
    workers: list[Running], client: Client, at_end: ExitStack
) -> None:
    one, two, dying = workers
    readers = Readers(at_end)
    for worker in workers:
        worker.get("/publish")
    for number, query in enumerate(("?plain", "?plain", "")):
        workers[number].get(f"/make/{number}{query}")
    one.get("/publish")
    readers.follow(one.address, "ticks", "room:blue", "once-0", "once-2")
    readers.follow(two.address, "once-1")
    readers.follow(dying.address, "room:red")

    dying.process.kill()
    assert readers.end("once-2") == ("closed", "failed")  # its source has died with its worker
    readers.cut("room:red")
    readers.follow(two.address, "room:red")  # another worker inherits
    for worker in (one, two):
        worker.get("/close")
    for name in ("ticks", "room:blue", "room:red", "once-0", "once-1"):
        assert readers.end(name) == ("closed", "ended")
    for worker in (one, two):
        worker.stop(STOP)

    keys = Keys()
    lives = {key.decode(): client.pttl(key) for key in client.keys("*")}
    lasting = {key for key, life in lives.items() if life == -1}
    assert lasting == {keys.lineage, keys.format, keys.calm}
    day = {keys.control, keys.control_record}  # for workers that were away
    assert max(life for key, life in lives.items() if key not in day) <= ENDED
    assert not client.pubsub_channels("*")


@pytest.mark.anyio
@pytest.mark.parametrize("ends", ["owner", "other"])
async def test_a_channel_with_an_owner_leaves_nothing_while_its_worker_goes_on(
    redis: RedisServer, client: Client, ends: str
) -> None:
    owner, other = brokers = RedisBroker(redis.url), RedisBroker(redis.url)
    one, two = map(Party, brokers)
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(20))
        for party in (one, two):
            await stack.enter_async_context(party.running())
        log = await one.make("a", sourced=True)
        window = await two.join("a")
        assert redis_tables(owner)["bids"] == len(client.keys("*own:*")) == 1
        if ends == "owner":
            await owner.end(log, "ended")
        else:
            await other.end(window, "ended")
            await one.until(lambda: log.closed == "ended")
        owner.unfollow(log)  # as the registry does when a channel has ended
        await one.make("b")  # after all that was sent before
        assert redis_tables(owner)["bids"] == 0
        assert not client.keys("*own:*")


@pytest.mark.anyio
async def test_a_tab_that_closes_while_its_channels_are_opened_leaves_nothing(
    redis: RedisServer,
) -> None:
    comet = Comet(KEY, broker=redis.url)

    async def page(request: Request) -> Response:
        process = comet.open_process()
        for number in range(3):
            comet.create(scope=process, name=f"own-{number}")
        for _ in range(int(request.query_params["turns"])):
            await anyio.lowlevel.checkpoint()
        process.close()
        return Response()

    app = CometMiddleware(Starlette(routes=[Route("/", page)]), comet=comet)
    async with comet.lifespan():
        broker = inside(comet).broker
        assert isinstance(broker, RedisBroker)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            for turns in range(50):
                await client.get("/", params={"turns": turns})
        with anyio.fail_after(STOP):
            while redis_tables(broker)["held"] or redis_tables(broker)["windows"]:
                await anyio.lowlevel.checkpoint()
                gc.collect()  # channels refer to themselves
