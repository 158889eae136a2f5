from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import anyio
import pytest
import sniffio
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from pydantic import BaseModel, model_serializer

from asgi_comet import (
    ChannelFull,
    Comet,
    InvalidKey,
    InvalidMessage,
    InvalidName,
    MessageTooLarge,
    NoClientProcess,
    NonUniqueChannelName,
    Notifier,
    NotifierFull,
    NotRunning,
    ProcessClosed,
)
from asgi_comet._runtime import fairness
from asgi_comet.identity.clients import SUCCESSION
from asgi_comet.identity.process import Claim
from asgi_comet.notify import queue
from asgi_comet.notify.subscriptions import LocalQueue
from asgi_comet.testing._inspect import (
    HAND_OUT_ALL,
    HAND_OUT_JOB,
    NEXT_JOB,
    client_of,
    feed_of,
    inside,
    logins,
    tables,
)
from asgi_comet.testing._inspect_notifiers import (
    forget_subscription,
    is_handing_out,
    queue_of,
    subscriptions,
    tables_of,
)
from tests.kit.notifying import House, housing, messages
from tests.kit.processes import open_in
from tests.kit.running import advance, make
from tests.kit.turns import until

pytestmark = pytest.mark.anyio


def check_empty(notifier: Notifier[Any]) -> None:
    assert not any(tables_of(notifier).values()), tables_of(notifier)


# Making one


def test_one_per_name_and_the_name_must_be_that_of_a_process_channel() -> None:
    comet = make()
    notifier = comet.notifier("messages", key=int)
    assert (notifier.name, notifier.id) == ("messages", "~messages")
    assert repr(notifier) == "<Notifier 'messages' keys=0 processes=0>"
    with pytest.raises(NonUniqueChannelName, match="'~messages'"):
        comet.notifier("messages")
    with pytest.raises(NonUniqueChannelName, match="'~messages'"):
        comet.create(scope=open_in(comet, "s"), name="messages")
    for name in ("comet", "", "~x", "open"):
        with pytest.raises(InvalidName):
            comet.notifier(name)


def test_what_it_is_made_of_must_make_sense() -> None:
    comet = make()
    with pytest.raises(TypeError, match=r"a user and a value, got \(user\).*too many"):
        comet.notifier("n", prepare=lambda user: user)  # type: ignore[arg-type,misc]
    with pytest.raises(TypeError, match="expected prepare to be a function, got int"):
        comet.notifier("a", prepare=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="expected a type that pydantic can encode"):
        comet.notifier("b", key=Random)
    assert inside(comet).notifiers == {}


KEYS = [
    (int, 5, "5", "five"),
    (str, "a", "a", 1),
    (UUID, UUID(int=1), "00000000-0000-0000-0000-000000000001", "1"),
    (Literal["new", "old"], "new", "new", "other"),
    (tuple[int, str], (1, "a"), ["1", "a"], 5),
]


@pytest.mark.parametrize(("type_", "key", "same", "wrong"), KEYS, ids=repr)
def test_keys_are_validated_by_their_type(type_: Any, key: Any, same: Any, wrong: Any) -> None:
    comet = make()
    notifier = comet.notifier("n", key=type_)
    process = open_in(comet, "s")
    notifier.listen(same, process)
    assert notifier.listeners(key) == [process]
    calls: list[Callable[[], object]] = [
        lambda: notifier.listen(wrong, process),
        lambda: notifier.unlisten(wrong, process),
        lambda: notifier.listeners(wrong),
        lambda: notifier.notify(wrong, 1),
    ]
    for call in calls:
        with pytest.raises(InvalidKey, match="expected a key of notifier 'n' to be ") as caught:
            call()
        assert isinstance(caught.value, TypeError)
        assert f"got {type(wrong).__name__} {wrong!r}" in str(caught.value)
        assert (caught.value.name, caught.value.key) == ("n", wrong)
    assert len(notifier) == 1


def test_without_a_type_a_key_is_anything_hashable() -> None:
    comet = make()
    notifier = comet.notifier("n")
    process = open_in(comet, "s")
    notifier.listen(("a", 1), process)
    assert notifier.listeners(("a", 1)) == [process]
    with pytest.raises(InvalidKey, match="to be hashable, got list"):
        notifier.listen([], process)
    with pytest.raises(InvalidMessage):
        notifier.notify(object(), 1)


# Listening


def test_listening_makes_the_channel_once_and_is_idempotent() -> None:
    comet = make()
    notifier = comet.notifier("n", key=int)
    process = open_in(comet, "s")
    channel = notifier.listen(1, process)
    assert channel.id == "~n"
    assert channel.reference()["channel"] == "~n"
    assert notifier.listen(1, process) is notifier.listen(2, process) is channel
    assert len(notifier) == 2
    assert repr(notifier) == "<Notifier 'n' keys=2 processes=1>"
    assert notifier.listeners(1) == notifier.listeners(2) == [process]
    notifier.unlisten(1, process)
    notifier.unlisten(1, process)
    assert ([*notifier.listeners(1)], len(notifier)) == ([], 1)
    notifier.unlisten(2, process)
    assert len(notifier) == 0
    assert bool(notifier)
    assert notifier.listen(1, process) is channel  # it stayed
    notifier.unlisten(1, open_in(comet, "another, which never listened"))


def test_the_process_is_by_default_the_current_one() -> None:
    notifier = make().notifier("n", key=int)
    with pytest.raises(NoClientProcess, match=r"; write \.listen\(key, process\)$"):
        notifier.listen(1)
    with pytest.raises(NoClientProcess, match=r"; write \.unlisten\(key, process\)$"):
        notifier.unlisten(1)
    with pytest.raises(NoClientProcess, match=r"; write \.channel\(process\)$"):
        notifier.channel()


def test_a_closed_process_cannot_listen_and_a_taken_name_is_told() -> None:
    comet = make()
    process, other = (
        open_in(comet, "s"),
        open_in(comet, "s"),
    )
    comet.create(scope=other, name="n")
    notifier = comet.notifier("n", key=int)
    process.close()
    with pytest.raises(ProcessClosed):
        notifier.listen(1, process)
    with pytest.raises(NonUniqueChannelName):
        notifier.listen(1, other)
    check_empty(notifier)


def test_one_that_closes_while_it_begins_to_listen_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comet = make()
    notifier = comet.notifier("n", key=int)
    process = open_in(comet, "s")
    open_ = inside(comet).channels.open

    def close_meanwhile(*args: Any, **options: Any) -> Any:
        found = open_(*args, **options)
        process.closed = True  # and nothing else yet, as another thread may do it
        return found

    monkeypatch.setattr(inside(comet).channels, "open", close_meanwhile)
    with pytest.raises(ProcessClosed):
        notifier.listen(1, process)
    check_empty(notifier)


def test_a_process_that_closes_leaves_nothing() -> None:
    comet = make()
    notifier = comet.notifier("n", key=int)
    one, other = (
        open_in(comet, "s"),
        open_in(comet, "s"),
    )
    for key in range(10):
        notifier.listen(key, one)
    notifier.listen(3, other)
    one.close()
    assert (len(notifier), [*notifier.listeners(3)]) == (1, [other])
    other.close()
    check_empty(notifier)


# Notifying


@pytest.mark.parametrize("prepare", ["nothing", "async"])
async def test_others_have_their_turn_while_many_are_told(
    monkeypatch: pytest.MonkeyPatch, prepare: str
) -> None:
    now = [0.0]
    monkeypatch.setattr(fairness, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    async with housing() as house:

        async def render(user: Any, value: Any) -> Any:
            return value

        notifier = house.comet.notifier("n", prepare=render if prepare == "async" else None)
        house.open_all(notifier, *[f"tab {number}" for number in range(100)])
        append, done = inside(house.comet).broker.append, list[int]()

        def append_slowly(feed: Any, data: bytes, **_: Any) -> Any:
            now[0] += 0.001  # a millisecond for each
            done.append(0)
            return append(feed, data)

        monkeypatch.setattr(inside(house.comet).broker, "append", append_slowly)
        seen: list[int] = []

        async def look() -> None:
            while len(done) < 100:
                seen.append(len(done))
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            await notifier.notify(1, "x")
        stretches = [after - before for before, after in zip(seen, [*seen[1:], 100], strict=True)]
        # In milliseconds. Trio shuffles the tasks of a turn of the loop: one that is
        # first in a turn and last in the next has waited for two, of at most 37 each.
        most = 75 if sniffio.current_async_library() == "trio" else 50
        assert max(stretches) <= most


async def test_what_is_notified_as_the_line_ends_is_handed_out_by_one_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n")
        house.open_all(notifier, "a")
        line, take, at_once = queue_of(notifier), NEXT_JOB.function, [0]
        drain = HAND_OUT_ALL.function

        def take_and_notify(self: queue.Line) -> Any:
            job = take(self)
            if job is None:
                monkeypatch.undo()
                notifier.notify(1, 2)  # as another thread would, in this very moment
            return job

        async def count(self: LocalQueue) -> None:
            at_once.append(at_once[-1] + 1)
            await drain(self)
            at_once.append(at_once[-1] - 1)

        monkeypatch.setattr(*NEXT_JOB, take_and_notify)
        notifier.notify(1, 1)
        await until(lambda: not is_handing_out(line) or take is NEXT_JOB.function)
        monkeypatch.setattr(*HAND_OUT_ALL, count)
        notifier.notify(1, 3)
        await wait_all_tasks_blocked()
        assert house.values("a") == [1, 2, 3]
        assert max(at_once) == 0, "a second task hands out beside the first"


async def test_a_task_that_is_cut_off_leaves_its_place_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n")
        house.open_all(notifier, "a")
        line, scope = queue_of(notifier), anyio.CancelScope()

        async def be_cut_off(line: LocalQueue, job: Any) -> None:
            scope.cancel()
            await anyio.sleep_forever()

        with monkeypatch.context() as patched:
            patched.setattr(inside(house.comet).background, "start", lambda job: None)
            patched.setattr(*HAND_OUT_JOB, be_cut_off)
            notifier.notify(1, "lost with the server")
            with scope:
                await HAND_OUT_ALL.function(line)
        notifier.notify(1, "after")
        await wait_all_tasks_blocked()
        assert house.values("a") == ["after"]


async def test_its_channel_can_be_had_before_anybody_listens() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n")
        tab = house.open("a")
        channel = notifier.channel(tab)
        assert (channel.id, len(notifier), [*notifier.listeners(1)]) == ("~n", 0, [])
        assert notifier.listen(1, tab).reference() == channel.reference()
        notifier.notify(1, "x")
        await wait_all_tasks_blocked()
        assert house.values("a") == ["x"]
        tab.close()
        check_empty(notifier)


async def test_those_who_listen_on_the_key_get_it_with_the_key() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a", "b")
        house.open_all(notifier, "c", key=2)
        assert await notifier.notify(1, {"text": "hi"}) == 2
        assert await notifier.notify(2, None) == 1
        assert await notifier.notify(3, "nobody") == 0
        expected = [{"key": 1, "value": {"text": "hi"}}]
        assert messages(house.tabs["a"]) == messages(house.tabs["b"]) == expected
        assert messages(house.tabs["c"]) == [{"key": 2, "value": None}]


async def test_listeners_are_those_of_the_moment_of_the_call() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a", "b")
        first = notifier.notify(1, "first")
        house.open_all(notifier, "c")
        notifier.unlisten(1, house.tabs["a"])
        second = notifier.notify(1, "second")
        assert (await first, await second) == (2, 2)
        found = [house.values(name) for name in "abc"]
        assert found == [["first"], ["first", "second"], ["second"]]


async def test_a_tab_or_a_user_can_be_left_out() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        for name, user in (("a1", "a"), ("a2", "a"), ("b", "b"), ("visitor", None)):
            notifier.listen(1, house.open(name, user))
        assert await notifier.notify(1, "tab", not_for=house.tabs["a1"]) == 3
        assert await notifier.notify(1, "user", not_for="a") == 2
        assert await notifier.notify(1, "nobody", not_for="stranger") == 4
        found = {name: house.values(name) for name in house.tabs}
        everything = ["tab", "user", "nobody"]
        assert found["a1"] == ["nobody"]
        assert found["a2"] == ["tab", "nobody"]
        assert found["b"] == found["visitor"] == everything


class Counted(BaseModel):
    text: str = "x"

    @model_serializer
    def count(self) -> dict[str, str]:
        encoded.append(self.text)
        return {"text": self.text}


encoded: list[str] = []


async def test_a_value_that_is_the_same_for_all_is_encoded_once() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        names = [f"user {number}" for number in range(200)]
        house.open_all(notifier, *names)
        encoded.clear()
        assert await notifier.notify(1, Counted()) == 200
        assert encoded == ["x"]
        data = {id(client_of(house.tabs[n]).place.directory.find("~n").history.after(0)[0].data)  # type: ignore[union-attr, index]
                for n in names}  # fmt: skip
        assert len(data) == 1


async def test_what_cannot_be_sent_is_refused_where_it_was_notified() -> None:
    async with housing(message_limit=100) as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        with pytest.raises(InvalidMessage, match="'~n'"):
            notifier.notify(1, object())
        limit = 100 - len('{"key":1,"value":""}')
        assert await notifier.notify(1, "x" * limit) == 1
        with pytest.raises(MessageTooLarge) as caught:
            notifier.notify(1, "x" * (limit + 1))
        assert (caught.value.name, caught.value.limit, caught.value.size) == ("~n", 100, 101)
        assert house.values("a") == ["x" * limit]


async def test_it_never_waits_and_the_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "WAITING", 10)
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        sent = [notifier.notify(1, number) for number in range(10)]
        assert house.values("a") == []  # none is handed out before the caller waits
        with pytest.raises(NotifierFull, match="at most 10 notifications of 'n'") as caught:
            notifier.notify(1, 10)
        assert isinstance(caught.value, ChannelFull)
        assert (caught.value.name, caught.value.limit) == ("n", 10)
        assert caught.value.max_bytes == 64 * 2**20
        assert [await one for one in sent] == [1] * 10
        assert await notifier.notify(1, 10) == 1
        assert house.values("a") == list(range(11))


async def test_the_line_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len('{"key":1,"value":"xxxx"}')
    monkeypatch.setattr(queue, "WAITING_BYTES", 3 * size)
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        for _ in range(3):  # what was handed out does not count
            for _ in range(2):
                notifier.notify(1, "xxxx")
            last = notifier.notify(1, "xxxx")
            with pytest.raises(NotifierFull, match=f"or {3 * size} bytes"):
                notifier.notify(1, "")
            assert await last == 1


async def test_what_was_notified_before_the_lifespan_is_handed_out_with_it() -> None:
    comet = make()
    notifier = comet.notifier("n", key=int, prepare=lambda user, value: value)
    process = open_in(comet, "s")
    notifier.listen(1, process)
    waiting = [notifier.notify(1, number) for number in range(3)]
    with pytest.raises(NotRunning):
        await waiting[0]
    async with comet.lifespan():
        assert await waiting[-1] == 1
        assert [message["value"] for message in messages(process)] == [0, 1, 2]


async def test_what_threads_notify_arrives_in_each_caller_s_order() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")

        def run(thread: int) -> None:
            for number in range(100):
                notifier.notify(1, [thread, number])

        async with anyio.create_task_group() as group:
            for thread in range(4):
                group.start_soon(anyio.to_thread.run_sync, run, thread)
        await notifier.notify(1, "last")
        found = house.values("a")[:-1]
        for thread in range(4):
            assert [n for t, n in found if t == thread] == list(range(100))


async def test_a_comparison_that_fails_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise LookupError

        __hash__ = object.__hash__

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        assert await notifier.notify(1, "odd", not_for=Odd()) == 0
        assert await notifier.notify(1, "even") == 1
        assert "was not handed out" in caplog.text
        assert house.values("a") == ["even"]


# Values for each


async def test_a_value_may_be_a_function_of_the_user() -> None:
    async def later(user: Any) -> Any:
        await checkpoint()
        return f"later {user}"

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a", "b")
        notifier.listen(1, house.open("visitor"))
        assert await notifier.notify(1, lambda user: f"now {user}") == 3
        assert await notifier.notify(1, later) == 3
        assert await notifier.notify(1, not_async(later)) == 3
        assert await notifier.notify(1, lambda user: user if user == "b" else None) == 1
        assert await notifier.notify(1, lambda user: nothing()) == 0
        assert house.values("a") == ["now a", "later a", "later a"]
        assert house.values("b") == ["now b", "later b", "later b", "b"]
        assert house.values("visitor") == ["now None", "later None", "later None"]


async def nothing() -> None:
    return None


def not_async(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A sync function that returns what an async one does."""
    return lambda user: function(user)  # noqa: PLW0108 - nobody is to see what is in it


def prepare_sync(user: Any, value: Any) -> Any:
    return None if user == value else f"{value} for {user}"


async def prepare_async(user: Any, value: Any) -> Any:
    await checkpoint()
    return prepare_sync(user, value)


def prepare_either(user: Any, value: Any) -> Any:
    return prepare_async(user, value) if user == "a" else prepare_sync(user, value)


PREPARES = [prepare_sync, prepare_async, prepare_either]


@pytest.mark.parametrize("prepare", PREPARES)
async def test_prepare_makes_what_a_user_gets_and_none_is_not_for_this_one(prepare: Any) -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "a", "b")
        assert await notifier.notify(1, "news") == 2
        assert await notifier.notify(1, "a") == 1
        assert await notifier.notify(1, lambda user: user * 2) == 2
        assert await notifier.notify(1, prepare_later) == 2
        assert await notifier.notify(1, not_async(prepare_later)) == 2
        found = ["news for a", "aa for a", "later a for a", "later a for a"]
        assert house.values("a") == found
        found = ["news for b", "a for b", "bb for b", "later b for b", "later b for b"]
        assert house.values("b") == found


async def prepare_later(user: Any) -> str:
    await checkpoint()
    return f"later {user}"


def fail_sync(user: Any, value: Any) -> Any:
    if user == "a":
        raise LookupError("no such thing")
    return object() if user == "b" else "x" * 200 if user == "c" else value


async def fail_async(user: Any, value: Any) -> Any:
    return fail_sync(user, value)


@pytest.mark.parametrize("prepare", [fail_sync, fail_async])
async def test_one_that_fails_is_logged_and_skips_that_listener_only(
    prepare: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with housing(message_limit=100) as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "a", "b", "c", "d")
        sent = notifier.notify(1, "the payload")
        assert await sent == 1
        assert await notifier.notify(1, "more") == 1
        assert [house.values(name) for name in "abcd"] == [[], [], [], ["the payload", "more"]]
        assert caplog.text.count("preparing a notification of 'n' failed") == 6
        assert {r.exc_info[0].__name__ for r in caplog.records if r.exc_info} == {  # type: ignore[union-attr]
            "LookupError",
            "InvalidMessage",
            "MessageTooLarge",
        }
        assert "payload" not in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_nobody_asked_for_is_a_failure_like_any_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def prepare(user: Any, value: Any) -> Any:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.cancel()
        return await task

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "a")
        assert await notifier.notify(1, 1) == 0
        assert "failed" in caplog.text


async def test_an_async_user_who_takes_long_delays_nobody_else_and_keeps_the_order() -> None:
    slow = anyio.Event()

    async def prepare(user: Any, value: Any) -> Any:
        if user == "slow":
            await slow.wait()
        return value

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "slow", "a", "b")
        sent = [notifier.notify(1, number) for number in range(20)]
        await until(lambda: house.values("a") == house.values("b") == list(range(20)))
        assert house.values("slow") == []
        slow.set()
        assert [await one for one in sent] == [3] * 20
        assert house.values("slow") == list(range(20))


async def test_a_sync_user_who_takes_long_delays_nobody_else_and_keeps_the_order() -> None:
    slow, begun = threading.Event(), threading.Event()

    def prepare(user: Any, value: Any) -> Any:
        if user == "slow":
            begun.set()
            assert slow.wait(20)
        return value

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "slow", "a", "b")
        first = notifier.notify(1, 0)
        await anyio.to_thread.run_sync(begun.wait, 20)
        await until(lambda: tables_of(notifier)["for threads"] == 2)
        for _ in range(2):  # then nobody waits any more, and nobody looks
            await advance(house.clock, 2 * queue.SPARE + 0.1)
            await until(lambda: house.values("a") == house.values("b") == [0])
        sent = [first, *(notifier.notify(1, number) for number in range(1, 20))]
        await wait_all_tasks_blocked()
        await advance(house.clock, 2 * queue.SPARE + 0.1)
        await until(lambda: house.values("a") == house.values("b") == list(range(20)))
        assert house.values("slow") == []
        slow.set()
        assert [await one for one in sent] == [3] * 20
        assert house.values("slow") == list(range(20))


async def test_threads_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "THREADS", 2)
    go_on, running, most = threading.Event(), list[Any](), list[int]()

    def prepare(user: Any, value: Any) -> Any:
        running.append(user)
        most.append(len(running))
        assert go_on.wait(20)
        running.remove(user)
        return value

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, *"abcdefgh")
        sent = notifier.notify(1, "x")
        await until(lambda: len(running) == 1)
        for expected in (2, 2, 2):
            await advance(house.clock, 2 * queue.SPARE + 0.1)
            await until(lambda expected=expected: len(running) == expected)  # type: ignore[misc]
        go_on.set()
        assert await sent == 8
        assert max(most) == 2
        await inside(house.comet).background.wait_idle()


async def test_a_thread_takes_a_chunk_and_then_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "CHUNK", 3)
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=lambda user, value: value)
        names = [f"user {number}" for number in range(50)]
        house.open_all(notifier, *names)
        assert await notifier.notify(1, "x") == 50
        assert [house.values(name) for name in names] == [["x"]] * 50


async def test_no_more_than_32_are_prepared_in_the_loop_at_a_time() -> None:
    go_on, running, most = anyio.Event(), list[Any](), list[int]()

    async def prepare(user: Any, value: Any) -> Any:
        running.append(user)
        most.append(len(running))
        await go_on.wait()
        running.remove(user)
        return value

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, *(f"user {number}" for number in range(100)))
        sent = notifier.notify(1, "x")
        await wait_all_tasks_blocked()
        assert len(running) == queue.TASKS
        go_on.set()
        assert await sent == 100
        assert max(most) == queue.TASKS


async def test_one_that_takes_ten_seconds_is_cut_off_and_the_next_is_prepared(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def prepare(user: Any, value: Any) -> Any:
        if value == "slow":
            await anyio.sleep_forever()
        return value

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "a")
        sent = [notifier.notify(1, value) for value in ("slow", "fast")]
        await wait_all_tasks_blocked()
        await advance(house.clock, 9.9)
        assert house.values("a") == []
        await advance(house.clock, 0.3)
        assert [await one for one in sent] == [0, 1]
        assert house.values("a") == ["fast"]
        assert "took more than 10 s" in caplog.text


async def test_a_plain_notification_waits_for_those_that_are_being_prepared() -> None:
    go_on = anyio.Event()

    async def slow(user: Any) -> str:
        await go_on.wait()
        return "slow"

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a")
        notifier.notify(1, slow)
        plain = [notifier.notify(1, number) for number in range(3)]
        sync = notifier.notify(1, lambda user: "sync")
        plain.append(notifier.notify(1, 3))
        await wait_all_tasks_blocked()
        assert house.values("a") == []
        go_on.set()
        assert [await one for one in (*plain, sync)] == [1] * 5
        assert house.values("a") == ["slow", 0, 1, 2, "sync", 3]


async def test_the_order_per_process_holds_at_whatever_speed() -> None:
    random = Random(6)

    def quick(user: Any) -> Any:
        return None if user == "b" else "quick"

    def make_slow(number: int) -> Any:
        async def slow(user: Any) -> Any:
            for _ in range(random.randrange(10)):
                await checkpoint()
            return number

        return random.choice([slow, number, lambda user: number, not_async(slow)])

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, *"abcde")
        for number in range(200):
            notifier.notify(1, make_slow(number))
            if number % 7 == 0:
                await checkpoint()
        assert await notifier.notify(1, quick) == 4
        for name in "acde":
            assert house.values(name) == [*range(200), "quick"]
        assert house.values("b") == list(range(200))


async def test_a_subscription_that_overflows_ends_that_channel_as_full(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(queue, "OUTBOX", 5)
    go_on = anyio.Event()

    async def prepare(user: Any, value: Any) -> Any:
        if user == "slow":
            await go_on.wait()
        return value

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "slow", "a")
        sent = [notifier.notify(1, number) for number in range(5)]
        await wait_all_tasks_blocked()
        assert len(notifier.listeners(1)) == 2
        sent += [notifier.notify(1, number) for number in (5, 6)]
        assert [await one for one in sent] == [1] * 7  # what it was preparing is called off
        assert notifier.listeners(1) == [house.tabs["a"]]
        assert house.values("a") == list(range(7))
        feed = client_of(house.tabs["slow"]).place.directory.find("~n")
        assert feed is not None
        assert feed.closed == "full"
        assert "is prepared too slowly" in caplog.text
        channel = notifier.listen(1, house.tabs["slow"])
        assert feed_of(channel) is not feed
        go_on.set()
        assert await notifier.notify(1, "again") == 2
        assert house.values("slow") == ["again"]


async def test_a_burst_does_not_overflow_what_is_prepared_at_once() -> None:
    async def prepare(user: Any, value: Any) -> Any:
        return value

    async with housing(history_size=10_000) as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "a")
        for number in range(3 * queue.OUTBOX):
            notifier.notify(1, number)
        assert await notifier.notify(1, "last") == 1
        assert house.values("a") == [*range(3 * queue.OUTBOX), "last"]


# Channels that end


async def test_a_client_that_does_not_read_is_full_and_forgotten_until_it_listens_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with housing(history_size=3) as house:
        notifier = house.comet.notifier("n", key=int)
        house.open_all(notifier, "a", "b")
        reader = client_of(house.tabs["b"]).place.directory.find("~n")
        assert reader is not None
        for number in range(3):
            assert await notifier.notify(1, number) == 2
        reader.mark_sent(3)
        assert await notifier.notify(1, 3) == 1
        assert notifier.listeners(1) == [house.tabs["b"]]
        assert "a channel of notifier 'n' is full: its keys are forgotten" in caplog.text
        channel = notifier.listen(1, house.tabs["a"])
        assert await notifier.notify(1, 4) == 2
        assert feed_of(channel).history.top == 1
        house.tabs["a"].close()
        house.tabs["b"].close()
        check_empty(notifier)


async def test_a_channel_that_the_application_closed_is_forgotten_and_made_anew() -> None:
    async with housing() as house:
        notifier = house.comet.notifier("n", key=int)
        one, other = house.open("one"), house.open("other")
        channels = [notifier.listen(1, one), notifier.listen(1, other)]
        for channel in channels:
            channel.close()
        assert notifier.listen(2, one) is not channels[0]
        assert notifier.listeners(1) == [other]  # nobody has noticed yet
        assert await notifier.notify(1, "x") == 0
        assert notifier.listeners(1) == []
        assert await notifier.notify(2, "y") == 1


async def test_a_process_that_closes_is_not_prepared_for_any_more() -> None:
    asked, called_off = list[Any](), list[Any]()

    async def prepare(user: Any, value: Any) -> Any:
        asked.append(user)
        try:
            await anyio.sleep_forever()
        except BaseException:
            called_off.append(user)
            raise

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "a")
        sent = [notifier.notify(1, number) for number in range(3)]
        await wait_all_tasks_blocked()
        house.tabs["a"].close()
        assert [await one for one in sent] == [0] * 3
        await wait_all_tasks_blocked()
        assert (asked, called_off) == (["a"], ["a"])
        assert len(inside(house.comet).background) == 0
        check_empty(notifier)


async def test_a_process_that_closes_while_a_thread_prepares_for_it_leaves_nothing() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def prepare(user: Any, value: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return later(value) if value == "await me" else value

    async def later(value: Any) -> Any:
        return value

    for value in ("plain", "await me"):
        begun.clear()
        go_on.clear()
        async with housing() as house:
            notifier = house.comet.notifier("n", key=int, prepare=prepare)
            house.open_all(notifier, "a")
            sent = [notifier.notify(1, value), notifier.notify(1, value)]
            await anyio.to_thread.run_sync(begun.wait, 20)
            house.tabs["a"].close()
            assert [await one for one in sent] == [0, 0]
            go_on.set()
            await inside(house.comet).background.wait_idle()
            check_empty(notifier)


async def test_a_process_that_closes_between_a_sync_and_an_async_step_leaves_nothing() -> None:
    begun, go_on, prepared = threading.Event(), threading.Event(), list[Any]()

    def value(user: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return user

    async def prepare(user: Any, value: Any) -> Any:
        prepared.append(user)

    async with housing() as house:
        notifier = house.comet.notifier("n", key=int, prepare=prepare)
        house.open_all(notifier, "a")
        sent = notifier.notify(1, value)
        await anyio.to_thread.run_sync(begun.wait, 20)
        house.tabs["a"].close()
        assert await sent == 0
        go_on.set()
        await inside(house.comet).background.wait_idle()
        assert prepared == []
        check_empty(notifier)


@pytest.mark.parametrize("way", ["sync", "async"])
async def test_a_process_that_closes_while_it_waits_to_be_prepared_for_is_passed_over(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "THREADS", 1)
    monkeypatch.setattr(queue, "TASKS", 1)
    asked, go_on, go_on_here = list[Any](), threading.Event(), anyio.Event()

    def prepare(user: Any, value: Any) -> Any:
        asked.append(user)
        assert go_on.wait(20)
        return value

    async def prepare_here(user: Any, value: Any) -> Any:
        asked.append(user)
        await go_on_here.wait()
        return value

    async with housing() as house:
        how = prepare if way == "sync" else prepare_here
        notifier = house.comet.notifier("n", key=int, prepare=how)
        house.open_all(notifier, *"abc")
        sent = notifier.notify(1, "x")
        await until(lambda: asked == ["a"])
        await until(lambda: all(one.pending for one in subscriptions(notifier).values()))
        house.tabs["b"].close()
        go_on.set()
        go_on_here.set()
        assert await sent == 2
        assert asked == ["a", "c"]


def test_two_threads_that_see_a_channel_s_end_forget_it_once() -> None:
    comet = make()
    notifier = comet.notifier("n", key=int)
    process = open_in(comet, "s")
    notifier.listen(1, process)
    subscription = subscriptions(notifier)[process]
    subscription.channel.close()
    forget_subscription(notifier, subscription)
    notifier.listen(1, process)
    forget_subscription(notifier, subscription)
    assert notifier.listeners(1) == [process]


async def test_a_process_that_closed_before_its_turn_is_passed_over() -> None:
    async with housing() as house:
        for name, prepare in (("n", None), ("m", prepare_sync), ("o", prepare_async)):
            notifier = house.comet.notifier(name, key=int, prepare=prepare)
            house.open_all(notifier, "a", "b")
            sent = notifier.notify(1, "x")
            house.tabs["a"].close()
            assert await sent == 1
            house.tabs["b"].close()
            check_empty(notifier)


async def test_one_that_closes_between_the_line_and_its_turn_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fairness, "STRETCH", -1)  # the loop turns after each
    for prepare in (prepare_sync, prepare_async, prepare_either):
        async with housing() as house:
            notifier = house.comet.notifier("n", key=int, prepare=prepare)
            names = [f"user {number}" for number in range(100)]
            house.open_all(notifier, *names)
            sent = notifier.notify(1, "x")
            await checkpoint()
            for name in names[50:]:
                await checkpoint()
                house.tabs[name].close()
            assert 50 <= await sent <= 100
            await inside(house.comet).background.wait_idle()
            assert len(notifier.listeners(1)) == 50


async def test_a_lifespan_that_ends_leaves_no_job_and_a_later_one_works() -> None:
    async def prepare(user: Any, value: Any) -> Any:
        await anyio.sleep_forever()

    comet = make()
    slow = comet.notifier("slow", key=int, prepare=prepare)
    quick = comet.notifier("quick", key=int)
    async with comet.lifespan():
        process = open_in(comet, "s")
        slow.listen(1, process)
        slow.notify(1, "x")
        await wait_all_tasks_blocked()
    check_empty(slow)
    assert len(inside(comet).background) == 0
    async with comet.lifespan():
        process = open_in(comet, "s")
        quick.listen(1, process)
        assert await quick.notify(1, "x") == 1


# Nothing leaks


def test_a_notification_that_nobody_keeps_is_gone_and_one_that_is_kept_holds_little() -> None:
    comet = make()
    notifier = comet.notifier("n", key=int)
    process = open_in(comet, "s")
    notifier.listen(1, process)
    dropped = weakref.ref(notifier.notify(1, "x"))
    assert dropped() is None


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_thousand_users_who_come_and_go_leave_nothing() -> None:
    random = Random(4)
    async with housing(max_processes=3000) as house:
        notifier = house.comet.notifier("n", key=int)
        held = list[int]()
        for _ in range(4):
            await come_and_go(house, notifier, random)
            check_empty(notifier)
            gc.collect()
            held.append(sys.getallocatedblocks())
        assert held[-1] < held[1] + 1000, held  # where each round had 3,000 processes
        assert len(inside(house.comet).timers) == len(inside(house.comet).background) == 0


async def come_and_go(house: House, notifier: Notifier[int], random: Random) -> None:
    tabs = [open_in(house.comet, f"session of {user}") for user in range(1000) for _ in range(3)]
    for user, tab in enumerate(tabs[::3]):
        inside(house.comet).users.change(Claim.of(tab.session), user, keep=user % 2 == 0)
    for tab in tabs:
        for key in random.sample(range(10_000), 5):
            notifier.listen(key, tab)
    for key in range(0, 10_000, 50):
        notifier.notify(key, "news")
    await notifier.notify(0, "last")
    boxes = subscriptions(notifier)
    for tab in tabs[::2]:
        for listened in list(boxes[tab].keys)[:3]:
            notifier.unlisten(listened, tab)  # type: ignore[arg-type]  # they are numbers
    assert len(house.comet.sessions()) == 1000
    for session in house.comet.sessions()[::2]:
        inside(house.comet).users.change(Claim.of(session), None)  # which closes its tabs
    for tab in random.sample(tabs, len(tabs)):
        tab.close()
    await wait_all_tasks_blocked()
    house.clock.advance(SUCCESSION + 1)
    await wait_all_tasks_blocked()
    check_users_empty(house.comet)


def check_users_empty(comet: Comet) -> None:
    for session in logins(comet):  # who logged in and left every tab
        inside(comet).users.change(Claim.of(session), None)
    found = tables(comet)
    assert [found[name] for name in ("processes", "users", "logins", "sessions")] == [0] * 4
