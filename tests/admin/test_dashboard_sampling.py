"""When samples are taken, what is made of them, and what several workers tell."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from asgi_comet import CLIENT_PROCESS, ClientProcess, Comet
from asgi_comet._runtime.counters import MISSED
from asgi_comet._runtime.recent import Recent
from asgi_comet.admin.dashboard import sampler
from asgi_comet.admin.dashboard.rates import Delays, Rates
from asgi_comet.log_events import event, hear
from asgi_comet.observe.journal import KEPT, SHOWN, Journal
from asgi_comet.testing import JoinedBroker, ManualClock
from asgi_comet.testing._inspect import inside
from asgi_comet.testing.store import Store
from tests.kit.loop import in_loop
from tests.kit.operating import TOKEN_OF, TOKENS, bearer
from tests.kit.own_server import Server
from tests.kit.programs import ROOT
from tests.kit.redis import RedisServer
from tests.kit.running import advance, running
from tests.kit.serving import Address, Tab, reserved_port, serve
from tests.kit.stage import KEY, TOKEN, application
from tests.kit.streams import Sse
from tests.kit.workers import Workers

BEARER: dict[str, Any] = {"Authorization": f"Bearer {TOKEN}"}
LOOK, OPERATE = bearer(TOKEN_OF["look"]), bearer(TOKEN_OF["operate"])
STATIC = ROOT / "asgi_comet" / "static"

# Only while a dashboard is open


class Page:
    """A dashboard without a socket: what it was sent."""

    def __init__(self, comet: Comet) -> None:
        self._comet = comet
        self.body = b""

    @asynccontextmanager
    async def open(self, start: str = "last:600") -> AsyncIterator[None]:
        """Follow the figures while the context lasts."""

        async def receive() -> Message:
            await anyio.sleep_forever()
            raise AssertionError

        async def send(message: Message) -> None:
            self.body += message.get("body", b"")

        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": "/admin/events",
            "query_string": f"channel=:admin/overview&position={start}".encode(),
            "headers": [(b"authorization", BEARER["Authorization"].encode())],
        }
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, scope, receive, send)
            yield
            tasks.cancel_scope.cancel()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._comet.app(scope, receive, send)

    @property
    def samples(self) -> list[Any]:
        lines = self.body.decode().splitlines()
        found = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        return [one for one in found if "listeners" in one]


async def test_nothing_is_sampled_while_nobody_looks(anyio_backend: Any) -> None:
    async with running() as (comet, clock):
        page = Page(comet)
        async with page.open():
            for seconds in (0, 1.1, 1.1, 1.1):
                await advance(clock, seconds)
        assert len(page.samples) == 4
        for _ in range(100):
            await advance(clock, 1.1)
        later = Page(comet)
        async with later.open("now"):
            await advance(clock, 0)
        assert b'data: {"positions"' in later.body
        # One was due when the page had just gone; one is taken for the new page.
        assert len(later.samples) <= 1
        newest = Page(comet)
        async with newest.open():
            await advance(clock, 0)
        assert len(newest.samples) in (5, 6)


async def test_a_late_timer_makes_no_later_sample_late(anyio_backend: Any) -> None:
    async with running() as (comet, clock):
        page = Page(comet)
        async with page.open():
            for _ in range(215):
                await advance(clock, 0.1)
            assert len(page.samples) == 1 + 21
            await advance(clock, 60)  # the loop was blocked, or the machine slept
            for _ in range(10):
                await advance(clock, 0.1)
            assert len(page.samples) <= 22 + 2


async def test_samples_are_held_for_ten_minutes(anyio_backend: Any) -> None:
    async with running() as (comet, clock):
        async with Page(comet).open():
            await advance(clock, 1.1)
        await advance(clock, 601)
        page = Page(comet)
        async with page.open():
            await advance(clock, 0)
        assert len(page.samples) == 1


# What is made of totals


def test_a_rate_is_what_a_total_has_risen_by() -> None:
    rates = Rates()
    rates.begin(10.0)
    assert (rates.rise("a", 7), rates.rate(7)) == (0, None)
    rates.begin(12.0)
    assert (rates.rise("a", 10), rates.rate(3)) == (3, 1.5)
    assert rates.rise("b", 5) == 0  # a worker that is new
    rates.begin(13.0)
    assert rates.rise("a", 2) == 0  # one that has started again


def test_a_delay_is_the_bound_below_which_a_share_is() -> None:
    delays = Delays((0.1, 1.0), 2)
    assert delays.quantile(0.5) is None
    delays.add([0, 0, 0])
    assert delays.quantile(0.5) is None
    delays.add([98, 1, 1])
    assert [delays.quantile(share) for share in (0.5, 0.98, 0.99, 1)] == [0.1, 0.1, 1.0, 1.0]
    delays.add([0, 0, 1])
    delays.add([0, 0, 1])
    assert delays.quantile(0.5) == 1.0


def test_what_was_an_hour_ago_does_not_count() -> None:
    clock = ManualClock()
    recent = Recent(clock.now)
    assert recent.total == 0
    recent.add()
    recent.add()
    clock.advance(3500)
    recent.add()
    assert recent.total == 3
    clock.advance(200)
    assert recent.total == 1
    for _ in range(200):
        clock.advance(60)
        recent.add()
    assert recent.total == 61


# The journal


def test_the_journal_tells_what_is_new_in_order() -> None:
    clock = ManualClock()
    journal = Journal(clock.now)
    for number in range(3):
        journal.note({"event": SHOWN[number % 2], "count": number})
    journal.note({"event": "answer.lost"})  # not for operators
    assert [one.fields["count"] for one in journal.since(0, 10)] == [0, 1, 2]
    assert [one.fields["count"] for one in journal.since(1, 1)] == [1]
    assert journal.since(3, 10) == []


def test_an_event_of_another_thread_in_between_hides_none() -> None:
    read: list[Any] = []

    def now() -> float:
        if not read:  # while the first event is noted, another one is noted and read
            read.append(None)
            journal.note({"event": "source.failed"})
            read.extend(journal.since(0, 10))
        return 0.0

    journal = Journal(now)
    journal.note({"event": "loop.blocked"})
    read.extend(journal.since(read[-1].number, 10))
    assert [one.fields["event"] for one in read[1:]] == ["source.failed", "loop.blocked"]


def test_many_events_of_one_kind_displace_no_other() -> None:
    journal = Journal()
    journal.note({"event": "source.failed"})
    for _ in range(KEPT + 1):
        journal.note({"event": "origin.refused"})
    found = [one.fields["event"] for one in journal.since(0, 1000)]
    assert (found.count("origin.refused"), found.count("source.failed")) == (KEPT, 1)


def test_a_count_that_has_risen_is_one_event() -> None:
    journal = Journal()
    for total in (0, 2, 2, 5):
        journal.count("client.missed", total, channel="news")
    journal.count("client.missed", 1, channel="other")
    found = [(one.fields["channel"], one.fields["count"]) for one in journal.since(0, 10)]
    assert found == [("news", 2), ("news", 3), ("other", 1)]


def test_who_hears_events_hears_each_until_it_stops() -> None:
    heard: list[Any] = []
    hear(heard.append, "a Comet")
    hear(heard.append, "a Comet")  # not twice
    event("loop.blocked", seconds=5.0)
    hear(heard.append, "a Comet", stop=True)
    event("loop.blocked", seconds=6.0)
    assert heard == [{"event": "loop.blocked", "seconds": 5.0}]


def test_the_page_says_what_to_do_about_each_event() -> None:
    script = (STATIC / "admin.js").read_text()
    advice = script.partition("const ADVICE = {")[2].partition("\n}")[0]
    assert [line.partition('"')[2].partition('"')[0] for line in advice.split("\n")[1:]] == [*SHOWN]
    missed = script.partition("const MISSED = {")[2].partition("\n}")[0]
    assert {line.partition(":")[0].strip() for line in missed.split("\n")[1:]} == {*MISSED}


def test_the_page_is_small() -> None:
    sizes = [len((STATIC / f"admin.{end}").read_bytes()) for end in ("html", "js", "css")]
    assert sum(sizes) <= 60_000


# At the end


def test_a_dashboard_ends_last_when_the_server_stops() -> None:
    with reserved_port() as port:
        server = Server(port)
        server.start()
        names = [":admin/overview"]
        with Sse.open(server.address, names, "/comet/admin", **BEARER) as page:
            assert page.next().name == ":open"
            assert page.next().value["stopping"] == 0
            with Sse.open(server.address, ["news"]) as client:
                assert client.next().name == ":open"
                assert server.process is not None
                server.process.send_signal(signal.SIGTERM)
                client.rest()
                last = page.rest()[-1].value
        server.stop()
    assert last["stopping"] == 1


def test_a_dashboard_ends_at_once_if_no_other_connection_is_left() -> None:
    comet = Comet(KEY, admin=TOKEN)
    with (
        serve(application(comet)) as server,
        Sse.open(server, [":admin/overview"], "/comet/admin", **BEARER) as page,
    ):
        assert page.next().name == ":open"
        page.next()
        in_loop(comet, inside(comet).drain.begin)
        page.rest()
        assert page.over


# Several workers


@pytest.fixture
def comets(redis: RedisServer) -> list[Comet]:
    workers = Workers(3, redis)
    return workers.of(workers.make(admin=TOKEN))


async def write_notes(_: ClientProcess) -> AsyncIterator[str]:
    yield "hello"
    await anyio.sleep_forever()


@pytest.fixture
def servers(comets: list[Comet]) -> Iterator[list[Address]]:
    for comet in comets:
        comet.family("room:{room}", type=int)
        comet.channel("notes", scope=CLIENT_PROCESS)(write_notes)
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(application(one))) for one in comets]
        for server in servers:
            while answered(server) < 3:
                pass  # until all take questions
        yield servers


def answered(server: Address) -> int:
    found = json.loads(server.request("GET", "/comet/admin/status", headers=BEARER).body)
    return int(found["all"]["answered"])


def post(server: Address, path: str, by: dict[str, Any] = BEARER, **body: Any) -> Any:
    kind = {"Content-Type": "application/json"}
    answer = server.request("POST", f"/comet/admin/{path}", json.dumps(body), by | kind)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def test_a_list_goes_over_all_workers(servers: list[Address]) -> None:
    tabs = [Tab(server) for server in servers for _ in range(4)]
    every = post(servers[0], "people")
    assert (every["total"], len(every["rows"])) == (12, 12)
    assert len({row["worker"] for row in every["rows"]}) == 3
    parts = [post(servers[1], "people", start=start, count=5)["rows"] for start in (0, 5, 10)]
    assert [len(part) for part in parts] == [5, 5, 2]
    assert {row["tab"] for part in parts for row in part} == {row["tab"] for row in every["rows"]}
    for server, row in zip(servers, every["rows"][5:8], strict=True):  # any closes any
        post(server, "close-tab", tab=row["tab"])
    polled = [tab.post(f"{tab.url}/poll", {"channels": {"x": "now"}}).status for tab in tabs]
    assert polled.count(410) == 3


def test_the_figures_are_those_of_all_workers(servers: list[Address]) -> None:
    with ExitStack() as stack:
        for server in servers:
            assert stack.enter_context(Sse.open(server, ["room:7"])).next().name == ":open"
        names = [f":admin/{name}" for name in ("overview", "workers", "channels", "events")]
        page = stack.enter_context(Sse.open(servers[0], names, "/comet/admin", **BEARER))
        found: dict[str, Any] = {}
        while len(found) < 4 or found[":admin/overview"]["listeners"] < 3:
            read = page.next()
            found[read.name] = read.value
        assert found[":admin/overview"]["workers"] == 3
        assert [row["listeners"] for row in found[":admin/workers"]["workers"]] == [1, 1, 1]
        assert (found[":admin/workers"]["alive"], found[":admin/workers"]["trouble"]) == (3, "")
        rooms = post(servers[2], "channels", of="room:{room}")
        assert [row["name"] for row in rooms["rows"]] == ["room:7"] * 3


def test_live_channels_of_tabs_are_added_up(servers: list[Address]) -> None:
    for server in servers:
        Tab(server).poll({"~notes": "first"})
    with Sse.open(servers[0], [":admin/channels"], "/comet/admin", **BEARER) as page:
        assert page.next().name == ":open"
        while {"~notes": 3}.items() - {
            row["name"]: row["live"] for row in page.next().value
        }.items():
            pass


def test_what_is_remembered_of_workers_is_bounded(
    servers: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "WORKERS", 1)
    with Sse.open(servers[0], [":admin/events"], "/comet/admin", **BEARER) as page:
        assert page.next().name == ":open"
        hear_of = {"Content-Type": "application/json", "Origin": "https://elsewhere.example"}
        for server in servers[1:]:
            assert server.request("POST", "/comet/poll", "{}", hear_of).status == 403
        seen = set[str]()
        while (again := page.next().data) not in seen:  # a worker was forgotten
            seen.add(again)
        assert json.loads(again)["event"] == "origin.refused"


class Older(JoinedBroker):
    """A broker through which only a worker of an older version answers in time."""

    async def ask_all(self, question: str, seconds: float) -> list[str]:
        return ["null"]


def test_a_worker_shows_itself_if_only_older_ones_answer() -> None:
    comet = Comet(KEY, broker=Older(Store()), admin={TOKEN: "contents"})
    with (
        serve(application(comet)) as server,
        Sse.open(server, [":admin/overview"], "/comet/admin", **BEARER) as page,
    ):
        assert page.next().name == ":open"
        assert page.next().value["workers"] == 1
        kind, asked = {"Content-Type": "application/json"}, '{"channel": "no such"}'
        found = server.request("POST", "/comet/admin/messages", asked, BEARER | kind)
        assert found.status == 404


def test_a_worker_whose_broker_is_away_shows_itself(
    servers: list[Address], redis: RedisServer
) -> None:
    with Sse.open(servers[0], [":admin/overview"], "/comet/admin", **BEARER) as page:
        assert page.next().name == ":open"
        assert page.next().value["workers"] == 3
        redis.stop()
        try:
            while page.next().value["workers"] != 1:
                pass
        finally:
            redis.start()


def test_what_is_declared_names_the_state_and_the_last_failure_of_its_source() -> None:
    clock = ManualClock()
    comet = Comet(KEY, admin=TOKENS, clock=clock)

    @comet.channel("fails", size=5)
    async def fails() -> AsyncIterator[int]:
        raise RuntimeError
        yield 0

    @comet.channel("reads", size=5)
    async def reads() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 0

    del fails, reads
    with serve(application(comet)) as server:
        states: dict[str, str] = {}
        while states.get("fails") != "restarts":
            for name in ("fails", "reads"):
                (row,) = post(server, "channels", OPERATE, of=name)["rows"]
                states[name] = row["source"]
        assert states == {"fails": "restarts", "reads": "reads"}
        (row,) = post(server, "channels", LOOK, of="fails")["rows"]
        assert row["fault"] == ""  # a traceback may hold a part of a message
        (row,) = post(server, "channels", OPERATE, of="fails")["rows"]
        assert row["fault"].startswith("Traceback")
        assert row["fault"].endswith("in fails\n    raise RuntimeError\nRuntimeError\n")
