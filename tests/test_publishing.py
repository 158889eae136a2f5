"""Publishing from a process that does not serve, on a broker that is shared in this process."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient

from asgi_comet import (
    SITE,
    BrokerUnavailable,
    Channel,
    Comet,
    NonUniqueChannelName,
    NotRunning,
    Position,
    Settings,
)
from asgi_comet.publishing import outlet
from asgi_comet.testing import JoinedBroker, Store, join
from asgi_comet.testing._inspect import inside, link_of, pretend_fork, tables, waiting_sources
from tests.kit.forking import fork, wait
from tests.kit.serving import poll, serve
from tests.kit.stage import KEY, application

read: list[str] = []


class Script:
    """An application as a script has imported it.

    Args:
        broker: Shared with the server.
    """

    def __init__(self, broker: JoinedBroker) -> None:
        self.broker = broker
        self.comet = Comet(KEY, broker=broker, settings=Settings(jitter=0, linger=0.1))
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news")
        self.rooms = self.comet.family("room:{room}", type=str)
        self.ticker = self.comet.channel("ticker")(ticker)
        self.clocks = self.comet.channel("clock:{zone}")(clock)

    def stored(self, name: str) -> list[bytes]:
        """The messages of a channel in the store."""
        store: Store = self.broker.store
        return [message.data for message in store.read(name, 0.0).after(0) or ()]


async def ticker() -> AsyncIterator[int]:
    read.append("ticker")
    yield 1


async def clock(zone: str) -> AsyncIterator[int]:
    read.append("clock")  # pragma: no cover - never read
    yield 1  # pragma: no cover


def until(reached: Callable[[], bool]) -> None:
    """Return once something has happened in another thread."""
    over = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < over


@pytest.fixture
def script() -> Script:
    read.clear()
    return Script(join(1)[0])


def test_everything_is_stored_when_the_script_leaves(script: Script) -> None:
    with script.comet.publishing():
        for number in range(300):
            script.news.publish(number)
        script.rooms.publish("hello", room="kitchen")
        script.ticker.publish(7)
        script.clocks.publish(8, zone="utc")
        script.comet.create(scope=SITE, name="made").publish("x")
        script.comet.create_newest(name="newest").publish("y")
        script.comet.create(scope=SITE, name="silent")
    assert script.stored("news") == [b"%d" % number for number in range(300)]
    assert script.stored("room:kitchen") == [b'"hello"']
    assert (script.stored("ticker"), script.stored("clock:utc")) == ([b"7"], [b"8"])
    assert (script.stored("made"), script.stored("newest")) == ([b'"x"'], [b'"y"'])
    assert script.stored("silent") == []
    assert read == []
    assert script.broker.store.owner("ticker") is None
    assert script.broker.store.followers("news") == set()


def test_the_clients_of_a_server_get_what_a_script_publishes() -> None:
    one, two = join(2)
    server, script = Script(one), Script(two)
    with serve(application(server.comet)) as address:
        place = poll(address, {"news": "now"})[0]["position"]
        with script.comet.publishing():
            script.news.publish("hello")
            script.rooms.publish("to a member without listeners", room="kitchen")
        assert [event["data"] for event in poll(address, {"news": place})] == ["hello"]
        found = poll(address, {"room:kitchen": "last:1"})
        assert found[-1]["data"] == "to a member without listeners"


def test_in_asyncio_a_message_is_awaited_in_the_loop_of_the_application(script: Script) -> None:
    places: list[Position] = []

    async def main() -> None:
        async with script.comet.publishing():
            delivery = script.news.publish("a")
            places.append(await delivery.stored())
        assert await delivery.stored() == places[0]

    asyncio.run(main())
    assert script.stored("news") == [b'"a"']
    assert places[0].offset == 1


@pytest.mark.parametrize(
    "ask",
    [
        lambda script: script.news.ready(),
        lambda script: script.news.count(),
        lambda script: script.comet.processes(),
        lambda script: script.comet.sessions(user="ann"),
        lambda script: script.comet.revoke(script.news, user="ann"),
        lambda script: script.comet.activation.deactivate(),
        lambda script: script.news.publish("a"),
    ],
    ids=["ready", "count", "processes", "sessions", "revoke", "deactivate", "outcome"],
)
def test_what_only_a_server_can_do_is_refused_at_once(
    script: Script, ask: Callable[[Script], Awaitable[object]]
) -> None:
    async def main() -> None:
        async with script.comet.publishing():
            with pytest.raises(NotRunning, match=r"of a server, got comet\.publishing\(\)"):
                await ask(script)

    asyncio.run(main())
    assert script.comet.activation.active


def test_a_thread_that_publishes_asks_no_other_worker(script: Script) -> None:
    with script.comet.publishing():
        for ask in (
            lambda: len(script.comet.processes()),
            lambda: script.comet.call(script.news.count()),
            lambda: script.comet.revoke(script.news, user="ann"),
        ):
            with pytest.raises(NotRunning, match="have this program call an endpoint"):
                ask()


@pytest.mark.anyio
async def test_no_right_is_revoked_before_the_server_runs(script: Script) -> None:
    with pytest.raises(NotRunning, match="is not running"):
        script.comet.revoke(script.news, user="ann")
    with pytest.raises(NotRunning, match="is not running"):
        await script.news.count()


def test_each_form_has_its_place(script: Script) -> None:
    async def blocks() -> None:
        with (
            pytest.raises(RuntimeError, match="expected `async with"),
            script.comet.publishing(),
        ):
            pass  # pragma: no cover - not reached

    asyncio.run(blocks())

    async def on_trio() -> None:
        with pytest.raises(RuntimeError, match="expected asyncio for"):
            async with script.comet.publishing():
                pass  # pragma: no cover - not reached

    anyio.run(on_trio, backend="trio")


def test_entering_twice_counts_and_each_leaving_waits(script: Script) -> None:
    comet = script.comet
    assert comet.publishing() is comet.publishing()
    with comet.publishing():
        with comet.publishing():
            script.news.publish("a")
        assert script.stored("news") == [b'"a"']
        script.news.publish("b")

        async def main() -> None:
            async with comet.publishing():
                await script.news.publish("c").stored()

        asyncio.run(main())
        assert script.stored("news") == [b'"a"', b'"b"', b'"c"']
        thread = threading.Thread(target=publish, args=(script,))
        thread.start()
        thread.join()
        assert script.stored("news")[-1] == b'"of a thread"'
        assert inside(comet).loop.running
    assert not inside(comet).loop.running
    with comet.publishing():
        script.news.publish("d")
    assert script.stored("news")[-1] == b'"d"'


def data(events: list[Any]) -> list[Any]:
    return [event["data"] for event in events if "data" in event]


def publish(script: Script) -> None:
    with script.comet.publishing():
        script.news.publish("of a thread")


def test_with_the_memory_broker_both_ways_out_are_told() -> None:
    with pytest.raises(RuntimeError, match=r"Comet\(key, broker=URL\), or .* call an endpoint"):
        Comet(KEY).publishing()


def test_what_is_not_stored_is_told_with_the_number(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.broker, "patience", 0.05)
    script.broker.disconnect()
    with (  # noqa: PT012 - several messages
        pytest.raises(BrokerUnavailable, match="2 messages were not stored within 0") as lost,
        script.comet.publishing(),
    ):
        script.news.publish("a")
        script.news.publish("b")
    assert lost.value.maybe_stored
    with (
        pytest.raises(BrokerUnavailable, match="1 message was not stored"),
        script.comet.publishing(),
    ):
        script.news.publish("c")
    script.broker.reconnect()
    with script.comet.publishing():
        script.news.publish("d")
    assert script.stored("news") == [b'"d"']


def test_of_a_message_that_waits_its_publisher_hears_that_it_never_will_be_stored(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.broker, "patience", 0.05)
    script.broker.disconnect()
    heard = asyncio.run(leave_while_waiting(script))
    assert isinstance(heard, BrokerUnavailable)


async def leave_while_waiting(script: Script) -> Position | BaseException:
    """Leave while another task waits for its message; return what that hears."""
    publishing = script.comet.publishing()
    await publishing.__aenter__()
    delivery = script.news.publish("a")
    waiting = asyncio.create_task(delivery.stored())
    await asyncio.sleep(0)
    with pytest.raises(BrokerUnavailable, match="1 message was"):
        await publishing.__aexit__(None, None, None)
    (heard,) = await asyncio.gather(waiting, return_exceptions=True)
    return heard


def test_the_exception_of_the_application_goes_before_messages_that_are_lost(
    script: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(script.broker, "patience", 0.05)
    script.broker.disconnect()
    with pytest.raises(KeyError), script.comet.publishing():  # noqa: PT012
        script.news.publish("a")
        raise KeyError("mine")
    assert "1 message was not stored" in caplog.text


@pytest.mark.parametrize("late", [False, True])
def test_a_message_that_the_broker_refuses_counts_as_not_stored(
    late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = join(2)
    first, second = Script(one), Script(two)
    with first.comet.publishing():
        first.comet.create(scope=SITE, name="taken").publish("mine")
    with (  # noqa: PT012 - the message is published when the name has been refused
        pytest.raises(BrokerUnavailable, match=r"1 message was not stored: .*'taken'") as lost,
        second.comet.publishing(),
    ):
        made: Channel[Any] = second.comet.create(scope=SITE, name="taken")
        until(lambda: not late or "channel 'taken' is not known" in caplog.text)
        made.publish("no")
    assert isinstance(lost.value.__cause__, NonUniqueChannelName)
    assert not lost.value.maybe_stored


def test_a_source_is_refused(script: Script) -> None:
    with script.comet.publishing():
        with pytest.raises(ValueError, match="expected no source: a process that only publishes"):
            script.comet.create(ticker, scope=SITE, name="mine")
        assert "mine" not in inside(script.comet).channels.site.directory.names()


def test_a_channel_is_closed_for_all(script: Script) -> None:
    with script.comet.publishing():
        script.news.close()
        made: Channel[Any] = script.comet.create(scope=SITE, name="made")
        made.publish("x")
        made.close()
    assert script.broker.store.why_closed("news") == "ended"
    assert script.broker.store.why_closed("made") == "ended"


def test_members_that_are_not_used_leave_nothing(script: Script) -> None:
    jobs = tables(script.comet)["jobs"]
    with script.comet.publishing():
        for number in range(100):
            script.rooms.publish("x", room=str(number))
            script.clocks.publish(1, zone=str(number))
        until(lambda: tables(script.comet)["channels"] == 1)
        script.rooms.publish("y", room="7")
        assert (waiting_sources(script.comet), tables(script.comet)["jobs"]) == (0, jobs)
    assert script.stored("room:7") == [b'"x"', b'"y"']
    assert tables(script.comet)["members"] == 0


def test_as_many_members_as_the_script_likes() -> None:
    comet = Comet(KEY, broker=join(1)[0], settings=Settings(max_family_channels=10))
    rooms = comet.family("room:{room}", type=str)
    with comet.publishing():
        for number in range(50):
            rooms.publish("x", room=str(number))


def test_a_process_that_serves_needs_no_more(script: Script) -> None:
    with TestClient(application(script.comet)) as client:
        with script.comet.publishing():
            script.news.publish("a")
        body = {"channels": {"news": "last:1"}}
        until(lambda: len(client.post("/comet/poll", json=body).json()["events"]) == 2)

        async def main() -> None:
            async with script.comet.publishing():
                pass

        asyncio.run(main())


def test_a_server_starts_after_a_script_has_left(script: Script) -> None:
    with script.comet.publishing():
        script.ticker.publish(5)
        served = TestClient(application(script.comet))
        with pytest.raises(RuntimeError, match=r"expected publishing\(\) to have ended"), served:
            pass  # pragma: no cover - not reached
    with serve(application(script.comet)) as address:
        until(lambda: data(poll(address, {"ticker": "last:2"})) == [5, 1])
        script.news.publish("x")
        assert poll(address, {"news": "last:1"})[-1]["data"] == "x"
    assert read == ["ticker"]


def test_there_is_no_warning_of_messages_that_no_client_gets(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), script.comet.publishing():
        script.news.publish("x")
    assert caplog.text == ""


def test_a_job_that_fails_is_logged(
    script: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def end(*_: object) -> None:
        raise KeyError("of the broker")

    monkeypatch.setattr(script.broker, "end", end)
    with script.comet.publishing():
        script.news.publish("x")
        script.news.close()
    assert "a background job failed" in caplog.text


def publish_in_child(script: Script) -> None:
    with script.comet.publishing():
        script.news.publish("in the child")
    assert script.stored("news")[-1] == b'"in the child"'


def test_a_forked_process_connects_anew(script: Script) -> None:
    """The store is of this process, so here the fork only shows that it forgets the connection."""
    with script.comet.publishing():
        script.news.publish("before")
        assert wait(fork(publish_in_child, script)) == 0
    assert script.stored("news") == [b'"before"']


def test_a_forked_process_that_never_enters_stores_what_it_published(
    script: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretend_fork(script.comet)  # it has no connection
    with script.comet.publishing():
        script.news.publish("of the parent")
        before = link_of(script.comet)
        pretend_fork(script.comet)
        script.news.publish("of the child")
        link = link_of(script.comet)
        assert link is not before
        link.finish()  # as the process ends
        assert script.stored("news")[-1] == b'"of the child"'
        monkeypatch.setattr(script.broker, "patience", 0.01)
        script.broker.disconnect()
        script.news.publish("too late")
        script.news.publish("too late, too")
        link.finish()
        assert "2 messages were not stored" in caplog.text
        script.broker.reconnect()
    link.finish()  # it has left
    assert len(caplog.records) == 1


def test_what_is_not_there_any_more_forgets_nothing() -> None:
    class Gone:
        pass

    known: Any = weakref.ref(Gone())
    outlet.forget(known)
