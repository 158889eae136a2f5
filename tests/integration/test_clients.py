"""Clients that people have: `http.client`, curl, httpx. Each follows a channel as a page would."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from urllib.parse import unquote

import httpx
import pytest

from asgi_comet import Comet
from asgi_comet.testing import wait_for_listeners
from tests.kit.programs import ROOT
from tests.kit.serving import COMET, Address

TEXTS = ["héllo", "a:b\nc", "ENDED_CHANNEL", "", "🎈"]

Follow = Callable[[Address], Generator[str, None, None]]


def with_http_client(address: Address) -> Generator[str, None, None]:
    """On one connection that is kept alive."""
    connection = HTTPConnection(address.host, address.port, timeout=20)
    with closing(connection):
        while True:
            connection.request("POST", "/", "registration=news%20%u20AC", {"Content-Type": COMET})
            yield connection.getresponse().read().decode()


def with_curl(address: Address) -> Generator[str, None, None]:
    """The command of the README, with another address and channel."""
    lines = (ROOT / "README.md").read_text().splitlines()
    (line,) = [x for x in lines if x.startswith("curl ") and "registration" in x]
    command = shlex.split(line.replace("http://127.0.0.1:8000", address.url))
    command = [word.replace("registration=cpu", "registration=news %u20AC") for word in command]
    while True:
        yield subprocess.run(command, capture_output=True, check=True, timeout=20).stdout.decode()


def with_httpx(address: Address) -> Generator[str, None, None]:
    """With form encoding, as most libraries do it."""
    with httpx.Client(base_url=address.url, timeout=20) as client:
        while True:
            data = {"registration": "news €"}
            yield client.post("/", data=data, headers={"Content-Type": COMET}).text


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("follow", [with_http_client, with_curl, with_httpx])
def test_a_client_follows_a_channel_to_its_end(
    comet: Comet, server: Address, follow: Follow, stack: ExitStack
) -> None:
    channel = comet.channels.create("news €")
    answers = stack.enter_context(closing(follow(server)))
    seen: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        for text in TEXTS:
            answer = pool.submit(next, answers)
            wait_for_listeners(channel, 1)
            channel.write(text)
            identifier, _, message = answer.result(20).partition(":")
            assert unquote(identifier) == "news €"
            assert message != "ENDED_CHANNEL"
            seen.append(unquote(message))
            wait_for_listeners(channel, 0)
        answer = pool.submit(next, answers)
        wait_for_listeners(channel, 1)
        channel.close()
        assert answer.result(20) == "news%20%E2%82%AC:ENDED_CHANNEL"
    assert seen == TEXTS
