"""The copies that a worker has of sessions and client processes: made, changed, dropped."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from asgi_comet import (
    CLIENT_PROCESS,
    SITE,
    BrokerUnavailable,
    ChannelClosed,
    ClientProcess,
    Comet,
    CometError,
    MustAwait,
    NoClientProcess,
    ProcessClosed,
    Settings,
    lifespan,
)
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.brokers.people import Moved, Visited
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed
from asgi_comet.identity import asking, endings, used
from asgi_comet.identity.current import CurrentRequest
from asgi_comet.identity.process import Client
from asgi_comet.node import society
from asgi_comet.testing import JoinedBroker, ManualClock
from asgi_comet.testing._inspect import inside, left, tables
from asgi_comet.testing.joined_people import JoinedPeople
from asgi_comet.testing.store import Store

pytestmark = pytest.mark.anyio

TURNS = 30  # of the loop, until all that is due is done


class Stubborn(JoinedPeople):
    """People whose answers a test changes.

    Attributes:
        after_visit: Called after each visit, before the worker has the answer.
        before_move: Called before each login and logout of the worker gets to the store.
        refuse: Raised by the next call that changes something.
        other: The id of the process that is opened in place of any other.
        visits: How many questions were asked.
        reports: What the worker has reported of processes, in order.
    """

    after_visit: Callable[[], Awaitable[None]] | None = None
    before_move: Callable[[], Awaitable[None]] | None = None
    refuse: Exception | None = None
    other: str = ""

    def __init__(self, broker: StubbornBroker, store: Store) -> None:
        super().__init__(
            store, lambda: broker.host, lambda: not broker.connected, lambda: broker.claims
        )
        self.visits = 0
        self.reports: list[tuple[str, str]] = []

    async def visit(self, sessions: Sequence[str], process: str = "") -> Visited:
        self.visits += 1
        found = await super().visit(sessions, process)
        if self.after_visit is not None:
            await self.after_visit()
        return found

    async def open(self, session: str, process: str, *, default: bool = False) -> str:
        self._refuse()
        return self.other or await super().open(session, process, default=default)

    async def close(self, session: str, process: str) -> None:
        self._refuse()
        await super().close(session, process)

    async def move(self, session: str, new: str, *, user: str | None, keep: bool) -> None:
        self._refuse()
        if self.before_move is not None:
            await self.before_move()
        await super().move(session, new, user=user, keep=keep)

    async def keep(self, session: str, process: str) -> None:
        self._refuse()
        self.reports.append(("keep", process))
        await super().keep(session, process)

    def drop(self, process: str) -> None:
        self.reports.append(("drop", process))
        super().drop(process)

    def enter(self, session: str, process: str) -> None:
        self.reports.append(("enter", process))
        super().enter(session, process)

    def leave(self, process: str, idle: float) -> None:
        self.reports.append((f"leave {idle:g}", process))
        super().leave(process, idle)

    def _refuse(self) -> None:
        error, self.refuse = self.refuse, None
        if error is not None:
            raise error


class StubbornBroker(JoinedBroker):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.stubborn = self._people = Stubborn(self, store)


class Worker:
    """A `Comet` that runs in the loop of the test."""

    def __init__(self, store: Store, clock: ManualClock, **settings: Any) -> None:
        self.clock = clock
        self.broker = StubbornBroker(store)
        self.people = self.broker.stubborn
        chosen = Settings(jitter=0, **settings)
        self.comet = Comet("k" * 32, broker=self.broker, settings=chosen, clock=clock)

    def begin(self, cookie: str = "", process: ClientProcess | None = None) -> CurrentRequest:
        requests = inside(self.comet).requests
        headers = [(b"cookie", cookie.encode())]
        if process is not None:
            headers.append((b"comet-process", process.url.rpartition("/")[2].encode()))
        return CurrentRequest(requests, {"type": "http", "headers": headers, "path": "/"})

    async def request(self, cookie: str = "", process: ClientProcess | None = None) -> Any:
        request = self.begin(cookie, process)
        await request.arrive()
        return request

    async def open(self) -> tuple[str, Client]:
        """Open a process in a new session; return its cookie, too."""
        request = await self.request()
        process = request.open_process()
        await request.settle()
        return cookie_of(request), process

    async def find(self, cookie: str, process: ClientProcess) -> Client:
        """Return this worker's copy of a process."""
        request = await self.request(cookie, process)
        found: Client = request.process()
        return found

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in steps, so that all timers of the worker expire."""
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)
            for _ in range(TURNS):
                await anyio.lowlevel.checkpoint()


def cookie_of(request: CurrentRequest) -> str:
    ((_, header),) = request.cookies
    return header.decode().partition(";")[0]


@asynccontextmanager
async def running(count: int, **settings: Any) -> AsyncIterator[list[Worker]]:
    store, clock = Store(), ManualClock()
    async with AsyncExitStack() as stack:
        made = [Worker(store, clock, **settings) for _ in range(count)]
        for worker in made:
            await stack.enter_async_context(worker.comet.lifespan())
        await anyio.wait_all_tasks_blocked()
        yield made


# Visits


async def test_an_answer_is_void_if_the_session_has_changed_meanwhile() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()

        async def login() -> None:
            two.people.after_visit = None
            request = await one.request(cookie)
            request.login("ann")
            await request.settle()

        two.people.after_visit = login
        found = await two.request(cookie, process)
        assert two.people.visits == 2
        with pytest.raises(NoClientProcess):
            found.process()  # by the cookie of before the login


async def test_an_answer_is_void_if_the_process_has_closed_meanwhile() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        copy.on_close(lambda process: None)
        await two.pass_time(1)

        async def close() -> None:
            two.people.after_visit = None
            await one.people.close(process.session.id, process.id)

        two.people.after_visit = close
        await copy.refresh()
        assert (two.people.visits, copy.closed) == (3, True)


async def test_a_session_that_changes_all_the_time_has_the_client_come_back() -> None:
    async with running(1) as (one,):
        cookie, process = await one.open()
        process.on_close(lambda process: None)

        async def change() -> None:
            inside(one.comet).clients.closed(process.id)  # type: ignore[attr-defined]

        one.people.after_visit = change
        request = await one.request(cookie)
        with pytest.raises(BrokerUnavailable, match="changes all the time"):
            request.process()


async def test_a_process_with_a_connection_here_needs_no_visit() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        copy.connect()
        assert await two.find(cookie, process) is copy
        assert two.people.visits == 1
        copy.disconnect()
        copy.connect()
        await two.pass_time(2)
        copy.disconnect()
        assert two.people.reports == [("enter", copy.id)]
        await two.pass_time(2)
        assert two.people.reports == [("enter", copy.id), ("leave 1.5", copy.id)]
        await two.find(cookie, process)
        assert two.people.visits == 2


async def test_a_worker_that_is_behind_asks_again() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        (await two.find(cookie, process)).connect()
        two.broker.disconnect()
        request = await two.request(cookie, process)
        with pytest.raises(BrokerUnavailable, match="it is disconnected"):
            request.process()


# How long copies stay


async def test_a_copy_is_dropped_some_time_after_its_last_use() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        await two.find(cookie, process)
        await two.pass_time(29)
        assert tables(two.comet)["processes"] == 1
        one.people.enter(process.session.id, process.id)  # it must not expire
        await two.pass_time(10)
        assert left(two.comet) == {}
        assert not (await two.find(cookie, process)).closed


async def test_an_object_that_the_application_holds_stays_the_one_of_its_id() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        one.people.enter(process.session.id, process.id)
        copy = await two.find(cookie, process)
        await two.pass_time(40)
        assert left(two.comet) == {}
        assert await two.find(cookie, process) is copy
        assert copy.session.processes == [copy]
        request = await one.request(cookie, process)
        request.login("ann")
        await request.settle()
        assert copy.user == "ann"


async def test_a_session_that_changes_while_it_is_unused_is_not_kept_for_ever() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        one.people.enter(process.session.id, process.id)
        copy = await two.find(cookie, process)
        await two.pass_time(40)
        request = await one.request(cookie, process)
        request.login("ann")
        await request.settle()
        await two.pass_time(40)
        assert copy.user == "ann"
        assert left(two.comet) == {}


async def test_a_copy_with_a_callback_is_kept_until_the_process_closes() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        one.people.enter(process.session.id, process.id)
        closed: list[str] = []
        copy = await two.find(cookie, process)
        copy.on_close(lambda process: closed.append(process.id))
        copy.on_close(lambda process: closed.append("again"))
        await two.pass_time(100)
        assert two.people.reports == [("keep", process.id)]
        await one.people.close(process.session.id, process.id)
        await two.pass_time(40)
        assert set(closed) == {process.id, "again"}
        assert two.people.reports[1:] == [("drop", process.id)]
        assert left(two.comet) == {}


async def test_the_store_is_told_when_the_last_state_of_a_process_is_dropped() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        one.people.enter(process.session.id, process.id)
        copy = await two.find(cookie, process)
        copy.hold()
        await two.pass_time(40)
        assert two.people.reports == [("keep", process.id)]
        del copy
        gc.collect()
        await two.pass_time(1)
        assert two.people.reports == [("keep", process.id), ("drop", process.id)]


async def test_state_of_a_process_that_has_just_closed_is_not_kept() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        await one.people.close(process.session.id, process.id)
        closed: list[str] = []
        copy.on_close(lambda process: closed.append(process.id))
        await two.pass_time(1)
        assert closed == [process.id]


async def test_a_worker_that_could_not_keep_state_learns_later_that_a_process_has_closed() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        two.people.refuse = BrokerUnavailable("no")
        closed: list[str] = []
        copy.on_close(lambda process: closed.append(process.id))
        await two.pass_time(1)
        await one.people.close(process.session.id, process.id)
        del copy
        await two.pass_time(70)
        assert closed == [process.id]
        assert left(two.comet) == {}


async def test_state_is_kept_under_the_new_id_of_a_session() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        two.people.refuse = Moved(copy.session.id)
        copy.hold()
        await two.pass_time(1)
        assert two.people.reports == [("keep", process.id)]


async def test_state_that_cannot_be_reported_is_reported_with_the_next_one() -> None:
    async with running(1) as (one,):
        _, process = await one.open()
        one.people.refuse = BrokerUnavailable("no")
        process.hold()
        await one.pass_time(1)
        assert one.people.reports == []
        process.hold()
        await one.pass_time(1)
        assert one.people.reports == [("keep", process.id)]


# Changes that the store refuses


async def test_a_login_that_is_refused_changes_nothing() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        two.people.refuse = BrokerUnavailable("it is gone")
        request = await two.request(cookie, process)
        request.login("ann")
        assert request.process().user == "ann"
        with pytest.raises(BrokerUnavailable, match="it is gone"):
            await request.settle()
        assert request.cookies == []
        copy = await two.find(cookie, process)
        assert (copy.user, copy.closed) == (None, False)
        assert (await two.comet.sessions(user="ann")) == []


async def test_a_login_after_a_refused_one_is_refused_too() -> None:
    async with running(1) as (one,):
        cookie, process = await one.open()
        one.people.refuse = BrokerUnavailable("it is gone")
        request = await one.request(cookie, process)
        request.login("ann")
        request.login("bob")
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                await request.settle()
        assert (await one.find(cookie, process)).user is None


async def test_two_logins_in_one_request_are_made_in_order() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        request = await one.request(cookie, process)
        request.login("ann")
        request.login("ann")
        await request.settle()
        copy = await two.find(cookie_of(request), process)
        assert (copy.user, copy.closed) == ("ann", False)


async def test_a_login_that_another_worker_was_first_with_gives_its_user() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        late = await two.request(cookie, process)
        first = await one.request(cookie, process)

        async def login() -> None:
            first.login("ann")
            await first.settle()

        two.people.before_move = login
        late.login("bob")
        with pytest.raises(BrokerUnavailable, match="another id"):
            await late.settle()
        assert late.cookies == []
        copy = await two.find(cookie_of(first), process)
        assert (copy.user, copy.closed) == ("ann", False)


async def test_a_process_that_is_refused_is_closed() -> None:
    async with running(1) as (one,):
        one.people.refuse = Moved("another")
        request = await one.request()
        process = request.open_process()
        with pytest.raises(BrokerUnavailable, match="another id"):
            await request.settle()
        assert process.closed


async def test_a_default_process_of_a_worker_with_another_key_is_asked_for_again() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        two.people.other = process.id
        request = await two.request(cookie)
        proposed = request.process()
        with pytest.raises(BrokerUnavailable, match="default client process"):
            await request.settle()
        assert proposed.closed


async def test_a_closing_is_told_once_the_store_is_back() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        two.people.refuse = BrokerUnavailable("for a moment")
        copy.close()
        assert copy.closed
        assert (await one.find(cookie, process)).closed is False
        await two.pass_time(2)
        assert (await one.people.visit([], process.id)).owner == ""


async def test_a_closing_is_given_up_after_a_minute() -> None:
    async with running(1) as (one,):
        _, process = await one.open()
        one.broker.disconnect()
        process.close()
        await one.pass_time(62)
        assert inside(one.comet).clients.pending(process.session) is None


async def test_a_closing_follows_the_session() -> None:
    async with running(1) as (one,):
        _, process = await one.open()
        one.people.refuse = Moved(process.session.id)
        process.close()
        await one.pass_time(1)
        assert (await one.people.visit([], process.id)).owner == ""


async def test_an_answer_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(society, "MARGIN", 0.01 - Settings().heartbeat)
    async with running(1) as (one,):
        request = await one.request()
        gate = anyio.Event()

        async def wait(*_: object, **__: object) -> str:
            await gate.wait()
            return ""

        one.people.open = wait  # type: ignore[method-assign]
        request.open_process()
        with pytest.raises(BrokerUnavailable, match="do not know yet") as late:
            await request.settle()
        assert late.value.maybe_stored
        gate.set()


# A worker that hears of a change late


async def test_a_request_with_the_cookie_of_before_a_login_begins_a_session() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        request = await one.request(cookie, process)
        request.login("ann")
        await request.settle()
        late = await two.request(cookie)
        opened = late.open_process()
        await late.settle()
        assert opened.session.id != process.session.id
        assert (opened.user, late.cookies) == (None, [])


async def test_a_request_during_a_login_is_told_to_come_back() -> None:
    async with running(1) as (one,):
        cookie, process = await one.open()
        seen: list[str] = []

        async def look() -> None:
            late = await one.request(cookie, process)
            with pytest.raises(NoClientProcess) as refused:
                late.process()
            seen.append(str(refused.value))

        one.people.before_move = look
        request = await one.request(cookie, process)
        request.login("ann")
        await request.settle()
        assert "of another session" in seen[0]


async def test_an_answer_with_a_new_id_changes_the_copy() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        await two.pass_time(2)
        old, new = process.session.id, process.session.id[:2] + "n" * 22
        with one.broker.store.lock:  # as if the workers were not told yet
            one.broker.store.town.move(old, new, '"ann"', one.clock.now(), keep=False)
        await two.request(cookie)
        assert (copy.session.id, copy.user) == (new, "ann")


async def test_a_session_that_was_found_by_its_new_id_before_the_worker_heard() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        before = copy.session
        old, new = before.id, before.id[:2] + "n" * 22
        with one.broker.store.lock:
            one.broker.store.town.move(old, new, '"ann"', one.clock.now(), keep=False)
        requests = inside(two.comet).requests
        _, header = requests.make_cookie({"type": "http", "headers": []}, new)
        later = header.decode().partition(";")[0]
        assert await two.find(later, process) is copy
        assert copy.session is not before
        two.broker.host.people.moved(old, new, '"ann"')
        assert (before.id, before.user) == (new, "ann")
        assert copy.session.processes == [copy]
        assert not copy.closed


def rename(worker: Worker, process: ClientProcess) -> tuple[str, str]:
    """Have a session log in, as if the workers were not told yet; return its ids."""
    old, new = process.session.id, process.session.id[:2] + "n" * 22
    with worker.broker.store.lock:
        worker.broker.store.town.move(old, new, '"ann"', worker.clock.now(), keep=False)
    return old, new


def make_cookie(worker: Worker, session: str) -> str:
    _, header = inside(worker.comet).requests.make_cookie({"type": "http", "headers": []}, session)
    return header.decode().partition(";")[0]


async def two_tabs(one: Worker, two: Worker) -> tuple[Client, Client]:
    """Open two tabs of one session; return the copies of another worker."""
    cookie, process = await one.open()
    request = await one.request(cookie)
    second = request.open_process()
    await request.settle()
    for tab in (process, second):
        one.people.enter(tab.session.id, tab.id)
    return await two.find(cookie, process), await two.find(cookie, second)


async def test_all_processes_of_a_session_that_was_found_by_its_new_id_follow() -> None:
    async with running(2) as (one, two):
        first, second = await two_tabs(one, two)
        old, new = rename(one, first)
        assert await two.find(make_cookie(two, new), first) is first
        two.broker.host.people.moved(old, new, '"ann"')
        assert second.session is first.session
        assert (second.session.id, second.user) == (new, "ann")


async def test_an_unused_copy_belongs_to_the_session_that_an_answer_names() -> None:
    async with running(2) as (one, two):
        first, second = await two_tabs(one, two)
        await two.pass_time(40)
        _, new = rename(one, first)
        assert await two.find(make_cookie(two, new), first) is first
        assert set(first.session.processes) == {first, second}
        assert second.session is first.session
        assert "processes=1" in repr(first.session)  # in use in this worker
        assert await two.find(make_cookie(two, new), second) is second
        assert "processes=2" in repr(first.session)


async def test_a_change_that_an_answer_has_told_is_not_made_again() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        old, new = rename(one, process)
        await two.request(cookie)
        assert (copy.session.id, copy.user) == (new, "ann")
        before = tables(two.comet)
        two.broker.host.people.moved(old, new, '"ann"')
        assert (copy.session.id, copy.user) == (new, "ann")
        assert tables(two.comet) == before
        assert await two.find(make_cookie(two, new), process) is copy


async def test_a_process_that_this_worker_has_closed_is_not_opened_by_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifespan, "PATIENCE", 0.1)  # the store never has that it is closed
    async with running(2) as (one, two):
        cookie, process = await one.open()
        copy = await two.find(cookie, process)
        two.people.refuse = BrokerUnavailable("it is gone")
        copy.close()
        await two.pass_time(1)
        with pytest.raises(ProcessClosed):
            await two.find(cookie, process)
        assert copy.closed


async def test_changes_of_others_do_not_make_an_answer_void() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()

        async def hear() -> None:
            two.broker.host.people.closed("of another session")

        two.people.after_visit = hear
        assert (await two.find(cookie, process)).id == process.id
        assert two.people.visits == 1


async def test_where_the_broker_is_away_the_application_is_not_asked_who_a_client_is() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        asked: list[Any] = []
        two.comet.identify(asked.append)
        two.broker.disconnect()
        request = await two.request(cookie, process)
        await request.recognise()
        assert asked == []
        two.broker.reconnect()
        request = await two.request(cookie, process)
        await request.recognise()
        assert len(asked) == 1


async def test_a_user_whom_the_store_refuses_changes_nothing() -> None:
    async with running(2) as (one, two):
        cookie, process = await one.open()
        two.comet.identify(lambda connection: "ann")
        request = await two.request(cookie, process)
        two.people.refuse = BrokerUnavailable("it is gone")
        await request.recognise()
        assert request.cookies == []
        assert (await one.find(cookie, process)).user is None


async def test_an_event_loop_of_another_thread_is_not_blocked_either() -> None:
    async with running(1) as (one,):

        async def ask() -> None:
            with pytest.raises(MustAwait):
                list(one.comet.processes())

        await anyio.to_thread.run_sync(asyncio.run, ask())


async def test_a_connection_that_ends_after_its_process_while_the_server_stops() -> None:
    async with running(1) as (one,):
        _, process = await one.open()
        process.connect()
        await one.pass_time(1)
        process.close()
        inside(one.comet).timers.shut_down()
        process.disconnect()
        assert one.people.reports == [("enter", process.id)]


# Channels of processes, as the broker fills them


def own_spec(process: str, name: str = "~feed") -> ChannelSpec:
    return ChannelSpec(name=name, kind="process", size=9, max_bytes=99, owner=process)


async def test_a_process_that_this_worker_does_not_have_has_no_window() -> None:
    async with running(1) as (one,):
        assert one.broker.host.people.window(own_spec("unknown")) is None


async def test_the_reader_of_a_process_that_this_worker_does_not_have_is_not_replaced() -> None:
    async with running(1) as (one,):
        _, process = await one.open()
        one.broker.host.people.replaced("unknown", 1)
        assert not process.closed


async def test_a_process_that_another_thread_is_closing_has_no_window() -> None:
    async with running(1) as (one,):
        _, process = await one.open()
        process.place.directory.close()  # first of all
        assert one.broker.host.people.window(own_spec(process.id)) is None


async def test_a_window_that_another_thread_makes_at_this_moment_is_the_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(1) as (one,):
        _, process = await one.open()
        host, find, late = one.broker.host.people, Directory.find, list[None]()
        window = host.window(own_spec(process.id))

        def look(directory: Directory, name: str) -> Feed | None:
            return late.pop() if late else find(directory, name)

        monkeypatch.setattr(Directory, "find", look)
        late.append(None)  # the other thread has not made it
        assert host.window(own_spec(process.id)) is window


async def test_a_window_is_filled_though_the_declared_channel_cannot_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(1, max_virtual_channels=1) as (one,):
        one.comet.create(scope=SITE, name="news")
        declare_feed(one.comet)
        _, process = await one.open()
        window = one.broker.host.people.window(own_spec(process.id))
        assert window is not None
        assert window.name == "~feed"
    assert "channel '~feed' could not be started" in caplog.text


def declare_feed(comet: Comet) -> None:
    @comet.channel("feed", scope=CLIENT_PROCESS, type=str)
    async def feed(process: ClientProcess) -> AsyncIterator[str]:
        yield ""  # pragma: no cover - never read


async def test_tabs_that_cannot_be_told_of_a_login_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(1) as (one,):
        cookie, process = await one.open()

        async def fail() -> None:
            one.people.after_visit = None
            raise BrokerUnavailable("it is gone")

        async def begin() -> None:
            one.people.after_visit = fail

        one.people.before_move = begin
        request = await one.request(cookie, process)
        request.login("ann")
        await request.settle()
    assert "tabs were not told that their session's user has changed" in caplog.text


# Bounds


async def test_the_copies_without_a_use_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used, "LIMIT", 4)
    async with running(1) as (one,):
        for _ in range(10):
            await one.open()
        assert tables(one.comet)["used copies"] == 4
        assert tables(one.comet)["processes"] <= 4


async def test_a_thread_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PATIENCE", 0.01)
    async with running(1) as (one,):
        gate = anyio.Event()

        async def wait(user: str | None) -> list[Any]:
            await gate.wait()
            return []

        monkeypatch.setattr(one.people, "sessions", wait)
        with pytest.raises(BrokerUnavailable, match="in vain"):
            await anyio.to_thread.run_sync(lambda: list(one.comet.sessions()))
        gate.set()


async def test_a_thread_gets_the_error_of_the_question() -> None:
    async with running(1) as (one,):
        one.broker.disconnect()
        with pytest.raises(BrokerUnavailable, match="it is disconnected"):
            await anyio.to_thread.run_sync(lambda: list(one.comet.processes()))


async def test_a_function_for_closed_processes_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(endings, "LIMIT", 0.01)
    async with running(1) as (one,):
        seen: list[str] = []

        @one.comet.on_process_close
        async def wait(process: str) -> None:
            seen.append(process)
            await anyio.sleep_forever()

        _, process = await one.open()
        process.close()
        await inside(one.comet).background.wait_idle()
        assert seen == [process.id]
    assert "a function of on_process_close took more than 0.01 s" in caplog.text


@pytest.mark.parametrize(
    ("error", "lines"), [(ProcessClosed("aa"), 0), (BrokerUnavailable("planned"), 1)]
)
async def test_a_channel_whose_tab_has_closed_meanwhile_is_no_error_in_the_log(
    error: CometError, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise error

    async with running(1) as (one,):
        _, process = await one.open()
        monkeypatch.setattr(one.broker, "open", refuse)
        channel = one.comet.create(scope=process, name="note")
        await inside(one.comet).background.wait_idle()
        with pytest.raises(ChannelClosed):
            channel.publish("late")
    assert caplog.text.count("is not known to other workers") == lines
