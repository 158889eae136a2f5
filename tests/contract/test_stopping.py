"""Sources of own channels: when their worker stops, and when a reader was there before them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio
import pytest

from asgi_comet import CLIENT_PROCESS, Channel, ClientProcess
from asgi_comet.channels.feed import Wake
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import feed_of, inside, patience_of
from asgi_comet.testing.store import Store
from tests.kit.clients import Client, PollClient, SseClient, WebSocketClient
from tests.kit.listening import Ear, attach
from tests.kit.loop import in_loop
from tests.kit.own import OwnBroker, Worker, open_tab, serving
from tests.kit.serving import Tab, serve
from tests.kit.workers import own_workers

pytestmark = own_workers("workers of its own, which it stops")


async def numbers() -> AsyncIterator[int]:
    for number in range(1000):
        yield number


async def ticks() -> AsyncIterator[int]:
    yield 0
    await anyio.sleep_forever()


def make(worker: Worker, tab: Tab, *, on_demand: bool) -> Channel[Any]:
    process = worker.process_of(tab)
    if on_demand:
        return worker.comet.create_unlimited(numbers(), scope=process, name="c")
    return worker.comet.create(ticks(), scope=process, name="c")


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_worker_that_stops_ends_the_channels_whose_sources_only_it_has(
    *, on_demand: bool
) -> None:
    store = Store()
    stays, stops = Worker(OwnBroker(store)), Worker(OwnBroker(store))
    with serve(stays.app) as stays.address:
        with serve(stops.app) as stops.address:
            tab = Tab(stops.address)
            stops.known(make(stops, tab, on_demand=on_demand))
            client = WebSocketClient(tab, stays.address)
            client.begin({"~c": "new.0"})
            assert client.data(1) == [0]
        assert patience_of(stops.comet) > 0, "the sources did not close"
        event = client.next()
        while "data" in event:
            event = client.next()
        assert (event["error"], event["reason"]) == ("closed", "failed")
        client.cut()


def test_readers_are_told_of_no_end_when_their_worker_stops() -> None:
    """They may still be written to then; the other workers go on with the channels."""
    store, ear = Store(), Ear()
    stays, stops = (Worker(OwnBroker(store), sites=["news"]) for _ in range(2))
    family = stops.comet.family("room:{room}")
    declared = stops.comet.channel("feed", scope=CLIENT_PROCESS)(_values)
    with serve(stays.app) as stays.address:
        with serve(stops.app) as stops.address:
            tab = Tab(stops.address)
            own = stops.make(tab, "own")
            process = stops.process_of(tab)
            channels = [own, stops.sites["news"], declared.channel(process)]
            channels.append(family.channel(room="blue"))
            fanout = inside(stops.comet).fanout
            for channel in map(stops.known, channels):
                in_loop(stops.comet, partial(attach, fanout, ear, feed_of(channel)))
        assert ear.woken is Wake.TIMEOUT
        assert len(ear.cursors) == 4
        assert not any(ear.has_news(feed) for feed in ear.cursors)


async def _values(process: ClientProcess) -> AsyncIterator[int]:
    await anyio.sleep_forever()
    yield 0


def test_the_last_value_of_a_source_is_stored_when_its_worker_stops() -> None:
    store, begun = Store(), threading.Event()
    stays, stops = Worker(OwnBroker(store)), Worker(OwnBroker(store))

    async def farewell() -> AsyncIterator[str]:
        try:
            begun.set()
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            yield "last words"
            yield "too late"

    stops.comet.channel("farewell")(farewell)
    stays.comet.channel("farewell")(_nothing)
    with serve(stops.app) as stops.address:
        assert begun.wait(20)
        stack = ExitStack()
        stays.address = stack.enter_context(serve(stays.app))
        client = SseClient(None, stays.address)
        client.follow({"farewell": "now"})
        client.ensure_connected()
    with stack:
        assert client.data(1) == ["last words"]
        client.cut()


async def _nothing() -> AsyncIterator[str]:
    await anyio.sleep_forever()
    yield ""


@pytest.mark.parametrize("kind", [PollClient, SseClient, WebSocketClient])
def test_a_reader_that_waits_for_an_on_demand_channel_has_its_source_read(
    kind: type[Client],
) -> None:
    with serving(sites=["news"]) as workers:
        tab = open_tab(workers)
        client = kind(tab, workers[1].address)
        client.follow({"~c": "now", "news": "now"})
        client.ensure_connected()
        wait_for_listeners(workers[1].sites["news"], 1)
        make(workers[0], tab, on_demand=True)
        assert client.data(3) == [0, 1, 2]
        client.cut()
