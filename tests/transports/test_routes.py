"""The table of routes: an endpoint that leaves out a check is on a list, with the reason.

The other files ask the endpoints that there are; this one asks whatever is in the table.
Source: docs/wire.md#every-request-and-answer.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPResponse

import pytest

from asgi_comet import Comet, Settings
from asgi_comet.admin.tokens import Role
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import app_of, left
from asgi_comet.transports.checking import Route
from tests.kit.programs import ROOT
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import KEY, TOKEN, application

SOCKET = "WEBSOCKET"

IN_ITS_OWN_FORM = "a stream or a WebSocket says in its own form that push is deactivated"
SCRIPT = "a script holds no secret, so pages of all origins may load it at any time"
OPERATOR = "the operator activates push here"
SUPERVISOR = "a supervisor has no credential, and must not stop a server that is deactivated"
LINK = "the page of admin has no data in it, and a link may lead there"

WITHOUT_ORIGIN = {
    "GET HEAD /comet.js": SCRIPT,
    "GET HEAD /comet.d.ts": SCRIPT,
    "GET HEAD /htmx.js": SCRIPT,
    "GET HEAD /health/live": SUPERVISOR,
    "GET HEAD /health/ready": SUPERVISOR,
    "GET HEAD /admin.js": SCRIPT,
    "GET HEAD /admin.css": SCRIPT,
    "GET /admin": LINK,
    "GET /admin/": LINK,
}

WITHOUT_ACTIVE = {
    "OPTIONS *": "a page is to read the 503 that the request after its preflight gets",
    "GET /events": IN_ITS_OWN_FORM,
    "WEBSOCKET /socket": IN_ITS_OWN_FORM,
    "GET /p/{token}/events": IN_ITS_OWN_FORM,
    "WEBSOCKET /p/{token}/socket": IN_ITS_OWN_FORM,
    "POST /p/{token}/close": "a page that leaves closes its client process in any case",
    "GET HEAD /comet.js": SCRIPT,
    "GET HEAD /comet.d.ts": SCRIPT,
    "GET HEAD /htmx.js": SCRIPT,
    "GET HEAD /health/live": SUPERVISOR,
    "GET HEAD /health/ready": SUPERVISOR,
    "GET HEAD /admin.js": SCRIPT,
    "GET HEAD /admin.css": SCRIPT,
    "GET /admin": OPERATOR,
    "GET /admin/": OPERATOR,
    "POST /admin/session application/x-www-form-urlencoded": OPERATOR,
    "POST /admin/sign-out": OPERATOR,
    "GET /admin/metrics": OPERATOR,
    "GET /admin/status": OPERATOR,
    "POST /admin/activate": OPERATOR,
    "POST /admin/deactivate": OPERATOR,
    "POST /admin/timeout application/json": OPERATOR,
    "POST /admin/command text/plain": OPERATOR,
    "POST /admin/open": OPERATOR,
    "POST /admin/close": OPERATOR,
    "POST /admin/poll application/json|application/x-ocsigen-comet+json": OPERATOR,
    "GET /admin/events": OPERATOR,
    "WEBSOCKET /admin/socket": OPERATOR,
    "POST /admin/channels application/json": OPERATOR,
    "POST /admin/people application/json": OPERATOR,
    "POST /admin/messages application/json": OPERATOR,
    "POST /admin/close-tab application/json": OPERATOR,
    "POST /admin/revoke application/json": OPERATOR,
    "POST /admin/test-message application/json": OPERATOR,
    "POST /admin/publish application/json": OPERATOR,
}

ROUTES = app_of(Comet(KEY, admin=TOKEN)).routes


def name(route: Route) -> str:
    kinds = "|".join(kind.decode() for kind in route.kinds)
    return " ".join([*(route.methods or [SOCKET]), route.path, kinds]).strip()


PREFLIGHT = next(route for route in ROUTES if route.methods == ("OPTIONS",))


def each(routes: Iterable[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", list(routes), ids=name)


def test_an_endpoint_that_any_page_may_use_is_listed_with_the_reason() -> None:
    assert {name(route) for route in ROUTES if not route.origin} == set(WITHOUT_ORIGIN)


def test_an_endpoint_that_is_served_while_deactivated_is_listed_with_the_reason() -> None:
    assert {name(route) for route in ROUTES if not route.active} == set(WITHOUT_ACTIVE)


def test_every_endpoint_of_http_has_methods_and_every_token_a_gate() -> None:
    for route in ROUTES:
        assert route.methods or route.path.endswith("/socket"), name(route)
        assert route.gate or "{token}" not in route.path, name(route)
        assert route.gate or not route.path.startswith("/admin/"), name(route)


class Site:
    """A server, and a client process that refused requests would touch."""

    def __init__(self, comet: Comet, address: Address) -> None:
        self.comet = comet
        self.address = address
        self.tab = Tab(address)

    def send(self, route: Route, method: str, **headers: str) -> tuple[int, dict[str, str]]:
        """Send a request without a body to a route."""
        path = {"*": "/comet/any"}.get(route.path, "/comet" + route.path)
        lines = {"Cookie": self.tab.cookie, "Authorization": f"Bearer {TOKEN}"}
        lines |= headers or {"Origin": "http://example.com"}
        lines |= {"Content-Type": route.kinds[0].decode()} if route.kinds else {}
        if method == SOCKET:
            lines |= {"Connection": "Upgrade", "Upgrade": "websocket"}
            lines |= {
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
        else:
            lines |= {"Connection": "close", "Content-Length": "0"}
        target = path.replace("{token}", self.tab.opened["process"])
        head = [f"{method.replace(SOCKET, 'GET')} {target} HTTP/1.1", "Host: example.com"]
        head += [f"{key}: {value}" for key, value in lines.items()]
        with self.address.connect() as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode())
            with HTTPResponse(connection) as response:
                response.begin()
                return response.status, {k.lower(): v for k, v in response.getheaders()}


@contextmanager
def serving() -> Iterator[Site]:
    # Its clock stands still: nobody connects to the client process, however long this takes.
    admin: dict[str, Role] = {TOKEN: "contents"}
    comet = Comet(KEY, admin=admin, settings=Settings(jitter=0), clock=ManualClock())
    with serve(application(comet)) as address:
        yield Site(comet, address)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture(scope="module")
def deactivated() -> Iterator[Site]:
    with serving() as site:
        site.comet.activation.deactivate()
        yield site


@each(ROUTES)
def test_a_foreign_page_is_refused_by_every_route_that_is_not_listed(
    site: Site, route: Route
) -> None:
    before = left(site.comet)
    for method in route.methods or [SOCKET]:
        for told in ({"Origin": "http://evil.com"}, {"Sec-Fetch-Site": "cross-site"}):
            status, _ = site.send(route, method, **told)
            assert status in ((200, 307) if name(route) in WITHOUT_ORIGIN else (403,))
    assert left(site.comet) == before
    assert site.comet.activation.active


@each(route for route in ROUTES if route.methods and route is not PREFLIGHT)
def test_another_method_is_refused_and_told_the_right_one(site: Site, route: Route) -> None:
    for method in {"GET", "POST", "PUT", "DELETE"} - set(route.methods):
        status, headers = site.send(route, method)
        assert (status, headers.get("allow")) == (405, route.methods[0])


@each(route for route in ROUTES if name(route) not in WITHOUT_ACTIVE)
def test_while_deactivated_only_what_is_listed_is_served(deactivated: Site, route: Route) -> None:
    for method in route.methods:
        status, headers = deactivated.send(route, method)
        assert status == 503
        assert 5 <= int(headers["retry-after"]) <= 15


def callers(attribute: str) -> set[str]:
    """The functions of the package that call an attribute of that name."""
    found: set[str] = set()
    for path in sorted((ROOT / "asgi_comet").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                found |= {
                    f"{path.name}:{function.name}"
                    for node in ast.walk(function)
                    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(attribute)
                }
    return found


def test_an_endpoint_is_called_behind_the_checks_only() -> None:
    assert callers("route.endpoint") == {"app.py:route", "app.py:_serve_behind"}
    assert callers("._serve_behind") == {"app.py:route"}
    # For a 404 there is no route, but a page of an allowed origin may read it.
    assert callers("origins.check") == {"app.py:_refuse", "app.py:route"}
