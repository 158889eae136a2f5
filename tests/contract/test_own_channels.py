"""Channels of a tab, which is served by another worker at each request."""

from __future__ import annotations

import gc
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asgi_comet import (
    CLIENT_PROCESS,
    Channel,
    ChannelClosed,
    ClientProcess,
    Comet,
    Delivery,
    NonUniqueChannelName,
    Outcome,
    Settings,
)
from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.logs import Log, Unknown
from asgi_comet.brokers.people import Found
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.core.messages import First
from asgi_comet.http.exchange import Exchange
from asgi_comet.identity import used
from asgi_comet.position import Position
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import feed_of, inside
from asgi_comet.testing.store import Event, Store
from asgi_comet.transports.claiming import claim
from tests.kit.clients import Client, PollClient, SseClient, WebSocketClient
from tests.kit.loop import in_loop, outcome, soon, wait_in_loop
from tests.kit.own import OwnBroker, Worker, Workers, open_tab, serving
from tests.kit.serving import Tab, serve
from tests.kit.streams import Ws
from tests.kit.workers import own_workers

pytestmark = own_workers("three workers on a store in memory, whose frames the tests hold back")

CLIENTS: list[type[Client]] = [PollClient, SseClient, WebSocketClient]


@pytest.fixture
def workers() -> Iterator[Workers]:
    with serving(sites=["news"]) as made:
        yield made


@pytest.fixture
def tab(workers: Workers) -> Tab:
    return open_tab(workers)


Follow = Callable[..., Client]


@pytest.fixture
def inbox(workers: Workers, tab: Tab) -> Channel[Any]:
    """A channel of the tab, which the first worker has made."""
    return workers[0].make(tab, "inbox")


async def never(process: ClientProcess) -> AsyncIterator[str]:
    await anyio.sleep_forever()
    yield ""  # pragma: no cover - never read


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__.removesuffix("Client").lower())
def follow(request: pytest.FixtureRequest, workers: Workers, tab: Tab) -> Iterator[Follow]:
    made: list[Client] = []

    def follow(worker: int, starts: dict[str, str] | None = None) -> Client:
        client: Client = request.param(tab, workers[worker].address)
        made.append(client)
        if starts is not None:
            client.follow(starts)
        return client

    yield follow
    for client in made:
        client.cut()


def move(client: Client, workers: Workers, number: int) -> None:
    """Have a client go on with another worker, as when its connection broke."""
    client.cut()
    client.address = workers[number].address
    client.resume()


def test_what_any_worker_publishes_reaches_the_tab_at_any_worker(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    notes = [worker.adopt(tab, "notes") for worker in workers]
    client = follow(2, {"~notes": "now"})
    for number in range(30):
        workers[number % 3].stored(notes[number % 3], number)
    assert client.data(30) == list(range(30))


def test_a_tab_that_changes_the_worker_gets_every_message_once_in_order(
    workers: Workers, inbox: Channel[Any], follow: Follow
) -> None:
    client = follow(0, {"~inbox": "new.0"})
    found = []
    for number in range(0, 24, 2):
        workers[0].stored(inbox, number)
        found += client.data(1)
        client.cut()
        workers[0].stored(inbox, number + 1)
        client.address = workers[number // 2 % 3].address
        client.resume()
        found += client.data(1)
    assert found == list(range(24))


def test_the_newest_connection_reads_and_the_one_at_another_worker_is_told_so(
    workers: Workers, tab: Tab, inbox: Channel[Any], follow: Follow
) -> None:
    first = follow(1, {"~inbox": "now"})
    first.ensure_connected()
    wait_until_read(workers, 1, tab)
    second = follow(2, {"~inbox": "now"})
    second.ensure_connected()
    assert first.error() == ("replaced", None)
    workers[0].stored(inbox, "for the second")
    assert second.data(1) == ["for the second"]


def hold(client: Client, workers: Workers, number: int) -> None:
    """Have a client that asks again and again ask a worker, and wait until the worker has heard."""
    broker = workers[number].broker
    before = broker.claimed
    if not client.stays:
        client.ensure_connected()
        assert soon_asked(workers[number], lambda: broker.claimed > before)


def soon_asked(worker: Worker, condition: Callable[[], bool]) -> bool:
    """Tell whether something holds while a worker serves a few requests."""
    for _ in range(1000):
        if condition():
            return True
        worker.address.request("GET", "/comet/comet.js")
    return False  # pragma: no cover - only if the test fails


def wait_until_read(workers: Workers, number: int, tab: Tab) -> None:
    """Wait until a connection to a worker reads the channels of a tab."""
    worker = workers[number]
    process = worker.process_of(tab)
    assert soon_asked(worker, lambda: process.number != 0)


def test_what_was_acknowledged_at_any_worker_is_dropped(
    workers: Workers, tab: Tab, inbox: Channel[Any], follow: Follow
) -> None:
    client = follow(1, {"~inbox": "now"})
    positions = [workers[0].stored(inbox, number) for number in range(3)]
    assert client.data(3) == [0, 1, 2]
    for worker in (2, 0, 1):
        answer = tab_at(tab, workers, worker).post(f"{tab.url}/ack", {"~inbox": positions[1]})
        assert answer.status == 204
    record = workers[0].broker.store.find(f"{workers[0].process_of(tab).id}\n~inbox")
    assert record is not None
    assert record.acknowledged >= 2
    assert record.history.first >= 3


def tab_at(tab: Tab, workers: Workers, number: int) -> Tab:
    tab.address = workers[number].address
    return tab


def test_a_position_that_is_none_acknowledges_nothing(
    workers: Workers, tab: Tab, inbox: Channel[Any]
) -> None:
    epoch = workers[0].stored(inbox, 1).partition(".")[0]
    record = workers[0].broker.store.find(f"{workers[0].process_of(tab).id}\n~inbox")
    assert record is not None
    for position in ("other.1", f"{epoch}.2"):
        positions = {"~inbox": position, "~none": position}
        assert tab_at(tab, workers, 1).post(f"{tab.url}/ack", positions).status == 204
        assert record.acknowledged == 0
    body = {"Content-Type": "application/json"}
    answer = workers[1].address.request("POST", f"{tab.url}/ack", "{}", body)
    assert answer.status == 403


def test_what_a_worker_reports_as_skipped_is_kept_as_far_as_it_is_true(
    workers: Workers, tab: Tab, inbox: Channel[Any]
) -> None:
    positions = [workers[0].stored(inbox, number) for number in range(4)]
    record = workers[0].broker.store.find(f"{workers[0].process_of(tab).id}\n~inbox")
    assert record is not None
    tab.post(f"{tab.url}/ack", {"~inbox": positions[2]})
    known = []
    for after, upto in ((0, 5), (1, 2), (0, 1), (2, 4)):
        workers[0].broker.skip(feed_of(inbox), after, upto)
        known.append(record.skipped)
    assert known == [(0, 0), (1, 2), (1, 2), (1, 4)]


def test_a_channel_is_full_after_as_many_unread_messages_as_it_holds(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    inbox = workers[0].make(tab, "inbox", size=5)
    for number in range(5):
        workers[0].stored(inbox, number)
    client = follow(1, {"~inbox": "new.0"})
    assert client.data(5) == list(range(5))
    other = workers[1].make(tab, "other", size=5)
    for number in range(5):
        workers[1].stored(other, number)
    with pytest.raises(Exception, match="full"):
        workers[1].stored(other, 5)
    with pytest.raises(Exception, match="full"):
        workers[1].stored(other, 6)
    again = follow(2)
    again.begin({"~other": "new.0"})
    event = again.next()
    assert (event["error"], event.get("position")) == ("full", None)


def test_messages_that_were_sent_and_not_acknowledged_may_be_displaced(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    inbox = workers[0].make(tab, "inbox", size=5)
    workers[0].stored(inbox, "old")
    client = follow(1, {"~inbox": "now"})  # it does not ask for the old one
    client.ensure_connected()
    for number in range(5):
        workers[0].stored(inbox, number)
    assert client.data(5) == list(range(5))
    client.cut()
    last = client.positions["~inbox"]
    for number in range(5, 9):
        workers[0].stored(inbox, number)
    client = follow(2, {"~inbox": last})
    assert client.data(4) == [5, 6, 7, 8]


def test_a_position_whose_next_message_is_gone_or_of_another_epoch_is_told_full(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    inbox = workers[0].make(tab, "inbox", size=5)
    epoch = workers[0].stored(inbox, 1).partition(".")[0]
    workers[0].stored(inbox, 2)
    for position in (f"{epoch}.9", "other.1"):
        client = follow(1)
        client.begin({"~inbox": position})
        event = client.next()
        assert (event["error"], event["position"]) == ("full", f"{epoch}.2")
        client.cut()
    client = follow(1)
    client.begin({"~inbox": f"{epoch}.2"})
    client.ensure_connected()
    wait_until_read(workers, 1, tab)
    client.cut()
    client = follow(2)
    client.begin({"~inbox": f"{epoch}.0"})  # it has said that it has them
    assert client.next()["error"] == "full"


@pytest.mark.parametrize("maker", [1, 2])
def test_a_tab_waits_for_a_channel_that_any_worker_makes_later(
    workers: Workers, tab: Tab, follow: Follow, maker: int
) -> None:
    client = follow(1)
    client.begin({"~inbox": "now"})
    event = client.next()
    assert (event["channel"], event["position"]) == ("~inbox", "new.0")
    client.ensure_connected()
    wait_until_read(workers, 1, tab)
    inbox = workers[maker].make(tab, "inbox")
    for number in range(3):
        workers[maker].stored(inbox, number)
    assert client.data(3) == [0, 1, 2]


def test_a_channel_made_between_two_requests_is_read_from_its_first_message(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    client = follow(1, {"~inbox": "now"})
    client.cut()
    inbox = workers[0].make(tab, "inbox")
    workers[0].stored(inbox, "first")
    client = follow(2, {"~inbox": "new.0"})
    assert client.data(1) == ["first"]


def test_a_channel_that_came_and_went_is_told_closed_and_another_unknown(
    workers: Workers, tab: Tab, inbox: Channel[Any], follow: Follow
) -> None:
    position = workers[0].stored(inbox, "bye")
    inbox.close()
    key = f"{workers[0].process_of(tab).id}\n~inbox"
    store = workers[0].broker.store
    assert soon(workers[0].comet, lambda: store.why_closed(key) is not None)
    client = follow(1)
    client.begin({"~inbox": "new.0"})
    assert client.data(1) == ["bye"]
    client.ensure_connected()
    assert client.error() == ("closed", "ended")
    store.forget(key)
    for name, start, told in [
        ("~inbox", "new.0", "ended"),
        ("~inbox", position, "ended"),
        ("~none", "other.1", "unknown"),
    ]:
        client.cut()
        client = follow(2)
        client.begin({name: start})
        assert client.error() == ("closed", told)
    client.cut()
    client = follow(2)
    client.begin({"~inbox": "now"})  # it begins anew
    assert client.next()["position"] == "new.0"


def test_a_place_in_one_answer_for_own_channels_and_for_those_of_the_site(
    workers: Workers, inbox: Channel[Any], follow: Follow
) -> None:
    site = workers[0].sites["news"]
    client = follow(1, {"~inbox": "now", "news": "now"})
    workers[0].stored(inbox, "own")
    assert client.data(1) == ["own"]
    workers[0].stored(site, "for all")
    assert client.data(1) == ["for all"]


def test_the_reader_is_told_that_a_channel_has_ended(
    workers: Workers, tab: Tab, inbox: Channel[Any], follow: Follow
) -> None:
    client = follow(1, {"~inbox": "now"})
    client.ensure_connected()
    wait_until_read(workers, 1, tab)
    workers[0].stored(inbox, "bye")
    inbox.close()
    assert client.data(1) == ["bye"]
    assert client.error() == ("closed", "ended")


def test_a_source_on_demand_is_read_as_far_as_the_tab_at_any_worker_has_acknowledged(
    workers: Workers, tab: Tab
) -> None:
    read: list[int] = []

    async def count() -> AsyncIterator[int]:
        for number in range(40):
            read.append(number)
            yield number

    process = workers[0].process_of(tab)
    steps = workers[0].known(
        workers[0].comet.create_unlimited(count, scope=process, name="steps", type=int, ahead=4)
    )
    found: list[int] = []
    last = "new.0"
    while len(found) < 20:
        client = PollClient(tab, workers[len(found) % 3].address)
        client.begin({"~steps": last})
        event = client.next()
        assert "data" in event, (found, event, last)
        found.append(event["data"])
        last = event["position"]
        client.cut()
        assert len(read) <= len(found) + 2 * 4
    assert found == list(range(20))
    assert steps.size == 4


def test_a_source_on_demand_goes_on_when_the_store_has_lost_messages(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    read: list[int] = []

    async def count() -> AsyncIterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    process, create = workers[0].process_of(tab), workers[0].comet.create_unlimited
    steps = workers[0].known(create(count, scope=process, name="steps", type=int, ahead=4))
    client = follow(0, {"~steps": "new.0"})
    assert client.data(6) == list(range(6))
    before = feed_of(steps)
    workers[0].broker.store.renew(f"{process.id}\n~steps", tell=True)
    assert soon(workers[0].comet, lambda: feed_of(steps) is not before)
    client.cut()
    client = follow(0, {"~steps": "now"})
    first, *others = client.data(12)
    assert others == list(range(first + 1, first + 12))
    assert len(read) <= first + 12 + 2 * 4


def test_the_source_of_a_worker_that_stops_is_closed_and_its_channel_has_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def count() -> AsyncIterator[int]:
        for number in range(100):
            yield number

    store = Store()
    workers = [Worker(OwnBroker(store)), Worker(OwnBroker(store))]
    with serve(workers[1].app) as workers[1].address:
        with serve(workers[0].app) as workers[0].address:
            tab, create = open_tab(workers), workers[0].comet.create_unlimited
            process = workers[0].process_of(tab)
            workers[0].known(create(count, scope=process, name="steps", type=int, ahead=4))
            client = PollClient(tab, workers[1].address)
            client.follow({"~steps": "new.0"})
            found = client.data(1)
        while "data" in (event := client.next()):
            found.append(event["data"])
        assert event["error"] == "closed"
        assert event["reason"] == "failed"
        assert found == list(range(len(found)))
    assert not [one for one in caplog.records if one.name == "asgi_comet.channels.source"]


def test_a_declared_channel_is_started_once_and_moves_when_its_worker_stops() -> None:
    started: list[int] = []

    def declare(comet: Comet, number: int) -> None:
        @comet.channel("clock", scope=CLIENT_PROCESS, type=str)
        async def clock(process: ClientProcess) -> AsyncIterator[str]:
            started.append(number)
            yield f"{number} begins"
            await anyio.sleep_forever()

    with serving(declare=declare) as workers:
        tab = open_tab(workers)
        client = PollClient(tab, workers[1].address)
        client.follow({"~clock": "new.0"})
        assert client.data(1) == ["1 begins"]
        client.cut()
        client.address = workers[2].address
        client.resume()
        wait_until_read(workers, 2, tab)
        assert started == [1]
        inside(workers[1].comet).channels.let_go(workers[1].process_of(tab).place.directory)
        assert client.data(1) == ["2 begins"]  # without a gap: the first source has closed
        client.cut()
        assert started == [1, 2]


def read_elsewhere(workers: Workers, tab: Tab) -> PollClient:
    """Read by a connection to worker 2, and return when worker 1 knows."""
    client = PollClient(tab, workers[2].address)
    client.begin({"~other": "new.0"})
    wait_until_read(workers, 2, tab)
    assert soon_asked(workers[1], lambda: workers[1].process_of(tab).reader is None)
    return client


class Pause:
    """Lets a coroutine wait for the test."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    async def __call__(self) -> None:
        self.begun.set()
        await anyio.to_thread.run_sync(self.over.wait)


def test_a_connection_that_was_replaced_while_its_channel_was_made_takes_nothing_back() -> None:
    def declare(comet: Comet, number: int) -> None:
        comet.channel("inbox", scope=CLIENT_PROCESS, type=str)(never)

    with serving(declare=declare) as workers:
        tab = open_tab(workers)
        pause = workers[1].broker.opening = Pause()
        first = PollClient(tab, workers[1].address)
        first.begin({"~inbox": "now"})
        assert pause.begun.wait(20)
        second = read_elsewhere(workers, tab)
        pause.over.set()
        assert first.error() == ("replaced", None)
        assert workers[1].broker.claimed == 1
        assert workers[2].process_of(tab).number
        second.cut()


def test_a_connection_that_was_replaced_before_its_claim_was_answered_reads_no_more(
    workers: Workers, tab: Tab
) -> None:
    pause = workers[1].broker.claiming = Pause()
    first = PollClient(tab, workers[1].address)
    first.begin({"~inbox": "new.0"})
    assert pause.begun.wait(20)
    second = read_elsewhere(workers, tab)
    pause.over.set()
    assert first.error() == ("replaced", None)
    assert len(workers[1].broker.unclaimed) == 1
    second.cut()


def test_the_source_of_a_process_that_closes_is_closed_in_a_worker_that_the_tab_has_left() -> None:
    closed: list[int] = []

    def declare(comet: Comet, number: int) -> None:
        @comet.channel("clock", scope=CLIENT_PROCESS, type=str)
        async def clock(process: ClientProcess) -> AsyncIterator[str]:
            try:
                yield "begins"
                await anyio.sleep_forever()
            finally:
                closed.append(number)

    with serving(declare=declare) as workers:
        tab = open_tab(workers)
        client = PollClient(tab, workers[1].address)
        client.follow({"~clock": "new.0"})
        assert client.data(1) == ["begins"]
        client.cut()
        process = workers[2].process_of(tab)
        wait_in_loop(workers[2].comet, lambda: workers[2].comet.wait_timeout(0.1, process))
        process.close()
        assert soon(workers[1].comet, lambda: closed == [1])
        assert soon(workers[1].comet, lambda: not inside(workers[1].comet).clients.find(process.id))


def test_a_source_given_at_run_time_is_closed_when_its_process_closes_in_another_worker(
    workers: Workers, tab: Tab
) -> None:
    closed: list[bool] = []

    async def clock() -> AsyncIterator[str]:
        try:
            yield "begins"
            await anyio.sleep_forever()
        finally:
            closed.append(True)

    workers[0].known(workers[0].comet.create(clock, scope=workers[0].process_of(tab), name="clock"))
    gc.collect()
    workers[1].process_of(tab).close()
    assert soon(workers[0].comet, lambda: bool(closed))


def test_a_declared_channel_that_cannot_start_is_told_as_failed(follow_all: Follow) -> None:
    def declare(comet: Comet, number: int) -> None:
        @comet.channel("clock", scope=CLIENT_PROCESS, type=str)
        async def clock(process: ClientProcess) -> AsyncIterator[str]:
            yield ""  # pragma: no cover - never read

    settings = Settings(jitter=0, linger=0.2, max_virtual_channels=1)
    with serving(settings, ["news"], declare) as workers:
        tab = open_tab(workers)
        client = follow_all(workers[1], tab)
        client.begin({"~clock": "now"})
        assert client.error() == ("closed", "failed")
        client.cut()


@pytest.fixture(params=CLIENTS, ids=lambda client: client.__name__.removesuffix("Client").lower())
def follow_all(request: pytest.FixtureRequest) -> Callable[[Worker, Tab], Client]:
    return lambda worker, tab: request.param(tab, worker.address)


def test_what_the_package_makes_for_itself_is_taken_over_from_the_window(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    notes = workers[0].adopt(tab, "notes")
    client = follow(1, {"~notes": "now"})
    client.ensure_connected()
    wait_until_read(workers, 1, tab)
    again = workers[1].adopt(tab, "notes")
    assert feed_of(again) is workers[1].process_of(tab).place.directory.find("~notes")
    workers[1].stored(again, "here")
    workers[0].stored(notes, "there")
    assert client.data(2) == ["here", "there"]


def test_a_name_that_is_taken_at_another_worker_is_refused(workers: Workers, tab: Tab) -> None:
    workers[0].make(tab, "inbox")
    again = workers[1].make(tab, "inbox")
    with pytest.raises(ChannelClosed, match="failed"):
        again.publish("lost")
    with pytest.raises(NonUniqueChannelName):
        workers[0].adopt(tab, "inbox")


def test_a_name_is_free_once_its_channel_has_ended_at_another_worker(
    workers: Workers, tab: Tab, inbox: Channel[Any], follow: Follow
) -> None:
    client = follow(1, {"~inbox": "now"})
    client.ensure_connected()
    wait_until_read(workers, 1, tab)
    client.cut()
    client.address = workers[2].address
    client.resume()
    wait_until_read(workers, 2, tab)
    workers[0].stored(inbox, "last words")
    assert client.data(1) == ["last words"]
    inbox.close()
    client.ensure_connected()
    assert client.error() == ("closed", "ended")
    client.cut()
    again = workers[1].make(tab, "inbox")  # there is a window on the former one
    workers[1].stored(again, "anew")
    client = follow(2)
    client.begin({"~inbox": "new.0"})
    assert client.data(1) == ["anew"]


def test_a_channel_whose_namesake_is_being_closed_here_has_a_window_of_its_own(
    workers: Workers, inbox: Channel[Any]
) -> None:
    feed, host = feed_of(inbox), workers[0].broker.host
    windows: list[Any] = []

    def close() -> None:
        inbox.close()
        windows.append(host.people.window(replace(feed.spec, closed="ended")))
        windows.append(host.people.window(feed.spec))  # another worker has made it meanwhile
        windows.append(host.people.window(feed.spec))

    in_loop(workers[0].comet, close)
    assert soon_asked(workers[0], lambda: len(windows) == 3 and feed.closed is not None)
    of_former, new, again = windows
    assert (of_former is feed, new is again, new is feed) == (True, True, False)
    assert (feed.closed, new.closed) == ("ended", None)


def test_a_reference_is_exact_where_the_tab_reads_and_loses_nothing_elsewhere(
    workers: Workers, tab: Tab, inbox: Channel[Any], follow: Follow
) -> None:
    assert inbox.reference()["position"] == "new.0"
    client = follow(0, {"~inbox": inbox.reference("now")["position"]})
    first = workers[0].stored(inbox, 1)
    assert client.data(1) == [1]
    hold(client, workers, 0)
    assert feed_of(inbox).live
    assert inbox.reference("now")["position"] == first
    client.cut()
    client = follow(1)
    client.begin({"~inbox": first})
    wait_until_read(workers, 1, tab)
    assert soon(workers[0].comet, lambda: not feed_of(inbox).live)
    workers[0].stored(inbox, 2)
    assert inbox.reference("now")["position"] == "new.0"
    assert client.data(1) == [2]
    client.cut()
    client = follow(2)
    workers[0].stored(inbox, 3)
    client.begin({"~inbox": inbox.reference()["position"]})
    acknowledged = isinstance(client, WebSocketClient)
    assert client.data(1 if acknowledged else 2) == ([3] if acknowledged else [2, 3])


@pytest.mark.parametrize("worker", [0, 1])
def test_the_outcome_is_known_whichever_worker_hears_the_acknowledgement(
    workers: Workers, tab: Tab, inbox: Channel[Any], worker: int
) -> None:
    client = PollClient(tab, workers[worker].address)

    def acknowledge() -> None:
        client.begin({"~inbox": "new.0"})
        assert client.data(1) == ["hello"]
        client.resume()

    reading = threading.Thread(target=acknowledge)

    def write() -> Delivery:
        reading.start()
        return inbox.publish("hello")

    assert outcome(workers[0].comet, write) is Outcome.SUCCESS
    reading.join()
    client.cut()  # only now: a request whose connection is reset may never be read


def test_an_acknowledgement_in_another_epoch_is_not_of_messages_before() -> None:
    with serving(settings=Settings(jitter=0, timeout=0.3)) as workers:
        tab = open_tab(workers)
        inbox = workers[0].make(tab, "inbox")
        position = workers[0].stored(inbox, "before")
        deliveries = [inbox.publish("lost")]
        workers[0].stored(inbox, "as well")
        workers[0].broker.store.renew(f"{workers[0].process_of(tab).id}\n~inbox", tell=True)
        client = PollClient(tab, workers[1].address)
        client.begin({"~inbox": position})
        assert client.error() == ("full", None)
        client.resume()
        wait_until_read(workers, 1, tab)
        client.cut()
        found: list[Outcome] = []

        async def wait() -> None:
            await inbox.publish("later")  # until the time limit of that, which is later
            found.append(await deliveries[0])

        wait_in_loop(workers[0].comet, wait)
        assert found == [Outcome.UNKNOWN]


class Returning:
    """A tab that follows its inbox at a worker, and comes back to the publisher with another epoch.

    The worker gets no more messages, and the store loses what is published meanwhile.
    """

    def __init__(self, workers: Workers, tab: Tab, inbox: Channel[Any]) -> None:
        self._workers, self._tab, self._inbox = workers, tab, inbox
        workers[0].stored(inbox, "before")
        self.client = SseClient(tab, workers[1].address)
        self.client.begin({"~inbox": "new.0"})
        assert self.client.data(1) == ["before"]
        workers[1].broker.disconnect()

    def come_back(self) -> None:
        workers, client = self._workers, self.client
        workers[0].stored(self._inbox, "as well")  # after the lost message
        workers[0].broker.store.renew(f"{feed_of(self._inbox).owner}\n~inbox", tell=True)
        workers[1].broker.reconnect()
        assert client.error() == ("full", None)
        client.cut()
        client.address = workers[0].address
        client.resume()
        wait_until_read(workers, 0, self._tab)


def test_a_reader_that_brings_another_epoch_has_no_message_of_before(
    workers: Workers, tab: Tab, inbox: Channel[Any]
) -> None:
    returning = Returning(workers, tab, inbox)
    thread = threading.Thread(target=returning.come_back)

    def write() -> Delivery:
        thread.start()
        return inbox.publish("lost")

    assert outcome(workers[0].comet, write) is Outcome.UNKNOWN
    thread.join()
    returning.client.cut()


def test_a_reader_that_brings_another_epoch_while_the_store_is_asked_has_none_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(settings=Settings(jitter=0, timeout=0.3)) as workers:
        tab = open_tab(workers)
        inbox = workers[0].make(tab, "inbox")
        returning, acknowledged = Returning(workers, tab, inbox), workers[0].broker.acknowledged
        found: list[Outcome] = []

        async def ask(log: Log) -> Progress | None:
            await anyio.to_thread.run_sync(returning.come_back)
            return await acknowledged(log)

        async def wait() -> None:
            lost = inbox.publish("lost")
            await inbox.publish("later")  # until the time limit of that, which is later
            monkeypatch.setattr(workers[0].broker, "acknowledged", ask)
            found.append(await lost)

        wait_in_loop(workers[0].comet, wait)
        assert found == [Outcome.UNKNOWN]
        returning.client.cut()


def test_a_message_that_was_stored_in_another_epoch_has_no_outcome(
    workers: Workers, tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, append = workers[0].make(tab, "inbox"), workers[0].broker.append
    workers[0].stored(inbox, "before")
    client = PollClient(tab, workers[0].address)
    client.begin({"~inbox": "new.0"})
    assert client.data(1) == ["before"]
    client.resume()
    wait_until_read(workers, 0, tab)

    def append_before_a_loss(*args: Any, **more: Any) -> Any:
        del args, more

        async def stored() -> Position:
            return Position("former", 1)  # the client has another message of that offset

        return stored

    monkeypatch.setattr(workers[0].broker, "append", append_before_a_loss)
    assert outcome(workers[0].comet, lambda: inbox.publish("lost")) is Outcome.UNKNOWN
    monkeypatch.setattr(workers[0].broker, "append", append)
    client.cut()


def test_without_an_acknowledgement_the_outcome_is_unknown() -> None:
    settings = Settings(jitter=0, timeout=0.3)
    with serving(settings=settings) as workers:
        tab = open_tab(workers)
        inbox = workers[0].make(tab, "inbox")
        assert outcome(workers[0].comet, lambda: inbox.publish(1)) is Outcome.UNKNOWN
        deliveries = [inbox.publish(2)]
        position = workers[0].stored(inbox, 3)
        client = PollClient(tab, workers[1].address)
        client.begin({"~inbox": position})
        wait_until_read(workers, 1, tab)
        client.cut()
        late: list[Outcome] = []

        async def wait() -> None:
            await inbox.publish("later")  # until the time limit of that, which is later
            late.append(await deliveries[0])
            workers[0].broker.disconnect()
            late.append(await lost)

        lost = inbox.publish(4)
        wait_in_loop(workers[0].comet, wait)
        assert late == [Outcome.SUCCESS, Outcome.UNKNOWN]


class Failing:
    """How a worker cannot let a tab read."""

    @staticmethod
    def away(worker: Worker, process: ClientProcess) -> None:
        worker.broker.disconnect()

    @staticmethod
    def moved(worker: Worker, process: ClientProcess) -> None:
        worker.broker.moved.add(process.id)


@pytest.mark.parametrize("fail", [Failing.away, Failing.moved])
def test_a_tab_that_cannot_read_now_comes_back(
    workers: Workers, tab: Tab, follow: Follow, fail: Callable[[Worker, Any], None]
) -> None:
    workers[0].make(tab, "inbox")
    fail(workers[1], workers[1].process_of(tab))
    client = follow(1)
    client.begin({"~inbox": "now"})
    if isinstance(client, SseClient):
        assert client.stream is not None
        assert (client.stream.status, client.read()) == (200, [])
        return
    assert client.next()["error"] in ("deactivated", "restart")


def test_a_tab_whose_process_has_closed_elsewhere_is_told_so(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    workers[0].make(tab, "inbox")
    workers[2].process_of(tab).close()
    client = follow(1)
    client.begin({"~inbox": "now"})
    event = client.next()
    while "error" not in event:  # the worker had still to be told when the client came
        event = client.next()
    assert event["error"] == "process-closed"


def test_a_tab_whose_process_closes_while_it_asks_is_told_so(
    workers: Workers, tab: Tab, follow: Follow
) -> None:
    workers[0].make(tab, "inbox")
    workers[1].broker.gone.add(workers[1].process_of(tab).id)
    client = follow(1)
    client.begin({"~inbox": "now"})
    assert client.next()["error"] == "process-closed"


def test_a_tab_that_comes_back_after_the_end_is_told_of_it(
    workers: Workers, inbox: Channel[Any], follow: Follow
) -> None:
    client = follow(1, {"~inbox": "new.0"})
    workers[0].stored(inbox, "last")
    assert client.data(1) == ["last"]
    client.cut()
    inbox.close()
    workers[0].stored(workers[0].sites["news"], "later")  # all that began before is done
    client.address = workers[2].address
    client.resume()
    assert client.error() == ("closed", "ended")


def test_no_listener_is_counted_by_workers_without_the_process(
    workers: Workers, tab: Tab, inbox: Channel[Any]
) -> None:
    wait_for_listeners(inbox, 0)
    client = WebSocketClient(tab, workers[0].address)
    client.follow({"~inbox": "now"})
    wait_for_listeners(inbox, 1)
    client.cut()


def test_a_process_that_closes_ends_its_channels_here_and_tells_no_other_worker(
    workers: Workers, tab: Tab, inbox: Channel[Any]
) -> None:
    process = workers[0].process_of(tab)
    key = f"{process.id}\n~inbox"
    workers[1].process_of(tab).close()
    wait_in_loop(workers[0].comet, process.wait_closed)
    assert inbox.listeners == 0
    with pytest.raises(ChannelClosed):
        inbox.publish("too late")
    workers[0].stored(workers[0].sites["news"], "later")  # all that began before is done
    assert workers[0].broker.store.why_closed(key) is None


def test_what_only_this_worker_can_read_ends_everywhere_when_it_lets_go(
    workers: Workers, tab: Tab
) -> None:
    async def forever() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 0  # pragma: no cover - never reached

    process = workers[0].process_of(tab)
    made = workers[0].comet.create(forever, scope=process, name="ticks", type=int)
    workers[0].known(made)
    workers[0].make(tab, "inbox")
    inside(workers[0].comet).channels.let_go(process.place.directory)
    store = workers[0].broker.store
    assert soon(workers[0].comet, lambda: store.why_closed(f"{process.id}\n~ticks") == "failed")
    assert store.why_closed(f"{process.id}\n~inbox") is None


def test_a_worker_that_forgets_a_process_counts_its_channels_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(used, "KEPT", 0.0)
    monkeypatch.setattr(used, "SWEEP", 0.01)
    with serving() as workers:
        tab = open_tab(workers)
        workers[0].stored(workers[0].make(tab, "inbox"), "a")
        client = PollClient(tab, workers[1].address)
        client.follow({"~inbox": "first"})
        assert client.data(1) == ["a"]
        process = workers[1].process_of(tab).id
        client.cut()
        for worker in workers[:2]:
            while len(inside(worker.comet).channels):
                worker.address.request("GET", "/comet/comet.js")
                gc.collect()
        assert workers[1].broker.store.why_closed(f"{process}\n~inbox") is None


def test_a_channel_without_a_name_that_is_dropped_ends_only_if_nobody_could_know_it(
    workers: Workers, tab: Tab
) -> None:
    process = workers[0].process_of(tab)
    store = workers[0].broker.store
    unknown: Channel[Any] | None = workers[0].known(workers[0].comet.create(scope=process))
    known: Channel[Any] | None = workers[0].known(workers[0].comet.create(scope=process))
    assert unknown is not None
    assert known is not None
    keys = [f"{process.id}\n{channel.id}" for channel in (unknown, known)]
    known.reference()
    unknown = known = None
    assert soon(workers[0].comet, lambda: store.why_closed(keys[0]) == "ended")
    assert store.why_closed(keys[1]) is None


def test_frames_that_were_lost_are_made_up_for(
    workers: Workers, tab: Tab, inbox: Channel[Any], follow: Follow
) -> None:
    client = follow(1, {"~inbox": "now", "~later": "now"})
    client.ensure_connected()
    wait_until_read(workers, 1, tab)
    workers[1].broker.lose(3)
    for number in range(3):
        workers[0].stored(inbox, number)
    assert client.data(3) == [0, 1, 2]
    hold(client, workers, 1)
    workers[1].broker.lose(1)
    later = workers[2].make(tab, "later")
    workers[2].stored(later, "made")
    assert client.data(1) == ["made"]
    hold(client, workers, 1)
    workers[1].broker.lose(1)
    other = follow(2, {"~inbox": "now"})
    other.ensure_connected()
    assert client.error() == ("replaced", None)


def test_a_socket_that_was_replaced_cannot_read_further_channels(
    workers: Workers, tab: Tab, inbox: Channel[Any]
) -> None:
    first = WebSocketClient(tab, workers[1].address)
    first.follow({"~inbox": "now"})
    assert first.socket is not None
    workers[1].broker.hold()
    second = WebSocketClient(tab, workers[2].address)
    second.follow({"~inbox": "now"})
    first.socket.say(subscribe={"~other": "now"})
    assert first.error() == ("replaced", None)
    workers[1].broker.let_go()
    workers[0].stored(inbox, "for the second")
    assert second.data(1) == ["for the second"]
    second.cut()


@pytest.mark.parametrize("made", [CLIENTS, CLIENTS[::-1]])
def test_connections_to_the_site_read_the_default_process_at_any_worker(
    workers: Workers, tab: Tab, made: list[type[Client]]
) -> None:
    session = workers[0].process_of(tab).session.id
    tab.url = "/comet"
    first, second = made[0](tab, workers[1].address), made[-1](tab, workers[2].address)
    first.begin({"~inbox": "new.0"})
    people = workers[0].broker.shared_people
    default = list[str]()

    async def look() -> None:
        (state,) = (await people.visit([session])).sessions
        default[:] = [state.default]

    while default in ([], [""]):
        wait_in_loop(workers[0].comet, look)
    inbox = workers[0].comet.create(scope=workers[0].find(default[0]), name="inbox")
    workers[0].stored(workers[0].known(inbox), "first")
    assert first.data(1) == ["first"]
    first.cut()
    second.positions = first.positions
    second.resume()
    workers[0].stored(inbox, "second")
    assert second.data(1) == ["second"]
    second.cut()


def test_a_socket_reads_further_channels_as_the_same_reader(workers: Workers, tab: Tab) -> None:
    inbox, other = workers[0].make(tab, "inbox"), workers[2].make(tab, "other")
    client = WebSocketClient(tab, workers[1].address)
    client.follow({"~inbox": "now"})
    assert client.socket is not None
    client.socket.say(subscribe={"~other": "now"})
    client.next()
    number = workers[1].process_of(tab).number
    workers[0].stored(inbox, "one")
    workers[2].stored(other, "two")
    assert client.data(2) == ["one", "two"]
    client.socket.say(unsubscribe=["~inbox", "~other"])
    process = workers[1].process_of(tab)
    assert soon_asked(workers[1], lambda: process.number == 0)
    assert workers[1].broker.unclaimed == [number]
    client.cut()


def test_a_tab_in_a_hurry_gets_every_message_once_whatever_it_does(
    workers: Workers, tab: Tab
) -> None:
    """Messages come meanwhile; connections break, move, and are replaced while they are held."""
    notes = [worker.adopt(tab, "notes", size=1000) for worker in workers]
    choice = random.Random(1)
    found: list[int] = []
    position, published = "new.0", 0
    kinds: list[type[Client]] = [PollClient, SseClient, WebSocketClient]
    while len(found) < 200:
        client = choice.choice(kinds)(tab, choice.choice(workers).address)
        client.begin({"~notes": position})
        for _ in range(choice.randrange(8)):
            number = choice.randrange(3)
            workers[number].stored(notes[number], published)
            published += 1
        rival = choice.choice(kinds)(tab, choice.choice(workers).address)
        if choice.random() < 0.3:
            rival.begin({"~notes": position})
            client.cut()
            client = rival
        for _ in range(choice.randrange(min(published - len(found), 6) + 1)):
            event = client.next()
            if client is rival and event == {"error": "replaced"}:
                break  # both were on their way at once, so either may have come later
            assert "data" in event, event
            found.append(event["data"])
            position = event["position"]
        client.cut()
        rival.cut()
    assert found == list(range(len(found)))


# When a connection came


def make_request(tab: Tab, body: str, path: str = "poll") -> bytes:
    head = (
        f"POST {tab.url}/{path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Cookie: {tab.cookie}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode()


def test_a_request_came_before_its_body(workers: Workers, tab: Tab) -> None:
    workers[0].make(tab, "inbox")
    body = json.dumps({"channels": {"~inbox": "new.0"}, "idle": True})
    reading = inside(workers[1].comet).drain.reading
    with workers[1].address.connect() as slow:
        slow.sendall(make_request(tab, body))
        assert soon_asked(workers[1], lambda: bool(reading))
        later = time.monotonic()
        slow.sendall(body.encode())
        assert slow.recv(12) == b"HTTP/1.1 200"
    (came,) = workers[1].broker.arrivals
    assert came < later


@pytest.mark.parametrize(("name", "status"), [("news", b"204"), ("~inbox", b"503")])
def test_acknowledging_site_channels_does_not_wait_for_the_store(
    workers: Workers, tab: Tab, name: str, status: bytes
) -> None:
    body = json.dumps({name: "outdated.1"})
    reading = inside(workers[1].comet).drain.reading
    with workers[1].address.connect() as slow:
        slow.sendall(make_request(tab, body, "ack"))
        assert soon_asked(workers[1], lambda: bool(reading))
        workers[1].broker.disconnect()
        slow.sendall(body.encode())
        assert slow.recv(12) == b"HTTP/1.1 " + status


def test_a_websocket_comes_for_channels_when_it_subscribes(workers: Workers, tab: Tab) -> None:
    workers[0].make(tab, "inbox")
    with Ws(workers[1].address, tab.url, tab.cookie) as socket:
        later = time.monotonic()
        socket.say(subscribe={"~inbox": "now"})
        assert socket.next()["channel"] == "~inbox"
    (came,) = workers[1].broker.arrivals
    assert came > later


def test_a_client_that_went_before_the_worker_was_free_reads_nothing(
    workers: Workers, tab: Tab
) -> None:
    workers[0].make(tab, "inbox")
    worker, body = workers[1], json.dumps({"channels": {"~inbox": "new.0"}})
    busy, free = threading.Event(), threading.Event()
    worker.broker.confirms = True

    async def block() -> None:
        busy.set()
        assert free.wait(20)

    blocking = threading.Thread(target=wait_in_loop, args=(worker.comet, block))
    blocking.start()
    assert busy.wait(20)
    with worker.address.connect() as client:
        client.sendall(make_request(tab, body) + body.encode())
    free.set()
    blocking.join()
    assert soon_asked(worker, lambda: bool(worker.broker.arrivals))
    process = worker.process_of(tab)
    assert soon_asked(worker, lambda: not process.listeners)
    assert worker.broker.claimed == 0


def test_a_client_that_is_still_there_reads(workers: Workers, tab: Tab, follow: Follow) -> None:
    inbox = workers[0].make(tab, "inbox")
    workers[1].broker.confirms = True
    client = follow(1, {"~inbox": "now"})
    workers[0].stored(inbox, "x")
    assert client.data(1) == ["x"]


async def neither(*_: object) -> Any:
    raise NotImplementedError


class Lost(Listener):
    """A connection that has ended before it claims."""

    def forbid(self, feed: Feed) -> None:
        raise NotImplementedError

    def rouse(self) -> None:
        raise NotImplementedError


def test_a_connection_that_has_ended_claims_nothing(workers: Workers, tab: Tab) -> None:
    workers[0].make(tab, "inbox")
    node, process, found = inside(workers[0].comet), workers[0].process_of(tab), list[Any]()

    async def ask() -> None:
        exchange = Exchange({"type": "http", "headers": []}, neither, neither, "", "/poll")
        found.append(await claim(node, exchange, process, Lost(), {"~inbox": First()}))

    wait_in_loop(workers[0].comet, ask)
    assert found == [{"~inbox": Found(None, Unknown())}]
    assert (process.reader, workers[0].broker.claimed) == (None, 0)


def test_what_is_over_changes_nothing_in_the_joined_store(workers: Workers, tab: Tab) -> None:
    log, process = feed_of(workers[0].make(tab, "inbox")), workers[0].process_of(tab)
    store, claims = workers[0].broker.store, workers[0].broker.claims

    async def act() -> None:
        claims.claim(process.id, 7, time.monotonic(), {})
        store.renew(f"{process.id}\n~inbox")
        claims.mark_sent(log, 1)
        assert not claims.save(process.id, 8, b"state")
        claims.check()  # the reader follows no channel
        claims.take(f"{process.id}\n~gone", Event("made"))

    wait_in_loop(workers[0].comet, act)
    record = store.find(f"{process.id}\n~inbox")
    assert record is not None
    assert (record.sent, claims.load(process.id)) == (0, None)
