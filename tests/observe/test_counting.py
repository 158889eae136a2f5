"""What is counted: each fixed value of a label, by the thing that it stands for."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import anyio
import pytest
from starlette.requests import HTTPConnection

from asgi_comet import SITE, Channel, ChannelFull, Comet, Outcome, Settings
from asgi_comet._runtime.counters import CREATED, Counters, TransportCounters
from asgi_comet._runtime.timers import Timeout, Timers
from asgi_comet.channels.sampling import Sample
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import inside
from tests.kit.figures import figure
from tests.kit.loop import in_loop, soon, wait_in_loop
from tests.kit.people import people, send
from tests.kit.processes import process_of
from tests.kit.serving import Address, Held, Tab, hold_registration, poll, serve
from tests.kit.stage import KEY
from tests.kit.streams import Sse, Ws

TRANSPORTS = ["poll", "sse", "websocket", "registration"]
STREAMS = ["sse", "websocket"]
ELSEWHERE = {"Origin": "https://elsewhere.example"}

Changed = Callable[..., float]


class Served:
    """A server, and by how much its figures have risen."""

    def __init__(self, stack: ExitStack, **settings: Any) -> None:
        self.clock = ManualClock()
        settings = {"jitter": 0, "history_size": 10} | settings
        self.comet = Comet(KEY, settings=Settings(**settings), clock=self.clock)
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news")
        self.address: Address = stack.enter_context(serve(people(self.comet)))

    def count(self, name: str, **labels: str) -> float:
        return figure(self.comet, f"comet_{name}", **labels)

    def comes_to(self, value: float, name: str, **labels: str) -> bool:
        return soon(self.comet, lambda: self.count(name, **labels) == value)

    def ended(self, transport: str, reason: str) -> bool:
        labels = {"transport": transport, "reason": reason}
        return self.comes_to(1, "disconnections_total", **labels)


Make = Callable[..., Served]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:
        yield partial(Served, stack)


@pytest.fixture
def served(make: Make) -> Served:
    return make()


def follow(served: Served, stack: ExitStack, transport: str, tab: Tab | None = None) -> Any:
    """Follow `news` over a stream, which then waits."""
    base = "/comet" if tab is None else tab.url
    cookie = "" if tab is None else tab.cookie
    if transport == "sse":
        sse = stack.enter_context(Sse.open(served.address, ["news"], base, Cookie=cookie or None))
        assert sse.next().name == ":open"
        return sse
    ws = stack.enter_context(Ws(served.address, base, cookie))
    ws.say(subscribe={"news": "now"})
    ws.next()
    return ws


# Connections


@pytest.mark.parametrize("transport", STREAMS)
def test_a_stream_is_open_until_its_client_has_gone(served: Served, transport: str) -> None:
    with ExitStack() as stack:
        follow(served, stack, transport)
        assert served.count("listeners", transport=transport) == 1
        assert served.count("connections_total", transport=transport, outcome="accepted") == 1
    assert served.ended(transport, "client")
    assert served.count("listeners", transport=transport) == 0


def test_a_stream_that_has_lasted_its_time(served: Served) -> None:
    with ExitStack() as stack:
        follow(served, stack, "sse")
        served.clock.advance(700)
        assert served.ended("sse", "time")


@pytest.mark.parametrize("transport", STREAMS)
def test_deactivated(served: Served, transport: str) -> None:
    with ExitStack() as stack:
        follow(served, stack, transport)
        served.comet.activation.deactivate()
        assert served.ended(transport, "deactivated")
        with pytest.raises(AssertionError):
            poll(served.address, {"news": "now"})
        hold_registration(served.address, "registration=news").answer()
        if transport == "sse":
            with Sse.open(served.address, ["news"]) as refused:
                refused.rest()
        else:
            with Ws(served.address) as ws:
                ws.closed()
        for name in (transport, "poll", "registration"):
            assert served.count("connections_total", transport=name, outcome="deactivated") == 1


def test_a_stream_whose_client_does_not_read(make: Make) -> None:
    served = make(message_limit=2**20, history_bytes=64 * 2**20, history_size=1000)
    with ExitStack() as stack:
        follow(served, stack, "sse")
        while not served.count("stalled_writes"):
            served.news.publish("x" * 2**19)
            in_loop(served.comet, lambda: None)
        served.clock.advance(11)
        assert served.ended("sse", "stalled")
        assert served.comes_to(0, "stalled_writes")


def test_a_connection_that_another_one_replaces(served: Served) -> None:
    tab = Tab(served.address)
    with ExitStack() as stack:
        for _ in range(2):
            ws = stack.enter_context(Ws(served.address, tab.url, tab.cookie))
            ws.say(subscribe={"~own": "now"})
            ws.next()
        assert served.ended("websocket", "replaced")
        process_of(served.comet, tab).close()
        assert served.ended("websocket", "closed")


def test_a_connection_of_before_a_login(served: Served) -> None:
    tab = Tab(served.address)
    with ExitStack() as stack:
        follow(served, stack, "websocket", tab)
        assert send(tab, "/login", "alice").status == 204
        assert served.ended("websocket", "moved")


def test_requests_that_were_answered(served: Served) -> None:
    poll(served.address, {"news": "now"})
    assert served.ended("poll", "answered")
    asked = hold_registration(served.address, "registration=news")
    wait_for_listeners(served.news, 1)
    served.news.publish(1)
    asked.answer()
    assert served.ended("registration", "answered")


@pytest.mark.parametrize("transport", STREAMS)
def test_the_server_stops(served: Served, transport: str) -> None:
    with ExitStack() as stack:
        follow(served, stack, transport)
        in_loop(served.comet, inside(served.comet).drain.begin)
        assert served.ended(transport, "shutdown")


def test_refused_connections(make: Make) -> None:
    served = make(max_processes_per_session=1)
    json_ = {"Content-Type": "application/json"}
    asked = json.dumps({"channels": {"news": "now"}})

    def post(path: str, **headers: str) -> int:
        return served.address.request("POST", path, asked, json_ | headers).status

    assert post("/comet/poll", **ELSEWHERE) == 403
    assert served.count("connections_total", transport="poll", outcome="origin") == 1
    assert post("/comet/p/x/poll") == 403
    assert served.count("connections_total", transport="poll", outcome="forbidden") == 1
    tab = Tab(served.address)
    with ExitStack() as stack:
        follow(served, stack, "websocket", tab)
        stream = Sse.open(served.address, ["~own"], Cookie=tab.cookie)
        assert stream.status == 429
        stream.cut()
    assert served.count("connections_total", transport="sse", outcome="limit") == 1
    assert post("/comet/open", **ELSEWHERE) == 403  # holds no connection


# Positions


def position(served: Served, offset: int) -> str:
    epoch = served.news.reference()["position"].partition(".")[0]
    return f"{epoch}.{offset}"


@pytest.mark.parametrize("transport", ["poll", "sse", "websocket"])
def test_resumes_and_gaps(served: Served, transport: str) -> None:
    for number in range(15):  # of which ten are held
        served.news.publish(number)

    def resume(start: str) -> None:
        if transport == "poll":
            poll(served.address, {"news": start}, idle=True)
        elif transport == "sse":
            with Sse.open(served.address, {"news": start}) as sse:
                sse.next()
                sse.next()
        else:
            with Ws(served.address) as ws:
                ws.say(subscribe={"news": start}, unsubscribe=[])
                ws.frame()

    def counted(name: str, label: str, *values: str) -> list[float]:
        return [served.count(name, **{label: value}) for value in values]

    outcomes = partial(counted, "resumes_total", "outcome", "complete", "nothing", "full")
    reasons = partial(counted, "gaps_total", "reason", "displaced", "epoch")
    resume("now" if transport == "poll" else "last:1")
    assert outcomes() == [0, 0, 0]
    resume(position(served, 12))
    assert outcomes() == [1, 0, 0]
    assert served.count("replayed_messages_sum") == 3
    resume(position(served, 3))
    assert (outcomes(), reasons()) == ([1, 0, 1], [1, 0])
    resume("AAAAAAAA.3")
    assert (outcomes(), reasons()) == ([1, 0, 2], [1, 1])
    resume(position(served, 99))
    assert (outcomes(), reasons()) == ([1, 0, 3], [1, 2])
    if transport == "poll":
        resume(position(served, 15))
        assert outcomes() == [1, 1, 3]


def test_a_registration_goes_on_from_what_the_server_keeps(served: Served) -> None:
    tab = Tab(served.address)

    def register(count: int = 0) -> str:
        for number in range(count):
            served.news.publish(number)
        path, kind = f"{tab.url}/poll", "application/x-ocsigen-comet"
        return tab.post(path, "registration=news", kind).body.decode()

    def outcomes() -> list[float]:
        return [served.count("resumes_total", outcome=o) for o in ("complete", "nothing", "full")]

    asked = hold_registration_of(tab)
    wait_for_listeners(served.news, 1)
    served.news.publish("first")
    asked()
    assert outcomes() == [0, 0, 0]
    register(2)
    assert outcomes() == [1, 0, 0]
    assert "ENDED" in register(15)
    assert outcomes() == [1, 0, 1]
    assert served.count("gaps_total", reason="displaced") == 1


def hold_registration_of(tab: Tab) -> Callable[[], object]:
    path, kind = f"{tab.url}/poll", "application/x-ocsigen-comet"
    return Held(lambda: tab.post(path, "registration=news", kind)).answer


def test_an_overflow_and_a_restart_are_told_to_each_reader(make: Make) -> None:
    served = make(history_size=3)
    tab = Tab(served.address)
    own = served.comet.create(scope=process_of(served.comet, tab), name="own", size=2)
    tab.poll({"~own": "now"})
    own.publish(1)
    own.publish(2)
    with pytest.raises(ChannelFull):
        own.publish(3)
    tab.poll({"~own": "now"})
    assert served.count("gaps_total", reason="overflow") == 1


def test_a_source_that_fails_is_started_again_and_its_readers_are_told(make: Make) -> None:
    with ExitStack() as stack:
        served = make()
        broken = anyio.Event()

        @served.comet.channel("ticker")
        async def ticker() -> AsyncIterator[str]:
            yield "tick"
            await broken.wait()
            raise ValueError("broken")

        ws = stack.enter_context(Ws(served.address))
        ws.say(subscribe={"ticker": "last:1"})
        while "data" not in ws.next():
            pass
        in_loop(served.comet, broken.set)
        while ws.next().get("error") != "full":
            pass
        assert served.count("gaps_total", channel="ticker", reason="restarted") == 1
        assert served.count("source_restarts_total", channel="ticker") == 1
        assert served.count("published_total", channel="ticker") == 1


# Acknowledgements and deliveries


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_how_soon_a_message_is_delivered_and_acknowledged(served: Served, transport: str) -> None:
    tab = Tab(served.address)
    with ExitStack() as stack:
        if transport in STREAMS:
            stream = follow(served, stack, transport, tab)
            served.news.publish("x")
            event = stream.next()
            at = event.id if transport == "sse" else event["position"]
            if transport == "sse":
                assert tab.post(f"{tab.url}/ack", {"news": at}).status == 204
            else:
                stream.say(ack={"news": at})
        elif transport == "poll":
            held = tab.hold({"news": tab.poll({"news": "now"})[0]["position"]})
            wait_for_listeners(served.news, 1)
            served.news.publish("x")
            (event,) = json.loads(held.answer().body)["events"]
            for _ in range(2):  # the second one has it already
                tab.poll({"news": event["position"]}, idle=True)
        else:
            answer = hold_registration_of(tab)
            wait_for_listeners(served.news, 1)
            served.news.publish("x")
            answer()
            again = hold_registration_of(tab)
            wait_for_listeners(served.news, 1)
            served.news.publish("y")
            again()
        assert served.comes_to(1, "acknowledge_seconds_count", transport=transport)
        assert served.count("delivered_total", transport=transport) >= 1


@pytest.mark.parametrize("transport", STREAMS)
def test_how_soon_a_flush_has_delivered(served: Served, transport: str) -> None:
    with ExitStack() as stack:
        stream = follow(served, stack, transport)
        for number in range(1, 100):  # the stream may send the first ones before the flush
            served.news.publish(number)
            stream.next()
            assert served.comes_to(number, "delivered_total", transport=transport)
            if served.count("delivery_seconds_count", transport=transport):
                return
        raise AssertionError("no delivery was measured")


def test_how_soon_a_stream_has_what_it_sends_itself(served: Served) -> None:
    other = served.comet.create(scope=SITE, name="other")
    with Sse.open(served.address, ["news", "other"]) as stream:  # more than the flush sends
        assert stream.next().name == ":open"
        for _ in range(100):
            in_loop(served.comet, partial(_publish_both, served.news, other))
            stream.take(2)
            if served.count("delivery_seconds_count", transport="sse"):
                return
        raise AssertionError("no delivery was measured")


def _publish_both(*channels: Channel[Any]) -> None:
    for channel in channels:
        channel.publish("x")


def test_the_outcome_of_an_awaited_write(served: Served) -> None:
    found: list[Outcome] = []

    async def write() -> None:
        found.append(await served.news.publish("x"))

    waiting = threading.Thread(target=wait_in_loop, args=(served.comet, write))
    waiting.start()
    while waiting.is_alive():
        served.clock.advance(30)
    assert found == [Outcome.FAILURE]
    assert served.count("outcomes_total", outcome="failure") == 1


# Rights


@pytest.mark.parametrize("answer", ["yes", "no", "failed", "late"])
def test_what_the_application_answers(served: Served, answer: str) -> None:
    async def authorize(connection: HTTPConnection) -> bool:
        if answer == "late":
            raise TimeoutError
        if answer == "failed":
            raise OSError("the database is away")
        return answer == "yes"

    served.comet.create(scope=SITE, name="secret", authorize=authorize)
    served.address.request(
        "POST",
        "/comet/poll",
        json.dumps({"channels": {"secret": "now"}}),
        {"Content-Type": "application/json"},
    )
    for one in ("yes", "no", "failed", "late"):
        assert served.count("authorisations_total", outcome=one) == (one == answer)
    assert served.count("authorise_seconds_count", function="authorize") == 1


# The event loop


class Connection:
    """A stream, or a poll."""

    def __init__(self, *, stays: bool) -> None:
        self.stays = stays
        self.counters = TransportCounters("sse")


def test_only_a_client_that_was_sent_the_message_acknowledges_it_and_once() -> None:
    sent, later = Connection(stays=True), Connection(stays=True)
    measured = Sample(7, 10.0, [sent, Connection(stays=False)])
    measured.acknowledged(6, 11.0, [sent])
    measured.acknowledged(7, 11.0, [later])
    assert sum(sent.counters.acknowledge.counts + later.counters.acknowledge.counts) == 0
    measured.acknowledged(9, 12.0, [later, sent])
    measured.acknowledged(9, 13.0, [later, sent])
    assert (sum(sent.counters.acknowledge.counts), sent.counters.acknowledge.total) == (1, 2.0)
    polls = TransportCounters("poll")
    for offset, now in ((6, 11.0), (7, 71.0), (7, 11.0), (7, 11.0)):
        measured.returned(offset, now, polls)
    assert (sum(polls.acknowledge.counts), polls.acknowledge.total) == (1, 1.0)


def test_counts_can_be_gone_over_while_a_thread_adds_a_channel() -> None:
    counters = Counters()
    labels = iter(counters.channels)
    assert next(labels) == CREATED
    added = counters.of("room:{room}")
    assert counters.of("room:{room}") is added
    assert list(labels) == []
    assert list(counters.channels) == [CREATED, "room:{room}"]


def test_how_late_the_timers_are() -> None:
    clock = ManualClock()
    timers = Timers(clock)
    assert timers.lag == 0
    timers.start(Timeout(lambda: None), 1)
    clock.advance(3.05)
    timers.expire(10)
    assert timers.lag == pytest.approx(2, abs=0.1)
    for _ in range(2):
        clock.advance(55)  # a look keeps no value for longer
        assert timers.lag == pytest.approx(2, abs=0.1)
    clock.advance(55)
    assert timers.lag == 0
