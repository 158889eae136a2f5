"""Which pages may talk to us: one rule for every endpoint, over sockets that say just what we want.

Every page asks one endpoint, and a few pages ask every endpoint. test_routes.py proves the same of
endpoints that are added to the table later, and tests/test_origin.py has the rule itself.

Source: docs/wire.md#origin.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse

import pytest

from asgi_comet import SITE, Comet, Settings
from asgi_comet.identity.process import ClientProcess
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import client_of, inside
from tests.kit.serving import COMET, Address, Tab, serve
from tests.kit.stage import KEY, TOKEN, application

JSON = "application/json"
REASON = "this page's origin is not allowed"
POLL = '{"channels": {"news": "now", "~inbox": "now"}}'
REGISTRATION = "registration=news%0Anothing"  # answered at once, for nothing has this name


@dataclass(frozen=True)
class Endpoint:
    """A request that passes but for its origin."""

    id: str
    method: str
    path: str  # with {p} where the URL of a client process begins
    kind: str = ""
    body: str = ""
    status: int = 200

    @property
    def is_socket(self) -> bool:
        return self.status == 101

    @property
    def refusal(self) -> bytes:
        """What the body of a 403 says: to who speaks JSON in JSON."""
        as_json = "json" in self.kind and "/admin/" not in self.path
        return json.dumps({"error": REASON}).encode() if as_json else REASON.encode()

    def head(self, url: str) -> Iterator[str]:
        yield f"{self.method} {self.path.format(p=url)} HTTP/1.1"
        if self.is_socket:
            yield "Connection: Upgrade"
            yield "Upgrade: websocket"
            yield "Sec-WebSocket-Version: 13"
            yield "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        else:
            yield "Connection: close"
        if self.kind:
            yield f"Content-Type: {self.kind}"
        if self.method == "POST":
            yield f"Content-Length: {len(self.body)}"
        if "/admin/" in self.path:
            yield f"Authorization: Bearer {TOKEN}"


ENDPOINTS = [
    Endpoint("registration-anywhere", "POST", "/any/path", COMET, REGISTRATION),
    Endpoint("registration", "POST", "/comet/poll", COMET, REGISTRATION),
    Endpoint("poll-anywhere", "POST", "/any/path", COMET + "+json", POLL),
    Endpoint("poll", "POST", "/comet/poll", JSON, POLL),
    Endpoint("events", "GET", "/comet/events?channel=news&channel=~inbox"),
    Endpoint("socket", "GET", "/comet/socket", status=101),
    Endpoint("open", "POST", "/comet/open", status=201),
    Endpoint("process-registration", "POST", "{p}/poll", COMET, REGISTRATION),
    Endpoint("process-poll", "POST", "{p}/poll", JSON, POLL),
    Endpoint("process-events", "GET", "{p}/events?channel=news&channel=~inbox"),
    Endpoint("process-socket", "GET", "{p}/socket", status=101),
    Endpoint("process-ack", "POST", "{p}/ack", JSON, '{"news": "e.1"}', 204),
    Endpoint("process-close", "POST", "{p}/close", status=204),
    Endpoint("admin-status", "GET", "/comet/admin/status"),
    Endpoint("admin-activate", "POST", "/comet/admin/activate"),
    Endpoint("admin-timeout", "POST", "/comet/admin/timeout", JSON, '{"seconds": 3}'),
    Endpoint("admin-command", "POST", "/comet/admin/command", "text/plain", "set_timeout 3"),
    Endpoint("admin-deactivate", "POST", "/comet/admin/deactivate"),
]

(POLLED,) = (endpoint for endpoint in ENDPOINTS if endpoint.id == "poll")
"""The endpoint that every page asks."""


@dataclass(frozen=True)
class Page:
    """What a browser says of the page that a request comes from, and where it believes to go."""

    id: str
    lines: tuple[bytes, ...]

    @property
    def ambiguous(self) -> bool:
        return sum(line.startswith(b"Origin:") for line in self.lines) > 1

    @property
    def is_ascii(self) -> bool:
        return all(line.isascii() for line in self.lines)

    @property
    def cookie(self) -> str:
        """The name of the cookie that it would send."""
        return "__Host-comet" if b"X-Forwarded-Proto: https" in self.lines else "comet"


def page(
    origin: str | bytes | None, host: str = "example.com", *more: str, https: bool = False
) -> Page:
    """A page.

    Args:
        origin: Its `Origin`; `None` for no such header.
        host: The `Host` of the request.
        more: Further headers.
        https: Whether the request came to us by https, as far as we know.
    """
    raw = origin.encode() if isinstance(origin, str) else origin
    lines = [f"Host: {host}".encode(), *(line.encode() for line in more)]
    lines += [] if raw is None else [b"Origin: " + raw]
    lines += [b"X-Forwarded-Proto: https"] if https else []  # uvicorn believes 127.0.0.1
    return Page(" | ".join(ascii(line.decode("latin-1"))[1:-1] for line in lines), tuple(lines))


FETCH = "Sec-Fetch-Site: "

OURS = [
    page("http://example.com"),
    page("http://example.com:80"),
    page("http://example.com", "example.com:80"),
    page("http://example.com:8000", "example.com:8000"),
    page("HTTP://Example.COM", "exAMPle.com"),
    page("https://example.com"),  # a TLS proxy in front that does not tell
    page("https://example.com:443"),
    page("https://example.com:8443", "example.com:8443"),
    page("https://example.com", https=True),
    page("https://example.com:443", https=True),
    page("https://example.com", "example.com:443", https=True),
    page("http://127.0.0.1:8000", "127.0.0.1:8000"),
    page("http://[::1]:8000", "[::1]:8000"),
    page("http://[::1]", "[::1]:80"),
    page("http://xn--exmple-cua.com", "xn--exmple-cua.com"),
    page("http://example.com.", "example.com."),
    page("http://my_host", "my_host"),
    page("http://example.com", "example.com", FETCH + "same-origin"),
    page("http://example.com", "example.com", "Referer: http://evil.com/"),
    page(None),
    page(None, "example.com", FETCH + "same-origin"),
    page(None, "example.com", FETCH + "none"),
    page(None, "example.com", FETCH + "none", https=True),
    page(None, "example.com", "Referer: http://evil.com/"),
]

ALLOWED = [
    page("https://app.example.com"),
    page("https://app.example.com:443"),
    page("https://app.example.com", "example.com", FETCH + "same-site"),
    page("https://app.example.com", "other.org", FETCH + "cross-site"),
    page("http://dev.example.com:5173"),
    page("http://dev.example.com:5173", https=True),
    page("https://[2001:db8::1]:8443"),
]

FOREIGN = [
    # Nobody's
    page("null"),
    page("NULL"),
    page(""),
    page("*"),
    page("undefined"),
    page("about:blank"),
    # Another host
    page("http://evil.com"),
    page("http://sub.example.com"),
    page("http://com"),
    page("http://evil-example.com"),
    page("http://evilexample.com"),
    page("http://example.com.evil"),
    page("http://example.comevil"),
    page("http://example.com-evil.com"),
    page("http://example.com", "sub.example.com"),
    page("http://localhost:8000", "127.0.0.1:8000"),
    page("http://127.1", "127.0.0.1"),
    page("http://2130706433", "127.0.0.1"),
    page("http://0.0.0.0", "127.0.0.1"),
    page("http://evil.com", "example.com", "X-Forwarded-Host: evil.com"),
    page("http://evil.com", "example.com", "Forwarded: host=evil.com"),
    page("http://evil.com", "example.com", "Referer: http://example.com/"),
    # Another port
    page("http://example.com:8080"),
    page("http://example.com:443"),
    page("https://example.com:80"),
    page("http://example.com", "example.com:8000"),
    page("https://example.com", "example.com:8000"),
    page("https://example.com", "example.com:80"),
    page("http://example.com:"),
    page("http://example.com:80:80"),
    page("http://example.com:99999"),
    page("http://example.com:-80"),
    page("http://example.com:eighty"),
    # Another scheme
    page("http://example.com", https=True),
    page("http://example.com:443", "example.com:443", https=True),
    page("ws://example.com"),
    page("wss://example.com", https=True),
    page("ftp://example.com"),
    page("file://"),
    page("file:///etc/passwd"),
    page("file://example.com"),
    page("data:text/html,x"),
    page("blob:http://example.com/0"),
    page("javascript:alert(1)"),
    page("chrome-extension://abcdefghijklmnopabcdefghijklmnop"),
    page("moz-extension://01234567-89ab-cdef-0123-456789abcdef"),
    page("capacitor://localhost", "localhost"),
    page("app://example.com"),
    # More than an origin, or less
    page("http://example.com/"),
    page("http://example.com/path"),
    page("http://example.com?x"),
    page("http://example.com#x"),
    page("http://example.com;x"),
    page("http://example.com\\@evil.com"),
    page("http://user@example.com"),
    page("http://user:password@example.com"),
    page("http://@example.com"),
    page("http://example.com@evil.com"),
    page("http://evil.com@example.com"),
    page("example.com"),
    page("//example.com"),
    page("http:example.com"),
    page("http:/example.com"),
    page("http://"),
    page("http:///example.com"),
    page("://example.com"),
    page('"http://example.com"'),
    page("<http://example.com>"),
    # Several
    page("http://example.com, http://example.com"),
    page("http://example.com http://evil.com"),
    page("http://example.com,http://evil.com"),
    page("http://example.com", "example.com", "Origin: http://example.com"),
    page("http://example.com", "example.com", "Origin: http://evil.com"),
    page("http://evil.com", "example.com", "Origin: http://example.com"),
    page("http://example.com", "example.com", "Origin: https://app.example.com"),
    page("http://evil.com", "example.com", "Origin:"),
    # Otherwise spelled
    page("http://exam ple.com"),
    page("http://example.com\tx"),
    page("http://example%2Ecom"),
    page("http://example.com%00.evil.com"),
    page("http://%65xample.com"),
    page("http://exämple.com"),
    page("http://exämple.com", "xn--exmple-cua.com"),
    page("http://exämple.com".encode("latin-1"), "xn--exmple-cua.com"),
    page("http://xn--exmple-cua.com"),
    page("http://еxample.com"),  # a Cyrillic letter
    page("http://example。com"),
    page("http://example.com."),
    page("http://example.com", "example.com."),
    page("http://.example.com"),
    page("http://*.com"),
    page("http://*"),
    page("http://[::1]", "[::1]:8000"),
    page("http://::1", "[::1]"),
    page("http://[::1", "[::1]"),
    page("http://[0:0:0:0:0:0:0:1]", "[::1]"),
    page("http://[::1%25eth0]", "[::1]"),
    page("http://[::ffff:127.0.0.1]", "127.0.0.1"),
    page("http://[example.com]"),
    # What is allowed, but for a trifle
    page("http://app.example.com"),
    page("https://app.example.com:8443"),
    page("https://app.example.com."),
    page("https://app.example.com/"),
    page("https://xapp.example.com"),
    page("https://x.app.example.com"),
    page("https://app.example.com.evil.com"),
    page("https://app-example.com"),
    page("https://user@app.example.com"),
    page("http://dev.example.com"),
    page("https://dev.example.com:5173"),
    page("https://[2001:db8::2]:8443"),
    # Only the fetch site
    page(None, "example.com", FETCH + "cross-site"),
    page(None, "example.com", FETCH + "same-site"),
    page(None, "example.com", FETCH + "Same-Origin"),
    page(None, "example.com", FETCH + "same-origin, none"),
    page(None, "example.com", FETCH + "same-origin", FETCH + "same-origin"),
    page(None, "example.com", FETCH + "none", FETCH + "cross-site"),
    page(None, "example.com", FETCH),
    page(None, "example.com", FETCH + "?1"),
    page(None, "example.com", FETCH + "cross-site", "Referer: http://example.com/"),
    # It says nothing where there is an origin
    page("http://evil.com", "example.com", FETCH + "same-origin"),
    page("http://evil.com", "example.com", FETCH + "none"),
    page("null", "example.com", FETCH + "same-origin"),
]


# The few that ask every endpoint.

TELLING_SERVED = [
    page(None),
    page("http://example.com"),
    page("https://example.com", https=True),  # with the other cookie
    page("https://app.example.com"),
]

TELLING_FOREIGN = [
    page("http://evil.com"),
    page("http://example.com", https=True),
    page("http://example.com", "example.com", "Origin: http://evil.com"),
    page(None, "example.com", FETCH + "cross-site"),
]


def asked_by(pages: list[Page], telling: list[Page]) -> pytest.MarkDecorator:
    """All pages at one endpoint, the telling ones at every other.

    Those with other letters than ASCII are at a WebSocket, too: its handshake has another parser.
    """
    assert all(page in pages for page in telling)
    cases = []
    for endpoint in ENDPOINTS:
        for page in pages:
            at_socket = endpoint.is_socket and not page.is_ascii
            if endpoint is POLLED or page in telling or at_socket:
                cases.append(pytest.param(endpoint, page, id=f"{page.id}-{endpoint.id}"))
    return pytest.mark.parametrize(("endpoint", "page"), cases)


class Site:
    """A server, with a channel and a client process that refused requests would touch."""

    def __init__(self, comet: Comet, address: Address) -> None:
        self.comet = comet
        self.address = address
        self.channel = comet.create(scope=SITE, name="news")

    def open(self) -> tuple[Tab, ClientProcess]:
        tab = Tab(self.address)
        node = inside(self.comet)
        process = node.clients.find(
            node.requests.identity.unsign_process(tab.opened["process"]) or ""
        )
        assert process is not None
        return tab, process

    def send(self, endpoint: Endpoint, page: Page, tab: Tab) -> socket.socket:
        """Send a request just as the page has it."""
        connection = self.address.connect()
        lines = [*(line.encode() for line in endpoint.head(tab.url)), *page.lines]
        cookies = [f"Cookie: {page.cookie}={value}".encode() for value in tab.jar.values()]
        connection.sendall(b"\r\n".join([*lines, *cookies, b"", endpoint.body.encode()]))
        return connection


@contextmanager
def serving() -> Iterator[Site]:
    allowed = [
        "https://app.example.com",
        "http://dev.example.com:5173",
        "https://[2001:db8::1]:8443",
    ]
    # Its clock stands still: nobody connects to the client process, however long this takes.
    settings, clock = Settings(jitter=0), ManualClock()
    comet = Comet(KEY, admin=TOKEN, settings=settings, allowed_origins=allowed, clock=clock)
    with serve(application(comet)) as address:
        yield Site(comet, address)


@pytest.fixture(scope="module")
def visited() -> Iterator[tuple[Site, Tab, ClientProcess]]:
    """A site that nobody but one tab has ever been at."""
    with serving() as site:
        yield site, *site.open()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


def allocated(site: Site, process: ClientProcess) -> dict[str, object]:
    """All that a request could leave behind, or change."""
    node = inside(site.comet)
    return {
        "listeners": (len(node.fanout.listeners), site.channel.listeners),
        "processes": (len(node.clients), len(node.clients.sessions())),
        "process": (
            process.closed,
            client_of(process).connections,
            client_of(process).listeners,
            client_of(process).reader,
        ),
        "registered": client_of(process).registered,
        "timers": len(node.timers),
        "channels": len(node.channels),
        "tasks": (len(node.background), len(node.drain.reading)),
        "activation": (node.activation.active, node.activation.timeout),
    }


NOTHING: dict[str, object] = {
    "listeners": (0, 0),
    "processes": (1, 1),
    "process": (False, 0, set(), None),
    "registered": None,
    "timers": 1,  # when the process is to expire
    "channels": 1,
    "tasks": (0, 0),
    "activation": (True, 20.0),
}


@asked_by(FOREIGN, TELLING_FOREIGN)
def test_a_foreign_page_is_refused_and_leaves_nothing(
    visited: tuple[Site, Tab, ClientProcess], endpoint: Endpoint, page: Page
) -> None:
    site, tab, process = visited
    with site.send(endpoint, page, tab) as connection, HTTPResponse(connection) as response:
        response.begin()  # of a WebSocket, too: it was never accepted
        if endpoint.is_socket and page.ambiguous:
            assert response.status == 400  # by the server, which does not even ask us
        else:
            assert response.status == 403
        if not endpoint.is_socket:
            assert response.read() == endpoint.refusal
    names = {name.lower() for name, _ in response.getheaders()}
    assert not {name for name in names if name.startswith("access-control-")}
    assert "set-cookie" not in names
    assert allocated(site, process) == NOTHING


@asked_by([*OURS, *ALLOWED], TELLING_SERVED)
def test_a_page_that_may_is_served(site: Site, endpoint: Endpoint, page: Page) -> None:
    tab, process = site.open()
    with site.send(endpoint, page, tab) as connection, HTTPResponse(connection) as response:
        response.begin()
        assert response.status == endpoint.status
        if endpoint.id.endswith("events"):
            assert response.readline().startswith(b"retry: ")
            assert response.readline() == b"event: :open\n"
    if endpoint.id == "admin-deactivate":
        assert not site.comet.activation.active
        site.comet.activation.activate()
    process.close()
    wait_for_listeners(site.channel, 0)


@pytest.mark.parametrize("id_", ["registration", "poll", "events", "process-poll", "admin-status"])
def test_a_refusal_is_not_stored_and_not_sniffed(
    visited: tuple[Site, Tab, ClientProcess], id_: str
) -> None:
    site, tab, _ = visited
    (endpoint,) = (endpoint for endpoint in ENDPOINTS if endpoint.id == id_)
    foreign = page("http://evil.com")
    with site.send(endpoint, foreign, tab) as connection, HTTPResponse(connection) as response:
        response.begin()
        assert response.status == 403
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
