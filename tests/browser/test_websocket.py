"""What a page sees of the end of a WebSocket: a browser tells the code, and nothing else."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.kit.own_server import Server

pytestmark = pytest.mark.browser

OPEN = """([name, url, subscribe]) => {
    const socket = new WebSocket(url.replace("http", "ws") + "/socket", "comet.v1"), seen = []
    window.sockets = {...window.sockets, [name]: {socket, seen}}
    socket.onopen = () => {
        seen.push("open")
        if (subscribe) socket.send(JSON.stringify({subscribe}))
    }
    socket.onmessage = ({data}) => seen.push(JSON.parse(data))
    socket.onclose = ({code, wasClean}) => seen.push([code, wasClean])
}"""


class Socket:
    """A `WebSocket` in a page."""

    def __init__(
        self, page: Page, url: str, subscribe: dict[str, str] | None = None, name: str = "first"
    ) -> None:
        self.page = page
        self._name = name
        self._count = 0
        page.evaluate(OPEN, [name, url, subscribe])

    def next(self) -> Any:
        """Wait for what happens next: `open`, a message, or the code of the end."""
        self._count += 1
        return self.page.wait_for_function(
            "([name, count]) => sockets[name].seen[count - 1]", arg=[self._name, self._count]
        ).json_value()

    def send(self, text: str) -> None:
        self.page.evaluate("([name, text]) => sockets[name].socket.send(text)", [self._name, text])

    @property
    def protocol(self) -> str:
        found: str = self.page.evaluate("(name) => sockets[name].socket.protocol", self._name)
        return found


@pytest.fixture
def server(own_server: Server) -> Server:
    own_server.start()
    own_server.operate("activate")
    return own_server


@pytest.fixture
def tab(page: Page, server: Server) -> Page:
    """A page of the server's origin."""
    page.goto(server.url)
    return page


@pytest.fixture
def site(server: Server) -> str:
    return f"{server.url}/comet"


def open_process(page: Page, server: Server) -> str:
    opened = page.evaluate("fetch('/comet/open', {method: 'POST'}).then((a) => a.json())")
    return f"{server.url}{opened['url']}"


def listen(page: Page, url: str, channel: str, name: str = "first") -> Socket:
    """Open one, and wait until it knows where it is."""
    socket = Socket(page, url, {channel: "now"}, name)
    assert socket.next() == "open"
    (event,) = socket.next()["events"]
    assert set(event) == {"channel", "position"}
    return socket


def test_it_carries_messages_and_has_chosen_our_protocol(
    tab: Page, site: str, server: Server
) -> None:
    socket = listen(tab, site, "news")
    assert socket.protocol == "comet.v1"
    server.publish("news", {"a": "ü"})
    (event,) = socket.next()["events"]
    assert (event["channel"], event["data"]) == ("news", {"a": "ü"})


def test_1012_when_the_server_stops(tab: Page, site: str, server: Server) -> None:
    """Whether it counts as clean is chance: the server may be gone before the answer is there."""
    socket = listen(tab, site, "news")
    server.stop(signal.SIGTERM)
    assert socket.next()[0] == 1012


def test_1006_when_the_server_is_killed(tab: Page, site: str, server: Server) -> None:
    """What tells a crash from a restart."""
    socket = listen(tab, site, "news")
    server.stop(signal.SIGKILL)
    assert socket.next() == [1006, False]


def test_1013_when_push_is_switched_off(tab: Page, site: str, server: Server) -> None:
    socket = listen(tab, site, "news")
    server.operate("deactivate")
    assert socket.next() == [1013, True]


def test_1013_while_push_is_switched_off_accepted_so_that_the_page_sees_it(
    tab: Page, site: str, server: Server
) -> None:
    server.operate("deactivate")
    socket = Socket(tab, site)
    assert socket.next() == "open"
    assert socket.next() == [1013, True]


def test_4000_when_a_newer_connection_reads_the_channels_of_the_process(
    tab: Page, server: Server
) -> None:
    url = open_process(tab, server)
    first = listen(tab, url, "~inbox")
    second = listen(tab, url, "~inbox", "second")
    assert first.next() == [4000, True]
    second.send('{"subscribe": {"news": "now"}}')  # it is still open
    (event,) = second.next()["events"]
    assert event["channel"] == "news"


def test_4001_when_the_process_is_closed_and_ever_after(tab: Page, server: Server) -> None:
    url = open_process(tab, server)
    socket = listen(tab, url, "~inbox")
    tab.evaluate("(url) => navigator.sendBeacon(url)", f"{url}/close")
    assert socket.next() == [4001, True]
    late = Socket(tab, url, name="late")
    assert late.next() == "open"
    assert late.next() == [4001, True]


def test_4400_after_a_bad_message_which_is_told_first(tab: Page, site: str) -> None:
    socket = listen(tab, site, "news")
    socket.send("nonsense")
    told = socket.next()
    assert list(told) == ["error"]
    assert "JSON" in told["error"]
    assert socket.next() == [4400, True]


@pytest.mark.parametrize(("size", "code"), [(64 * 1024, 4400), (64 * 1024 + 1, 1009)])
def test_1009_after_a_message_that_is_too_big(tab: Page, site: str, size: int, code: int) -> None:
    socket = listen(tab, site, "news")
    socket.send("x" * size)
    while isinstance(found := socket.next(), dict):
        pass
    assert found == [code, True]


def test_a_page_of_a_foreign_origin_never_sees_it_open(
    tab: Page, site: str, server: Server
) -> None:
    tab.goto(server.url.replace("127.0.0.1", "localhost"))
    assert Socket(tab, site).next() == [1006, False]
