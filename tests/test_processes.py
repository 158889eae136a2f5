from __future__ import annotations

import gc
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

import anyio
import pytest

from asgi_comet import (
    SITE,
    ClientProcess,
    Comet,
    NotRunning,
    ProcessClosed,
    Session,
    TooManyProcesses,
)
from asgi_comet.channels.feed import Wake
from asgi_comet.identity import goodbyes
from asgi_comet.identity.process import Claim, Client
from asgi_comet.identity.registered import Registered
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import (
    belongs_to,
    buckets,
    client_of,
    feed_of,
    inactivity_waits,
    inside,
    left,
)
from tests.kit.listening import Ear
from tests.kit.processes import clients_of, open_in
from tests.kit.running import advance, make, running
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio


def check_nothing_left(comet: Comet) -> None:
    gc.collect()  # sources are known by weak references
    assert left(comet) == {}


# What a process is


def test_a_process_is_open_and_of_its_session_and_its_url_holds_its_signed_id() -> None:
    comet = make()
    process = open_in(comet, "the session")
    assert (process.closed, process.session.id, process.user) == (False, "the session", None)
    assert len(process.id) == 24  # 144 bits
    head, _, token = process.url.rpartition("/")
    assert head == "/comet/p"
    assert inside(comet).requests.identity.unsign_process(token) == process.id
    assert clients_of(comet).find(process.id) is process
    assert process.session.processes == [process]
    process.check_open()


def test_what_is_logged_of_it_cannot_be_used() -> None:
    process = open_in(make(), "0123456789")
    assert repr(process) == f"<ClientProcess {process.id[:6]}… open>"
    assert repr(process.session) == "<Session 012345… processes=1>"
    process.close()
    assert repr(process) == f"<ClientProcess {process.id[:6]}… closed>"


def test_its_user_is_that_of_its_session() -> None:
    process = open_in(make())
    process.session.user = "ada"
    assert process.user == "ada"


def test_two_of_one_session_are_two_and_share_nothing_but_it() -> None:
    comet = make()
    one, other = open_in(comet), open_in(comet)
    assert one.id != other.id
    assert one.session is other.session
    assert one.session.processes == [one, other]
    assert comet.create(scope=one, name="inbox").id == comet.create(scope=other, name="inbox").id
    one.close()
    assert (other.closed, other.session.processes) == (False, [other])


def test_a_closed_one_is_not_found_and_nothing_can_be_made_in_it() -> None:
    comet = make()
    process = open_in(comet)
    channel = comet.create(scope=process, name="inbox")
    process.close()
    assert process.closed
    assert clients_of(comet).find(process.id) is None
    with pytest.raises(ProcessClosed, match=f"{process.id[:6]}…, which has closed") as caught:
        comet.create(scope=process)
    assert caught.value.process == process.id
    assert process.id not in str(caught.value)
    assert repr(channel) == "<Channel '~inbox' ended>"


def test_one_that_speaks_the_registration_protocol_begins_with_nothing() -> None:
    process = open_in(make())
    assert client_of(process).registered is None
    one, other = Registered(), Registered()
    assert (one.number, one.answer) == (None, None)
    assert (one.cursors, one.expected, one.pending) == ({}, set(), {})
    one.expected.add("~inbox")
    assert other.expected == set()


# Inactivity


async def test_it_closes_after_process_timeout_without_a_connection() -> None:
    async with running(process_timeout=600) as (comet, clock):
        process = open_in(comet)
        client_of(process).connect()
        await advance(clock, 5000)
        client_of(process).disconnect()
        await advance(clock, 599.9)
        assert not process.closed
        await advance(clock, 0.3)
        assert process.closed
        check_nothing_left(comet)


async def test_one_that_never_connected_closes_after_process_timeout_if_that_is_shorter() -> None:
    async with running(process_timeout=5) as (comet, clock):
        process = open_in(comet)
        await advance(clock, 4.9)
        assert not process.closed
        await advance(clock, 0.3)
        assert process.closed


async def test_one_that_never_connected_closes_after_30_seconds() -> None:
    async with running(process_timeout=600) as (comet, clock):
        process = open_in(comet)
        await advance(clock, 29.9)
        assert not process.closed
        await advance(clock, 0.3)
        assert process.closed
        check_nothing_left(comet)


async def test_one_opened_in_a_thread_that_never_connected_closes_after_30_seconds_too() -> None:
    async with running() as (comet, clock):
        process = await anyio.to_thread.run_sync(open_in, comet)
        await wait_all_tasks_blocked()
        await advance(clock, 29.9)
        assert not process.closed
        await advance(clock, 0.3)
        assert process.closed


async def test_one_opened_before_the_lifespan_closes_30_seconds_after_it_started() -> None:
    clock = ManualClock()
    comet = make(clock)
    process = open_in(comet)
    async with comet.lifespan():
        await wait_all_tasks_blocked()
        await advance(clock, 30.2)
        assert process.closed


async def test_while_it_is_connected_it_is_not_closed() -> None:
    async with running(process_timeout=1) as (comet, clock):
        process = open_in(comet)
        client_of(process).connect()
        client_of(process).connect()
        await advance(clock, 10_000)
        client_of(process).disconnect()
        await advance(clock, 10_000)
        assert (
            process.closed,
            client_of(process).connections,
            client_of(process).inactive_for(),
        ) == (False, 1, 0.0)
        client_of(process).disconnect()
        await advance(clock, 0.5)
        assert client_of(process).inactive_for() == 0.5
        await advance(clock, 0.7)
        assert process.closed


async def test_every_connection_makes_it_wait_anew() -> None:
    async with running(process_timeout=600) as (comet, clock):
        process = open_in(comet)
        for _ in range(5):
            await advance(clock, 29)
            client_of(process).connect()
            client_of(process).disconnect()
        await advance(clock, 599.9)
        client_of(process).connect()
        client_of(process).disconnect()
        await advance(clock, 599.9)
        assert not process.closed
        assert len(inside(comet).timers) == 1


async def test_a_connection_that_closes_after_the_process_leaves_nothing() -> None:
    async with running() as (comet, clock):
        process = open_in(comet)
        client_of(process).connect()
        process.close()
        client_of(process).disconnect()
        await advance(clock, 10_000)
        check_nothing_left(comet)


# Closing


async def test_all_that_is_held_is_told_that_the_process_has_closed() -> None:
    async with running() as (comet, _):
        process, ears = open_in(comet), [Ear(), Ear()]
        client_of(process).listeners.update(ears)
        process.close()
        assert [ear.woken for ear in ears] == [Wake.CLOSED] * 2


async def test_a_newer_reader_replaces_the_older_and_only_it_can_leave() -> None:
    async with running() as (comet, _):
        process, old, new = open_in(comet), Ear(), Ear()
        client_of(process).read_by(old)
        assert (client_of(process).reader, old.woken) == (old, None)
        client_of(process).read_by(new)
        assert (client_of(process).reader, old.woken, new.woken) == (new, Wake.REPLACED, None)
        client_of(process).left_by(old)
        assert client_of(process).reader is new
        client_of(process).left_by(new)
        assert client_of(process).reader is None


async def test_callbacks_sync_and_async_run_with_the_process() -> None:
    async with running() as (comet, _):
        process, told = open_in(comet), list[tuple[str, ClientProcess, bool]]()

        def sync(closed: ClientProcess) -> None:
            told.append(("sync", closed, closed.closed))

        async def later(closed: ClientProcess) -> None:
            await anyio.lowlevel.checkpoint()
            told.append(("async", closed, closed.closed))

        process.on_close(sync)
        process.on_close(later)
        process.on_close(sync)
        await wait_all_tasks_blocked()
        assert told == []
        process.close()
        await wait_all_tasks_blocked()
        assert sorted(told, key=lambda item: item[0]) == [
            ("async", process, True),
            ("sync", process, True),
            ("sync", process, True),
        ]


async def test_a_callback_after_the_fact_runs_at_once_and_only_it() -> None:
    async with running() as (comet, _):
        process, told = open_in(comet), list[str]()
        process.on_close(lambda _: told.append("before"))
        process.close()
        await wait_all_tasks_blocked()
        process.on_close(lambda _: told.append("after"))
        await wait_all_tasks_blocked()
        assert told == ["before", "after"]


async def test_a_callback_that_raises_is_logged_and_the_others_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as (comet, _):
        process, told = open_in(comet), list[str]()

        def fail(_: ClientProcess) -> None:
            raise ZeroDivisionError("sync")

        async def fail_later(_: ClientProcess) -> None:
            raise ZeroDivisionError("async")

        for callback in (fail, fail_later, lambda _: told.append("ran")):
            process.on_close(callback)
        process.close()
        await wait_all_tasks_blocked()
        assert told == ["ran"]
        check_nothing_left(comet)
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert {str(error.exc_info[1]) for error in errors if error.exc_info} == {"sync", "async"}
    assert process.id not in caplog.text


async def test_closing_is_idempotent_also_from_many_threads() -> None:
    async with running() as (comet, _):
        for _ in range(50):
            process, told = open_in(comet), list[int]()
            comet.create(scope=process, name="inbox")
            for number in range(3):
                process.on_close(partial(note, told, number))
            await anyio.to_thread.run_sync(in_threads, 8, process.close)
            process.close()
            await wait_all_tasks_blocked()
            assert sorted(told) == [0, 1, 2]
        check_nothing_left(comet)


async def test_a_callback_added_while_another_thread_closes_runs_exactly_once() -> None:
    async with running() as (comet, _):
        for _ in range(50):
            process, told = open_in(comet), list[int]()
            numbers = iter(range(1000))

            def add(
                process: ClientProcess = process,
                told: list[int] = told,
                numbers: Callable[[], int] = numbers.__next__,
            ) -> None:
                for _ in range(10):
                    number = numbers()
                    process.on_close(partial(note, told, number))
                process.close()

            await anyio.to_thread.run_sync(in_threads, 4, add)
            await wait_all_tasks_blocked()
            assert sorted(told) == list(range(40))


def note(told: list[int], number: int, _: ClientProcess) -> None:
    told.append(number)


def in_threads(count: int, work: Callable[[], object]) -> None:
    """Do the same in several threads at once."""
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait(20)
        work()

    with ThreadPoolExecutor(count) as threads:
        for job in [threads.submit(run) for _ in range(count)]:
            job.result(20)


async def test_wait_closed_returns_once_it_has_closed() -> None:
    async with running() as (comet, _), anyio.create_task_group() as tasks:
        process, told = open_in(comet), list[str]()

        async def wait() -> None:
            await process.wait_closed()
            told.append("closed")

        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        assert told == []
        await anyio.to_thread.run_sync(process.close)
        await wait_all_tasks_blocked()
        assert told == ["closed"] * 2
        await wait()


async def test_when_the_lifespan_ends_all_are_closed_and_their_callbacks_have_run() -> None:
    told = list[ClientProcess]()
    async with running() as (comet, _):
        opened = [open_in(comet, str(number)) for number in range(3)]
        for process in opened:
            client_of(process).connect()
            process.on_close(told.append)
    assert all(process.closed for process in opened)
    assert sorted(told, key=id) == sorted(opened, key=id)
    check_nothing_left(comet)


# wait_timeout


async def test_wait_timeout_returns_once_it_has_been_inactive_for_so_long() -> None:
    async with waiting(5) as (process, clock, told):
        await advance(clock, 4.9)
        assert told == []
        await advance(clock, 0.3)
        assert told == ["inactive"]
        assert not process.closed


async def test_while_a_connection_is_open_it_is_active() -> None:
    async with waiting(5) as (process, clock, told):
        client_of(process).connect()
        await advance(clock, 1000)
        assert told == []
        client_of(process).disconnect()
        await advance(clock, 4.9)
        assert told == []
        await advance(clock, 0.3)
        assert told == ["inactive"]


async def test_it_counts_from_when_the_last_connection_closed() -> None:
    async with waiting(5) as (process, clock, told):
        client_of(process).connect()
        client_of(process).connect()
        await advance(clock, 3)
        client_of(process).disconnect()
        await advance(clock, 3)
        client_of(process).disconnect()
        await advance(clock, 3)
        client_of(process).connect()
        client_of(process).disconnect()
        await advance(clock, 4.9)
        assert told == []
        await advance(clock, 0.3)
        assert told == ["inactive"]


async def test_what_passed_before_the_wait_counts() -> None:
    async with running() as (comet, clock):
        process = open_in(comet)
        await advance(clock, 6)
        await comet.wait_timeout(5, process)
        await comet.wait_timeout(6, process)
        with anyio.move_on_after(0) as scope:
            await comet.wait_timeout(6.1, process)
        assert scope.cancelled_caught


async def test_it_returns_at_once_for_a_closed_one() -> None:
    async with running() as (comet, _):
        process = open_in(comet)
        client_of(process).connect()
        process.close()
        await comet.wait_timeout(1000, process)


async def test_it_returns_when_the_process_closes() -> None:
    async with waiting(1000) as (process, _, told):
        client_of(process).connect()
        await anyio.to_thread.run_sync(process.close)
        await wait_all_tasks_blocked()
        assert told == ["inactive"]


async def test_it_returns_when_the_server_begins_to_stop() -> None:
    async with running() as (comet, _), anyio.create_task_group() as tasks:
        process = open_in(comet)
        tasks.start_soon(comet.wait_timeout, 1000, process)
        await wait_all_tasks_blocked()
        assert inactivity_waits(process) == 1
        inside(comet).drain.begin()
        await comet.wait_timeout(1000, process)  # nor does a later one wait
        await wait_all_tasks_blocked()
        assert inactivity_waits(process) == 0
        tasks.cancel_scope.cancel()


async def test_cancelled_waits_leave_nothing() -> None:
    async with running() as (comet, _):
        process = open_in(comet)
        before = len(inside(comet).timers)
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(comet.wait_timeout, 5, process)
            await wait_all_tasks_blocked()
            assert len(inside(comet).timers) == before + 100
            tasks.cancel_scope.cancel()
        assert len(inside(comet).timers) == before
        assert inactivity_waits(process) == 0


async def test_it_needs_a_running_lifespan() -> None:
    comet = make()
    with pytest.raises(NotRunning):
        await comet.wait_timeout(1, open_in(comet))


class waiting:  # noqa: N801 - used like the context managers around it
    """A process, and somebody who waits for it to have been inactive."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> tuple[ClientProcess, ManualClock, list[str]]:
        self._running = running(process_timeout=100_000)
        comet, clock = await self._running.__aenter__()
        process, told = open_in(comet), list[str]()

        async def wait() -> None:
            await comet.wait_timeout(self._seconds, process)
            told.append("inactive")

        self._tasks = anyio.create_task_group()
        (await self._tasks.__aenter__()).start_soon(wait)
        await wait_all_tasks_blocked()
        self._process = process
        return process, clock, told

    async def __aexit__(self, *_: object) -> None:
        self._process.close()
        await self._tasks.__aexit__(None, None, None)
        await self._running.__aexit__(None, None, None)
        assert inactivity_waits(self._process) == 0


# Bounds


async def test_of_32_in_a_session_the_33rd_closes_the_one_longest_without_a_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "asgi_comet.identity.process")
    async with running() as (comet, clock):
        opened = [open_in(comet) for _ in range(32)]
        assert not any(process.closed for process in opened)
        client_of(opened[3]).connect()  # longer ago than all, but connected
        for process in opened[:7] + opened[8:]:
            await advance(clock, 0.5)
            client_of(process).connect()
            client_of(process).disconnect()
        newest = open_in(comet)
        assert [process for process in opened if process.closed] == [opened[7]]
        assert newest.session.processes == [*opened[:7], *opened[8:], newest]
        open_in(comet)
        assert [process for process in opened if process.closed] == [opened[0], opened[7]]
        assert open_in(comet, "another").session.processes
        assert len(newest.session.processes) == 32
    assert "already" not in caplog.text
    assert newest.session.id not in caplog.messages


async def test_of_those_that_never_connected_the_oldest_goes_first() -> None:
    async with running(max_processes_per_session=3) as (comet, _):
        opened = [open_in(comet) for _ in range(5)]
        assert [process.closed for process in opened] == [True, True, False, False, False]


async def test_one_that_another_thread_is_closing_makes_no_room_for_two() -> None:
    async with running(max_processes_per_session=3) as (comet, _):
        opened = [open_in(comet) for _ in range(3)]
        opened[0].closed = True  # as `close` in a thread that has yet to have it forgotten
        opened += [open_in(comet) for _ in range(3)]
        assert open_ones(opened[0].session) == 3


async def test_if_all_32_are_connected_the_33rd_is_refused() -> None:
    async with running() as (comet, _):
        opened = [open_in(comet) for _ in range(32)]
        for process in opened:
            client_of(process).connect()
        timers = len(inside(comet).timers)
        with pytest.raises(TooManyProcesses, match=r"32 .* connected in this session") as caught:
            open_in(comet)
        assert (caught.value.limit, caught.value.of_session) == (32, True)
        with pytest.raises(TooManyProcesses):
            clients_of(comet).default(Claim.of(Session("s")))
        assert (opened[0].session.processes, len(inside(comet).timers)) == (opened, timers)
        open_in(comet, "another")
        client_of(opened[5]).disconnect()
        open_in(comet)
        assert [process for process in opened if process.closed] == [opened[5]]


async def test_where_a_session_may_have_one_it_is_replaced_and_the_session_stays() -> None:
    async with running(max_processes_per_session=1) as (comet, _):
        old = open_in(comet)
        old.session.user = "ada"
        new = open_in(comet)
        assert (old.closed, new.closed) == (True, False)
        assert old.session is new.session
        assert clients_of(comet).sessions() == [new.session]
        new.close()
        check_nothing_left(comet)


async def test_max_processes_at_n_and_n_plus_one() -> None:
    async with running(max_processes=3) as (comet, _):
        opened = [open_in(comet, str(number)) for number in range(3)]
        sessions = clients_of(comet).sessions()
        for session in ("0", "new"):
            with pytest.raises(TooManyProcesses, match=r"at most 3 .* on this server") as caught:
                open_in(comet, session)
            assert (caught.value.limit, caught.value.of_session) == (3, False)
        assert clients_of(comet).sessions() == sessions
        assert sessions[0].processes == [opened[0]]
        opened[1].close()
        open_in(comet, "new")
        assert len(clients_of(comet)) == 3


async def test_a_session_that_makes_room_may_open_one_on_a_full_server() -> None:
    async with running(max_processes=2, max_processes_per_session=2) as (comet, _):
        first, second = open_in(comet), open_in(comet)
        third = open_in(comet)
        assert (first.closed, second.closed, third.closed) == (True, False, False)


# The default process


async def test_the_default_process_is_made_when_first_needed_and_shared() -> None:
    async with running() as (comet, clock):
        processes = clients_of(comet)
        tab = open_in(comet)
        default = processes.default(Claim.of(Session("s"))).process
        assert default is not tab
        assert processes.default(Claim.of(Session("s"))).process is default
        assert processes.default(Claim.of(Session("another"))).process is not default
        assert default.session.processes == [tab, default]
        default.close()
        again = processes.default(Claim.of(Session("s"))).process
        assert again is not default
        await advance(clock, 30.2)
        assert again.closed
        check_nothing_left(comet)


async def test_many_threads_that_need_the_default_process_get_the_same() -> None:
    async with running() as (comet, _):
        found = list[ClientProcess]()

        def need() -> None:
            found.append(clients_of(comet).default(Claim.of(Session("s"))).process)

        await anyio.to_thread.run_sync(in_threads, 8, need)
        assert len(set(found)) == 1
        assert len(clients_of(comet)) == 1


# Nothing is left


async def test_a_session_vanishes_with_its_last_process() -> None:
    async with running() as (comet, _):
        one, two, other = open_in(comet), open_in(comet), open_in(comet, "other")
        one.close()
        assert {session.id for session in clients_of(comet).sessions()} == {"s", "other"}
        two.close()
        assert clients_of(comet).sessions() == [other.session]
        again = open_in(comet)
        assert again.session is not one.session


class Sources:
    """Counts sources that began and ended."""

    def __init__(self) -> None:
        self.made = 0
        self.began = 0
        self.ended = 0

    async def endless(self) -> AsyncIterator[int]:
        self.began += 1
        try:
            yield 1
            await anyio.Event().wait()
        finally:
            self.ended += 1

    def make(self) -> AsyncIterator[int]:
        self.made += 1
        return self.endless()


async def test_after_300_came_and_went_nothing_is_left() -> None:
    sources, told, random = Sources(), list[ClientProcess](), Random(3)
    async with running(max_processes_per_session=8) as (comet, clock):
        waits = 0

        async def wait(process: ClientProcess) -> None:
            nonlocal waits
            await comet.wait_timeout(10_000, process)
            await process.wait_closed()
            waits += 1

        async with anyio.create_task_group() as tasks:
            for number in range(300):
                process = open_in(comet, f"s{number % 30}")
                process.on_close(told.append)
                comet.create(scope=process, name="writable").publish(1)
                comet.create(sources.make, scope=process)
                comet.create_unlimited(sources.make, scope=process, name="unread")
                tasks.start_soon(wait, process)
                if number % 3:
                    client_of(process).connect()
                    client_of(process).disconnect()
                if number % 100 == 0:
                    await advance(clock, random.uniform(0, 60))
                if number % 5 == 0:
                    process.close()
                if number % 7 == 0:
                    await anyio.to_thread.run_sync(process.close)
            await advance(clock, 601)
        await wait_all_tasks_blocked()
        assert (waits, len(told), len(set(told))) == (300, 300, 300)
        assert (sources.made, sources.began) == (600, sources.ended)
        check_nothing_left(comet)
        there, heap = buckets(inside(comet).timers)
        assert there == set(heap)
        told.clear()
        del process
        gc.collect()
        assert [found for found in gc.get_objects() if is_of(found, comet)] == []


def is_of(found: object, comet: Comet) -> bool:
    return type(found) is Client and belongs_to(found, comet)


def open_ones(session: Session) -> int:
    return sum(not process.closed for process in session.processes)


async def test_opening_and_closing_in_many_threads_leaves_nothing_and_keeps_the_bounds() -> None:
    async with running(max_processes_per_session=4, max_processes=10) as (comet, _):
        processes, told, opened = clients_of(comet), list[ClientProcess](), list[int]()

        def work() -> None:
            random, mine = Random(), list[Client]()
            for _ in range(100):
                try:
                    claim = Claim.of(Session(random.choice("abc")))
                    process = random.choice([processes.open, processes.default])(claim).process
                except TooManyProcesses:
                    continue
                opened.append(1)
                mine.append(process)
                process.on_close(told.append)
                assert len(processes) <= 10
                assert all(open_ones(session) <= 4 for session in processes.sessions())
                if random.random() < 0.5:
                    random.choice(mine).close()
            for process in mine:
                process.close()

        await anyio.to_thread.run_sync(partial(in_threads, 8, work))
        await wait_all_tasks_blocked()
        assert len(told) == len(opened)
        check_nothing_left(comet)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
async def test_an_inactivity_that_is_no_time_says_what_is_expected(
    comet: Comet, seconds: float
) -> None:
    async with comet.lifespan():
        process = open_in(comet, "s")
        with pytest.raises(ValueError, match="expected a number of seconds, at least 0, got"):
            await comet.wait_timeout(seconds, process)
        process.close()


async def test_nobody_waits_for_the_outcome_of_what_a_callback_publishes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as (comet, _):
        process, news = open_in(comet), comet.create(scope=SITE, name="news")
        process.on_close(lambda _: news.publish("left"))
        process.on_close(lambda _: note_later(told, 1))
        told = list[int]()
        process.close()
        with anyio.fail_after(10):
            await inside(comet).background.wait_idle()  # on a clock that stands still
        assert (feed_of(news).history.top, told) == (1, [1])
    assert caplog.records == []


async def note_later(told: list[int], number: int) -> None:
    await anyio.lowlevel.checkpoint()
    told.append(number)


async def test_a_callback_that_hangs_is_cut_off(
    comet: Comet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(process: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr(goodbyes, "CALLBACK_LIMIT", 0.0)
    async with comet.lifespan():
        process = open_in(comet, "s")
        process.on_close(hang)
        process.close()
        await inside(comet).background.wait_idle()
    assert "an on_close callback took more than 0 s and was cut off: tests." in caplog.text
    assert "test_a_callback_that_hangs_is_cut_off.hang" in caplog.text
