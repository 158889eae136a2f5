"""Programs that follow channels of a real server: by each transport, in threads and tasks."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from asgi_comet import (
    SITE,
    ChannelClosed,
    ChannelFull,
    ClientProcess,
    Comet,
    InvalidMessage,
    Outcome,
    ProcessClosed,
    Replaced,
)
from asgi_comet.client import FilePositions
from asgi_comet.client.wanted import Transport
from asgi_comet.testing import wait_for_listeners
from tests.kit.loop import in_loop, outcome
from tests.kit.serving import Address, Tab
from tests.kit.streams import PATIENCE
from tests.kit.workers import Workers
from tests.python_client.conftest import Loop, in_background, url_of


class News(BaseModel):
    title: str
    day: date


@pytest.fixture
def comet(comet: Comet) -> Comet:
    @comet.unlimited("steps")
    async def steps(process: ClientProcess) -> AsyncIterator[int]:
        for number in range(5):
            yield number

    @comet.unlimited("ticks")
    async def ticks(process: ClientProcess) -> AsyncIterator[int]:
        yield 0
        await anyio.sleep_forever()

    return comet


def values(messages: list[Any]) -> list[Any]:
    return [message.data for message in messages]


def test_messages_have_a_channel_a_position_and_a_value(
    workers: Workers, comet: Comet, loop: Loop
) -> None:
    channel = comet.create(scope=SITE, name="news")
    workers.store(comet, channel, *({"n": number} for number in range(3)))
    found = loop.read(loop.client.channel("news", start="last:2"), 2)
    assert [(one.channel, one.position.offset, one.data) for one in found] == [
        ("news", 2, {"n": 1}),
        ("news", 3, {"n": 2}),
    ]
    again = loop.client.channel("news", start=found[0].position)
    assert loop.read(again, 1) == found[1:]


def test_values_have_a_type(comet: Comet, loop: Loop) -> None:
    channel = comet.create(scope=SITE, name="news")
    channel.publish({"title": "snow", "day": "2026-11-22"})
    channel.publish({"title": "snow", "day": "tomorrow"})
    messages = loop.client.channel("news", start="first", type=News)
    (found,) = loop.read(messages, 1)
    assert found.data == News(title="snow", day=date(2026, 11, 22))
    with pytest.raises(InvalidMessage, match="fits channel 'news'; day: ") as caught:
        loop.read(messages, 2)
    channel.publish({"title": "rain", "day": "2026-11-23"})
    after = loop.client.channel("news", start=caught.value.position, type=News)
    assert values(loop.read(after, 1)) == [News(title="rain", day=date(2026, 11, 23))]


def test_break_ends_the_connection_and_the_next_loop_has_that_message_again(
    comet: Comet, loop: Loop
) -> None:
    channel = comet.create(scope=SITE, name="news")
    for number in range(3):
        channel.publish(number)
    messages = loop.client.channel("news", start="first")
    assert values(loop.read(messages, 2)) == [0, 1]
    wait_for_listeners(channel, 0)
    assert messages.positions == {"news": str(channel.reference("first")["position"])[:-1] + "1"}
    assert values(loop.read(messages, 2)) == [1, 2]


def test_a_loop_goes_on_at_once_after_a_break_in_the_same_task(
    comet: Comet, server: Address, transport: Transport
) -> None:
    channel = comet.create(scope=SITE, name="news")
    for number in range(3):
        channel.publish(number)

    async def read_twice(messages: Any) -> list[Any]:
        found = []
        for _ in range(2):
            async for message in messages:
                found.append(message.data)
                if len(found) % 2 == 0:
                    break  # asyncio ends the loop's generator some turns later
        return found

    loop = Loop("asyncio", url_of(server), transports=[transport])
    with loop.stack:
        messages = loop.client.channel("news", start="first")
        assert loop.portal.call(read_twice, messages) == [0, 1, 1, 2]


def test_a_loop_ends_with_its_channels(comet: Comet, loop: Loop) -> None:
    first, second = (comet.create(scope=SITE, name=name) for name in ("a", "b"))

    def end() -> None:
        first.publish("x")
        first.close()
        second.publish("y")
        second.close()

    messages = loop.client.follow({"a": "first", "b": "first"})
    iterator = loop.begin(messages)
    first.publish("begin")
    assert loop.take(iterator).data == "begin"
    in_loop(comet, end)
    found = [loop.take(iterator).data for _ in range(2)]
    assert sorted(found) == ["x", "y"]
    with pytest.raises((StopIteration, StopAsyncIteration)):
        loop.take(iterator)
    assert messages.closed == {"a": "ended", "b": "ended"}
    assert loop.read(messages) == []


def test_missed_messages_raise_with_the_position_to_go_on_from(
    workers: Workers, comet: Comet, loop: Loop
) -> None:
    channel = comet.create(scope=SITE, name="news", size=2)
    workers.store(comet, channel, *range(5))
    messages = loop.client.channel("news", start="first")
    with pytest.raises(ChannelFull, match="messages of 'news' were missed; go on from") as caught:
        loop.read(messages)
    channel.publish("after")
    again = loop.client.channel("news", start=caught.value.position)
    assert values(loop.read(again, 1)) == ["after"]


def test_who_resumes_goes_on_after_missed_messages(comet: Comet, loop: Loop) -> None:
    channel = comet.create(scope=SITE, name="news")

    def publish() -> None:
        wait_for_listeners(channel, 1)
        channel.publish("after")

    publisher = threading.Thread(target=publish)
    publisher.start()
    messages = loop.client.channel("news", start="other.7", on_full="resume")
    assert values(loop.read(messages, 1)) == ["after"]
    publisher.join(20)


def test_an_unknown_channel_raises_and_the_others_go_on(comet: Comet, loop: Loop) -> None:
    comet.create(scope=SITE, name="news").publish("x")
    messages = loop.client.follow({"gone": "now", "news": "first"})
    with pytest.raises(ChannelClosed, match="nothing of that name lives or is declared"):
        loop.read(messages)
    assert values(loop.read(messages, 1)) == ["x"]


def test_own_channels_are_those_of_a_process_that_is_opened(comet: Comet, loop: Loop) -> None:
    assert values(loop.read(loop.client.channel("~steps", start="first"), 5)) == [*range(5)]
    token = loop.process()
    assert loop.process() == token
    (session,) = comet.sessions()
    (process,) = session.processes
    loop.stack.close()
    assert process.closed
    assert comet.sessions() == []


def test_a_process_that_closes_raises_and_the_next_loop_opens_another_one(
    comet: Comet, loop: Loop
) -> None:
    messages = loop.client.follow({"~ticks": "first"})
    iterator = loop.begin(messages)
    assert loop.take(iterator).data == 0
    token = loop.process()
    (session,) = comet.sessions()
    (process,) = session.processes
    process.close()
    with pytest.raises(ProcessClosed, match="open another one"):
        loop.take(iterator)
    with pytest.raises(ChannelFull):
        loop.read(messages)
    assert loop.process() != token


def test_another_reader_of_the_process_raises(
    comet: Comet, server: Address, shell: str, transport: str
) -> None:
    tab = Tab(server)
    url = f"{server.url}{tab.url}"
    loops = [Loop(shell, url, transports=[transport], cookies=tab.jar) for _ in range(2)]
    (session,) = comet.sessions()
    (process,) = session.processes
    channel = comet.create(scope=process, name="mine")
    delivery = channel.publish("x")
    with loops[0].stack, loops[1].stack:
        first, second = (loop.begin(loop.client.channel("~mine", start="first")) for loop in loops)
        assert loops[0].take(first).data == "x"

        def wait_and_publish() -> None:
            with pytest.raises(Replaced):
                loops[0].take(first)
            channel.publish("y")

        waiting = in_background(wait_and_publish)
        assert outcome(comet, lambda: delivery) is Outcome.SUCCESS
        assert loops[1].take(second).data == "y"
        waiting.result(PATIENCE)
        loops[1].end(second)
    assert not process.closed  # whose URL was given


def test_positions_are_saved_once_the_body_has_run(comet: Comet, loop: Loop, tmp_path: Any) -> None:
    save = FilePositions(tmp_path / "positions.json")
    channel = comet.create(scope=SITE, name="news")
    channel.publish("x")
    channel.publish("y")
    assert values(loop.read(loop.client.follow({"news": "first"}, save=save), 2)) == ["x", "y"]
    assert save.load() == {"news": str(channel.reference("first")["position"])[:-1] + "1"}
    later = loop.client.follow({"news": "now"}, save=save)
    assert values(loop.read(later, 1)) == ["y"]  # its body did not end


def test_a_start_without_a_position_is_saved_before_the_first_message(
    comet: Comet, loop: Loop, tmp_path: Any
) -> None:
    path = tmp_path / "positions.json"
    channel = comet.create(scope=SITE, name="news")
    other = comet.create(scope=SITE, name="other")
    other.publish("x")
    starts = {"news": "now", "other": "first"}
    iterator = loop.begin(loop.client.follow(starts, save=FilePositions(path)))
    assert loop.take(iterator).data == "x"
    loop.end(iterator)
    channel.publish("while the program was away")
    again = loop.read(loop.client.follow(starts, save=FilePositions(path)), 2)
    assert sorted(values(again)) == ["while the program was away", "x"]


def test_a_loop_ends_with_its_client(comet: Comet, loop: Loop) -> None:
    channel = comet.create(scope=SITE, name="news")
    channel.publish(1)
    iterator = loop.begin(loop.client.channel("news", start="first"))
    assert loop.take(iterator).data == 1
    loop.close()
    with pytest.raises(RuntimeError, match="expected a client that is open"):
        loop.take(iterator)
