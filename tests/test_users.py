"""Users: login, logout and `identify`, over real requests."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from http.client import IncompleteRead
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response, StreamingResponse

from asgi_comet import (
    BrokerUnavailable,
    ClientProcess,
    Comet,
    CometError,
    CometMiddleware,
    NoClientProcess,
    NotRunning,
    ProcessClosed,
    Settings,
    TooManyProcesses,
    Unconfirmed,
    exception_handlers,
)
from asgi_comet._runtime.seldom import Seldom
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed
from asgi_comet.identity.clients import FORMER_LIMIT, SUCCESSION
from asgi_comet.identity.process import Claim, Stale
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import inside, left, tables
from tests.kit.listening import Reader
from tests.kit.loop import soon
from tests.kit.people import WHO, people, send, who
from tests.kit.processes import clients_of, open_in, process_of, session_in
from tests.kit.serving import Address, Answer, Held, Tab, serve
from tests.kit.stage import KEY


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def comet(clock: ManualClock) -> Comet:
    return Comet(KEY, clock=clock, settings=Settings(jitter=0, max_processes=4))


@pytest.fixture
def server(comet: Comet) -> Iterator[Address]:
    with serve(people(comet)) as address:
        yield address


# By hand


def test_a_login_is_remembered_although_no_tab_is_open(comet: Comet, server: Address) -> None:
    answer = server.request("POST", "/login", "alice")
    assert comet.sessions(user="alice") == []
    jar = dict([answer.headers["set-cookie"].partition(";")[0].split("=", 1)])
    tab = Tab(server, jar)
    (session,) = comet.sessions(user="alice")
    assert session.user == "alice"
    assert session.processes == [process_of(comet, tab)]
    assert send(tab, "/me").body == b'"alice"'


def test_logins_without_a_tab_are_bounded(comet: Comet, server: Address) -> None:
    jars = []
    for n in range(5):
        answer = server.request("POST", "/login", f"user {n}")
        jars.append(dict([answer.headers["set-cookie"].partition(";")[0].split("=", 1)]))
    assert inside(comet).clients.known == 4
    assert process_of(comet, Tab(server, jars[0])).user is None
    assert process_of(comet, Tab(server, jars[1])).user == "user 1"


def test_nothing_is_left_once_everybody_has_left(
    comet: Comet, server: Address, clock: ManualClock
) -> None:
    for n in range(4):
        tab = Tab(server)
        assert send(tab, "/login", f"user {n}").status == 204
        assert len(comet.sessions()) == 1
        assert send(tab, "/logout").status == 204
    assert left(comet).keys() == {"former ids", "timers"}
    clock.advance(SUCCESSION + 1)
    assert soon(comet, lambda: left(comet) == {})


def test_the_old_cookie_is_worth_nothing_a_moment_later(
    comet: Comet, server: Address, clock: ManualClock
) -> None:
    tab = Tab(server)
    stolen = dict(tab.jar)
    assert send(tab, "/login", "alice").status == 204
    theirs = Tab.__new__(Tab)
    theirs.address, theirs.jar, theirs.opened, theirs.url = server, stolen, tab.opened, tab.url
    asked = {"channels": {"~own": "now"}}
    answer = theirs.post(f"{tab.url}/poll", asked)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert theirs.post("/comet/open").status == 503
    assert theirs.post("/comet/poll", asked).status == 503
    assert theirs.post(f"{tab.url}/ack", {}).status == 503
    assert theirs.post(f"{tab.url}/close").status == 503
    assert send(theirs, "/me").status == 403
    headers = {"Cookie": theirs.cookie}
    assert server.request("POST", "/me", "", headers).status == 403

    clock.advance(SUCCESSION + 1)
    assert soon(comet, lambda: tables(comet)["former ids"] == 0)
    assert theirs.post(f"{tab.url}/poll", asked).status == 403
    assert theirs.post("/comet/open").status == 201
    assert len(comet.processes(user="alice")) == 1


def test_a_page_that_opens_meanwhile_does_not_take_the_new_cookie_away(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    old = Tab(server, dict(tab.jar))
    assert send(tab, "/login", "alice").status == 204
    answer = send(old, "/page")
    assert answer.status == 200
    assert "set-cookie" not in answer.headers


def test_a_second_click_on_login_joins_the_first_and_a_strangers_does_not(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    same, stranger = Tab(server, dict(tab.jar)), Tab(server, dict(tab.jar))
    session = process_of(comet, tab).session
    for one, user in ((tab, "alice"), (same, "alice"), (stranger, "mallory")):
        assert send(one, "/login", user).status == 204
    assert session.user == "alice"
    assert session_in(comet, same) == session.id
    assert session_in(comet, stranger) != session.id


def test_users_are_told_apart_and_their_processes_found(comet: Comet, server: Address) -> None:
    alice, bob, visitor = Tab(server), Tab(server), Tab(server)
    send(alice, "/login", "alice")
    send(bob, "/login", "bob")
    again = Tab(server, alice.jar)
    found = {one: process_of(comet, tab) for one, tab in enumerate((alice, again, bob, visitor))}
    assert comet.processes(user="alice") == [found[0], found[1]]
    assert comet.processes(user="bob") == [found[2]]
    assert set(comet.processes()) == set(found.values())
    assert comet.sessions(user="alice") == [found[0].session]
    assert len(comet.sessions()) == 3
    assert comet.processes(user="nobody") == []
    assert comet.sessions(user="nobody") == []


def test_two_logins_that_tell_a_tab_at_once_share_its_monitor(
    comet: Comet, server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = Tab(server)
    session, find = process_of(comet, tab).session, Directory.find
    with monkeypatch.context() as patched:

        def find_nothing_once(directory: Directory, name: str) -> Feed | None:
            patched.undo()
            inside(comet).users.change(Claim.of(session), "alice")  # another thread makes it
            return None

        patched.setattr(Directory, "find", find_nothing_once)
        inside(comet).users.change(Claim.of(session), "alice")
    assert find is Directory.find
    assert len(tab_of(tab, comet).poll({"~comet": "new.0"}, idle=True)) == 2


def tab_of(tab: Tab, comet: Comet) -> Tab:
    """The same tab, with the cookie of its session now."""
    value = inside(comet).requests.identity.sign_session(process_of(comet, tab).session.id)
    tab.jar["comet"] = value
    return tab


def test_a_page_may_log_in_after_it_has_opened_its_process(server: Address) -> None:
    assert server.request("POST", "/join").body == b'"alice"'


def test_of_two_browsers_of_a_user_one_stays(comet: Comet, server: Address) -> None:
    one, other = Tab(server), Tab(server)
    for tab in (one, other):
        assert send(tab, "/login", "alice").status == 204
    assert len(comet.sessions(user="alice")) == 2
    assert send(one, "/logout").status == 204
    assert comet.processes(user="alice") == [process_of(comet, other)]


def test_a_monitor_that_nobody_reads_begins_anew_and_disturbs_nobody(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    other = Tab(server, tab.jar)
    for _ in range(15):
        assert send(tab, "/login", "alice").status == 204
    events = other.poll({"~comet": "new.0"}, idle=True)
    assert 1 <= len(events) <= 10
    assert all(event["data"] == {"event": "user-changed"} for event in events)


def test_a_tab_that_cannot_be_told_for_want_of_channels_is_logged(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    comet = Comet(KEY, clock=clock, settings=Settings(max_virtual_channels=1))
    comet.channels.create("only")
    with serve(people(comet)) as server:
        tab = Tab(server)
        Tab(server, tab.jar)
        assert send(tab, "/login", "alice").status == 204
    assert "was not told" in caplog.text


@pytest.mark.parametrize(
    ("user", "expected"),
    [(None, "expected a user, got None"), (["a", "list"], "hashable, like a number or a text")],
)
def test_what_cannot_be_a_user_is_refused(comet: Comet, user: Any, expected: str) -> None:
    told = []

    async def login(request: Request) -> Response:
        with pytest.raises(TypeError, match=expected) as error:
            comet.login(user)
        told.append(error)
        return Response()

    app = FastAPI(routes=[])
    app.add_route("/login", login, methods=["POST"])
    with serve(CometMiddleware(app, comet=comet)) as server:
        assert server.request("POST", "/login").status == 200
    assert told


def test_outside_of_a_request_nobody_logs_in(comet: Comet) -> None:
    with pytest.raises(NoClientProcess, match="outside of a request"):
        comet.login("alice")
    with pytest.raises(NoClientProcess, match="outside of a request"):
        comet.logout()


# Identify


def test_identify_is_a_decorator_and_there_is_one(comet: Comet) -> None:
    assert comet.identify(who) is who
    with pytest.raises(ValueError, match="expected one function to identify"):
        comet.identify(who)
    with pytest.raises(TypeError, match=r"a function of the connection, got \(\): too many"):
        Comet(KEY).identify(lambda: None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="expected a function, got str"):
        comet.identify("alice")  # type: ignore[type-var]


@pytest.mark.parametrize("path", ["/page", "/comet/open"])
def test_a_page_is_identified_with_the_answer_that_opens_its_process(
    comet: Comet, server: Address, path: str
) -> None:
    comet.identify(who)
    visitor = Tab(server).cookie
    for cookie in ("", f"{visitor}; "):  # a new browser, and one with a session of before
        answer = server.request("POST", path, "", {"Cookie": f"{cookie}{WHO}=alice"})
        value = answer.headers["set-cookie"].partition(";")[0].partition("=")[2]
        (session,) = comet.sessions(user="alice")
        assert inside(comet).requests.identity.unsign_session(value) == session.id
        for process in session.processes:
            process.close()


def test_users_are_back_after_a_restart(clock: ManualClock) -> None:
    jar: dict[str, str] = {WHO: "alice"}
    for _ in range(2):
        comet = Comet(KEY, clock=clock)
        comet.identify(who)
        with serve(people(comet)) as server:
            tab = Tab(server, jar)
            assert process_of(comet, tab).user == "alice"


def test_who_the_application_forgets_is_logged_out(comet: Comet, server: Address) -> None:
    comet.identify(who)
    tab = Tab(server, {WHO: "alice"})
    process = process_of(comet, tab)
    before = session_in(comet, tab)
    del tab.jar[WHO]
    assert tab.post(f"{tab.url}/poll", {"channels": {"~own": "now"}}).status == 410
    assert process.closed
    assert session_in(comet, tab) not in (before, None)


@pytest.mark.parametrize("after", [None, "bob"])
def test_a_page_of_somebody_else_has_a_process_that_lives(
    comet: Comet, server: Address, after: str | None
) -> None:
    comet.identify(who)
    tab = Tab(server, {WHO: "alice"})
    before = process_of(comet, tab)
    del tab.jar[WHO]
    if after is not None:
        tab.jar[WHO] = after
    del tab.opened["process"]  # it goes to another page
    opened = json.loads(send(tab, "/page").body)
    assert opened["user"] == after
    asked = {"channels": {"~own": "now"}}
    assert tab.post(f"{opened['url']}/poll", asked).status == 200
    assert before.closed


def test_what_a_page_loads_on_its_way_is_not_asked_about(comet: Comet, server: Address) -> None:
    asked: list[str] = []

    @comet.identify
    def note(connection: HTTPConnection) -> None:
        asked.append(connection.url.path)

    tab = Tab(server)
    asked.clear()
    for kind in ("script", "document"):
        headers = {"Cookie": tab.cookie, "Sec-Fetch-Dest": kind}
        server.request("POST", f"/me?{kind}", "", headers)
    assert asked == ["/me"]


def test_a_page_is_served_although_nobody_can_say_whose_it_is(
    comet: Comet, server: Address, caplog: pytest.LogCaptureFixture
) -> None:
    @comet.identify
    def fail(connection: HTTPConnection) -> str:
        raise OSError("the database is away")

    answer = server.request("POST", "/page")
    assert answer.status == 200
    assert "could not say who a request belongs to" in caplog.text


def test_what_identify_says_must_be_able_to_be_a_user(
    comet: Comet, server: Address, caplog: pytest.LogCaptureFixture
) -> None:
    comet.identify(lambda connection: {"no": "id"})
    server.request("POST", "/page")
    assert "expected a user id that is hashable" in caplog.text


@pytest.mark.parametrize("told", [None, "alice"])
@pytest.mark.parametrize("connects", [True, False])
def test_whoever_is_asked_about_while_somebody_logs_in_comes_back_and_a_page_is_served(
    comet: Comet, server: Address, connects: bool, told: str | None
) -> None:
    tab = Tab(server)
    session = process_of(comet, tab).session

    @comet.identify
    async def slow(connection: HTTPConnection) -> str | None:
        if session.user is None:
            inside(comet).users.change(Claim.of(session), "alice")
        return told

    asked = {"channels": {"~own": "now"}}
    answer = tab.post(f"{tab.url}/poll", asked) if connects else send(tab, "/page")
    assert answer.status == (503 if connects else 200)
    assert session.user == "alice"


def test_an_id_of_before_a_login_never_comes_back(comet: Comet) -> None:
    """Not by a request either that came before the login and goes on after it."""
    clients = clients_of(comet)
    early = clients.claim("s")  # nothing has this id yet
    tab = open_in(comet)
    late = clients.claim("s")
    inside(comet).users.change(late, "alice")
    for claim in (early, late):
        with pytest.raises(Stale):
            clients.connect(Reader(), claim)
        with pytest.raises(Stale):
            clients.default(claim)
        with pytest.raises(Stale):
            inside(comet).users.change(claim, "mallory")
        opened = clients.open(claim)
        assert opened.claim.id not in ("s", tab.session.id)
        assert opened.process.session is not tab.session
    assert clients.claim("s").stale
    assert (tab.user, tab.closed) == ("alice", False)


def test_a_login_at_the_moment_of_another_one_begins_a_session_of_its_own(
    comet: Comet, server: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later of the two has the cookie of before, which may be planted."""
    tab = Tab(server)
    process = process_of(comet, tab)
    users = inside(comet).users
    change = users.change

    def change_after_another(claim: Claim, user: Hashable, **more: Any) -> Claim:
        monkeypatch.undo()
        change(claim, "alice")
        return change(claim, user, **more)

    monkeypatch.setattr(users, "change", change_after_another)
    assert send(tab, "/login", "mallory").status == 204
    assert (process.user, process.closed) == ("alice", False)
    assert [session.user for session in comet.sessions()] == ["alice"]


def test_a_login_is_of_the_session_that_another_request_has_begun_meanwhile(comet: Comet) -> None:
    early = clients_of(comet).claim("s")  # nothing has this id yet
    tab = open_in(comet)
    inside(comet).users.change(early, "carol")
    assert (tab.user, tab.closed) == ("carol", False)
    assert comet.sessions() == [tab.session]
    assert clients_of(comet).claim("s").stale


def test_a_default_process_that_is_just_closing_is_not_found(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    clients, claim = clients_of(comet), Claim.of(process_of(comet, tab).session)
    closing = clients.default(claim).process
    with inside(comet).channels.site.directory.lock:  # its closing waits for its channels
        thread = threading.Thread(target=closing.close)
        thread.start()
        while not closing.closed:
            server.request("GET", "/")
        found = clients.default(claim).process
    thread.join()
    assert found is not closing
    assert clients.default(claim).process is found


def test_the_ids_of_before_are_bounded(comet: Comet) -> None:
    processes = inside(comet).clients
    process = open_in(comet)
    first = Claim.of(process.session)
    for _ in range(FORMER_LIMIT + 1):
        processes.replace_id(Claim.of(process.session))
    with pytest.raises(Stale):  # also when its id is remembered no more
        processes.connect(Reader(), first)
    assert tables(comet)["former ids"] == FORMER_LIMIT
    assert processes.claim("s").session is not process.session


def test_the_sessions_of_connections_end_with_them(comet: Comet, server: Address) -> None:
    channel = comet.channels.create("c")
    tab = Tab(server)
    process_of(comet, tab).close()
    assert inside(comet).clients.known == 0
    asked = {"channels": {"c": channel.reference()["position"]}}
    held = Held(lambda: tab.post("/comet/poll", asked))
    wait_for_listeners(channel, 1)
    assert inside(comet).clients.known == 1
    assert comet.sessions() == []
    channel.publish("now")
    assert held.answer().status == 200
    assert soon(comet, lambda: inside(comet).clients.known == 0)


def copy_of(tab: Tab) -> Tab:
    """The same tab of a browser that has not heard of a new cookie yet."""
    copy = Tab.__new__(Tab)
    copy.address, copy.jar, copy.opened, copy.url = tab.address, dict(tab.jar), tab.opened, tab.url
    return copy


def come_in(tab: Tab, path: str) -> Answer:
    """Have a tab connect, at a client process or at the site, for its own channels or others."""
    base = tab.url if path.startswith("own") else "/comet"
    name = "~own" if path.endswith("~") else "c"
    return tab.post(f"{base}/poll", {"channels": {name: "last:1"}})


@pytest.mark.parametrize("path", ["own ~", "own", "site ~", "site"])
def test_who_is_the_same_user_gets_the_new_cookie_and_nobody_else(
    comet: Comet, server: Address, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    failing = False

    @comet.identify
    def who_or_fail(connection: HTTPConnection) -> str | None:
        if failing:
            raise OSError("the database is away")
        return who(connection)

    comet.channels.create("c")
    tab = Tab(server)
    late, stranger = copy_of(tab), copy_of(tab)
    late.jar[WHO] = tab.jar[WHO] = "alice"
    tab.poll({"c": "now"})
    session = process_of(comet, tab).session
    assert come_in(stranger, path).status == 503
    failing = True
    assert come_in(late, path).status == 503
    assert "could not say who a connection belongs to" in caplog.text
    failing = False
    assert come_in(late, path).status == 200
    assert session_in(comet, late) == session.id
    assert session.user == "alice"


def test_a_tab_too_many_is_refused_at_the_site_too(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    for _ in range(3):
        Tab(server)
    assert come_in(tab, "site ~").status == 503  # it would be the default process


def test_the_session_of_a_request_is_known_if_anybody_is_in_it(
    comet: Comet, server: Address
) -> None:
    def whose(cookie: str) -> bytes:
        return server.request("POST", "/session", "", {"Cookie": cookie}).body

    tab = Tab(server)
    assert whose("") == whose("comet=forged") == b"null"
    assert whose(tab.cookie) == b'{"user":null,"tabs":1}'
    send(tab, "/login", "alice")
    assert whose(tab.cookie) == b'{"user":"alice","tabs":1}'
    comet.identify(who)
    assert whose(f"{tab.cookie}; {WHO}=bob") == b'{"user":"bob","tabs":0}'


# An endpoint that asks for a client process and has none


def failing(comet: Comet) -> FastAPI:
    app = FastAPI()

    @app.get("/process")
    def process(process: ClientProcess = Depends(comet.process)) -> str:  # noqa: B008
        return process.id

    @app.get("/session")
    def session() -> None:
        raise TooManyProcesses(3, of_session=True)

    @app.get("/server")
    async def server() -> None:
        raise TooManyProcesses(3, of_session=False)

    @app.get("/closed")
    async def closed() -> None:
        raise ProcessClosed("some process")

    return app


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/process", 403, "expected a current client process"),
        ("/session", 429, "at most 3 client processes connected in this session"),
        ("/server", 503, "at most 3 client processes on this server"),
        ("/closed", 410, "which has closed"),
    ],
)
def test_it_is_answered_and_not_a_crash(
    comet: Comet, around: bool, path: str, status: int, said: str
) -> None:
    app: Any = failing(comet)
    if around:
        app.exception_handlers.update(exception_handlers)
        app = CometMiddleware(app, comet=comet)
    else:
        app.add_middleware(CometMiddleware, comet=comet)
    with serve(app) as server:
        answer = server.request("GET", path)
    assert answer.status == status
    assert said in answer.body.decode()
    assert answer.headers.get("retry-after") == ("30" if status in (429, 503) else None)


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize("error", [BrokerUnavailable, Unconfirmed])
def test_the_log_is_told_where_the_broker_is_and_the_visitor_is_not(
    comet: Comet,
    around: bool,
    error: Callable[[str], CometError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def warn(_: Seldom, text: str, *values: object, extra: object) -> None:
        del extra
        logged.append(text % values)  # also within the pause after another test's line

    logged: list[str] = []
    monkeypatch.setattr(Seldom, "warning", warn)

    async def fail() -> None:
        raise error("no connection to redis://app@10.0.0.5:6379")

    app: Any = FastAPI()
    app.add_api_route("/", fail)
    if around:
        app.exception_handlers.update(exception_handlers)
        app = CometMiddleware(app, comet=comet)
    else:
        app.add_middleware(CometMiddleware, comet=comet)
    with serve(app) as server:
        answer = server.request("GET", "/")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.body.decode().endswith('try again in a moment"}')
    assert "10.0.0.5" not in answer.body.decode()
    assert any(line.endswith("no connection to redis://app@10.0.0.5:6379") for line in logged)


def test_once_the_answer_has_begun_it_is_too_late_for_another(
    comet: Comet, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> AsyncIterator[str]:
        yield "begun"
        comet.process()

    app = FastAPI()
    app.add_api_route("/", lambda: StreamingResponse(body()))
    app.add_middleware(CometMiddleware, comet=comet)
    with serve(app) as server, pytest.raises(IncompleteRead):
        server.request("GET", "/")
    assert "NoClientProcess" in caplog.text


async def test_without_a_lifespan_nobody_logs_in() -> None:
    comet = Comet(KEY)
    with (
        inside(comet).requests.begin({"type": "http", "headers": []}) as visit,
        pytest.raises(NotRunning),
    ):
        visit.login("alice")
