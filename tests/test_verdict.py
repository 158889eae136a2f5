"""What `check()` of the test kit says when something between server and reader breaks the promise.

The faults are planted in the way: a middleware that drops, doubles or changes what the server says.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_comet import SITE, Channel, ClientProcess, Comet
from asgi_comet.channels.outcomes import Outcome
from asgi_comet.errors import ChannelClosed, ChannelFull
from asgi_comet.protocol.registration import ENDED
from asgi_comet.testing import CometApp, run
from asgi_comet.testing._inspect import Told, inside
from asgi_comet.testing.ledger import Ledger
from asgi_comet.testing.verdict import judge
from tests.mutations.scenarios import KEY, SOON, Halfway, count_to_three, make_app, process_of

Events = list[dict[str, Any]]
Change = Callable[[Events], Events]
Tamper = Callable[[Scope, Message], Message | None]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The loops that tell what waits."""
    return request.param


class Tampering:
    """Changes what the server sends. What is `None` is lost, and then nothing more comes."""

    def __init__(self, app: ASGIApp, tamper: Tamper) -> None:
        self._app = app
        self._tamper = tamper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lost: list[Message] = []

        async def tampered(message: Message) -> None:
            changed = self._tamper(scope, message)
            if changed is None:
                lost.append(message)
            else:
                await send(changed)

        await self._app(scope, receive, tampered)
        if lost:
            await anyio.sleep_forever()


def of_frames(change: Change) -> Tamper:
    """Change the events of the frames of a WebSocket."""

    def tamper(_: Scope, message: Message) -> Message | None:
        if message["type"] == "websocket.close":
            return None
        if message["type"] != "websocket.send":
            return message
        events = json.loads(message["text"])["events"]
        return {**message, "text": json.dumps({"events": change(events)})}

    return tamper


def of_body(path: str, old: bytes, new: bytes | None) -> Tamper:
    """Replace a text in the answers to requests; `None` loses the answer that has it."""

    def tamper(scope: Scope, message: Message) -> Message | None:
        body = message.get("body", b"")
        if old not in body or not scope["path"].endswith(path):
            return message
        return None if new is None else {**message, "body": body.replace(old, new)}

    return tamper


def lose(value: object) -> Change:
    return lambda events: [one for one in events if one.get("data") != value]


def double(value: object) -> Change:
    return lambda events: [one for one in events for _ in range(1 + (one.get("data") == value))]


def alter(value: object, **other: object) -> Change:
    return lambda events: [{**one, **(other if one.get("data") == value else {})} for one in events]


def lose_beginnings(events: Events) -> Events:
    return [one for one in events if "error" in one or "data" in one]


def lose_errors(name: str) -> Change:
    return lambda events: [one for one in events if one["channel"] != name or "error" not in one]


@contextmanager
def broken(*said: str) -> Iterator[None]:
    """Expect `check()` to say these lines, with any positions."""
    with pytest.raises(AssertionError, match="the promise was not kept:") as caught:
        yield
    lines = [re.sub(r"[\w-]{8}\.(\d+)", r"@\1", line) for line in str(caught.value).splitlines()]
    assert [one for one in lines[1:] if not one.startswith("a task is left")] == list(said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lose(2), "tab 0 got @3 of 'news' after @1: what is between was lost silently"),
        (lose(3), "tab 0 lacks @3 of 'news', and has only got @2"),
        (double(2), "tab 0 got @2 of 'news' after @2: twice, or out of order"),
        (alter(2, data=7), "tab 0 got 7 as @2 of 'news', which is another"),
    ],
)
async def test_a_message_that_is_lost_doubled_or_changed(change: Change, said: str) -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    async with run(Tampering(make_app(comet), of_frames(change)), comet=comet) as comet_app:
        comet_app.browser().tab().channel("news")
        for value in (1, 2, 3):
            await comet_app.settle()
            news.publish(value)
        with broken(said):
            await comet_app.check()


async def test_a_message_that_nobody_has_published() -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    tamper = of_frames(alter(1, position="Invented.7"))
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        comet_app.browser().tab().channel("news")
        await comet_app.settle()
        news.publish(1)
        with broken(
            "tab 0 got @7 of 'news', which nobody has published",
            "tab 0 lacks @1 of 'news', and has only got @7",
        ):
            await comet_app.check()


@pytest.mark.parametrize("values", [[], [1, 2]])
async def test_a_reader_that_is_not_told_where_it_begins(values: list[int]) -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    tamper = of_frames(lose_beginnings)
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        comet_app.browser().tab().channel("news")
        for value in values:
            await comet_app.settle()
            news.publish(value)
        with broken("tab 0 was not told where it begins to read 'news'"):
            await comet_app.check()


async def test_an_acknowledgement_that_is_lost() -> None:
    comet = Comet(KEY)
    app = make_app(comet)

    async def deaf(scope: Scope, receive: Receive, send: Send) -> None:
        async def hear() -> Message:
            message = await receive()
            while "ack" in (message.get("text") or ""):
                message = await receive()
            return message

        await app(scope, hear, send)

    async with run(deaf, comet=comet) as comet_app:
        tab = await comet_app.browser().open("/")
        inbox = comet.create(scope=process_of(comet), name="inbox", type=int)
        tab.channel("~inbox")
        await comet_app.settle()
        inbox.publish(1)
        with broken("the server does not know that tab 0 has @1 of '~inbox': no `ack`"):
            await comet_app.check()


async def test_a_reader_that_is_not_told_of_the_end() -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    tamper = of_frames(lose_errors("news"))
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        comet_app.browser().tab().channel("news")
        await comet_app.settle()
        news.close()
        with broken("tab 0 was not told that 'news' has ended: ended"):
            await comet_app.check()


def failing(comet: Comet, *, values: int = 0) -> Callable[[], None]:
    """Declare a channel whose source yields 1, and then fails whenever the test says so."""
    events = [anyio.Event()]

    @comet.channel("ticks")
    async def ticks() -> AsyncIterator[int]:
        for _ in range(values):
            yield 1
        await events[-1].wait()
        events.append(anyio.Event())
        raise RuntimeError("as planned")

    def fail() -> None:
        events[-1].set()

    return fail


async def test_a_reader_that_is_not_told_of_a_new_beginning() -> None:
    comet = Comet(KEY)
    fail = failing(comet)
    tamper = of_frames(lose_errors("ticks"))
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        comet_app.browser().tab().channel("ticks")
        await comet_app.settle()
        fail()
        await comet_app.settle()
        with broken("tab 0 was not told that 'ticks' has begun anew after @0"):
            await comet_app.check()


async def test_a_message_of_another_incarnation() -> None:
    comet = Comet(KEY)
    fail = failing(comet, values=1)
    epochs: list[str] = []

    def take_back(events: Events) -> Events:
        """Give the message of the second incarnation the position of the first."""
        epochs.extend(one["position"] for one in events if one.get("data") == 1)
        return alter(1, position=epochs[0])(events) if epochs else events

    tamper = of_frames(take_back)
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        first = comet_app.browser().tab().channel("ticks", start="first")
        assert await first.next() == 1
        fail()
        await comet_app.settle()
        with pytest.raises(ChannelFull):
            await first.next()
        comet_app.clock.advance(1)
        await comet_app.settle()
        comet_app.browser().tab().channel("ticks", start="first")
        with broken(
            "tab 1 went on from @0 to @1 of 'ticks', and was not told of a gap",
            "tab 1 lacks @1 of 'ticks', and has only got @1",
        ):
            await comet_app.check()


async def test_a_process_that_closes_and_does_not_tell() -> None:
    comet = Comet(KEY)
    tamper = of_frames(lambda events: events)
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        tab = await comet_app.browser().open("/")
        comet.create(scope=process_of(comet), name="inbox", type=int)
        tab.channel("~inbox")
        await comet_app.settle()
        process_of(comet).close()
        with broken("tab 0 was not told that its client process has closed"):
            await comet_app.check()


async def test_a_process_that_has_closed_is_served(anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("asyncio tells how its loop is called")
    comet, halfway = Comet(KEY), Halfway()

    def tamper(scope: Scope, message: Message) -> Message:
        refused = scope.get("path", "").endswith("/ack") and message.get("status") == 410
        return {**message, "status": 204} if refused else message

    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        tab = await comet_app.browser().open("/")
        inbox = comet.create(scope=process_of(comet), name="inbox", type=int)
        tab.channel("~inbox", transport="sse")
        async with tab.stall():
            inbox.publish(1)
            await comet_app.settle()
            halfway.begin(process_of(comet).close)
        halfway.finish()
        with broken("tab 0 was served at 'ack', though its client process has closed"):
            await comet_app.check()


async def test_two_readers_of_one_process() -> None:
    comet = Comet(KEY)
    tamper = of_frames(lambda events: events)  # so that nobody is told that another one reads
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        tab = await comet_app.browser().open("/")
        comet.create(scope=process_of(comet), name="inbox", type=int)
        tab.channel("~inbox")
        await comet_app.settle()
        tab.duplicate().channel("~inbox")
        with broken("2 connections read the own channels of one client process"):
            await comet_app.check()


async def test_a_poll_whose_place_a_newer_one_takes_silently() -> None:
    comet = Comet(KEY)
    tamper = of_body("/poll", b',"replaced":true', b"")
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        tab = await comet_app.browser().open("/")
        comet.create(scope=process_of(comet), name="inbox", type=int)
        tab.channel("~inbox", transport="poll")
        await comet_app.settle()
        other = tab.duplicate()
        other.channel("~inbox", transport="poll")
        while len(other.traffic.polls) < 3:  # each takes the place of the other
            await anyio.lowlevel.checkpoint()
        other.leave()
        with broken(
            "tab 0 was not told that a newer connection reads in its place",
            "tab 1 was not told that a newer connection reads in its place",
        ):
            await comet_app.check()


@pytest.mark.parametrize("transport", ["websocket", "poll", "sse"])
async def test_a_full_channel_that_later_says_closed(transport: Any) -> None:
    comet = Comet(KEY)
    error: dict[str, str] = {}

    def tamper(scope: Scope, message: Message) -> Message:
        for key in ("text", "body") if error else ():
            if message.get(key):
                text = message[key] if key == "text" else message[key].decode()
                for old, new in error.items():
                    text = text.replace(old, new)
                message = {**message, key: text if key == "text" else text.encode()}
        return message

    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        tab = await comet_app.browser().open("/")
        inbox = comet.create(scope=process_of(comet), name="inbox", type=int, size=1)
        inbox.publish(1)
        with suppress(ChannelFull):
            inbox.publish(2)
        reader = tab.channel("~inbox", transport=transport)
        with pytest.raises(ChannelFull):
            await reader.next()
        error['"full"'] = '"closed","reason":"failed"'
        error["event: :full\ndata: {"] = 'event: :closed\ndata: {"reason":"failed",'
        again = tab.channel("~inbox", transport=transport)
        with pytest.raises(ChannelClosed):
            await again.next()
        with broken("'~inbox' was full, and a reader that came later was told that it closed"):
            await comet_app.check()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"news:1", b"news:7", "tab 0 got [7, 2] of 'news', not as it was published"),
        (b"news:2", None, "tab 0 lacks 2 of 'news'"),
    ],
)
async def test_values_that_registration_does_not_tell(
    old: bytes, new: bytes | None, said: str
) -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    tamper = of_body("/poll", old, new)
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        (await comet_app.browser().open("/")).channel("news", transport="registration")
        for value in (1, 2):
            await comet_app.settle()
            news.publish(value)
        with broken(said):
            await comet_app.check()


@pytest.mark.parametrize("name", ["news", "~inbox", "~small"])
async def test_an_end_that_registration_does_not_tell(name: str) -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    tamper = of_body("/poll", f"{name}:{ENDED}".encode(), None)
    async with run(Tampering(make_app(comet), tamper), comet=comet) as comet_app:
        tab = await comet_app.browser().open("/")
        inbox = comet.create(scope=process_of(comet), name="inbox", type=int)
        small = comet.create(scope=process_of(comet), name="small", type=int, size=1)
        reader = tab.channel(name, transport="registration")
        await comet_app.settle()
        if name == "~inbox":
            inbox.publish(1)
            assert await reader.next() == 1
        if name == "~small":
            small.publish(1)
            with suppress(ChannelFull):
                small.publish(2)
        news.close()
        inbox.close()
        with broken(
            f"tab 0 was not told that {name!r} has ended: "
            + ("full" if name == "~small" else "ended")
        ):
            await comet_app.check()


def test_an_outcome_that_came_too_early() -> None:
    ledger = Ledger()
    ledger.told = [
        Told("news", Outcome.FAILURE, early=True, lacking=0),
        Told("told", Outcome.FAILURE, early=True, lacking=1),
        Told("late", Outcome.FAILURE, early=False, lacking=0),
        Told("good", Outcome.SUCCESS, early=True, lacking=0),
    ]
    assert judge([], ledger, {}) == [
        "a message of 'news' counts as lost before its time is over, though no connection has "
        "broken that lacked it"
    ]


async def test_a_source_that_is_read_before_its_reader_asks() -> None:
    comet = Comet(KEY)
    comet.unlimited("numbers")(count_to_three)
    app, asked = make_app(comet), list[bytes]()

    async def hurried(scope: Scope, receive: Receive, send: Send) -> None:
        async def hurry() -> Message:
            message = await receive()
            if "body" in message and not asked:
                asked.append(message["body"])
                message["body"] = message["body"].replace(b'"now"', b'"new.0"')
            return message

        await app(scope, hurry, send)

    async with run(hurried, comet=comet) as comet_app:
        tab = await comet_app.browser().open("/")
        async with tab.stall():
            tab.channel("~numbers", transport="poll")
        with broken("the source of '~numbers' was read up to @1 before its reader has asked"):
            await comet_app.check()


async def test_a_position_of_two_messages() -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    broker: Any = inside(comet).broker
    append = broker.append
    broker.append = lambda *args, **options: min(append(*args, **options), 1)
    async with run(make_app(comet)) as comet_app:
        news.publish(1)
        news.publish(2)
        with broken("position @1 of 'news' stands for two messages: b'1' and b'2'"):
            await comet_app.check()


async def test_a_worker_that_ignores_that_another_one_owns_the_source() -> None:
    events: list[anyio.Event] = []

    def make(broker: Any) -> ASGIApp:
        comet, append = Comet(KEY, broker=broker), broker.append
        broker.append = lambda *args, **options: append(*args, **{**options, "sourced": False})

        @comet.channel("ticks")
        async def ticks() -> AsyncIterator[int]:
            events.append(anyio.Event())
            await events[-1].wait()
            yield 1
            await anyio.sleep_forever()

        return make_app(comet)

    async with run(make_app=make, workers=2) as comet_app:
        await comet_app.settle()
        store = inside(comet_app.comet).broker.store  # type: ignore[attr-defined] # joined
        store.release("ticks", store.owner("ticks"))
        events[0].set()
        with broken("a worker that may not read the source of 'ticks' any more has stored b'1'"):
            await comet_app.check()


# The promise is kept


TRANSPORTS = ["websocket", "sse", "poll", "registration"]
STARTS = ["now", "first", "last:2", None]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", ["site", "newest", "own", "early", "unlimited", "before"])
async def test_a_promise_that_is_kept(transport: Any, start: Any, kind: str) -> None:
    comet = Comet(KEY)
    news: Channel[int] | None = None
    if kind == "unlimited":
        comet.unlimited("news", ahead=2)(count_to_three)
    elif kind == "newest":
        news = comet.create_newest(name="news", type=int)
    elif kind in {"site", "before"}:
        news = comet.create(scope=SITE, name="news", type=int)
    if kind == "before" and news is not None:
        news.publish(0)
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        if kind == "own":
            news = comet.create(scope=process_of(comet), name="news", type=int)
            news.publish(0)
        name = "~news" if kind in {"own", "early", "unlimited"} else "news"
        tab.channel(name, transport=transport, start=start)
        await comet_app.settle()
        if kind == "early":
            news = comet.create(scope=process_of(comet), name="news", type=int)
        await _publish_through_faults(comet_app, news)
        await comet_app.check()


async def _publish_through_faults(comet_app: CometApp, news: Channel[int] | None) -> None:
    publish = (lambda value: None) if news is None else news.publish
    (tab,) = comet_app.tabs
    publish(1)
    publish(2)
    for where in ("before answer", "after answer", "inside a frame"):
        async with tab.cut(where):
            publish(3)
        publish(4)
    async with tab.stall():
        publish(5)
    publish(6)
    await comet_app.settle()
    publish(7)
    comet_app.clock.advance(SOON)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_ends_that_are_told(transport: Any) -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        inbox = comet.create(scope=process_of(comet), name="inbox", type=int, size=1)
        small = comet.create(scope=process_of(comet), name="small", type=int, size=1)
        for name in ("news", "~inbox", "~small", "~later", "unknown"):
            tab.channel(name, transport=transport)
        await comet_app.settle()
        news.publish(1)
        inbox.publish(1)
        inbox.close()
        small.publish(1)
        with suppress(ChannelFull):
            small.publish(2)
        await comet_app.settle()
        news.close()
        await comet_app.settle()
        comet_app.clock.advance(SOON)
        tab.channel("~small", transport=transport)
        tab.channel("~inbox", transport=transport)  # waits for another one of that name
        await comet_app.check()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_tabs_that_go(transport: Any) -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    async with run(make_app(comet)) as comet_app:
        browser = comet_app.browser()
        for number in range(3):
            tab = await browser.open("/")
            tab.channel("news", transport=transport)
            tab.channel("~inbox", transport=transport)
            await comet_app.settle()
            news.publish(number)
        first, second, third = comet_app.tabs
        first.leave()
        await second.close()
        process = comet.processes()[-1]
        inbox = comet.create(scope=process, name="inbox", type=int)
        inbox.publish(1)
        news.publish(4)
        await comet_app.settle()
        assert news.listeners == 1
        duplicate = third.duplicate()
        duplicate.channel("~inbox", transport="websocket")
        if transport == "registration":
            third.leave()  # two of them take turns for ever
        await comet_app.settle()
        inbox.publish(2)
        await comet_app.check()


async def test_a_server_that_is_deactivated() -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        for transport in TRANSPORTS:
            tab.channel("news", transport=transport)  # type: ignore[arg-type] # one of them
        await comet_app.settle()
        comet.activation.deactivate()
        await comet_app.settle()
        news.publish(1)
        await comet_app.check()


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_server_that_restarts(workers: int) -> None:
    def make(broker: Any = None) -> ASGIApp:
        comet = Comet(KEY, broker=broker)
        comet.unlimited("numbers")(count_to_three)
        comet.channel("ticks")(counting)
        comet.newest("last")(counting)
        return make_app(comet)

    async def counting() -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()

    async with run(make_app=make, workers=workers) as comet_app:
        tab = await comet_app.browser().open("/")
        for transport in TRANSPORTS:
            tab.channel("ticks", transport=transport)  # type: ignore[arg-type] # one of them
        tab.channel("last")
        tab.channel("~numbers", transport="sse")
        await comet_app.settle()
        await comet_app.restart()
        await comet_app.check()


async def test_an_outcome_that_the_end_of_the_server_settles() -> None:
    made: list[Comet] = []

    def make() -> ASGIApp:
        made.append(Comet(KEY))
        return make_app(made[-1])

    async with run(make_app=make) as comet_app:
        delivery = made[0].create(scope=SITE, name="news", type=int).publish(1)
        async with anyio.create_task_group() as group:
            group.start_soon(comet_app.restart)
            assert await delivery is Outcome.FAILURE
        await comet_app.check()


async def test_a_tab_that_changes_its_transport() -> None:
    comet = Comet(KEY)
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        news = comet.create(scope=process_of(comet), name="news", type=int)
        comet.create(scope=process_of(comet), name="inbox", type=int)
        record = comet_app.record(news)
        reader = tab.channel("~news", transport="registration")
        await comet_app.settle()
        news.publish(1)
        await comet_app.settle()
        tab.channel("~inbox", transport="websocket")
        await comet_app.settle()
        news.publish(2)
        await comet_app.settle()
        tab.channel("~news", transport="sse")
        await comet_app.settle()
        assert reader.messages == record.messages == [1, 2]
        await comet_app.check()


async def test_a_tab_that_leaves_ends_its_poll() -> None:
    comet = Comet(KEY)
    news = comet.create(scope=SITE, name="news", type=int)
    async with run(make_app(comet)) as comet_app:
        tab = comet_app.browser().tab()
        tab.channel("news", transport="poll")
        await comet_app.settle()
        assert news.listeners == 1
        tab.leave()
        await comet_app.settle()
        assert news.listeners == 0


async def test_a_tab_without_a_page_opens_a_client_process() -> None:
    comet = Comet(KEY)
    async with run(make_app(comet)) as comet_app:
        inbox = comet_app.browser().tab().channel("~inbox")
        await comet_app.settle()
        comet.create(scope=process_of(comet), name="inbox", type=int).publish(1)
        assert await inbox.next() == 1
        await comet_app.check()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("start", STARTS)
async def test_workers_that_keep_the_promise(transport: Any, start: Any) -> None:
    comets: list[Comet] = []
    news: list[Channel[int]] = []

    def make(broker: Any) -> ASGIApp:
        comet = Comet(KEY, broker=broker)
        comet.unlimited("numbers")(count_to_three)
        news.append(comet.create(scope=SITE, name="news", type=int))
        news.append(comet.create_newest(name="last", type=int))
        comets.append(comet)
        return make_app(comet)

    async with run(make_app=make, workers=2) as comet_app:
        tab = await comet_app.browser().open("/")
        for name in ("news", "last", "~numbers", "~inbox"):
            tab.channel(name, start=start, transport=transport)
        await comet_app.settle()
        (process,) = await comets[0].processes()
        news.append(comets[0].create(scope=process, name="inbox", type=int))
        for value in range(3):
            for channel in news:
                channel.publish(value)
            async with tab.cut("before answer"):
                pass
        comet_app.broker.down()
        for channel in news:
            channel.publish(3)
        await comet_app.settle()
        comet_app.broker.up()
        comet_app.clock.advance(SOON)
        await comet_app.check()


async def test_a_source_on_demand_over_two_transports() -> None:
    comet, go_on = Comet(KEY), anyio.Event()

    @comet.unlimited("numbers")
    async def count(process: ClientProcess) -> AsyncIterator[int]:
        yield 1
        await go_on.wait()
        yield 2
        await anyio.sleep_forever()

    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        comet.create(scope=process_of(comet), name="inbox", type=int)
        numbers = tab.channel("~numbers", transport="registration")
        assert await numbers.next() == 1
        tab.channel("~inbox", transport="websocket")
        await comet_app.settle()
        go_on.set()
        assert await numbers.next() == 2
        await comet_app.check()


async def test_a_tab_that_leaves_goes_on_with_nothing() -> None:
    comet = Comet(KEY)
    async with run(make_app(comet)) as comet_app:
        tab = await comet_app.browser().open("/")
        inbox = comet.create(scope=process_of(comet), name="inbox", type=int)
        comet.create(scope=process_of(comet), name="other", type=int)
        tab.channel("~inbox")
        await comet_app.settle()
        tab.leave()
        tab.channel("~other")
        await comet_app.settle()
        assert inbox.listeners == 0
        await comet_app.check()
