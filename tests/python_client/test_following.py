"""What a client that follows channels does next, step by step, without a connection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from asgi_comet import ChannelClosed, ChannelFull, Position, ProcessClosed
from asgi_comet.errors import BadRequest, Refused, Replaced
from asgi_comet.protocol.following import FIRST_CHOICE, NEXT_CHOICE, TRANSPORTS, Following
from asgi_comet.protocol.steps import (
    Close,
    Lost,
    OpenProcess,
    OpenSocket,
    OpenStream,
    Pause,
    Post,
    Read,
    Reply,
    Send,
    Step,
    Told,
)
from asgi_comet.testing import ManualClock

OPEN = b'retry: 2000\nevent: :open\ndata: {"positions": {"c": "e.1"}}\nid: e.1\n\n'


class Shell:
    """Does what a test says came of each step.

    Attributes:
        following: What is followed.
        step: What to do now.
        taken: The values of the messages that were taken.
    """

    def __init__(self, starts: Mapping[str, str] | None = None, **more: Any) -> None:
        options = {"resume": False, "transports": TRANSPORTS, "chance": lambda: 0.5, **more}
        self.clock = ManualClock()
        clock = self.clock.now
        self.following = Following(starts or {"c": "e.1"}, clock=clock, **options)
        self.taken: list[Any] = []
        self.step: Step | None = self.following.go_on()

    def came(self, result: Any = None) -> Step | None:
        """Tell what came of the step; take what there is; return the next step."""
        self.step = self.following.go_on(result)
        while isinstance(self.step, Told):
            while (event := self.following.take()) is not None:
                self.taken.append(event.data)
            self.step = self.following.go_on()
        return self.step

    def lost(self, code: int = 0, retry_after: float = 0.0) -> Step | None:
        return self.came(Lost("lost", code, retry_after))

    def skip(self, *steps: type[Step]) -> None:
        """Nothing comes of these steps."""
        for one in steps:
            assert isinstance(self.step, one), self.step
            self.came()


def said(step: Step | None) -> Any:
    assert isinstance(step, Send | Post)
    return json.loads(step.text if isinstance(step, Send) else step.body)


def frame(*events: Mapping[str, Any]) -> str:
    return json.dumps({"events": events})


def answer(*events: Mapping[str, Any], **more: Any) -> Reply:
    return Reply(200, json.dumps({"events": events, **more}).encode())


def message(offset: int, data: Any, channel: str = "c") -> dict[str, Any]:
    return {"channel": channel, "position": f"e.{offset}", "data": data}


CANARY = {"channel": ":", "error": "closed", "reason": "unknown"}


def on_websocket(**more: Any) -> Shell:
    shell = Shell(**more)
    if isinstance(shell.step, OpenProcess):
        shell.came()
    shell.skip(OpenSocket, Send, Send)
    shell.came(frame(CANARY))
    return shell


def on_sse(**more: Any) -> Shell:
    shell = Shell(transports=["sse"], **more)
    if isinstance(shell.step, OpenProcess):
        shell.came()
    shell.came(Reply(200))
    shell.came(OPEN)
    return shell


def on_poll(**more: Any) -> Shell:
    shell = Shell(transports=["poll"], **more)
    shell.came(answer())
    return shell


# Each transport


def test_a_websocket_asks_for_a_sign_of_life_and_then_for_the_channels() -> None:
    shell = Shell({"c": "e.1", "d": "now"})
    assert shell.step == OpenSocket("socket?ack=1", 4)
    assert said(shell.came()) == {"subscribe": {":": "now"}}
    assert said(shell.came()) == {"subscribe": {"c": "e.1", "d": "now"}}
    assert shell.came() == Read(4)
    assert shell.came(frame(CANARY)) == Read(35)
    shell.came(frame({"channel": "d", "position": "f.7"}, message(2, "x")))
    assert shell.taken == ["x"]
    assert shell.following.positions == {"c": "e.2", "d": "f.7"}


def test_an_event_stream_begins_at_the_positions() -> None:
    shell = Shell({"c": "e.1", "ä&": "now"}, transports=["sse"])
    assert isinstance(shell.step, OpenStream)
    query = "channel=c&channel=%C3%A4%26&position=e.1&position=now"
    assert shell.step.path == f"events?ack=1&{query}"
    shell.came(Reply(200))
    assert shell.came(OPEN[:20]) == Read(4)
    assert shell.came(OPEN[20:]) == Read(35)
    shell.came(b'event: c\ndata: "x"\nid: e.2,f.0\n\nevent: c\ndata: 1\nid: e.3,f.0\n\n')
    assert shell.taken == ["x", 1]


def test_the_first_poll_is_answered_at_once_and_the_next_is_held() -> None:
    shell = Shell(transports=["poll"])
    assert said(shell.step) == {"channels": {"c": "e.1"}, "idle": True}
    assert said(shell.came(answer(message(2, "x")))) == {"channels": {"c": "e.2"}}
    assert shell.taken == ["x"]
    assert said(shell.came(answer())) == {"channels": {"c": "e.2"}}


# Which transport


def test_the_next_transport_is_tried_where_nothing_came() -> None:
    shell = Shell()
    assert shell.lost(403) == Close()  # a proxy may refuse a WebSocket so
    assert isinstance(shell.came(), OpenStream)
    shell.came(Reply(200))
    assert shell.lost() == Close()
    assert isinstance(shell.came(), Post)
    shell.lost()
    shell.skip(Close)
    assert isinstance(shell.step, Pause)
    assert isinstance(shell.came(), OpenSocket)


def test_the_next_transport_is_tried_where_a_stream_ends_before_it_has_said_anything() -> None:
    shell = Shell(transports=["sse", "poll"])
    shell.came(Reply(200))
    shell.came(b"")
    shell.skip(Close)
    assert isinstance(shell.step, Post)


def test_a_transport_that_has_worked_is_tried_again_first() -> None:
    shell = on_websocket()
    shell.lost()
    shell.skip(Close, Pause)
    assert isinstance(shell.step, OpenSocket)


def test_the_transport_that_works_comes_first_for_a_minute_and_then_for_an_hour() -> None:
    shell = Shell(transports=["websocket", "poll"])
    for seconds in (FIRST_CHOICE, NEXT_CHOICE):
        assert isinstance(shell.step, OpenSocket)
        shell.lost()
        shell.skip(Close)
        shell.came(answer())
        shell.clock.advance(seconds - 1)
        shell.lost()
        shell.skip(Close, Pause)
        shell.came(answer())
        assert isinstance(shell.step, Post)
        shell.clock.advance(1)
        shell.lost()
        shell.skip(Close, Pause)
    assert isinstance(shell.step, OpenSocket)


def test_a_server_that_is_deactivated_is_asked_by_no_other_transport() -> None:
    shell = Shell()
    shell.skip(OpenSocket, Send, Send)
    shell.lost(1013)
    shell.skip(Close)
    assert shell.step == Pause(10, "lost", 1)


# Pauses


def test_pauses_become_longer_and_begin_anew_after_a_success() -> None:
    shell = Shell(transports=["poll"])
    pauses = []
    for _ in range(8):
        shell.lost()
        shell.skip(Close)
        assert isinstance(shell.step, Pause)
        pauses.append((shell.step.seconds, shell.step.tries))
        shell.came()
    assert pauses == [(min(0.25 * 2**n, 10), n + 1) for n in range(8)]
    shell.came(answer())
    shell.lost()
    shell.skip(Close)
    assert shell.step == Pause(0.25, "lost", 1)


@pytest.mark.parametrize(("status", "asked"), [(503, 7.0), (429, 7.0), (502, 7.0)])
def test_a_pause_is_as_long_as_the_server_asks_for(status: int, asked: float) -> None:
    shell = Shell(transports=["poll"])
    shell.came(Reply(status, retry_after=asked))
    shell.skip(Close)
    assert isinstance(shell.step, Pause)
    assert shell.step.seconds == asked


def test_a_restart_and_the_end_of_a_stream_are_followed_by_a_short_pause() -> None:
    shell = on_websocket()
    shell.lost(1012)
    shell.skip(Close)
    assert shell.step == Pause(1, "lost", 1)
    shell = on_sse()
    shell.came(b"")
    shell.skip(Close)
    assert shell.step == Pause(1, "the server ended the stream", 1)


def test_a_stream_that_says_deactivated_is_left() -> None:
    shell = Shell(transports=["sse"])
    shell.came(Reply(200))
    shell.came(b"retry: 7000\nevent: :deactivated\ndata: {}\n\n")
    shell.skip(Close)
    assert shell.step == Pause(10, "the server is deactivated", 1)


# What is dealt with


@pytest.mark.parametrize("begin", [on_websocket, on_sse, on_poll])
def test_a_message_counts_once_the_next_one_is_taken(begin: Any) -> None:
    shell = begin()
    first, second = message(2, "x"), message(3, "y")
    events = b'event: c\ndata: "x"\nid: e.2\n\nevent: c\ndata: "y"\nid: e.3\n\n'
    came: Any = {on_websocket: frame(first, second), on_sse: events}.get(begin)
    following = shell.following
    assert isinstance(following.go_on(came or answer(first, second)), Told)
    for position in ("e.1", "e.2"):
        assert following.take() is not None
        assert following.positions == {"c": position}
    assert following.take() is None
    assert following.positions == {"c": "e.3"}


def test_own_channels_are_acknowledged_on_a_websocket() -> None:
    shell = on_websocket(starts={"~c": "e.1", "site": "e.1"})
    step = shell.came(frame(message(2, "x", "~c"), message(3, "y", "~c"), message(2, "z", "site")))
    assert said(step) == {"ack": {"~c": "e.3"}}
    assert shell.came() == Read(35)


def test_own_channels_are_acknowledged_beside_a_stream_and_again_if_that_failed() -> None:
    shell = on_sse(starts={"~c": "e.1"})
    event = b'event: ~c\ndata: "x"\nahead: 1\nid: e.2\n\n'
    step = shell.came(event)
    assert isinstance(step, Post)
    assert (step.path, said(step)) == ("ack", {"~c": "e.2"})
    assert shell.lost() == Read(35)
    assert said(shell.came(b":\n")) == {"~c": "e.2"}
    assert shell.came(Reply(204)) == Read(35)
    assert shell.came(b":\n") == Read(35)


def test_a_client_process_is_there_before_its_channels_are_asked_for() -> None:
    shell = Shell({"~c": "now"})
    assert shell.step == OpenProcess()
    assert shell.lost() == Close()
    shell.skip(Close, Pause, OpenProcess)
    assert isinstance(shell.step, OpenSocket)


# What is missed, and what ends


def test_missed_messages_raise_and_the_others_go_on() -> None:
    shell = on_websocket(starts={"c": "e.1", "d": "e.1"})
    full = {"channel": "c", "error": "full", "position": "f.9"}
    with pytest.raises(
        ChannelFull, match=r"messages of .c. were missed; go on from f\.9"
    ) as caught:
        shell.came(frame(full, message(2, "x", "d")))
    assert caught.value.position == Position("f", 9)
    event = shell.following.take()
    assert event is not None
    assert event.data == "x"
    assert shell.following.starts == {"d": "e.1"}
    assert shell.following.closed == {"c": "full"}


def test_a_channel_that_is_full_for_good_has_no_position() -> None:
    shell = on_websocket(starts={"~c": "e.1"}, resume=True)
    with pytest.raises(ChannelFull, match="no more come") as caught:
        shell.came(frame({"channel": "~c", "error": "full"}))
    assert caught.value.position is None


def test_who_resumes_asks_again_from_the_new_position() -> None:
    full = {"channel": "c", "error": "full", "position": "f.9"}
    shell = on_websocket(resume=True)
    assert said(shell.came(frame(full))) == {"subscribe": {"c": "f.9"}}
    shell = on_poll(resume=True)
    assert said(shell.came(answer(full))) == {"channels": {"c": "f.9"}}
    shell = on_sse(resume=True)
    shell.came(b'event: :full\ndata: {"channel": "c"}\nid: f.9\n\n')
    shell.skip(Close)
    assert isinstance(shell.step, OpenStream)
    assert shell.step.path.endswith("position=f.9")


def test_a_channel_that_has_ended_is_left_out_without_an_error() -> None:
    ended = {"channel": "c", "error": "closed", "reason": "ended"}
    shell = on_poll(starts={"c": "e.1", "d": "e.1"})
    assert said(shell.came(answer(ended))) == {"channels": {"d": "e.1"}}
    assert shell.came(answer({**ended, "channel": "d"})) == Close()
    assert shell.came() is None
    assert shell.following.closed == {"c": "ended", "d": "ended"}


@pytest.mark.parametrize(
    ("error", "reason", "expected"),
    [
        ("closed", "failed", "failed"),
        ("closed", "unknown", "unknown"),
        ("closed", "cancelled", "cancelled"),
        ("closed", "of a later version", "failed"),
        ("forbidden", None, "forbidden"),
    ],
)
def test_other_ends_raise(error: str, reason: str | None, expected: str) -> None:
    shell = on_poll()
    event = {"channel": "c", "error": error} | ({"reason": reason} if reason else {})
    with pytest.raises(ChannelClosed) as caught:
        shell.came(answer(event))
    assert (caught.value.name, caught.value.reason) == ("c", expected)


def test_a_client_process_that_has_closed_ends_all() -> None:
    shell = on_websocket()
    with pytest.raises(ProcessClosed):
        shell.lost(4001)
    shell = Shell(transports=["poll"])
    with pytest.raises(ProcessClosed):
        shell.came(Reply(410, b'{"events":[{"error":"process-closed"}]}'))
    shell = on_sse()
    with pytest.raises(ProcessClosed, match="open another one"):
        shell.came(b"event: :process-closed\ndata: {}\n\n")


def test_another_reader_ends_all() -> None:
    with pytest.raises(Replaced, match="follow all of them with one call"):
        on_websocket().lost(4000)
    with pytest.raises(Replaced):
        on_poll().came(answer(replaced=True))
    with pytest.raises(Replaced):
        on_sse().came(b"event: :replaced\ndata: {}\n\n")


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
def test_what_would_be_refused_again_raises(status: int) -> None:
    shell = Shell(transports=["poll"])
    with pytest.raises(Refused, match=f"status {status}: why") as caught:
        shell.came(Reply(status, b"why"))
    assert (caught.value.status, caught.value.said) == (status, "why")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"events": 1}', b'{"events": [1]}'])
def test_an_answer_of_another_kind_of_server_is_refused(body: bytes) -> None:
    shell = Shell(transports=["poll"])
    with pytest.raises(BadRequest, match="expected"):
        shell.came(Reply(200, body))


def test_what_the_server_says_was_wrong_is_raised() -> None:
    shell = on_websocket()
    with pytest.raises(BadRequest, match="expected at most 128 channels"):
        shell.came('{"error": "expected at most 128 channels"}')
