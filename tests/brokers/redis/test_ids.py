"""`publish(value, id=...)` of several workers on one Redis: one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from asgi_comet import SITE, Channel, ChannelClosed, Comet, Delivery, Settings
from asgi_comet.brokers.ids import KEPT, MOST
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.position import Position
from asgi_comet.testing._inspect import feed_of, inside
from tests.kit.clients import SseClient
from tests.kit.loop import wait_in_loop
from tests.kit.redis import Client, RedisServer
from tests.kit.serving import Address, serve
from tests.kit.stage import KEY, application

KEYS = Keys().site("orders")
LONGEST = "é" * MOST


class Worker:
    """A `Comet` on a real server, which makes the channel as its siblings do."""

    def __init__(self, redis: RedisServer) -> None:
        self.comet = Comet(KEY, broker=RedisBroker(redis.url), settings=Settings(jitter=0))
        self.orders: Channel[Any] = self.comet.create(scope=SITE, name="orders")
        self.address: Address

    def store(self, *deliveries: Delivery) -> list[Position]:
        """Return the positions of messages, once they are stored."""
        found: list[Position] = []

        async def wait() -> None:
            found.extend([await delivery.stored() for delivery in deliveries])

        wait_in_loop(self.comet, wait)
        return found


@pytest.fixture
def workers(redis: RedisServer) -> Iterator[list[Worker]]:
    with ExitStack() as stack:
        workers = [Worker(redis) for _ in range(2)]
        for worker in workers:
            worker.address = stack.enter_context(serve(application(worker.comet)))
        yield workers


def test_two_workers_that_publish_the_same_id_publish_one_message(
    workers: list[Worker], at_end: ExitStack
) -> None:
    clients = [SseClient(None, worker.address) for worker in workers]
    for client in clients:
        at_end.callback(client.cut)
        client.follow({"orders": "now"})
    sent = [[worker.orders.publish(n, id=f"order-{n}") for n in range(100)] for worker in workers]
    one, two = (worker.store(*sent[n]) for n, worker in enumerate(workers))
    assert one == two
    assert sorted(place.offset for place in one) == list(range(1, 101))
    last = workers[0].orders.publish("last")
    assert workers[0].store(last) == [Position(one[0].epoch, 101)]
    for client in clients:
        *numbers, end = client.data(101)
        assert (sorted(numbers), end) == (list(range(100)), "last")
        client.cut()


def test_redis_keeps_an_id_of_the_longest_kind_for_ten_minutes(
    workers: list[Worker], client: Client
) -> None:
    one, two = workers
    (first,) = one.store(one.orders.publish("a", id=LONGEST))
    assert two.store(two.orders.publish("b", id=LONGEST), two.orders.publish("c")) == [
        first,
        Position(first.epoch, 2),
    ]
    assert client.pttl(KEYS.ids) <= KEPT * 1000
    client.zadd(KEYS.ids, {LONGEST: 0})  # it is of long ago
    assert two.store(two.orders.publish("d", id=LONGEST)) == [Position(first.epoch, 3)]


def test_a_channel_that_has_ended_refuses_a_known_id(workers: list[Worker]) -> None:
    one, two = workers
    one.store(one.orders.publish("a", id="x"))
    two.store(two.orders.publish("b"))  # it knows the channel
    end = inside(one.comet).broker.end
    wait_in_loop(one.comet, lambda: end(feed_of(one.orders), "ended"))
    with pytest.raises(ChannelClosed):
        two.store(two.orders.publish("a", id="x"))
    one.orders.close()
    with pytest.raises(ChannelClosed):
        one.orders.publish("a", id="x")
