"""`examples/nginx.conf`, run by a real nginx in front of uvicorn."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, connect_sse
from playwright.sync_api import BrowserContext
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.kit.followers import chromium_eventsource, chromium_websocket
from tests.kit.nginx import Change, nginx
from tests.kit.own_server import Server
from tests.kit.serving import reserved_port


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


Start = Callable[..., str]


@pytest.fixture
def start(server: Server, stack: ExitStack, tmp_path: Path) -> Start:
    """Start nginx with the configuration, perhaps changed."""

    def start(*changes: Change, more: str = "") -> str:
        return stack.enter_context(nginx(tmp_path, server, *changes, more=more))

    return start


class Stream:
    """Server-sent events, read one by one."""

    def __init__(self, stack: ExitStack, url: str, headers: dict[str, str] | None = None) -> None:
        client = stack.enter_context(httpx.Client(timeout=20, headers=headers))
        source: EventSource = stack.enter_context(connect_sse(client, "GET", url))
        self.response = source.response
        self._events = source.iter_sse()

    def next(self) -> ServerSentEvent:
        return next(self._events)


def events(found: str | bytes) -> Any:
    return json.loads(found)["events"]


def test_events_come_through_as_they_are_published(
    server: Server, start: Start, stack: ExitStack
) -> None:
    stream = Stream(stack, start() + "/comet/events?channel=news")
    assert stream.next().event == ":open"
    for n in range(3):
        server.publish("news", n)
        assert stream.next().json() == n


def test_events_come_through_gzip_as_they_are_published(
    server: Server, start: Start, stack: ExitStack
) -> None:
    url = start(more="gzip on; gzip_types *; gzip_min_length 0;")
    accept = {"Accept-Encoding": "gzip"}
    stream = Stream(stack, url + "/comet/events?channel=news", accept)
    assert stream.response.headers["content-encoding"] == "gzip"
    assert stream.next().event == ":open"
    for n in range(3):
        server.publish("news", n)
        assert stream.next().json() == n


def test_a_websocket_is_upgraded(server: Server, start: Start, stack: ExitStack) -> None:
    url = start()
    address = url.replace("http", "ws") + "/comet/socket"
    with connect(address, origin=Origin(url), proxy=None) as socket:
        socket.send('{"subscribe": {"news": "now"}}')
        assert set(events(socket.recv(20))[0]) == {"channel", "position"}
        server.publish("news", "ü")
        assert events(socket.recv(20))[0]["data"] == "ü"
        server.stop(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


def test_a_poll_is_held_until_there_is_something(
    server: Server, start: Start, stack: ExitStack
) -> None:
    url = start()
    client = stack.enter_context(httpx.Client(base_url=url, timeout=30))

    def poll(position: str) -> Any:
        return events(client.post("/comet/poll", json={"channels": {"news": position}}).content)

    (told,) = poll("now")
    found: list[Any] = []
    held = threading.Thread(target=lambda: found.extend(poll(told["position"])))
    held.start()
    server.wait_for_listeners("news", 1)
    server.publish("news", "at last")
    held.join(20)
    assert [event["data"] for event in found] == ["at last"]


def test_the_server_notices_who_leaves(server: Server, start: Start) -> None:
    url = start()
    with ExitStack() as stack:
        stream = Stream(stack, url + "/comet/events?channel=news")
        assert stream.next().event == ":open"
        address = url.replace("http", "ws") + "/comet/socket"
        socket = stack.enter_context(connect(address, proxy=None))
        socket.send('{"subscribe": {"news": "now"}}')
        socket.recv(20)
        server.wait_for_listeners("news", 2)
    server.wait_for_listeners("news", 0)


def test_a_page_of_the_sites_own_origin_passes_also_behind_tls(start: Start) -> None:
    url = start()
    origins = [url, url.replace("http:", "https:"), "http://127.0.0.1", "null"]
    answers = [httpx.post(f"{url}/comet/open", headers={"Origin": one}) for one in origins]
    assert [answer.status_code for answer in answers] == [201, 201, 403, 403]


@pytest.mark.parametrize(
    "line",
    [
        "proxy_set_header Host $http_host;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $connection_upgrade;",
    ],
)
def test_without_its_lines_no_websocket_opens(start: Start, line: str) -> None:
    url = start((line, ""))
    with (
        pytest.raises(InvalidStatus),
        connect(url.replace("http", "ws") + "/comet/socket", origin=Origin(url), proxy=None),
    ):
        pass


def test_the_cookie_is_for_https_only_where_the_proxy_says_https(start: Start) -> None:
    plain = httpx.post(start() + "/comet/open").headers["set-cookie"]
    assert plain.startswith("comet=")
    assert "Secure" not in plain


def test_the_cookie_is_secure_where_the_proxy_says_https(start: Start) -> None:
    url = start(("X-Forwarded-Proto $scheme", "X-Forwarded-Proto https"))
    with httpx.Client(base_url=url) as client:
        cookie = client.post("/comet/open").headers["set-cookie"]
    assert cookie.startswith("__Host-comet=")
    assert "; Secure" in cookie


@pytest.mark.browser
def test_an_eventsource_comes_back_after_a_restart_behind_nginx(
    server: Server, start: Start, context: BrowserContext
) -> None:
    with chromium_eventsource(context, start(), ["news"]) as tab:
        tab.begun()
        with tab.page.expect_response(lambda answer: answer.status == 200):  # nginx: it is away
            server.stop(signal.SIGKILL)
        server.start()
        assert tab.next() == ":full news"
        server.publish("news", "after")
        assert tab.next() == "news after"


@pytest.mark.browser
def test_a_websocket_comes_back_after_a_restart_behind_nginx(
    server: Server, start: Start, context: BrowserContext
) -> None:
    with chromium_websocket(context, start(), ["news"]) as tab:
        tab.begun()
        with tab.page.expect_event("websocket"):  # a further one, which nginx refuses
            server.stop(signal.SIGKILL)
        server.start()
        assert tab.next() == ":full news"
        server.publish("news", "after")
        assert tab.next() == "news after"


@pytest.mark.browser
def test_an_eventsource_gives_up_where_nginx_may_answer_502(
    server: Server, start: Start, context: BrowserContext
) -> None:
    """Why the configuration has a page for when the application is away."""
    url = start(("error_page 502 503 504 =200 @away;", ""))
    with chromium_eventsource(context, url, ["news"]) as tab:
        tab.begun()
        with tab.page.expect_response(lambda answer: answer.status == 502):
            server.stop(signal.SIGKILL)
        tab.page.wait_for_function("source.readyState === EventSource.CLOSED")


def test_the_application_below_a_path(start: Start, server: Server, stack: ExitStack) -> None:
    """The proxy takes the path off, uvicorn's --root-path says so to the application."""
    port = stack.enter_context(reserved_port())
    below = Server(port, "--root-path", "/app")
    stack.callback(below.stop)
    below.start()
    url = start(
        (
            "location / {\n    proxy_pass http://application;",
            "location /app/ {\n    proxy_pass http://application/;",
        ),
        (f"127.0.0.1:{server.address.port}", f"127.0.0.1:{port}"),
    )
    opened = httpx.post(f"{url}/app/comet/open").json()
    assert opened["url"].startswith("/app/comet/p/")
    stream = Stream(stack, f"{url}/app/comet/events?channel=news")
    assert stream.next().event == ":open"
