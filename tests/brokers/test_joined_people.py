"""Sessions and client processes that workers in one process share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from asgi_comet import BrokerUnavailable, ProcessClosed, TooManyProcesses
from asgi_comet.brokers.people import Limits, Moved, People
from asgi_comet.testing import JoinedBroker, ManualClock, join
from asgi_comet.testing.party import Party

pytestmark = pytest.mark.anyio

ADA = '"ada"'


def of(party: Party) -> People:
    people = party.broker.people
    assert people is not None
    return people


def broker_of(party: Party) -> JoinedBroker:
    assert isinstance(party.broker, JoinedBroker)
    return party.broker


@asynccontextmanager
async def parties(count: int, clock: ManualClock | None = None) -> AsyncIterator[list[Party]]:
    made = [Party(broker, clock) for broker in join(count)]
    async with AsyncExitStack() as stack:
        for party in made:
            await stack.enter_async_context(party.running())
        await anyio.wait_all_tasks_blocked()
        yield made


async def test_a_worker_finds_what_another_has_opened() -> None:
    async with parties(2) as (one, two):
        assert await of(one).open("aa-s", "aa-p") == "aa-p"
        found = await of(two).visit(["aa-s", "other"], "aa-p")
        assert found.owner == "aa-s"
        assert found.sessions[0].processes == ("aa-p",)
        assert found.sessions[1].processes == ()
        assert (await of(two).visit(["aa-s"], "nobody")).owner == ""


async def test_two_workers_get_the_same_default_process() -> None:
    async with parties(2) as (one, two):
        assert await of(one).open("aa-s", "aa-p", default=True) == "aa-p"
        assert await of(one).open("aa-s", "aa-p", default=True) == "aa-p"
        assert await of(two).open("aa-s", "aa-q", default=True) == "aa-p"
        (state,) = (await of(two).visit(["aa-s"])).sessions
        assert (state.default, state.defaults) == ("aa-p", 1)
        await of(two).close("aa-s", "aa-p")
        assert await of(two).open("aa-s", "aa-q", default=True) == "aa-q"


async def test_a_login_is_known_to_all_workers_when_it_returns() -> None:
    async with parties(3) as workers:
        one, two, _ = workers
        await of(one).open("aa-s", "aa-p")
        await of(two).move("aa-s", "aa-t", user=ADA, keep=True)
        assert [worker.people.moves for worker in workers] == [[("aa-s", "aa-t", ADA)]] * 3
        (state,) = (await of(one).visit(["aa-s"])).sessions
        assert (state.id, state.user, state.processes) == ("aa-t", ADA, ("aa-p",))
        assert [found.id for found in await of(one).sessions(ADA)] == ["aa-t"]
        assert await of(one).sessions('"eve"') == []
        for stale in (of(one).open("aa-s", "aa-q"), of(one).close("aa-s", "aa-p")):
            with pytest.raises(Moved) as moved:
                await stale
            assert moved.value.session == "aa-t"
        with pytest.raises(Moved):
            await of(one).move("aa-s", "aa-u", user=None, keep=False)
        await of(one).move("aa-s", "aa-t", user=ADA, keep=True)  # the answer to it was lost
        assert len(one.people.moves) == 1


async def test_a_logout_closes_the_client_processes() -> None:
    async with parties(2) as (one, two):
        await of(one).move("aa-s", "aa-t", user=ADA, keep=True)
        await of(one).open("aa-t", "aa-p")
        await of(two).keep("aa-t", "aa-p")
        await of(one).move("aa-t", "aa-u", user=None, keep=False)
        assert (one.people.ended, two.people.ended) == ([], ["aa-p"])
        assert (await of(one).visit(["aa-u"], "aa-p")).owner == ""


async def test_a_closing_is_told_to_the_workers_that_know_the_process() -> None:
    async with parties(3) as (one, two, three):
        await of(one).open("aa-s", "aa-p")
        of(one).enter("aa-s", "aa-p")
        await of(two).keep("aa-s", "aa-p")
        await of(three).keep("aa-s", "aa-p")
        of(three).drop("aa-p")
        await of(three).close("aa-s", "aa-p")
        await of(three).close("aa-s", "aa-p")
        assert [party.people.ended for party in (one, two, three)] == [["aa-p"], ["aa-p"], []]
        of(two).enter("aa-s", "aa-p")
        await two.until(lambda: two.people.ended == ["aa-p", "aa-p"])
        with pytest.raises(ProcessClosed):
            await of(one).keep("aa-s", "aa-p")


async def test_a_process_without_a_connection_closes_in_time() -> None:
    clock = ManualClock()
    async with parties(2, clock) as (one, two):
        await of(one).open("aa-s", "aa-p")
        await of(one).open("aa-s", "aa-q")
        await of(one).keep("aa-s", "aa-p")
        of(two).enter("aa-s", "aa-q")
        clock.advance(31)
        await one.until(lambda: one.people.ended == ["aa-p"])
        clock.advance(1000)
        of(two).leave("aa-q", 10.0)
        clock.advance(589)
        assert (await of(one).visit([], "aa-q")).owner == "aa-s"
        await of(one).keep("aa-s", "aa-q")
        clock.advance(1)
        await one.until(lambda: one.people.ended == ["aa-p", "aa-q"])


async def test_the_longest_idle_process_makes_room() -> None:
    clock = ManualClock()
    async with parties(1, clock) as (one,):
        one.limits = Limits(of_session=2)
        for id_ in ("aa-p", "aa-q"):
            await of(one).open("aa-s", id_)
            clock.advance(1)
        of(one).enter("aa-s", "aa-p")
        await of(one).open("aa-s", "aa-r")
        assert (await of(one).visit(["aa-s"])).sessions[0].processes == ("aa-p", "aa-r")
        of(one).enter("aa-s", "aa-r")
        with pytest.raises(TooManyProcesses) as refused:
            await of(one).open("aa-s", "aa-t")
        assert refused.value.of_session
        one.limits = Limits(processes=2)
        with pytest.raises(TooManyProcesses) as refused:
            await of(one).open("bb-s", "bb-t")
        assert not refused.value.of_session


async def test_a_worker_that_is_cut_off_is_told_when_it_is_back() -> None:
    async with parties(2) as (one, two):
        await of(one).open("aa-s", "aa-p")
        await of(two).keep("aa-s", "aa-p")
        of(two).enter("aa-s", "aa-p")
        broker_of(two).disconnect()
        assert not of(two).current
        with pytest.raises(BrokerUnavailable):
            await of(two).visit(["aa-s"])
        await of(one).move("aa-s", "aa-t", user=ADA, keep=False)
        await of(one).close("aa-t", "aa-p")
        of(two).enter("aa-s", "aa-p")
        assert two.people.moves == []
        broker_of(two).reconnect()
        await two.until(lambda: two.people.ended[:1] == ["aa-p"])
        assert two.people.moves == [("aa-s", "aa-t", ADA)]
        assert of(two).current


async def test_what_a_worker_keeps_is_told_of_after_the_worker_was_cut_off() -> None:
    async with parties(2) as (one, two):
        await of(one).open("aa-s", "aa-p")
        await of(two).keep("aa-s", "aa-p")
        broker_of(two).store.town.processes["aa-p"].kept.clear()  # the store has lost it
        broker_of(two).disconnect()
        broker_of(two).reconnect()
        await anyio.wait_all_tasks_blocked()
        of(two).leave("aa-p", 0)  # which the worker has never entered
        await of(one).close("aa-s", "aa-p")
        await two.until(lambda: two.people.ended == ["aa-p"])


async def test_a_process_that_is_open_is_not_opened_again() -> None:
    async with parties(2) as (one, two):
        assert await of(one).open("aa-s", "aa-p") == await of(two).open("aa-s", "aa-p") == "aa-p"
        with pytest.raises(Moved):
            await of(two).open("aa-t", "aa-p")


async def test_the_caller_waits_until_all_workers_were_told() -> None:
    async with parties(2) as (one, two):
        assert await of(one).tell_all("news") == 2
        assert (one.people.events, two.people.events) == (["news"], ["news"])
        broker_of(two).disconnect()
        assert await of(one).tell_all("more") == 1
