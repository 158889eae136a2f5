"""What a client may ask for by name on every transport: how long, how it begins, of what type."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from websockets.exceptions import ConnectionClosed

from asgi_comet import Comet
from asgi_comet.testing._inspect import inside
from tests.kit.serving import Address, Answer, Tab, poll
from tests.kit.streams import Sse, Ws

JSON = {"Content-Type": "application/json"}
TRANSPORTS = ["poll", "events", "registration", "ack", "subscribe", "unsubscribe", "ack-frame"]


def ask(server: Address, transport: str, name: str) -> str:
    """Send a name; return why it is refused, or nothing."""
    match transport:
        case "poll":
            body = json.dumps({"channels": {name: "now"}, "idle": True})
            return refusal(server.request("POST", "/comet/poll", body, JSON))
        case "ack":
            tab = Tab(server)
            return refusal(tab.post(f"{tab.url}/ack", {name: "e.1"}))
        case "registration":
            return refusal(server.register(f"registration={quote(name, safe='')}%0Anobody"))
        case "events":
            with Sse.open(server, [name]) as stream:
                if stream.status == 200:
                    return ""
                assert stream.status == 400
                return stream.body().decode()
    with Ws(server) as socket:
        said = {"subscribe": {name: "now"}, "unsubscribe": [name], "ack-frame": {name: "e.1"}}
        socket.say(**{transport.removesuffix("-frame"): said[transport]})
        with contextlib.suppress(ConnectionClosed):  # what it says first is still to be read
            socket.say(subscribe={"nobody": "now"})
        frame = socket.frame()
        assert "error" in frame or "events" in frame
        return str(frame.get("error", ""))


def refusal(answer: Answer) -> str:
    if answer.status in (200, 204):
        return ""
    assert answer.status == 400
    return answer.body.decode()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_name_of_255_bytes_is_looked_at_and_one_of_256_is_refused(
    comet: Comet, server: Address, transport: str
) -> None:
    for name in ("x" * 255, "~" + "x" * 255):
        assert ask(server, transport, name) == ""
        reason = ask(server, transport, name + "x")
        assert "expected channel names of at most 255 bytes, got" in reason
    assert len(inside(comet).fanout.listeners) == 0


def test_an_escaped_identifier_is_as_long_as_what_it_means(server: Address) -> None:
    for escaped in ("%u20AC" * 85, "%E2%82%AC" * 85, "%FF" * 127, "a" * 253 + "%C3%A9"):
        assert ask_escaped(server, escaped).status == 200
        answer = ask_escaped(server, escaped + "xx")
        assert (answer.status, b"at most 255 bytes" in answer.body) == (400, True)


def ask_escaped(server: Address, escaped: str) -> Answer:
    return server.register(f"registration={escaped}")


async def wait(**words: Any) -> AsyncIterator[int]:
    started.append(words)
    await anyio.sleep_forever()
    yield 1


started: list[dict[str, Any]] = []


@pytest.fixture
def families(comet: Comet) -> Comet:
    """Families that match whatever has at most one colon, and one whose type cannot read all."""
    started.clear()

    @comet.channel("{any}")
    async def any_(any: str) -> AsyncIterator[int]:  # noqa: A002 - the word of the name
        async for value in wait(any=any):
            yield value

    @comet.channel("{a}:{b}")
    async def pair(a: str, b: Decimal) -> AsyncIterator[int]:
        async for value in wait(a=a, b=b):
            yield value

    return comet


@pytest.mark.parametrize("name", ["@x", ":x", "@x:1", "@:1"])
def test_no_family_matches_a_name_that_begins_with_an_at_sign_or_a_colon(
    families: Comet, server: Address, name: str
) -> None:
    closed = {"channel": name, "error": "closed", "reason": "unknown"}
    assert poll(server, {name: "now"}) == [closed]
    assert server.register(f"registration={quote(name)}").pairs == [
        f"{quote(name)}:ENDED_CHANNEL".encode()
    ]
    with Sse.open(server, [name]) as stream:
        assert [event.name for event in stream.rest()] == [":open", ":closed"]
    with Ws(server) as socket:
        socket.say(subscribe={name: "now"})
        assert socket.next() == closed
    assert started == []


@pytest.mark.parametrize("name", ["price:1E+9999999", "price:1E-9999999", "price:1E+999999"])
def test_a_name_that_its_type_fails_with_names_no_channel(
    families: Comet, server: Address, name: str
) -> None:
    closed = {"channel": name, "error": "closed", "reason": "unknown"}
    assert poll(server, {name: "now"}) == [closed]
    assert server.register(f"registration={quote(name)}").status == 200
    with Sse.open(server, [name]) as stream:
        assert [event.name for event in stream.rest()] == [":open", ":closed"]
    with Ws(server) as socket:
        socket.say(subscribe={name: "now"})
        assert socket.next() == closed
    assert started == []


def test_a_last_event_id_is_counted_before_it_is_read(server: Address) -> None:
    with Sse.open(server, ["a"], Last_Event_ID="," * 100_000) as stream:
        assert b"for each channel (1), got 100001" in stream.body()
