"""Families that are only published to; `publish` and `linger` of declared channels."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anyio import sleep_forever
from pydantic import BaseModel
from starlette.requests import HTTPConnection

from asgi_comet import (
    SITE,
    ChannelClosed,
    Comet,
    InvalidDeclaration,
    InvalidMessage,
    InvalidName,
    NonUniqueChannelName,
    Settings,
)
from asgi_comet.channels.html import make_html
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import inside, live_feeds, tables
from tests.kit.processes import open_in, process_of
from tests.kit.running import advance, running
from tests.kit.serving import Address, Tab, poll
from tests.kit.stage import KEY
from tests.kit.streams import Sse
from tests.kit.turns import wait_all_tasks_blocked

pytestmark = pytest.mark.anyio

MakeServer = Callable[..., tuple[Comet, Address]]


class Said(BaseModel):
    type: str = "said"
    text: str


def alive(comet: Comet, name: str) -> bool:
    return inside(comet).channels.find(name) is not None


# Over real sockets


def test_a_message_reaches_those_who_follow_the_member(comet: Comet, server: Address) -> None:
    rooms = comet.family("room:{room}", type=Said)
    before = poll(server, {"room:kitchen": "now", "room:cellar": "now"})
    here = {event["channel"]: event["position"] for event in before}
    rooms.publish(Said(text="Hello"), room="kitchen")
    (event,) = poll(server, here)
    assert (event["channel"], event["data"]) == ("room:kitchen", {"type": "said", "text": "Hello"})


def test_what_was_published_before_the_first_listener_is_held(
    comet: Comet, server: Address
) -> None:
    rooms = comet.family("room:{room}", size=2)
    for n in range(3):
        rooms.publish(n, room=7)
    found = poll(server, {"room:7": "last:9"})
    assert [event["data"] for event in found if "data" in event] == [1, 2]


def test_authorize_is_asked_with_the_words_in_its_own_types(comet: Comet, server: Address) -> None:
    asked = []

    def may(connection: HTTPConnection, room: int) -> bool:
        asked.append(room)
        return room == 1

    rooms = comet.family("room:{room}", authorize=may)
    rooms.publish("x", room=1)
    assert poll(server, {"room:1": "first"})[-1]["data"] == "x"
    assert poll(server, {"room:2": "now"})[0]["error"] == "forbidden"
    assert poll(server, {"room:01": "now"})[0] == {
        "channel": "room:01",
        "error": "closed",
        "reason": "unknown",
    }
    assert asked == [1, 2]


def test_to_one_user_in_all_tabs(make_server: MakeServer) -> None:
    comet, server = make_server(settings=Settings(jitter=0))
    users = {"Cookie ada": "ada", "Cookie bob": "bob"}

    @comet.identify
    def who(connection: HTTPConnection) -> str | None:
        return users.get(connection.headers.get("x-user", ""))

    def is_self(connection: HTTPConnection, user: str) -> bool:
        return who(connection) == user

    inbox = comet.family("user:{user}", authorize=is_self)
    inbox.publish("mail", user="ada")
    for name, expected in (("Cookie ada", "mail"), ("Cookie bob", None)):
        for _ in range(2):  # two tabs
            answer = server.request(
                "POST",
                "/comet/poll",
                '{"channels": {"user:ada": "last:1"}}',
                {"Content-Type": "application/json", "X-User": name},
            )
            assert (expected is not None and expected.encode() in answer.body) is (
                name == "Cookie ada"
            )
            assert (b"forbidden" in answer.body) is (name == "Cookie bob")


def test_html_is_for_those_who_ask_for_text_and_json_for_all_others(
    comet: Comet, server: Address
) -> None:
    rendered = []

    def render(said: Said) -> str:
        rendered.append(said.text)
        return f"<li>{said.text}</li>"

    rooms = comet.family("room:{room}", type=Said, render=render)
    channel = rooms.channel(room=1)
    with (
        Sse.open(server, ["room:1"], more={"format": "text"}) as html,
        Sse.open(server, ["room:1"], more={"format": "text"}) as other,
        Sse.open(server, ["room:1"]) as json,
    ):
        wait_for_listeners(channel, 3)
        rooms.publish(Said(text="two\nlines"), room=1)
        for stream in (html, other):
            event = next(e for e in iter(stream.next, None) if e.name == "room:1")
            assert event.data == "<li>two\nlines</li>"
        event = next(e for e in iter(json.next, None) if e.name == "room:1")
        assert event.value == {"type": "said", "text": "two\nlines"}
    assert rendered == ["two\nlines"]
    assert poll(server, {"room:1": "last:1"})[-1]["data"]["text"] == "two\nlines"


def test_html_of_values_without_a_type(comet: Comet, server: Address) -> None:
    rooms = comet.family("room:{room}", render=lambda value: f"<b>{value['n']}</b>")
    rooms.publish({"n": 1}, room=1)
    with Sse.open(server, {"room:1": "last:1"}, more={"format": "text"}) as stream:
        event = next(e for e in iter(stream.next, None) if e.name == "room:1")
        assert event.data == "<b>1</b>"


@pytest.mark.parametrize("others", [[], ["room:2"]], ids=["alone", "beside another channel"])
def test_html_of_several_values_that_a_stream_is_behind(
    comet: Comet, server: Address, others: list[str]
) -> None:
    rooms = comet.family("room:{room}", type=Said, render=lambda said: f"<li>{said.text}</li>")
    for n in range(3):
        rooms.publish(Said(text=str(n)), room=1)
    starts: dict[str, str | None] = dict.fromkeys(["room:1", *others], "last:9")
    with Sse.open(server, starts, more={"format": "text"}) as stream:
        events = (e for e in iter(stream.next, None) if e.name == "room:1")
        assert [next(events).data for _ in range(3)] == [f"<li>{n}</li>" for n in range(3)]


# What the publisher is told


async def test_html_that_cannot_be_made_is_told_to_the_publisher_and_nothing_is_published() -> None:
    async with running() as (comet, _):
        rooms = comet.family("room:{room}", render=lambda value: value["text"])
        with pytest.raises(InvalidMessage, match=r"room:1.*render failed: KeyError: 'text'"):
            rooms.publish({}, room=1)
        with pytest.raises(InvalidMessage, match=r"expected HTML as a text \(str\), got int"):
            rooms.publish({"text": 5}, room=1)
        rooms.publish({"text": "x"}, room=1)
        assert (await rooms.publish({"text": "y"}, room=1).stored()).offset == 2


async def test_wrong_words_and_values_are_told() -> None:
    async with running() as (comet, _):
        rooms = comet.family("room:{building}/{room}", type=int)
        with pytest.raises(TypeError, match=r"words \['building', 'room'\] .* got \['room'\]"):
            rooms.publish(1, room="a")
        with pytest.raises(TypeError, match=r"got \['a', 'b', 'c'\]"):
            rooms.publish(1, "a", "b", "c")
        with pytest.raises(TypeError, match=r"got \['a', 'building'\]"):
            rooms.publish(1, "a", building="b")
        with pytest.raises(InvalidName, match="expected room to be without"):
            rooms.publish(1, "a", "b:c")
        with pytest.raises(InvalidMessage, match="valid integer"):
            rooms.publish("x", "a", "b")  # type: ignore[arg-type]  # that is what is tested
        assert rooms.channel("a", "b").id == rooms.channel(room="b", building="a").id == "room:a/b"
        with pytest.raises(TypeError, match=r"is a family without one: write \.publish"):
            rooms()
        family = (
            r"^expected one channel, but .* is a family: write \.channel\(building=\.\.\., room="
        )
        for refer in (rooms.reference, lambda: comet.script(room=rooms)):
            with pytest.raises(TypeError, match=family):
                refer()


async def test_a_word_may_be_called_like_a_parameter_of_ours() -> None:
    async with running() as (comet, _):
        named = comet.family("a:{value}:{self}:{args}:{words}:{process}")
        delivery = named.publish("x", value=1, self=2, args=3, words=4, process=5)
        assert (await delivery.stored()).offset == 1
        assert alive(comet, "a:1:2:3:4:5")


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (
            lambda c: c.family("news"),
            r'expected a \{word\}.* comet.create\(scope=SITE, name="news"\)',
        ),
        (lambda c: c.family("r:{a}", size=0), "expected size .* at least 1, got 0"),
        (lambda c: c.family("r:{a}", linger=-1), "expected linger .* at least 0, got -1"),
        (lambda c: c.family("r:{a}", linger=float("inf")), "expected linger .* got inf"),
        (lambda c: c.channel("r:{a}", linger=-1), "expected linger"),
        (lambda c: c.newest("r:{a}", linger=-1), "expected linger"),
        (lambda c: c.family("r:{a}", authorize=5), "expected authorize to be a function, got int"),
        (lambda c: c.family("r:{a}", authorize=lambda c: True), "expected authorize to take"),
        (lambda c: c.family("r:{a}", render=lambda: ""), "expected render to take one value"),
        (lambda c: c.family("r:{a}", type=object()), "type that pydantic can encode"),
    ],
)
def test_a_declaration_that_cannot_work_says_why(
    declare: Callable[[Comet], object], text: str
) -> None:
    comet = Comet(KEY)
    with pytest.raises(InvalidDeclaration, match=text):
        declare(comet)
    comet.family("r:{a}")  # nothing was left of it


def test_render_must_not_be_async() -> None:
    async def render(value: Any) -> str:
        return ""

    with pytest.raises(InvalidDeclaration, match="plain function, got an async one"):
        Comet(KEY).family("r:{a}", render=render)  # type: ignore[arg-type]  # that is tested


def test_a_type_of_a_word_that_pydantic_does_not_know_says_so() -> None:
    class Odd:
        pass

    def may(connection: HTTPConnection, a: Odd) -> bool:
        return True

    with pytest.raises(InvalidDeclaration, match="a type that pydantic knows for a"):
        Comet(KEY).family("r:{a}", authorize=may)


def test_its_names_are_taken() -> None:
    comet = Comet(KEY)
    comet.family("room:{room}")
    with pytest.raises(NonUniqueChannelName):
        comet.create(scope=SITE, name="room:1")
    with pytest.raises(NonUniqueChannelName):
        comet.family("room:{room}")
    with pytest.raises(InvalidDeclaration, match="matches, too"):
        comet.family("room:{other}")


async def test_a_word_that_does_not_fit_is_named_with_what_it_should_be() -> None:
    def may(connection: HTTPConnection, room: int) -> bool:
        return True

    async with running() as (comet, _):
        rooms: Any = comet.family("room:{room}", authorize=may)
        with pytest.raises(
            InvalidName,
            match=r"^expected room to be int \(.*integer\), got 'a', for the name 'room:",
        ):
            rooms.publish("x", room="a")
        users: Any = comet.family("user:{user}")
        for user in ("a:b", "a/b"):
            with pytest.raises(InvalidName, match=rf"user to be without ':' and '/', got '{user}'"):
                users.publish("x", user=user)
        with pytest.raises(InvalidName, match=r"expected user to be str \(.*\), got None"):
            users.publish("x", user=None)


# HTML is kept within bounds


@pytest.mark.parametrize(("size", "fits"), [(100, True), (101, False)])
async def test_html_larger_than_a_message_may_be_is_refused(size: int, fits: bool) -> None:
    async with running(message_limit=100, history_bytes=100) as (comet, _):
        rooms = comet.family("room:{room}", render=lambda value: "x" * value)
        if fits:
            rooms.publish(size, room=1)
        else:
            with pytest.raises(InvalidMessage, match="at most 100 bytes of HTML, got 101"):
                rooms.publish(size, room=1)


def test_html_is_kept_up_to_so_many_bytes_and_what_was_read_last_stays() -> None:
    rendered = []

    def render(value: str) -> str:
        rendered.append(value)
        return "x" * 7

    html = make_html(Any, render, most=20, limit=100)
    for data in (b'"a"', b'"b"', b'"a"', b'"c"', b'"a"', b'"b"'):  # ten bytes each
        assert html(data) == b"x" * 7
    assert rendered == ["a", "b", "c", "b"]


def test_html_of_one_value_is_rendered_in_several_threads_and_counted_once() -> None:
    inside: list[int] = []

    def render(value: int) -> str:
        if not inside:
            inside.append(1)
            html(b"1")  # as another thread that renders the same meanwhile
        return "x"

    html = make_html(Any, render, most=2, limit=10)
    assert [html(b"1"), html(b"1")] == [b"x", b"x"]


# How long a member lives


async def test_a_member_lives_linger_seconds_after_its_last_publish() -> None:
    async with running(linger=100) as (comet, clock):
        rooms = comet.family("room:{room}", linger=10)
        channel = rooms.channel(room=1)
        for _ in range(3):
            channel.publish("x")
            await advance(clock, 9.8)
            assert alive(comet, "room:1")
        await advance(clock, 0.4)
        assert not alive(comet, "room:1")
        with pytest.raises(ChannelClosed):
            channel.publish("nobody")
        rooms.publish("again", room=1)
        assert (await rooms.publish("and again", room=1).stored()).offset == 2


def test_a_member_lives_linger_seconds_after_its_last_listener(make_server: MakeServer) -> None:
    clock = ManualClock()
    comet, server = make_server(settings=Settings(linger=10), clock=clock)
    rooms = comet.family("room:{room}")
    channel = rooms.channel(room=1)
    with Sse.open(server, ["room:1"]):
        wait_for_listeners(channel, 1)
        clock.advance(50)
        assert alive(comet, "room:1")
    wait_for_listeners(channel, 0)
    assert alive(comet, "room:1")


async def test_a_member_that_was_closed_begins_anew_with_the_next_publish() -> None:
    async with running() as (comet, clock):
        rooms = comet.family("room:{room}")
        rooms.publish("before", room=1)
        closed = rooms.channel(room=1)
        closed.close()
        with pytest.raises(ChannelClosed):
            closed.publish("never")
        assert (await rooms.publish("after", room=1).stored()).offset == 1
        await wait_all_tasks_blocked()
        await advance(clock, 10.4)
        assert not alive(comet, "room:1")


async def test_values_of_a_source_do_not_keep_a_member_alive_but_a_publish_does() -> None:
    async with running(linger=10) as (comet, clock):

        @comet.channel("room:{room}")
        async def rooms(room: str) -> AsyncIterator[int]:
            while True:
                yield 1
                await inside(comet).clock.sleep_until(clock.now() + 1)

        rooms.publish(5, room="1")
        for _ in range(9):
            await advance(clock, 1)
        rooms.publish(5, room="1")
        for _ in range(9):
            await advance(clock, 1)
        assert alive(comet, "room:1")
        for _ in range(2):
            await advance(clock, 1)
        assert not alive(comet, "room:1")


@pytest.mark.parametrize("how", ["channel", "newest"])
async def test_linger_of_a_declared_channel_overrides_the_setting(how: str) -> None:
    async with running(linger=10) as (comet, clock):

        @getattr(comet, how)("room:{room}", linger=60)  # type: ignore[untyped-decorator]
        async def rooms(room: str) -> AsyncIterator[int]:
            yield 1

        rooms.channel(room="1")
        await wait_all_tasks_blocked()
        await advance(clock, 59.8)
        assert alive(comet, "room:1")
        await advance(clock, 0.4)
        assert not alive(comet, "room:1")


async def test_a_thousand_members_leave_nothing_and_cost_no_task() -> None:
    async with running(linger=10) as (comet, clock):
        rooms = comet.family("room:{room}")
        for n in range(1000):
            rooms.publish("x", room=n)
        await wait_all_tasks_blocked()
        assert len(inside(comet).channels) == 1000
        assert len(inside(comet).background) == 0
        await advance(clock, 10.2)
        assert len(inside(comet).channels) == 0
        assert live_feeds(comet, rooms) == []
        assert tables(comet)["members"] == 0


async def test_a_family_over_two_lifespans() -> None:
    comet = Comet(KEY)
    rooms = comet.family("room:{room}")
    rooms.publish("before", room=1)
    for held in (2, 1):
        async with comet.lifespan():
            assert (await rooms.publish("x", room=1).stored()).offset == held
        assert not alive(comet, "room:1")


# `publish` of other declared channels


async def test_publish_of_each_kind_of_declared_channel() -> None:
    async with running() as (comet, _):

        @comet.channel("news")
        async def news() -> AsyncIterator[str]:
            yield "first"

        @comet.unlimited("unread")
        async def unread(process: Any) -> AsyncIterator[int]:
            yield 1

        process = open_in(comet, "a session")
        assert (await news.publish("x").stored()).offset >= 1
        with pytest.raises(TypeError, match="which reads its source as its client asks"):
            unread.publish(5, process)


def test_publish_for_a_client_process(comet: Comet, server: Address) -> None:
    from asgi_comet import CLIENT_PROCESS

    @comet.channel("inbox", scope=CLIENT_PROCESS)
    async def inbox(process: Any) -> AsyncIterator[str]:
        await sleep_forever()
        yield ""

    tab = Tab(server)
    inbox.publish("mail", process_of(comet, tab))
    assert tab.poll({"~inbox": "first"})[-1]["data"] == "mail"
