"""`max_age` over every transport: a reader that comes too late is told `full`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from asgi_comet import SITE, Channel, Comet, Settings
from asgi_comet.testing import ManualClock
from tests.kit.clients import Client, PollClient, SseClient, WebSocketClient
from tests.kit.serving import Address
from tests.kit.stage import application
from tests.kit.workers import Workers, one_worker

HOUR = 3600
TIME = "Redis tells the age of a message by the time of its machine, which no test turns"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def comet(workers: Workers, clock: ManualClock) -> Comet:
    return workers.make(clock=clock, settings=Settings(jitter=0))


@pytest.fixture
def chat(comet: Comet) -> Channel[Any]:
    return comet.create(scope=SITE, name="chat", max_age=HOUR)


@pytest.fixture
def address(workers: Workers, comet: Comet) -> Iterator[Address]:
    with workers.serve(application, comet) as address:
        yield address


@pytest.fixture(
    params=[PollClient, SseClient, WebSocketClient],
    ids=lambda client: client.__name__.removesuffix("Client").lower(),
)
def connect(request: pytest.FixtureRequest, address: Address) -> Iterator[Callable[[], Client]]:
    made: list[Client] = []

    def connect() -> Client:
        made.append(request.param(None, address))
        return made[-1]

    yield connect
    for client in made:
        client.cut()


@one_worker(TIME)
def test_a_reader_gets_the_messages_of_the_last_hour(
    chat: Channel[Any], clock: ManualClock, connect: Callable[[], Client]
) -> None:
    for number in range(4):
        chat.publish(number)
        clock.advance(HOUR / 2)
    client = connect()
    (begun,) = client.follow({"chat": "last:1000"})
    assert begun["position"].endswith(".2")  # 2 is an hour old
    assert client.data(2) == [2, 3]


@one_worker(TIME)
def test_a_reader_that_was_away_for_too_long_is_told_full_and_goes_on(
    chat: Channel[Any], clock: ManualClock, connect: Callable[[], Client]
) -> None:
    client = connect()
    client.follow({"chat": "first"})
    chat.publish("a")
    assert client.data(1) == ["a"]
    client.cut()
    chat.publish("b")
    clock.advance(HOUR / 2)
    chat.publish("c")
    clock.advance(HOUR / 2 + 1)  # b is too old
    client.resume()
    assert client.next() == {"channel": "chat", "error": "full", "position": chat_end(chat)}
    client.resume()
    chat.publish("d")
    assert client.data(1) == ["d"]


def test_a_reader_that_has_all_notices_nothing(
    chat: Channel[Any], clock: ManualClock, connect: Callable[[], Client]
) -> None:
    client = connect()
    client.follow({"chat": "first"})
    chat.publish("a")
    assert client.data(1) == ["a"]
    client.cut()
    clock.advance(2 * HOUR)
    client.resume()
    chat.publish("b")
    assert client.data(1) == ["b"]


def chat_end(chat: Channel[Any]) -> str:
    return chat.reference("now")["position"]
