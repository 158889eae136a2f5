"""Declared channels over real connections: who comes starts a source, who leaves stops it."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing
from typing import Any

import anyio
import pytest

from asgi_comet import CLIENT_PROCESS, ClientProcess, Comet, DeclaredChannel, Settings
from asgi_comet.channels.feed import Feed
from asgi_comet.declare.shares import GRACE
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import inside, live_feeds
from tests.kit.serving import Address, Tab, poll
from tests.kit.stage import application
from tests.kit.streams import PATIENCE, Sse, Ws
from tests.kit.workers import Workers

LINGER = 10.0
ROOMS = 1000
AT_ONCE = 100  # rooms per connection


class Count:
    """How often something happened, for a test's thread to wait on."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.counted: Counter[Any] = Counter()

    def add(self, what: Any) -> None:
        with self._changed:
            self.counted[what] += 1
            self._changed.notify_all()

    def wait(self, total: int) -> None:
        with self._changed:
            done = self._changed.wait_for(lambda: self.counted.total() >= total, PATIENCE)
        assert done, f"expected {total}, got {self.counted.total()}"


class House:
    """An application with declared channels, whose clock is turned by hand."""

    def __init__(self, workers: Workers, **settings: Any) -> None:
        self.workers = workers
        self.clock = ManualClock()
        settings = {"jitter": 0, "linger": LINGER} | settings
        self.comet = workers.make(settings=Settings(**settings), clock=self.clock)
        self.started, self.closed = Count(), Count()
        self.made: list[tuple[Comet, dict[str, DeclaredChannel[Any, Any]]]] = []
        for comet in workers.of(self.comet):
            self._declare(comet)

    def _declare(self, comet: Comet) -> None:
        async def of(name: object) -> AsyncGenerator[str, None]:
            self.started.add(name)
            try:
                yield f"welcome to {name}"
                await anyio.sleep_forever()
            finally:
                self.closed.add(name)

        @comet.channel("room:{number}")
        async def room(number: int) -> AsyncIterator[str]:
            async with aclosing(of(number)) as values:
                async for value in values:
                    yield value

        @comet.channel("inbox", scope=CLIENT_PROCESS)
        async def inbox(process: ClientProcess) -> AsyncIterator[str]:
            yield f"for {process.id}"
            await anyio.sleep_forever()

        @comet.unlimited("asked")
        async def asked(process: ClientProcess) -> AsyncIterator[int]:
            for number in range(1000):
                yield number

        @comet.channel("ticker")
        async def ticker() -> AsyncIterator[str]:
            self.started.add("ticker")
            self._reading, self._broken = comet, anyio.Event()
            yield "tick"
            await self._broken.wait()
            raise ValueError("broken")

        self.made.append((comet, {"room": room, "inbox": inbox}))
        if comet is self.comet:
            self.room, self.inbox, self.ticker = room, inbox, ticker

    def live(self, name: str) -> list[Feed]:
        """Return the live channels of a declaration that all workers together have."""
        feeds = [f for comet, made in self.made for f in live_feeds(comet, made[name])]
        unique = {(feed.owner, feed.name): feed for feed in feeds}
        return feeds if self.workers.count == 1 else list(unique.values())

    def break_ticker(self) -> None:
        inside(self._reading).loop.run_soon(self._broken.set)


@pytest.fixture
def make_house(workers: Workers) -> Iterator[Callable[..., tuple[House, Address]]]:
    with ExitStack() as stack:

        def make(*, rotating: bool = True, **settings: Any) -> tuple[House, Address]:
            house = House(workers, **settings)
            served = workers.serve(application, house.comet, rotating=rotating)
            return house, stack.enter_context(served)

        yield make


Make = Callable[..., tuple[House, Address]]


def test_a_thousand_rooms_opened_and_left_start_once_each_and_are_all_closed(
    make_house: Make,
) -> None:
    house, address = make_house()
    names = [f"room:{number}" for number in range(ROOMS)]
    parts = [names[n : n + AT_ONCE] for n in range(0, ROOMS, AT_ONCE)]
    with ExitStack() as stack:
        for part in parts:
            sse = stack.enter_context(Sse.open(address, part))
            assert sse.next().name == ":open"
            ws = stack.enter_context(Ws(address))
            ws.say(subscribe=dict.fromkeys(part, "last:1"))
            ws.take(len(part))
        house.started.wait(ROOMS + 1)
        assert set(house.started.counted.values()) == {1}
        assert len(house.live("room")) == ROOMS
        for part in parts:  # others come and go; nothing starts or stops for that
            poll(address, dict.fromkeys(part, "now"))
        house.clock.advance(LINGER * 3)
        assert (house.started.counted.total(), house.closed.counted.total()) == (ROOMS + 1, 0)
        channels = [house.room.channel(number=number) for number in range(ROOMS)]
    for channel in channels:
        wait_for_listeners(channel, 0, PATIENCE)
    assert house.closed.counted.total() == 0
    if house.workers.count > 1:
        return  # Redis tells by the time of its machine that a room is unused
    house.clock.advance(LINGER + 0.3)
    house.closed.wait(ROOMS)
    assert set(house.closed.counted.values()) == {1}
    assert house.started.counted.total() == ROOMS + 1
    assert house.live("room") == []
    assert len(inside(house.comet).channels) == 1  # the ticker


def test_a_member_that_is_refused_is_told_so_and_disturbs_nobody(
    make_house: Make, caplog: pytest.LogCaptureFixture
) -> None:
    house, address = make_house(max_family_channels=2, rotating=False)
    with Ws(address) as inside, Ws(address) as outside:
        inside.say(subscribe={"room:1": "last:1", "room:2": "last:1"})
        assert [event.get("data") for event in inside.take(4)].count(None) == 2
        with caplog.at_level(logging.WARNING, "asgi_comet"):
            outside.say(subscribe={"room:3": "now", "room:2": "now", "ticker": "last:1"})
            told = {event["channel"]: event for event in outside.take(4)}
        assert told["room:3"] == {"channel": "room:3", "error": "closed", "reason": "failed"}
        assert "error" not in told["room:2"] | told["ticker"]
        assert "at most 2 live members" in caplog.text
        (event,) = poll(address, {"room:4": "now"})
        assert event == {"channel": "room:4", "error": "closed", "reason": "failed"}
        (event,) = poll(address, {"room:x": "now"})  # which is no number
        assert event == {"channel": "room:x", "error": "closed", "reason": "unknown"}
        for number in (1, 2):
            house.room.channel(number=number).publish("still here")
        assert [event["data"] for event in inside.take(2)] == ["still here"] * 2
        assert outside.next()["data"] == "still here"
    assert house.started.counted == {1: 1, 2: 1, "ticker": 1}
    assert house.closed.counted.total() == 0


def test_a_channel_whose_generator_ended_says_so_also_after_it_lingered(make_house: Make) -> None:
    house, address = make_house()

    async def short() -> AsyncIterator[int]:
        yield 1

    for comet in house.workers.of(house.comet):
        comet.channel("short")(short)

    closed = {"channel": "short", "error": "closed", "reason": "ended"}
    while closed not in poll(address, {"short": "last:1"}, idle=True):
        pass
    comets = house.workers.of(house.comet)
    while any(inside(one).channels.find("short") is not None for one in comets):
        poll(address, {"short": "now"}, idle=True)  # each look gives the server its turn
        house.clock.advance(LINGER + 1)
    for start in ("now", "last:1", "other.1"):
        assert poll(address, {"short": start}) == [closed]
    with Ws(address) as socket:
        socket.say(subscribe={"short": "now"})
        assert socket.next() == closed
    with Sse.open(address, {"short": "now"}) as events:
        assert {"channel": "short", "reason": "ended"}.items() <= events.take(2)[1].value.items()
    assert address.register("registration=short").pairs == [b"short:ENDED_CHANNEL"]


def test_another_spelling_of_a_room_is_no_channel(make_house: Make) -> None:
    house, address = make_house()
    names = ["room:01", "room:+1", "room: 1 ", "room:1.0", "room:1_0", "room:1"]
    *others, one = poll(address, dict.fromkeys(names, "last:1"))
    assert (one["channel"], len(others)) == ("room:1", 5)
    assert {(event["error"], event["reason"]) for event in others} == {("closed", "unknown")}
    assert len(house.live("room")) == 1


def test_a_client_that_asked_for_all_there_may_be_keeps_nobody_out(make_house: Make) -> None:
    house, address = make_house(max_family_channels=3, rotating=False)
    with Ws(address) as inside:
        inside.say(subscribe={"room:0": "now"})
        inside.next()
        for first in (1, 3, 5):
            names = dict.fromkeys([f"room:{first}", f"room:{first + 1}"], "now")
            assert all("error" not in event for event in poll(address, names))
            house.started.wait(first + 3)  # what never began does not close either
            house.clock.advance(GRACE)
        house.room.channel(number=0).publish("still here")
        while inside.next().get("data") != "still here":
            pass
        house.closed.wait(4)
    assert 0 not in house.closed.counted


def test_all_channels_together_have_a_limit_too(make_house: Make) -> None:
    house, address = make_house(
        max_virtual_channels=2, rotating=False
    )  # of which one is the ticker
    with Ws(address) as inside:
        inside.say(subscribe={"room:1": "now"})
        inside.next()
        tab = Tab(address)
        for name, answer in (("room:2", poll(address, {"room:2": "now"})), ("~inbox", None)):
            (event,) = answer if answer is not None else tab.poll({"~inbox": "now"})
            assert event == {"channel": name, "error": "closed", "reason": "failed"}
        house.room.channel(number=1).publish("still here")
        while inside.next().get("data") != "still here":
            pass


def test_each_tab_that_asks_has_its_own(make_house: Make) -> None:
    house, address = make_house()
    tabs = [Tab(address), Tab(address)]
    for tab in tabs:
        start, *_ = tab.poll({"~inbox": "last:5"})
        (event,) = tab.poll({"~inbox": f"{start['position'].partition('.')[0]}.0"})
        process = inside(house.comet).requests.identity.unsign_process(tab.opened["process"])
        assert event["data"] == f"for {process}"
    assert len(house.live("inbox")) == 2
    tabs[0].post(f"{tabs[0].url}/close")
    (left,) = house.live("inbox")
    assert left.closed is None


def test_an_unlimited_one_is_read_as_the_tab_asks(make_house: Make) -> None:
    _, address = make_house()
    tab = Tab(address)
    (told,) = tab.poll({"~asked": "now"})
    position, found = told["position"], []
    for _ in range(5):
        for event in tab.poll({"~asked": position}):
            position = event["position"]
            found.append(event["data"])
    assert found == list(range(len(found)))
    assert 5 <= len(found) <= 10


def test_readers_of_each_transport_are_told_full_and_read_on_from_there(make_house: Make) -> None:
    house, address = make_house()
    with Ws(address) as ws, Sse.open(address, ["ticker"]) as sse:
        assert sse.next().name == ":open"
        ws.say(subscribe={"ticker": "last:1"})
        while "data" not in (tick := ws.next()):  # the source may start only now
            pass
        before = tick["position"]
        held = Tab(address).hold({"ticker": before})
        wait_for_listeners(house.ticker.channel(), 3)
        house.break_ticker()
        told = ws.next()
        assert (told["error"], told["position"] == before) == ("full", False)
        event = sse.next()
        while event.name == "ticker":  # the first tick came only now
            event = sse.next()
        assert (event.name, event.id) == (":full", told["position"])
        assert held.answer().body.count(b'"error":"full"') == 1
        house.clock.advance(0.7)
        house.started.wait(2)
        assert house.started.counted["ticker"] == 2
        ws.say(subscribe={"ticker": told["position"]})
        assert ws.next()["data"] == "tick"
        with Sse.open(address, {"ticker": event.id}) as again:
            assert again.next().name == ":open"
            assert again.next().value == "tick"
        (event,) = poll(address, {"ticker": told["position"]})
        assert event["data"] == "tick"
    comets = house.workers.of(house.comet)
    assert sum(inside(one).channels.restarts for one in comets) == 1


def test_one_websocket_that_asks_for_ever_new_rooms_keeps_a_bounded_number_alive(
    make_house: Make,
) -> None:
    house, address = make_house(max_family_channels_per_session=150)
    before: list[str] = []
    with Ws(address) as socket:
        for n in range(0, 1000, 100):
            names = [f"room:{n + m}" for m in range(100)]
            socket.say(subscribe=dict.fromkeys(names, "now"), unsubscribe=before)
            told: list[dict[str, Any]] = []
            while len(told) < 100:
                told += [event for event in [socket.next()] if "data" not in event]
            assert all("error" not in event for event in told)
            assert len(house.live("room")) <= 150
            before = names


def test_polls_of_strangers_leave_a_bounded_number_of_rooms_behind(make_house: Make) -> None:
    house, address = make_house(max_family_channels_per_session=150)
    for n in range(0, 500, 100):
        events = poll(address, {f"room:{n + m}": "now" for m in range(100)})
        assert all("error" not in event for event in events)
        assert len(house.live("room")) <= 150 * house.workers.count + 100
