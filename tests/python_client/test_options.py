"""What a program may ask of a client, and how it keeps positions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from asgi_comet import SITE, Comet, Position
from asgi_comet.client import AsyncClient, Client, FilePositions
from tests.kit.serving import Address
from tests.python_client.conftest import Loop, url_of

URL = "http://127.0.0.1/comet"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("transports", [[], "sse", ["carrier pigeon"]])
def test_transports_are_those_that_there_are(kind: Any, transports: Any) -> None:
    with pytest.raises(ValueError, match="expected some of websocket, sse, poll, got"):
        kind(URL, transports=transports)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    "options",
    [
        {"token": "secret\n"},
        {"token": "s\u00e9cret"},
        {"headers": {"X-Key": "secret\r\nX-Other: 1"}},
        {"headers": {"X-Key ": "secret"}},
        {"cookies": {"comet": "secret\x7f"}},
    ],
)
def test_a_header_or_cookie_that_no_request_may_have_is_refused_and_not_shown(
    kind: Any, options: Any
) -> None:
    with pytest.raises(ValueError, match="expected printable ASCII") as caught:
        kind(URL, **options)
    assert "cret" not in str(caught.value)


def test_headers_of_any_printable_characters_are_sent() -> None:
    headers = {"X-Empty": "", "X_1!": "~a b!", "Accept-Language": "de, en;q=0.5"}
    with Client(URL, headers=headers):
        pass


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"starts": {}}, 'expected channels to follow, like {"news": "now"}, got none'),
        ({"starts": {"news": "yesterday"}}, "yesterday"),
        ({"starts": {"news": "now"}, "on_full": "ignore"}, "'raise' or 'resume', got 'ignore'"),
    ],
)
def test_what_is_followed_is_checked_at_once(options: dict[str, Any], expected: str) -> None:
    with Client(URL) as comet, pytest.raises(ValueError, match=re.escape(expected)):
        comet.follow(**options)


def test_a_type_is_one_that_pydantic_knows() -> None:
    class Unknown: ...

    with Client(URL) as comet, pytest.raises(TypeError, match="expected a type that pydantic"):
        comet.channel("news", type=Unknown)


def test_any_type_is_as_json_has_it(comet: Comet, server: Address) -> None:
    comet.create(scope=SITE, name="news").publish({"a": [1]})
    with Client(url_of(server)) as client:
        message = next(iter(client.channel("news", start="first", type=Any)))
    found: object = message.data
    assert found == {"a": [1]}


def test_a_file_of_positions_is_made_and_replaced(tmp_path: Path) -> None:
    file = FilePositions(tmp_path / "positions.json")
    assert file.load() == {}
    for position in ("e.1", "e.2"):
        file.save({"news": position})
        assert file.load() == {"news": position}
    assert [*tmp_path.iterdir()] == [file.path]


@pytest.mark.parametrize("text", ["", "no json", "[]", '{"news": 1}'])
def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "positions.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"expected positions like .* remove the file"):
        FilePositions(path).load()
    assert path.read_text() == text


class Forgetful:
    """Keeps nothing."""

    def load(self) -> None:
        return None

    def save(self, positions: dict[str, str]) -> None:
        raise NotImplementedError


def test_what_is_loaded_must_be_positions() -> None:
    save: Any = Forgetful()
    with Client("http://127.0.0.1:1/comet") as client:
        messages = client.follow({"news": "now"}, save=save)
        with pytest.raises(TypeError, match="positions by names, got None"):
            next(iter(messages))


class Awaited:
    """Keeps positions by a coroutine function."""

    def __init__(self) -> None:
        self.saved: list[Mapping[str, str]] = []

    def load(self) -> dict[str, str]:
        return {}

    async def save(self, positions: Mapping[str, str]) -> None:
        await anyio.lowlevel.checkpoint()
        self.saved.append(dict(positions))


def test_positions_may_be_saved_by_a_coroutine_function(comet: Comet, server: Address) -> None:
    channel = comet.create(scope=SITE, name="news")
    channel.publish("x")
    channel.close()
    save = Awaited()
    loop = Loop("asyncio", url_of(server))
    with loop.stack:
        loop.read(loop.client.follow({"news": "first"}, save=save))
    offsets = [Position.parse(positions["news"]).offset for positions in save.saved]
    assert offsets[-1] == 1


def test_a_thread_awaits_nothing(comet: Comet, server: Address) -> None:
    comet.create(scope=SITE, name="news").publish("x")
    with Client(url_of(server)) as client:
        messages = client.follow({"news": "first"}, save=Awaited())
        with (
            pytest.warns(RuntimeWarning, match="was never awaited"),
            pytest.raises(TypeError, match="no coroutine function, which AsyncClient awaits"),
        ):
            list(messages)
