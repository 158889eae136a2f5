"""What lets a page of an allowed origin read our answers, and nobody else's.

Every answer is asked for by one page of an allowed origin; the other pages ask for one answer of
each kind. A preflight is one endpoint on any path, so one page asks on every path.

Source: docs/wire.md#cors; the Fetch standard, "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage

import pytest

from asgi_comet import SITE, Comet, Settings
from asgi_comet.testing._inspect import left
from tests.kit.serving import COMET, Address, Tab, serve
from tests.kit.stage import KEY, TOKEN, application

ALLOWED = "https://app.example.com"
OTHER = "http://dev.example.com:5173"  # allowed, too
FOREIGN = "https://evil.example.com"

JSON = "application/json"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@dataclass(frozen=True)
class Answer:
    """An answer of which only the head was read."""

    status: int
    headers: HTTPMessage

    def all(self, name: str) -> list[str]:
        return self.headers.get_all(name, [])

    @property
    def cors(self) -> dict[str, list[str]]:
        names = {name.lower() for name in self.headers}
        return {name: self.all(name) for name in names if name.startswith("access-control-")}


class Site:
    """A server with a channel, a live client process, and one that is closed."""

    def __init__(self, comet: Comet, address: Address) -> None:
        self.comet = comet
        self.address = address
        self.channel = comet.create(scope=SITE, name="news")
        self.tab = Tab(address)
        closed = Tab(address, self.tab.jar)
        assert closed.post(f"{closed.url}/close").status == 204
        self.urls = {"p": self.tab.url, "closed": closed.url}

    def ask(
        self,
        method: str,
        path: str,
        origin: str | None,
        body: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request; of what is answered, only the head is read."""
        sent = {"Cookie": self.tab.cookie, **(headers or {})}
        sent |= {"Origin": origin} if origin is not None else {}
        connection = HTTPConnection(self.address.host, self.address.port, timeout=20)
        try:
            connection.request(method, path.format_map(self.urls), body, sent)
            with connection.getresponse() as response:
                return Answer(response.status, response.headers)
        finally:
            connection.close()

    def held(self) -> dict[str, int]:
        """All that a request could leave behind."""
        return {"of the channel": self.channel.listeners, **left(self.comet)}


NOTHING = {
    "of the channel": 0,
    "processes": 1,
    "sessions": 1,
    "timers": 1,  # when the process is to expire
    "channels": 1,
}


@contextmanager
def serving(**more: float) -> Iterator[Site]:
    settings = Settings(jitter=0, **more)  # type: ignore[arg-type]  # only seconds
    comet = Comet(KEY, admin=TOKEN, settings=settings, allowed_origins=[ALLOWED, OTHER])
    with serve(application(comet)) as address:
        yield Site(comet, address)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture(scope="module")
def quiet() -> Iterator[Site]:
    """A site at which nothing is ever held."""
    with serving() as site:
        yield site
        assert site.held() == NOTHING


@pytest.fixture(scope="module")
def impatient() -> Iterator[Site]:
    """A site for requests whose body never comes."""
    with serving(body_timeout=0.05) as site:
        yield site


@pytest.fixture(scope="module")
def deactivated() -> Iterator[Site]:
    with serving() as site:
        site.comet.activation.deactivate()
        yield site


@dataclass(frozen=True)
class Case:
    """A request, and the status of its answer."""

    status: int
    method: str
    path: str
    kind: str | None = None
    body: str | None = None
    more: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        words = [str(self.status), self.method, self.path, self.kind or "", self.body or ""]
        return " ".join(word for word in words if word)[:80]

    def send(self, site: Site, origin: str | None) -> Answer:
        kind = {"Content-Type": self.kind} if self.kind else {}
        return site.ask(self.method, self.path, origin, self.body, {**kind, **dict(self.more)})


ADMIN = tuple(BEARER.items())
POLL = '{"channels": {"news": "now"}}'
LONG = (("Content-Length", "65537"),)
SHORT = (("Content-Length", "100"),)  # more than comes

CASES = [
    # The registration protocol
    Case(200, "POST", "/any/path", COMET, "registration=nothing"),
    Case(200, "POST", "/comet/poll", COMET, "registration=nothing"),
    Case(200, "POST", "{p}/poll", COMET, "registration=nothing"),
    Case(400, "POST", "/any/path", COMET, "registration="),
    Case(405, "GET", "/any/path", COMET),
    Case(413, "POST", "/any/path", COMET, "x", LONG),
    Case(410, "POST", "{closed}/poll", COMET, "registration=nothing"),
    # The JSON poll
    Case(200, "POST", "/comet/poll", JSON, POLL),
    Case(200, "POST", "/any/path", f"{COMET}+json", POLL),
    Case(200, "POST", "{p}/poll", JSON, POLL),
    Case(400, "POST", "/comet/poll", JSON, "{"),
    Case(400, "POST", "{p}/poll", JSON, "{}"),
    Case(405, "GET", "/comet/poll"),
    Case(405, "PUT", "/comet/poll", JSON, POLL),
    Case(413, "POST", "/comet/poll", JSON, "x", LONG),
    Case(415, "POST", "/comet/poll", "text/plain", POLL),
    Case(410, "POST", "{closed}/poll", JSON, POLL),
    Case(403, "POST", "/comet/p/forged/poll", JSON, POLL),
    Case(403, "POST", "{p}/poll", JSON, POLL, (("Cookie", "comet=another"),)),
    # Server-sent events
    Case(200, "GET", "/comet/events?channel=news"),
    Case(200, "GET", "/comet/events?channel=nothing"),
    Case(200, "GET", "{p}/events?channel=~inbox"),
    Case(200, "GET", "{closed}/events?channel=~inbox"),
    Case(204, "GET", "/comet/events?channel=news", more=(("Last-Event-ID", "-"),)),
    Case(400, "GET", "/comet/events"),
    Case(400, "GET", "/comet/events?channel=news", more=(("Last-Event-ID", "x"),)),
    Case(403, "GET", "/comet/p/forged/events?channel=news"),
    Case(405, "POST", "/comet/events?channel=news"),
    # Client processes
    Case(201, "POST", "/comet/open"),
    Case(204, "POST", "{p}/ack", JSON, '{"~inbox": "e.1"}'),
    Case(400, "POST", "{p}/ack", JSON, "{}"),
    Case(405, "GET", "{p}/ack"),
    Case(410, "POST", "{closed}/ack", JSON, "{}"),
    Case(403, "POST", "/comet/p/forged/close"),
    Case(405, "GET", "{p}/close"),
    Case(410, "POST", "{closed}/close"),
    # Admin
    Case(200, "GET", "/comet/admin/status", more=ADMIN),
    Case(401, "GET", "/comet/admin/status"),
    Case(403, "GET", "/comet/admin/status", more=(("Authorization", "Bearer x"),)),
    Case(400, "POST", "/comet/admin/timeout", JSON, "{}", ADMIN),
    Case(405, "GET", "/comet/admin/activate", more=ADMIN),
    Case(415, "POST", "/comet/admin/timeout", "text/plain", "{}", ADMIN),
    # What there is not
    Case(404, "GET", "/comet/nothing"),
    Case(404, "GET", "{p}/nothing"),
    Case(404, "GET", "/comet/admin/nothing", more=ADMIN),
]

DEACTIVATED = [
    Case(503, "POST", "/any/path", COMET, "registration=news"),
    Case(503, "POST", "/comet/poll", JSON, POLL),
    Case(503, "POST", "{p}/poll", JSON, POLL),
    Case(503, "POST", "/comet/open"),
    Case(200, "GET", "/comet/events?channel=news"),
    Case(200, "GET", "/comet/admin/status", more=ADMIN),
]

SLOW = [
    Case(408, "POST", "/any/path", COMET, "registration=", SHORT),
    Case(408, "POST", "{p}/poll", COMET, "registration=", SHORT),
    Case(408, "POST", "/comet/poll", JSON, "{", SHORT),
    Case(408, "POST", "/comet/admin/timeout", JSON, "{", (*ADMIN, *SHORT)),
]

ONE = next(case for case in CASES if case.status == 200 and case.kind == JSON)

# The first of each status, of streams and of what is answered at once.
TELLING = list({(case.status, "/events" in case.path): case for case in reversed(CASES)}.values())

every_slow_case = pytest.mark.parametrize("case", SLOW, ids=str)
while_deactivated = pytest.mark.parametrize("case", DEACTIVATED, ids=str)


def check_readable(answer: Answer, origin: str) -> None:
    """As a browser does, when the request was sent with credentials."""
    assert answer.all("access-control-allow-origin") == [origin]
    assert answer.all("access-control-allow-credentials") == ["true"]
    exposed = ", ".join(answer.all("access-control-expose-headers"))
    assert [name.strip().lower() for name in exposed.split(",")] == ["retry-after"]
    vary = ", ".join(answer.all("vary"))
    assert "origin" in [name.strip().lower() for name in vary.split(",")]


def each(*asked: tuple[list[Case], list[str]]) -> pytest.MarkDecorator:
    """Each of some cases, from each of some origins."""
    return pytest.mark.parametrize(
        ("case", "origin"),
        [
            pytest.param(case, origin, id=f"{case}-{origin}")
            for cases, origins in asked
            for case in cases
            for origin in origins
        ],
    )


@each((CASES, [ALLOWED]), ([ONE], [OTHER]))
def test_a_page_of_an_allowed_origin_may_read_every_answer(
    site: Site, case: Case, origin: str
) -> None:
    answer = case.send(site, origin)
    assert answer.status == case.status
    check_readable(answer, origin)


@while_deactivated
def test_it_may_read_that_we_are_deactivated(deactivated: Site, case: Case) -> None:
    answer = case.send(deactivated, ALLOWED)
    assert answer.status == case.status
    assert ("retry-after" in answer.headers) is (case.status == 503)
    check_readable(answer, ALLOWED)


@every_slow_case
def test_it_may_read_that_its_request_did_not_come(impatient: Site, case: Case) -> None:
    answer = case.send(impatient, ALLOWED)
    assert answer.status == case.status
    check_readable(answer, ALLOWED)
    own = case.send(impatient, None)
    assert (own.status, own.cors) == (case.status, {})


def test_it_may_read_that_its_process_is_closed(site: Site) -> None:
    tab = Tab(site.address)
    answer = site.ask("POST", f"{tab.url}/close", ALLOWED, headers={"Cookie": tab.cookie})
    assert answer.status == 204
    check_readable(answer, ALLOWED)


def test_it_may_read_that_there_are_too_many_processes() -> None:
    settings = Settings(jitter=0, max_processes=1, max_processes_per_session=1)
    comet = Comet(KEY, settings=settings, allowed_origins=[ALLOWED])
    with serve(application(comet)) as address:
        tab = Tab(address)
        headers = {"Origin": ALLOWED}
        answer = address.request("POST", "/comet/open", headers=headers)
        assert answer.status == 503
        assert answer.headers["access-control-allow-origin"] == ALLOWED
        assert tab.poll({"~inbox": "now"})  # the other one is still there


@each((TELLING, ["its own"]), ([ONE], ["none"]))
def test_a_page_of_our_own_gets_no_such_headers(site: Site, case: Case, origin: str) -> None:
    answer = case.send(site, None if origin == "none" else site.address.url)
    assert answer.status == case.status
    assert answer.cors == {}


@each((TELLING, [FOREIGN]), ([ONE], ["null", f"{ALLOWED}/", f"{ALLOWED}, {ALLOWED}"]))
def test_a_page_of_another_origin_never_gets_them(quiet: Site, case: Case, origin: str) -> None:
    answer = case.send(quiet, origin)
    assert answer.status in (403, 404)
    assert answer.cors == {}
    assert quiet.held() == NOTHING


def test_what_is_the_applications_own_is_left_to_it(site: Site) -> None:
    for origin in (ALLOWED, FOREIGN):
        answer = site.ask("POST", "/any/path", origin, "x", {"Content-Type": "text/plain"})
        assert answer.status == 200
        assert answer.cors == {}


# Preflights

PATHS = [
    "/comet/poll",
    "/comet/events",
    "/comet/events?channel=news",
    "/comet/open",
    "{p}/poll",
    "{p}/events",
    "{p}/ack",
    "{p}/close",
    "{closed}/poll",
    "/comet/p/forged/poll",
    "/comet/admin/status",
    "/comet/admin/deactivate",
    "/comet/nothing",
]

SOME = ["/comet/poll", "/comet/nothing"]


def on(*asked: tuple[list[str], list[str]]) -> pytest.MarkDecorator:
    """Each of some paths, from each of some origins."""
    pairs = [(path, o) for paths, origins in asked for path in paths for o in origins]
    return pytest.mark.parametrize(("path", "origin"), pairs)


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
    "Cookie": "",  # a browser sends none with a preflight
}


@on((PATHS, [ALLOWED]), (SOME, [OTHER]))
def test_a_preflight_from_an_allowed_origin_is_told_what_it_may_send(
    quiet: Site, path: str, origin: str
) -> None:
    answer = quiet.ask("OPTIONS", path, origin, headers=PREFLIGHT)
    assert answer.status == 204
    check_readable(answer, origin)
    (methods,) = answer.all("access-control-allow-methods")
    assert sorted(methods.split(", ")) == ["GET", "POST"]
    (headers,) = answer.all("access-control-allow-headers")
    # With credentials, a `*` would mean a header of that name.
    assert sorted(headers.lower().split(", ")) == [
        "authorization",
        "comet-process",
        "content-type",
        "last-event-id",
    ]
    assert answer.all("access-control-max-age") == ["600"]
    assert answer.all("set-cookie") == []
    assert quiet.held() == NOTHING


@on((PATHS, [FOREIGN]), (SOME, ["null", f"{ALLOWED}:8443", "http://app.example.com"]))
def test_a_preflight_from_another_origin_is_refused(quiet: Site, path: str, origin: str) -> None:
    answer = quiet.ask("OPTIONS", path, origin, headers=PREFLIGHT)
    assert answer.status == 403
    assert answer.cors == {}
    assert answer.all("set-cookie") == []
    assert quiet.held() == NOTHING


@on((SOME, ["its own", "none"]))
def test_options_of_our_own_page_is_no_method_of_ours(site: Site, path: str, origin: str) -> None:
    answer = site.ask("OPTIONS", path, None if origin == "none" else site.address.url)
    assert answer.status == 405
    assert set(answer.all("allow")[0].split(", ")) <= {"GET", "POST"}
    assert answer.cors == {}


def test_a_preflight_is_answered_while_deactivated(deactivated: Site) -> None:
    for path in PATHS:
        answer = deactivated.ask("OPTIONS", path, ALLOWED, headers=PREFLIGHT)
        assert answer.status == 204, path


def test_a_preflight_acts_on_nothing(site: Site) -> None:
    for path in ("/comet/admin/deactivate", "{p}/close"):
        site.ask("OPTIONS", path, ALLOWED, headers={**PREFLIGHT, **BEARER})
    assert site.comet.activation.active
    assert site.tab.poll({"~inbox": "now"})


def test_a_foreign_page_can_read_nothing_after_an_allowed_one(site: Site) -> None:
    connection = HTTPConnection(site.address.host, site.address.port, timeout=20)
    seen = []
    for origin in (ALLOWED, FOREIGN, OTHER, site.address.url):
        connection.request(
            "POST", "/comet/poll", POLL, {"Content-Type": JSON, "Origin": origin}
        )  # on one connection
        with connection.getresponse() as response:
            response.read()
            seen.append((response.status, response.headers["access-control-allow-origin"]))
    connection.close()
    assert seen == [(200, ALLOWED), (403, None), (200, OTHER), (200, None)]
