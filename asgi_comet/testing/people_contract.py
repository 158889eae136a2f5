"""The contract of brokers that share sessions and client processes: for authors of brokers.

Write a test class that makes brokers on one store, and run it with pytest:

    class TestMine(PeopleContract):
        def make(self, count):
            store = my_store()
            return [MyBroker(store) for _ in range(count)]
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.people import Limits, Moved, People, SessionState, Visited
from asgi_comet.errors import ProcessClosed, TooManyProcesses
from asgi_comet.testing.party import Party, gather, new_id, people_of

__all__ = ["PeopleContract"]

ANN, BOB = '"ann"', '"bob"'


class PeopleContract:
    """The tests of a broker that shares people. Implement `make` in a subclass."""

    count: int = 3
    """How many workers there are."""

    @abstractmethod
    def make(self, count: int) -> list[Broker]:
        """Return brokers on one new store."""

    async def calm(self) -> None:
        """Let time pass that a store waits after its start before client processes expire."""

    @asynccontextmanager
    async def workers(self, limits: Limits | None = None) -> AsyncIterator[list[Party]]:
        """Run the workers."""
        with anyio.fail_after(60):
            async with gather(self.make(self.count), limits) as parties:
                for party in parties:
                    await people_of(party).visit([])  # once the worker has joined the others
                yield parties

    @asynccontextmanager
    async def two(self) -> AsyncIterator[tuple[People, People]]:
        """Run the workers, of which the test uses the people of the first one and the last one."""
        async with self.workers() as parties:
            yield people_of(parties[0]), people_of(parties[-1])

    async def open(self, party: Party, session: str) -> str:
        """Open a client process."""
        return await people_of(party).open(session, new_id(session))

    # Visits

    async def test_a_session_that_the_store_does_not_know_is_empty(self) -> None:
        async with self.workers() as (one, *_):
            session, process = new_id(), new_id()
            found = await people_of(one).visit([session], process)
            assert found == Visited((SessionState(id=session),), "")
            assert await people_of(one).visit([]) == Visited(())

    async def test_every_worker_knows_the_sessions_and_client_processes_of_all(self) -> None:
        async with self.two() as (one, other):
            sessions = [new_id() for _ in range(3)]
            opened = [await one.open(session, new_id(session)) for session in sessions]
            second = await other.open(sessions[0], new_id(sessions[0]))
            found = await other.visit(sessions[::-1], opened[1])
            assert found.owner == sessions[1]
            assert [state.id for state in found.sessions] == sessions[::-1]
            assert set(found.sessions[-1].processes) == {opened[0], second}
            assert (await one.visit([], second)).owner == sessions[0]
            assert {state.id for state in await one.sessions(None)} == set(sessions)

    # Opening

    async def test_workers_that_need_the_default_process_at_once_get_the_same(self) -> None:
        async with self.workers() as parties:
            session, found = new_id(), list[str]()

            async def open_(party: Party) -> None:
                found.append(await people_of(party).open(session, new_id(session), default=True))

            async with anyio.create_task_group() as tasks:
                for party in parties * 2:
                    tasks.start_soon(open_, party)
            assert len(set(found)) == 1
            (state,) = (await people_of(parties[-1]).visit([session])).sessions
            assert (state.default, state.defaults, state.processes) == (found[0], 1, (found[0],))

    async def test_at_the_limit_of_a_session_the_longest_idle_process_closes(self) -> None:
        async with self.workers(Limits(of_session=2)) as parties:
            one, other = people_of(parties[0]), people_of(parties[-1])
            session = new_id()
            first, second = [await one.open(session, new_id(session)) for _ in range(2)]
            await other.keep(session, second)
            one.enter(session, first)
            assert (await one.visit([], first)).owner == session  # after the report
            third = await other.open(session, new_id(session))
            (state,) = (await one.visit([session], second)).sessions
            assert set(state.processes) == {first, third}
            await parties[-1].until(lambda: second in parties[-1].people.ended)
            other.enter(session, third)
            await other.visit([], third)
            with pytest.raises(TooManyProcesses) as raised:
                await one.open(session, new_id(session))
            assert (raised.value.limit, raised.value.of_session) == (2, True)

    async def test_there_is_a_limit_of_client_processes_in_all(self) -> None:
        async with self.workers(Limits(processes=2)) as (party, *_):
            one, session = people_of(party), new_id()
            first = await one.open(session, new_id(session))
            await one.open(session, new_id(session))
            with pytest.raises(TooManyProcesses) as raised:
                await self.open(party, new_id())
            assert (raised.value.limit, raised.value.of_session) == (2, False)
            await one.close(session, first)
            await one.open(session, new_id(session))

    # Closing

    async def test_workers_that_have_a_closed_process_are_told(self) -> None:
        async with self.workers() as parties:
            session = new_id()
            entered, kept = [await self.open(parties[0], session) for _ in range(2)]
            for party in parties:
                people_of(party).enter(session, entered)
                await people_of(party).keep(session, kept)
            for process in (entered, kept):
                await people_of(parties[0]).close(session, process)
                for party in parties:
                    await party.until(lambda p=party, x=process: x in p.people.ended)  # type: ignore[misc]
                assert (await people_of(parties[-1]).visit([], process)).owner == ""
            await people_of(parties[-1]).close(session, entered)
            assert await people_of(parties[-1]).sessions(None) == []

    async def test_a_connection_of_a_closed_process_is_told(self) -> None:
        async with self.workers() as parties:
            session, other = new_id(), parties[-1]
            process = await self.open(parties[0], session)
            await people_of(parties[0]).close(session, process)
            people_of(other).enter(session, process)
            await other.until(lambda: process in other.people.ended)
            with pytest.raises(ProcessClosed):
                await people_of(other).keep(session, process)

    async def test_a_process_of_another_session_is_neither_kept_nor_closed(self) -> None:
        async with self.workers() as parties:
            session, other = new_id(), people_of(parties[-1])
            process = await self.open(parties[0], session)
            stranger = new_id(session)
            for call in (other.keep, other.close):
                with pytest.raises(Moved) as raised:
                    await call(stranger, process)
                assert raised.value.session == session
            assert (await other.visit([], process)).owner == session

    async def test_a_worker_that_has_dropped_a_process_is_not_told(self) -> None:
        async with self.workers() as parties:
            session, other = new_id(), parties[-1]
            process, last = [await self.open(parties[0], session) for _ in range(2)]
            await people_of(other).keep(session, process)
            people_of(other).drop(process)
            await people_of(other).keep(session, last)
            if other is parties[0]:
                return  # which closes the process
            await people_of(parties[0]).close(session, process)
            await people_of(parties[0]).close(session, last)
            await other.until(lambda: last in other.people.ended)
            assert process not in other.people.ended

    # Login and logout

    async def test_a_login_takes_the_client_processes_along_and_all_workers_are_told(self) -> None:
        async with self.workers() as parties:
            one, other = people_of(parties[0]), people_of(parties[-1])
            session = new_id()
            process = await one.open(session, new_id(session), default=True)
            new = new_id(session)
            await other.move(session, new, user=ANN, keep=True)
            for party in parties:
                assert party.people.moves == [(session, new, ANN)]
            state = SessionState(id=new, user=ANN, default=process, kept=True, processes=(process,))
            assert await one.visit([session, new], process) == Visited((state, state), new)
            assert await one.sessions(ANN) == await other.sessions(None) == [state]
            assert await one.sessions(BOB) == []
            assert parties[0].people.ended == []

    @pytest.mark.parametrize("user", [None, BOB])
    async def test_the_client_processes_of_another_user_close(self, user: str | None) -> None:
        async with self.workers() as parties:
            one, other = people_of(parties[0]), people_of(parties[-1])
            session = new_id()
            ann, next_ = new_id(session), new_id(session)
            await one.move(session, ann, user=ANN, keep=False)
            processes = [await one.open(ann, new_id(session)) for _ in range(2)]
            assert (await one.visit([ann])).sessions[0].user is None  # nothing kept the session
            last = new_id(session)
            await one.move(ann, next_, user=ANN, keep=True)
            for process in processes:
                other.enter(next_, process)
            await other.move(next_, last, user=user, keep=user is not None)
            for process in processes:
                await parties[-1].until(lambda x=process: x in parties[-1].people.ended)  # type: ignore[misc]
                assert (await one.visit([], process)).owner == ""
            assert parties[0].people.moves[-1] == (next_, last, user)
            assert await one.sessions(ANN) == await one.sessions(user) == []
            (state,) = (await one.visit([last])).sessions
            assert (state.user, state.processes, state.default) == (user, (), "")

    async def test_the_same_user_who_logs_in_again_keeps_the_client_processes(self) -> None:
        async with self.two() as (one, other):
            first = new_id()
            second, third = new_id(first), new_id(first)
            process = await one.open(first, new_id(first))
            await one.move(first, second, user=ANN, keep=True)
            await other.move(second, third, user=ANN, keep=True)
            assert (await one.visit([first], process)).owner == third
            (state,) = await one.sessions(ANN)
            assert (state.id, state.processes) == (third, (process,))

    async def test_a_session_is_moved_once(self) -> None:
        async with self.two() as (one, other):
            session = new_id()
            process, new = await one.open(session, new_id(session)), new_id(session)
            await one.move(session, new, user=ANN, keep=True)
            for call in (
                other.move(session, new_id(session), user=BOB, keep=True),
                other.open(session, new_id(session)),
                other.keep(session, process),
                other.close(session, process),
            ):
                with pytest.raises(Moved) as raised:
                    await call
                assert raised.value.session == new
            assert await other.sessions(BOB) == []
            assert [state.id for state in await other.sessions(ANN)] == [new]

    async def test_a_connection_of_a_session_that_has_moved_is_told(self) -> None:
        async with self.workers() as parties:
            one, other = people_of(parties[0]), parties[-1]
            session = new_id()
            process, new = await one.open(session, new_id(session)), new_id(session)
            await one.move(session, new, user=ANN, keep=True)
            people_of(other).enter(session, process)
            await other.until(lambda: len(other.people.moves) >= 2)
            assert set(other.people.moves) == {(session, new, ANN)}
            assert other.people.ended == []

    async def test_a_login_without_a_client_process_is_kept_if_told_so(self) -> None:
        async with self.workers() as (party, *_):
            one, session, kept = people_of(party), new_id(), new_id()
            for id_, keep in ((session, False), (kept, True)):
                new = new_id(id_)
                await one.move(id_, new, user=ANN, keep=keep)
                (state,) = (await one.visit([new])).sessions
                assert state == SessionState(id=new, user=ANN if keep else None, kept=keep)
            process = await one.open(new, new_id(new))
            assert [found.id for found in await one.sessions(ANN)] == [new]
            await one.close(new, process)
            assert await one.sessions(ANN) == []
            assert (await one.visit([new])).sessions[0].user == ANN

    # Functions that run once

    async def test_one_worker_says_farewell_to_each_closed_process(self) -> None:
        async with self.workers(Limits(of_session=5)) as parties:
            one, other = people_of(parties[0]), people_of(parties[-1])
            session = new_id()
            closed, *two = [await one.open(session, new_id(session)) for _ in range(3)]
            for party in parties:
                people_of(party).enter(session, closed)
                await people_of(party).keep(session, closed)
            async with anyio.create_task_group() as tasks:
                for party in parties * 2:
                    tasks.start_soon(people_of(party).close, session, closed)
            await self._bade(parties, closed)
            await other.visit([session])
            opened = [await one.open(session, new_id(session)) for _ in range(4)]
            (state,) = (await other.visit([session])).sessions
            displaced = [one for one in two + opened if one not in state.processes]
            await self._bade(parties, closed, *displaced)
            new = new_id(session)
            await other.move(session, new, user=ANN, keep=True)
            await one.move(new, new_id(new), user=None, keep=False)
            await self._bade(parties, closed, *two, *opened)
            await one.close(new, closed)
            await one.visit([session])
            await self._bade(parties, closed, *two, *opened)

    async def _bade(self, parties: list[Party], *processes: str) -> None:
        """Check for which client processes the functions ran, once they have."""
        found = list[str]()
        while len(found) < len(processes):
            found = [one for party in parties for one in party.people.farewells]
            await anyio.lowlevel.checkpoint()
        assert sorted(found) == sorted(processes)

    async def test_a_process_that_expires_is_bidden_farewell_once(self) -> None:
        async with self.workers(Limits(timeout=0.2)) as parties:
            session = new_id()
            process = await people_of(parties[0]).open(session, new_id(session))
            await self.calm()
            await self._bade(parties, process)

    async def test_no_caller_waits_for_a_farewell(self) -> None:
        async with self.workers() as parties:
            for party in parties:
                party.people.withheld = []
            session = new_id()
            process = await people_of(parties[0]).open(session, new_id(session))
            await people_of(parties[-1]).close(session, process)
            assert (await people_of(parties[0]).visit([session], process)).owner == ""
            await self._bade(parties, process)
            for done in [done for party in parties for done in party.people.withheld or ()]:
                done()

    # Time

    async def test_a_client_process_without_a_connection_expires(self) -> None:
        async with self.workers(Limits(timeout=0.5)) as parties:
            one, other = people_of(parties[0]), people_of(parties[-1])
            session = new_id()
            connected, kept, left = [await one.open(session, new_id(session)) for _ in range(3)]
            one.enter(session, connected)
            await other.keep(session, kept)
            one.enter(session, left)
            one.leave(left, 3600.0)
            await self.calm()
            await parties[-1].until(lambda: kept in parties[-1].people.ended)
            owner = session
            while owner:
                owner = (await other.visit([], left)).owner
                await anyio.lowlevel.checkpoint()
            assert (await other.visit([], connected)).owner == session

    async def test_a_client_process_is_idle_while_no_worker_has_a_connection(self) -> None:
        async with self.two() as (one, other):
            session = new_id()
            process = await one.open(session, new_id(session))
            assert 0 < await other.idle(process) < 60
            one.enter(session, process)
            await one.visit([], process)  # after the report
            assert await other.idle(process) == 0
            one.leave(process, 0.0)
            await one.visit([], process)
            assert 0 < await other.idle(process) < 60

    # Events

    async def test_an_event_reaches_every_worker_once_and_in_one_order(self) -> None:
        async with self.workers() as parties:

            async def tell(party: Party, sender: int) -> None:
                for number in range(20):
                    text = f"{sender} {number} é\n"
                    assert await people_of(party).tell_all(text) == self.count
                    assert all(text in one.people.events for one in parties)

            async with anyio.create_task_group() as tasks:
                for sender, party in enumerate(parties):
                    tasks.start_soon(tell, party, sender)
            heard = [party.people.events for party in parties]
            assert heard == [heard[0]] * self.count
            assert len(heard[0]) == len(set(heard[0])) == 20 * self.count
            assert all(people_of(party).current for party in parties)

    async def test_a_worker_that_comes_later_is_told_the_newest_lasting_events(self) -> None:
        first, *others = self.make(self.count + 1)
        with anyio.fail_after(60):
            async with gather([first]) as (one,):
                await people_of(one).visit([])
                for event, name in (("a 1", "a"), ("b 1", "b"), ("passing", ""), ("a 2", "a")):
                    assert await people_of(one).tell_all(event, lasting=name) == 1
                assert one.people.events == ["a 1", "b 1", "passing", "a 2"]
                async with gather(others) as later:
                    for party in later:
                        await people_of(party).visit([])
                        await party.until(lambda x=party: len(x.people.events) == 2)  # type: ignore[misc]
                        assert set(party.people.events) == {"a 2", "b 1"}
                    told = await people_of(later[-1]).tell_all("b 2", lasting="b")
                    assert told == self.count + 1
                    for party in (one, *later):
                        assert party.people.events[-1] == "b 2"
                        assert party.people.events.count("b 2") == 1
