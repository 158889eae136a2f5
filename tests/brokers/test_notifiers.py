"""Notifiers of three workers that share one store."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio import to_thread

from asgi_comet import BrokerUnavailable, Notifier
from asgi_comet.brokers.audience import Audience, Listening
from asgi_comet.errors import MustAwait
from asgi_comet.notify import errands, queue, shared, shared_receipts
from asgi_comet.testing import JoinedBroker
from asgi_comet.testing._inspect import WAIT_FOR_STORE
from asgi_comet.testing._inspect_notifiers import acknowledged_by, shared_tables_of
from asgi_comet.testing._inspect_redis import shorten_patience
from tests.kit.cluster import PLACES, Cluster, Make, Store, make_brokers, running
from tests.kit.turns import settle

pytestmark = pytest.mark.anyio


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def anyio_backend(place: Any) -> Any:
    return place[1]


@pytest.fixture
def make(request: pytest.FixtureRequest, place: Any) -> Make:
    return make_brokers(request, place[0], timeout=0.3)


@pytest.fixture
def cluster(make: Make) -> Cluster:
    return Cluster(make)


async def until_empty(*notifiers: Notifier[Any]) -> None:
    """Return once nothing is left of notifications in the workers."""
    for notifier in notifiers:
        while any(shared_tables_of(notifier).values()):
            await anyio.lowlevel.checkpoint()


# Who gets a notification


async def test_a_notification_reaches_client_processes_of_every_worker(cluster: Cluster) -> None:
    notifiers = cluster.notifiers(key=int)
    async with running(cluster):
        processes = [await cluster.open() for _ in range(6)]
        for number, process in enumerate(processes):
            await cluster.listen(notifiers, number % 3, 1, process)
        await cluster.listen(notifiers, 0, 2, processes[0])
        for worker, notifier in enumerate(notifiers):
            assert await notifier.notify(1, worker) == 6
            assert await notifier.notify(2, -worker) == 1
            assert await notifier.notify(3, "no one") == 0
        assert await cluster.values(processes[0], 6) == [0, 0, 1, -1, 2, -2]
        for process in processes[1:]:
            assert await cluster.values(process, 3) == [0, 1, 2]
        await until_empty(*notifiers)


async def test_a_client_process_that_has_closed_is_not_notified(cluster: Cluster) -> None:
    notifiers = cluster.notifiers()
    async with running(cluster):
        one, two = [await cluster.open() for _ in range(2)]
        await cluster.listen(notifiers, 0, "k", one, two)
        assert {copy.id for copy in notifiers[0].listeners("k").here} == {one, two}
        await cluster.close(one)
        for notifier in notifiers:
            assert [copy.id for copy in await notifier.listeners("k")] == [two]
            assert await notifier.notify("k", 1) == 1
        copy = await cluster.find(1, two)
        notifiers[1].unlisten("k", copy)
        assert await notifiers[1].notify("k", 2) == 0
        assert await notifiers[2].listeners("k") == []
        assert await cluster.values(two, 3) == [1, 1, 1]


async def test_who_listens_is_asked_of_all_workers(cluster: Cluster) -> None:
    notifiers = cluster.notifiers()
    async with running(cluster):
        process = await cluster.open("ann")
        copy = await cluster.find(0, process)
        await cluster.listen(notifiers, 0, "k", process)
        view = notifiers[1].listeners("k")
        assert view.here == []
        with pytest.raises(MustAwait):
            list(view)
        (found,) = await to_thread.run_sync(list, notifiers[1].listeners("k"))
        assert (found.id, found.user) == (process, "ann")
        assert [copy.id async for copy in notifiers[2].listeners("k")] == [process]
        assert (len(notifiers[0]), len(notifiers[1])) == (1, 0)
        assert notifiers[0].listeners("k").here == [copy]


async def test_what_listens_before_a_notification_gets_it(cluster: Cluster) -> None:
    notifiers = cluster.notifiers()
    async with running(cluster):
        processes = [await cluster.open() for _ in range(20)]
        copies = [await cluster.find(0, process) for process in processes]
        for number, copy in enumerate(copies):
            notifiers[0].listen("k", copy)
            notification = notifiers[0].notify("k", number)
        assert await notification == 20
        notifiers[0].unlisten("k", copies[0])
        assert await notifiers[0].notify("k", -1) == 19
        for number, process in enumerate(processes[1:], 1):
            expected = [*range(number, 20), -1]  # and maybe some of those before
            assert (await cluster.values(process, len(expected)))[-len(expected) :] == expected


# Values


async def test_a_function_prepares_the_value_for_each_user(cluster: Cluster) -> None:
    async def prepare(user: str | None, value: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return None if user == "bob" else f"{value} for {user}"

    notifiers = cluster.notifiers(prepare=prepare)
    async with running(cluster):
        ann, bob, none = [await cluster.open(user) for user in ("ann", "bob", None)]
        await cluster.listen(notifiers, 0, "k", ann, bob, none)
        assert await notifiers[1].notify("k", "a") == 2
        assert await notifiers[1].notify("k", lambda user: user and user.upper()) == 1
        assert await cluster.values(ann, 2) == ["a for ann", "ANN for ann"]
        assert await cluster.values(none, 1) == ["a for None"]
        assert (await cluster.read(bob)).seen == []
        await until_empty(*notifiers)


async def test_a_sync_function_prepares_in_threads(cluster: Cluster) -> None:
    threads = set[int]()

    def prepare(user: str | None, value: int) -> Any:
        threads.add(threading.get_ident())
        if value == 3:
            raise RuntimeError("planned")
        return [user, value]

    notifiers = cluster.notifiers(prepare=prepare)
    async with running(cluster):
        processes = [await cluster.open(f"u{number}") for number in range(20)]
        await cluster.listen(notifiers, 0, "k", *processes)
        notifications = [notifiers[2].notify("k", number) for number in range(6)]
        assert [await one for one in notifications] == [20, 20, 20, 0, 20, 20]
        for number, process in enumerate(processes):
            expected = [[f"u{number}", value] for value in (0, 1, 2, 4, 5)]
            assert await cluster.values(process, 5) == expected
        assert threading.get_ident() not in threads
        await until_empty(*notifiers)


async def test_a_process_or_a_user_is_left_out(cluster: Cluster) -> None:
    notifiers = cluster.notifiers()
    async with running(cluster):
        ann, anns, bob, none = [await cluster.open(user) for user in ("ann", "ann", "bob", None)]
        await cluster.listen(notifiers, 0, "k", ann, anns, bob, none)
        copy = await cluster.find(1, ann)
        assert await notifiers[1].notify("k", 1, not_for=copy) == 3
        assert await notifiers[2].notify("k", 2, not_for="ann") == 2
        assert await notifiers[2].notify("k", lambda user: 3, not_for="bob") == 3
        assert await cluster.values(ann, 1) == [3]
        assert await cluster.values(anns, 2) == [1, 3]
        assert await cluster.values(bob, 2) == [1, 2]
        assert await cluster.values(none, 3) == [1, 2, 3]


async def test_notifications_of_one_caller_keep_their_order(cluster: Cluster) -> None:
    count = 300

    def late(value: int) -> Any:
        async def prepare(user: Any) -> int:
            for _ in range(value % 4):
                await anyio.lowlevel.checkpoint()
            return value

        return prepare

    notifiers = cluster.notifiers()
    async with running(cluster):
        processes = [await cluster.open() for _ in range(3)]
        await cluster.listen(notifiers, 0, "k", *processes)
        for number in range(count):
            value: Any = (number, late(number), lambda user, x=number: x)[number % 3]
            notification = notifiers[1].notify("k", value)
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()
        assert await notification == 3
        for process in processes:
            assert await cluster.values(process, count) == list(range(count))
        await until_empty(*notifiers)


# Bounds


async def test_a_full_channel_is_told_and_forgotten_in_all_workers(make: Make) -> None:
    cluster = Cluster(make, history_size=3)
    notifiers = cluster.notifiers()
    async with running(cluster):
        process, other = [await cluster.open() for _ in range(2)]
        await cluster.listen(notifiers, 0, "k", process, other)
        await cluster.listen(notifiers, 0, "l", process)
        window = await cluster.read(other)
        for number in range(3):
            assert await notifiers[1].notify("k", number) == 2
            await cluster.reader.until(lambda n=number: window.top == n + 1)  # type: ignore[misc]
            cluster.reader.broker.mark_sent(window, window.top)
            while (await cluster.people.audience.progress("~n", [other]))[0].sent <= number:  # type: ignore[union-attr]
                await anyio.lowlevel.checkpoint()
        assert await notifiers[1].notify("k", 3) == 1
        assert await notifiers[2].notify("l", 3) == 0
        for notifier in notifiers:
            assert [copy.id for copy in await notifier.listeners("k")] == [other]
        for worker in (0, 1):  # of which the first one made the channel that is full
            copy = await cluster.find(worker, process)
            notifiers[worker].listen("k", copy)
            assert (
                await notifiers[worker].notify("k", 4, not_for=await cluster.find(worker, other))
                == 1
            )
        assert await notifiers[2].listeners("l") == []
        assert await cluster.values(process, 2) == [4, 4]
        assert await cluster.values(other, 4) == [0, 1, 2, 3]


async def test_a_process_whose_notifications_are_prepared_too_slowly_is_full(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "OUTBOX", 5)
    go_on = anyio.Event()

    async def prepare(user: str | None, value: int) -> int:
        if user == "slow":
            await go_on.wait()
        return value

    notifiers = cluster.notifiers(prepare=prepare)
    async with running(cluster):
        slow, quick = [await cluster.open(user) for user in ("slow", "quick")]
        await cluster.listen(notifiers, 0, "k", slow, quick)
        window = await cluster.read(slow)
        for number in range(5):
            notification = notifiers[1].notify("k", number)
            assert await cluster.values(quick, number + 1) == list(range(number + 1))
        notification = notifiers[1].notify("k", 5)
        assert await notification == 1
        await cluster.reader.until(lambda: window.closed == "full")
        assert window.seen == []
        await cluster.eventually(notifiers[2], "k", lambda ids: slow not in ids)
        assert await notifiers[1].notify("k", 6) == 1
        go_on.set()
        await until_empty(*notifiers)


async def test_a_process_that_closes_during_the_preparation(cluster: Cluster) -> None:
    begun = anyio.Event()

    async def prepare(user: str | None, value: int) -> int:
        if user == "slow":
            begun.set()
            await anyio.Event().wait()
        return value

    notifiers = cluster.notifiers(prepare=prepare)
    async with running(cluster):
        slow, quick = [await cluster.open(user) for user in ("slow", "quick")]
        await cluster.listen(notifiers, 0, "k", slow, quick)
        copy = await cluster.find(0, slow)
        notifications = [notifiers[0].notify("k", number) for number in range(3)]
        await begun.wait()
        copy.close()
        assert [await one for one in notifications] == [1, 1, 1]
        await until_empty(*notifiers)


# A store that is away


@pytest.fixture
def store(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Store]:
    found = Store(request, cluster.brokers)
    yield found
    if not isinstance(found.broker, JoinedBroker):
        found.come_back()


async def test_notifications_wait_for_a_store_that_is_away(
    cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 0

    async def wait(queue: object) -> None:
        nonlocal waited
        waited += 1
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(*WAIT_FOR_STORE, wait)
    notifiers, others = cluster.notifiers(), cluster.notifiers("other")
    async with running(cluster):
        one, two = [await cluster.open() for _ in range(2)]
        await cluster.listen(notifiers, 0, "k", one)
        copy = await cluster.find(1, two)
        store.leave()
        await store.left()
        notifiers[1].listen("k", copy)
        values: list[Any] = [0, lambda user: 1, 2, lambda user: 3]
        notifications = [notifiers[1].notify("k", value) for value in values]
        alone = others[1].notify("k", 0)  # for which no change has to be known first
        while not waited:
            await anyio.lowlevel.checkpoint()
        store.come_back()
        assert await alone == 0
        assert [await notification for notification in notifications] == [2] * 4
        for process in (one, two):
            assert await cluster.values(process, 4) == [0, 1, 2, 3]
        await until_empty(*notifiers)


async def test_prepared_messages_wait_for_a_store_that_is_away(
    cluster: Cluster, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "PAUSE", 0.01)
    monkeypatch.setattr(errands, "ON_WAY", 2)
    go_on = anyio.Event()

    async def prepare(user: Any, value: int) -> int:
        await go_on.wait()
        return value

    notifiers = cluster.notifiers(prepare=prepare)
    async with running(cluster):
        processes = [await cluster.open() for _ in range(4)]
        await cluster.listen(notifiers, 0, "k", *processes)
        notifications = [notifiers[1].notify("k", number) for number in range(3)]
        while shared_tables_of(notifiers[1])["outboxes"] < 4:
            await anyio.lowlevel.checkpoint()
        store.leave()
        await store.left()
        go_on.set()
        await settle()
        store.come_back()
        assert [await notification for notification in notifications] == [4] * 3
        for process in processes:
            assert await cluster.values(process, 3) == [0, 1, 2]
        await until_empty(*notifiers)


async def test_a_store_that_stays_away_is_told_to_the_application(
    cluster: Cluster,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(errands, "PAUSE", 0.01)
    monkeypatch.setattr(queue, "OUTBOX", 1)
    go_on = anyio.Event()

    async def prepare(user: Any, value: int) -> int:
        await go_on.wait()
        return value

    for broker in cluster.brokers:
        broker.patience = 0.1
    plain, prepared = cluster.notifiers(), cluster.notifiers("p", prepare=prepare)
    async with running(cluster):
        one, two, three = [await cluster.open() for _ in range(3)]
        await cluster.listen(plain, 0, "k", one)
        await cluster.listen(prepared, 0, "k", one)
        await cluster.listen(prepared, 0, "l", two)
        copy = await cluster.find(1, three)
        notifications = [prepared[1].notify("k", 0), prepared[1].notify("l", 0)]
        while shared_tables_of(prepared[1])["outboxes"] < 2:
            await anyio.lowlevel.checkpoint()
        for broker in cluster.brokers:
            shorten_patience(broker, 0.1)
        store.leave()
        await store.left()
        go_on.set()
        notifications.append(plain[1].notify("k", 1))
        for notification in notifications:
            with pytest.raises(BrokerUnavailable):
                await notification
            with pytest.raises(BrokerUnavailable):
                await notification.received(0)
        while shared_tables_of(prepared[1])["outboxes"]:
            await anyio.lowlevel.checkpoint()
        plain[1].listen("k", copy)
        while "are not known to all" not in caplog.text:
            await anyio.lowlevel.checkpoint()
        store.come_back()
        assert "did not reach all" in caplog.text
        assert "were not stored" in caplog.text
        while not store.broker.connected:
            await anyio.lowlevel.checkpoint()
        await until_empty(*plain, *prepared)


def audience_of(cluster: Cluster, worker: int) -> Audience:
    people = cluster.brokers[worker].people
    assert people is not None
    return people.audience


async def test_a_part_that_may_be_stored_is_not_sent_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(name: str, processes: Sequence[str], data: bytes) -> Any:
        raise BrokerUnavailable("planned", maybe_stored=True)

    notifiers = cluster.notifiers()
    async with running(cluster):
        process = await cluster.open()
        await cluster.listen(notifiers, 0, "k", process)
        with monkeypatch.context() as patch:
            patch.setattr(audience_of(cluster, 1), "tell", tell)
            with pytest.raises(BrokerUnavailable, match="planned"):
                await notifiers[1].notify("k", 1)
        assert await notifiers[1].notify("k", 2) == 1
        assert await cluster.values(process, 1) == [2]


class Parts(AsyncIterator[Sequence[Listening]]):
    """Those that listen, in parts as a test chooses them."""

    def __init__(self, parts: Sequence[Sequence[Listening]]) -> None:
        self._left = list(parts)

    async def __anext__(self) -> Sequence[Listening]:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)


async def test_a_part_that_was_not_stored_is_sent_again_and_the_others_are_not(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "PAUSE", 0.01)
    notifiers = cluster.notifiers()
    async with running(cluster):
        processes = [await cluster.open() for _ in range(2)]
        await cluster.listen(notifiers, 0, "k", *processes)
        audience = audience_of(cluster, 1)
        parts = [[one] async for part in audience.listeners("n", '"k"') for one in part]
        tell, told, refused = audience.tell, list[str](), list[str]()

        async def refuse(name: str, ids: Sequence[str], data: bytes) -> Any:
            if not refused and len(told) == 1:
                refused.extend(ids)
                raise BrokerUnavailable("planned")
            told.extend(ids)
            return await tell(name, ids, data)

        monkeypatch.setattr(audience, "listeners", lambda name, key: Parts(parts))
        monkeypatch.setattr(audience, "tell", refuse)
        assert await notifiers[1].notify("k", 1) == 2
        assert (sorted(told), told[1:]) == (sorted(processes), refused)
        for process in processes:
            assert await cluster.values(process, 1) == [1]


async def test_a_process_that_closes_where_it_listens_is_forgotten(cluster: Cluster) -> None:
    notifiers = cluster.notifiers()
    async with running(cluster):
        process = await cluster.open()
        await cluster.listen(notifiers, 0, "k", process)
        (copy,) = notifiers[0].listeners("k").here
        copy.close()
        await copy.wait_closed()
        assert notifiers[0].listeners("k").here == []
        await cluster.eventually(notifiers[1], "k", lambda ids: not ids)
        assert await notifiers[1].notify("k", 1) == 0


async def test_a_client_process_begins_to_listen_once_the_store_is_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "PAUSE", 0.01)
    notifiers = cluster.notifiers()
    async with running(cluster):
        process = await cluster.open()
        copy = await cluster.find(0, process)
        audience = audience_of(cluster, 0)
        listen, tries = audience.listen, list[str]()

        async def fail(process: str, name: str, key: str) -> None:
            tries.append(key)
            if len(tries) == 1:
                raise BrokerUnavailable("planned")
            await listen(process, name, key)

        monkeypatch.setattr(audience, "listen", fail)
        notifiers[0].listen("k", copy)
        assert await notifiers[0].notify("k", 1) == 1
        assert len(tries) == 2


async def test_a_notification_that_nobody_holds_any_more_fails_in_the_log(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell(name: str, processes: Sequence[str], data: bytes) -> Any:
        raise BrokerUnavailable("planned", maybe_stored=True)

    notifiers = cluster.notifiers()
    async with running(cluster):
        process = await cluster.open()
        await cluster.listen(notifiers, 0, "k", process)
        monkeypatch.setattr(audience_of(cluster, 1), "tell", tell)
        notifiers[1].notify("k", 1)
        gc.collect()
        while "did not reach all" not in caplog.text:
            await anyio.lowlevel.checkpoint()
        await until_empty(*notifiers)
    assert [one.levelname for one in caplog.records].count("ERROR") == 1


@pytest.mark.parametrize("patience", [60.0, 0.0])
async def test_the_end_of_a_slow_channel_is_tried_again(
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    patience: float,
) -> None:
    monkeypatch.setattr(errands, "PAUSE", 0.01)
    monkeypatch.setattr(queue, "OUTBOX", 1)
    go_on, tries = anyio.Event(), list[str]()

    async def prepare(user: Any, value: int) -> int:
        await go_on.wait()
        return value

    for broker in cluster.brokers:
        broker.patience = patience
    notifiers = cluster.notifiers(prepare=prepare)
    async with running(cluster):
        process = await cluster.open()
        await cluster.listen(notifiers, 0, "k", process)
        audience = audience_of(cluster, 1)
        overflow = audience.overflow

        async def fail(name: str, process: str) -> None:
            tries.append(process)
            if len(tries) < 3:
                raise BrokerUnavailable("planned")
            await overflow(name, process)

        monkeypatch.setattr(audience, "overflow", fail)
        notifications = [notifiers[1].notify("k", number) for number in range(3)]
        while not patience and "misses messages" not in caplog.text:
            await anyio.lowlevel.checkpoint()
        if not patience:
            go_on.set()  # the channel goes on, maybe with the third message
        counts = [await notification for notification in notifications]
        assert counts[:2] == [0, 0]
        assert counts[2] == 0 or not patience
        await until_empty(*notifiers)
        assert tries == [process] * (3 if patience else len(tries))
        assert ("misses messages" in caplog.text) == (not patience)
        assert await notifiers[2].listeners("k") == [] or not patience


async def test_few_prepared_messages_wait_for_a_slow_store(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "ON_WAY", 0)
    monkeypatch.setattr(errands, "AT_ONCE", 1)
    notifiers = cluster.notifiers(prepare=lambda user, value: value)
    async with running(cluster):
        processes = [await cluster.open() for _ in range(10)]
        await cluster.listen(notifiers, 0, "k", *processes)
        notifications = [notifiers[1].notify("k", number) for number in range(10)]
        assert [await one for one in notifications] == [10] * 10
        for process in processes:
            assert await cluster.values(process, 10) == list(range(10))


# Receipts


async def test_a_receipt_waits_for_a_store_that_is_away_for_a_moment(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_receipts, "PAUSES", (0.0, 0.01))
    notifiers, tries = cluster.notifiers(), list[str]()
    async with running(cluster):
        process = await cluster.open()
        await cluster.listen(notifiers, 0, "k", process)
        audience = audience_of(cluster, 1)
        progress = audience.progress

        async def fail(name: str, processes: Sequence[str]) -> Any:
            tries.append(name)
            if len(tries) == 1:
                raise BrokerUnavailable("planned")
            return await progress(name, processes)

        monkeypatch.setattr(audience, "progress", fail)
        notification = notifiers[1].notify("k", 1)
        window = await cluster.read(process)
        await cluster.reader.until(lambda: window.top == 1)
        cluster.reader.broker.acknowledge(window, 1)
        receipt = await notification.received(30)
        assert [one.id for one in receipt.acknowledged] == [process]
        assert len(tries) > 1


async def test_a_receipt_names_those_that_have_read(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_receipts, "PAUSES", (0.0, 0.01))
    monkeypatch.setattr(shared_receipts, "PAUSE", 0.01)
    notifiers = cluster.notifiers()
    async with running(cluster):
        reads, sent, late, unsent, closes = [await cluster.open() for _ in range(5)]
        await cluster.listen(notifiers, 0, "k", reads, sent, late, unsent, closes)
        assert await notifiers[1].notify("k", 0) == 5
        for process in (reads, sent, late, closes):
            window = await cluster.read(process)
            if process != sent:
                cluster.reader.broker.acknowledge(window, 1)
        notification = notifiers[1].notify("k", 1)
        assert await notification == 5
        for process in (reads, sent, late):
            window = await cluster.read(process)
            await cluster.reader.until(lambda x=window: x.top == 2)  # type: ignore[misc]
            cluster.reader.broker.mark_sent(window, 2)
            if process == reads:
                cluster.reader.broker.acknowledge(window, 2)
        await cluster.close(closes)
        receipt = await notification.received(0.5)
        assert [one.id for one in receipt.acknowledged] == [reads]
        assert [one.id for one in receipt.silent] == [sent]
        assert {one.id for one in receipt.missing} == {late, unsent, closes}
        again = await notification.received(0)
        assert {one.id for one in again.acknowledged} == {reads}


async def test_a_client_that_was_told_to_skip_a_notification_is_missing_at_once(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_receipts, "PAUSES", (0.0,))
    monkeypatch.setattr(shared_receipts, "PAUSE", 0.01)
    notifiers = cluster.notifiers()
    async with running(cluster):
        process = await cluster.open()
        await cluster.listen(notifiers, 0, "k", process)
        notification, later = [notifiers[1].notify("k", number) for number in range(2)]
        window = await cluster.read(process)
        await cluster.reader.until(lambda: window.top == 2)
        cluster.reader.broker.mark_sent(window, 1)
        cluster.reader.broker.skip(window, 0, 1)
        receipt = await notification.received(3600)
        assert [one.id for one in receipt.missing] == [process]
        cluster.reader.broker.acknowledge(window, 2)
        assert [one.id for one in (await later.received(3600)).acknowledged] == [process]
        assert await notification.received(3600) == receipt


async def test_a_receipt_comes_when_all_have_read(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_receipts, "PAUSES", (0.0,))
    monkeypatch.setattr(shared_receipts, "PAUSE", 0.01)
    notifiers = cluster.notifiers()
    async with running(cluster):
        one, closes = [await cluster.open() for _ in range(2)]
        await cluster.listen(notifiers, 0, "k", one, closes)
        notification = notifiers[1].notify("k", 1)
        assert await notification == 2
        found = list[Any]()
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                found.append(await notification.received(3600))

            tasks.start_soon(wait)
            for process in (closes, one):
                window = await cluster.read(process)
                cluster.reader.broker.mark_sent(window, 1)
                cluster.reader.broker.acknowledge(window, 1)
                await cluster.people.audience.progress("~n", [process])
                if process == closes:
                    while not acknowledged_by(notification):
                        await anyio.lowlevel.checkpoint()
                    await cluster.close(closes)
        (receipt,) = found
        assert {item.id for item in receipt.acknowledged} == {one, closes}
        nothing = await notifiers[0].notify("other", 1).received(3600)
        assert (nothing.acknowledged, nothing.silent, nothing.missing) == ((), (), ())
