"""Channels in sync tests with the test client of Starlette and FastAPI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from asgi_comet import ChannelClosed, ChannelFull, Comet
from asgi_comet.testing import follow, following


@pytest.fixture(params=["asyncio", "trio"])
def client(request: pytest.FixtureRequest, app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, backend=request.param) as client:
        yield client


def test_messages_come_in_order(client: TestClient) -> None:
    with follow(client, "news") as messages:
        for text in ("first", "second"):
            client.post("/news", json=text)
        assert [messages.next(timeout=5), messages.next()] == ["first", "second"]


def test_a_start_is_where_it_begins(client: TestClient) -> None:
    for text in ("first", "second"):
        client.post("/news", json=text)
    with follow(client, "news", start="last:1") as messages:
        assert messages.next() == "second"


def test_messages_of_the_tab_of_the_client(client: TestClient) -> None:
    client.get("/")
    with follow(client, "~inbox", start="first") as messages:
        client.post("/inbox", json="Hello")
        assert messages.next() == "Hello"


def test_waiting_for_a_message_ends(client: TestClient) -> None:
    expected = r"expected a message within 0.01 s, none came"
    with follow(client, "news") as messages, pytest.raises(TimeoutError, match=expected):
        messages.next(timeout=0.01)


def test_the_end_of_a_channel_is_raised_each_time(client: TestClient) -> None:
    with follow(client, "news") as messages:
        client.post("/end")
        for _ in range(2):
            with pytest.raises(ChannelClosed, match="news"):
                messages.next()


def test_missed_messages_are_told(client: TestClient, comet: Comet) -> None:
    for n in range(5):
        client.post("/news", json=str(n))
    epoch = client.post("/comet/poll", json={"channels": {"news": "first"}}).json()
    position = epoch["events"][0]["position"].partition(".")[0] + ".1"
    with follow(client, "news", start=position) as messages, pytest.raises(ChannelFull):
        messages.next()


def test_a_channel_that_is_not_there_is_told(client: TestClient) -> None:
    with follow(client, "nothing") as messages, pytest.raises(ChannelClosed, match="not there"):
        messages.next()


@pytest.mark.parametrize(
    ("prefix", "origin"), [("/push", "http://testserver"), ("/comet", "https://elsewhere.example")]
)
def test_a_server_that_accepts_no_websocket_is_told(
    client: TestClient, prefix: str, origin: str
) -> None:
    client.headers["Origin"] = origin
    expected = f"the server accepts no WebSocket at {prefix}/socket.*refuses, .* or `prefix`"
    with (
        follow(client, "news", prefix=prefix) as messages,
        pytest.raises(ConnectionError, match=expected),
    ):
        messages.next()


def test_a_server_that_leaves_is_told(client: TestClient, comet: Comet) -> None:
    with follow(client, "news") as messages:
        comet.activation.deactivate()
        with pytest.raises(ConnectionError, match="expected the connection to last"):
            messages.next()


def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "subprotocol": "comet.v1"})
            while (await receive())["type"] != "websocket.disconnect":
                pass

    monkeypatch.setattr(following, "STARTED", 0.01)
    expected = r"expected the server to answer within 0.01 s"
    with pytest.raises(TimeoutError, match=expected), follow(TestClient(app), "news"):
        pytest.fail("it follows")
