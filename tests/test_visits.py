from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.cookies import SimpleCookie
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_comet import (
    CLIENT_PROCESS,
    ClientProcess,
    Comet,
    CometMiddleware,
    NoClientProcess,
    NotRunning,
    ProcessClosed,
    Settings,
    TooManyProcesses,
)
from asgi_comet.identity.current import CurrentRequest
from asgi_comet.identity.tokens import Identity
from asgi_comet.testing._inspect import inside
from tests.kit.serving import serve
from tests.kit.stage import KEY

pytestmark = pytest.mark.anyio


def describe(process: ClientProcess) -> dict[str, Any]:
    return {"id": process.id, "session": process.session.id, "url": process.url}


def make_async(call: Callable[[], Any]) -> Callable[[], Any]:
    async def endpoint() -> Any:
        found = call()
        return await found if isinstance(found, Awaitable) else found

    return endpoint


def make_sync(call: Callable[[], Any]) -> Callable[[], Any]:
    def endpoint() -> Any:
        return call()

    return endpoint


def application(comet: Comet) -> FastAPI:
    """Each endpoint thrice: async, sync, which FastAPI runs in a thread, and in one of its own."""
    app = FastAPI()

    async def refuse(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{type(error).__name__}: {error}", 418)

    for error in (NoClientProcess, ProcessClosed, TooManyProcesses):
        app.add_exception_handler(error, refuse)

    calls: dict[str, Callable[[], Any]] = {
        "open": lambda: describe(comet.open_process()),
        "me": lambda: describe(comet.process()),
        "both": lambda: [describe(comet.open_process()), describe(comet.process())],
        "nothing": lambda: "nothing",
    }
    for name, call in calls.items():
        app.add_api_route(f"/async/{name}", make_async(call))
        app.add_api_route(f"/sync/{name}", make_sync(call))
        app.add_api_route(f"/thread/{name}", make_async(partial(anyio.to_thread.run_sync, call)))
    app.add_middleware(CometMiddleware, comet=comet)
    return app


@contextmanager
def client(app: ASGIApp, base_url: str = "http://testserver", **more: Any) -> Iterator[TestClient]:
    with TestClient(app, base_url=base_url, **more) as found:
        yield found


def token_of(opened: dict[str, Any]) -> dict[str, str]:
    return {"Comet-Process": opened["url"].rpartition("/")[2]}


def told(found: TestClient, path: str, token: str | None = None) -> str:
    """Why an endpoint was refused a client process."""
    headers = {} if token is None else {b"comet-process": token.encode()}
    answer = found.get(path, headers=headers)
    assert answer.status_code == 418, answer.text
    text: str = answer.text
    return text


BOTH = pytest.mark.parametrize("kind", ["async", "sync", "thread"])


@BOTH
def test_a_request_opens_a_process_for_its_page_and_the_answer_sets_the_cookie(
    comet: Comet, kind: str
) -> None:
    with client(application(comet)) as browser:
        answer = browser.get(f"/{kind}/open")
        opened = answer.json()
        process = inside(comet).clients.find(opened["id"])
        assert process is not None
        assert opened["url"] == process.url
        (header,) = answer.headers.get_list("set-cookie")
        morsel = SimpleCookie(header)["comet"]
        assert inside(comet).requests.identity.unsign_session(morsel.value) == opened["session"]
        assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Lax", "/")
        assert (morsel["max-age"], morsel["secure"]) == ("2592000", "")


@BOTH
def test_what_a_request_opened_is_its_process(comet: Comet, kind: str) -> None:
    with client(application(comet)) as browser:
        opened, current = browser.get(f"/{kind}/both").json()
        assert opened == current
        token = token_of(browser.get(f"/{kind}/open").json())
        opened, current = browser.get(f"/{kind}/both", headers=token).json()
        assert opened == current


@BOTH
def test_a_request_that_opens_none_gets_no_cookie(comet: Comet, kind: str) -> None:
    with client(application(comet)) as browser:
        browser.get(f"/{kind}/open")
        for path in (f"/{kind}/nothing", f"/{kind}/me"):
            answer = browser.get(path)
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers


@BOTH
def test_the_header_names_the_process_of_the_tab(comet: Comet, kind: str) -> None:
    with client(application(comet)) as browser:
        tabs = [browser.get(f"/{kind}/open").json() for _ in range(2)]
        assert tabs[0]["id"] != tabs[1]["id"]
        assert tabs[0]["session"] == tabs[1]["session"]
        for tab in (*tabs, *tabs):
            assert browser.get(f"/{kind}/me", headers=token_of(tab)).json() == tab


@BOTH
def test_a_client_with_only_the_cookie_is_the_default_process_which_all_such_share(
    comet: Comet, kind: str
) -> None:
    with client(application(comet)) as browser:
        tab = browser.get("/async/open").json()
        default = browser.get(f"/{kind}/me").json()
        assert default["session"] == tab["session"]
        assert default["id"] != tab["id"]
        assert browser.get("/async/me").json() == browser.get("/sync/me").json() == default


@BOTH
def test_the_cookie_is_renewed_for_the_same_session(comet: Comet, kind: str) -> None:
    with client(application(comet)) as browser:
        first = browser.get(f"/{kind}/open").json()
        answer = browser.get(f"/{kind}/open")
        assert answer.json()["session"] == first["session"]
        assert len(answer.headers.get_list("set-cookie")) == 1


@BOTH
def test_a_session_that_was_not_made_here_is_never_adopted(comet: Comet, kind: str) -> None:
    stranger = Identity([b"x" * 32])
    for value in ("fixed", stranger.sign_session("fixed")):
        with client(application(comet), cookies={"comet": value}) as browser:
            assert "NoClientProcess" in told(browser, f"/{kind}/me")
            assert browser.get(f"/{kind}/open").json()["session"] != "fixed"


@BOTH
def test_of_several_cookies_the_first_that_is_ours_counts(comet: Comet, kind: str) -> None:
    identity = inside(comet).requests.identity
    values = ["forged", identity.sign_session("first"), identity.sign_session("second")]
    cookies = "; ".join(f"comet={value}" for value in values)
    with client(application(comet)) as browser:
        assert browser.get(f"/{kind}/me", headers={"Cookie": cookies}).json()["session"] == "first"


# None


@BOTH
def test_a_request_with_neither_header_nor_cookie_has_none_and_says_what_to_do(
    comet: Comet, kind: str
) -> None:
    with client(application(comet)) as browser:
        text = told(browser, f"/{kind}/me")
        assert "neither a Comet-Process header nor a session's cookie" in text
        assert "comet.open_process()" in text


@BOTH
def test_the_token_of_another_session_is_worth_nothing(comet: Comet, kind: str) -> None:
    app = application(comet)
    with client(app) as victim:
        stolen = token_of(victim.get("/async/open").json())["Comet-Process"]
        thief = TestClient(app)
        assert "is of another session" in told(thief, f"/{kind}/me", token=stolen)
        thief.get("/async/open")
        assert "is of another session" in told(thief, f"/{kind}/me", token=stolen)


@BOTH
@pytest.mark.parametrize("token", ["", "x", "a.b", "é", "session"])
def test_a_token_that_is_not_ours_is_refused_and_the_default_does_not_take_its_place(
    comet: Comet, kind: str, token: str
) -> None:
    with client(application(comet)) as browser:
        browser.get("/async/open")
        if token == "session":
            token = browser.cookies["comet"]
        text = told(browser, f"/{kind}/me", token=token)
        assert "the request's Comet-Process header is not one of ours" in text
        assert len(inside(comet).clients) == 1


@BOTH
def test_the_token_of_a_closed_process_says_so_whatever_the_cookie(comet: Comet, kind: str) -> None:
    with client(application(comet)) as browser:
        tab = browser.get("/async/open").json()
        process = inside(comet).clients.find(tab["id"])
        assert process is not None
        process.close()
        for _ in range(2):
            text = told(browser, f"/{kind}/me", token_of(tab)["Comet-Process"])
            assert text.startswith("ProcessClosed: ")
            assert tab["id"][:6] in text
            assert tab["id"] not in text
            browser.cookies.clear()


@BOTH
def test_too_many_are_told_and_set_no_cookie(kind: str) -> None:
    comet = Comet(KEY, settings=Settings(max_processes=1))
    with client(application(comet)) as browser:
        browser.get("/async/open")
        answer = TestClient(browser.app).get(f"/{kind}/open")
        assert answer.text.startswith("TooManyProcesses: ")
        assert "set-cookie" not in answer.headers
        assert len(inside(comet).clients.sessions()) == 1


async def inbox_of(process: ClientProcess) -> AsyncIterator[str]:
    yield process.id


def test_outside_of_a_request_there_is_none(comet: Comet) -> None:
    for call in (comet.process, comet.open_process, comet.logout):
        with pytest.raises(
            NoClientProcess, match=r"that CometMiddleware .* call it in an endpoint$"
        ):
            call()
    with pytest.raises(NoClientProcess, match=r"; write scope=process$"):
        comet.create()
    inbox: Any = comet.channel("inbox", scope=CLIENT_PROCESS)(inbox_of)
    with pytest.raises(NoClientProcess, match=r"; write \.channel\(process\) or \.publish"):
        inbox.publish("x")
    assert inside(comet).requests.current_root_path() == ""


def test_where_a_channel_of_the_site_may_be_meant_that_is_said_first(comet: Comet) -> None:
    async def unread() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(NoClientProcess, match=r"^did you mean scope=SITE\? expected a current"):
        comet.create(name="x")
    with pytest.raises(NoClientProcess, match=r"^expected a current"):
        comet.create_unlimited(unread)


async def test_where_a_request_was_served_there_is_none_afterwards(comet: Comet) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        comet.open_process()

    scope: Scope = {"type": "http", "path": "/", "scheme": "http", "headers": []}
    async with comet.lifespan():
        await CometMiddleware(app, comet=comet)(scope, None, None)  # type: ignore[arg-type]  # unused
        with pytest.raises(NoClientProcess, match="outside of a request"):
            comet.process()


async def test_of_two_comets_around_one_application_each_has_its_own_process() -> None:
    inner, outer = Comet(KEY, prefix="/inner"), Comet(KEY, prefix="/outer")
    opened = list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        opened.extend([inner.open_process().url, outer.open_process().url])

    scope: Scope = {"type": "http", "path": "/", "scheme": "http", "headers": []}
    wrapped = CometMiddleware(CometMiddleware(app, comet=inner), comet=outer)
    async with inner.lifespan(), outer.lifespan():
        await wrapped(scope, None, None)  # type: ignore[arg-type]  # unused
        assert (len(inside(inner).clients), len(inside(outer).clients)) == (1, 1)
    assert [url.split("/")[1] for url in opened] == ["inner", "outer"]


def test_a_request_without_a_running_lifespan_opens_nothing_that_nobody_would_close(
    comet: Comet,
) -> None:
    browser = TestClient(application(comet))  # not entered: as with `--lifespan off`
    with pytest.raises(NotRunning):
        browser.get("/async/open")
    assert len(inside(comet).clients) == 0


# The answer


def with_cookies(comet: Comet) -> Response:
    comet.open_process()
    response = PlainTextResponse("x")
    response.set_cookie("theirs", "1")
    response.headers.append("set-cookie", "other=2; Path=/x")
    return response


def streamed(comet: Comet) -> Response:
    comet.open_process()
    return StreamingResponse(iter(["a", "b"]), headers={"set-cookie": "theirs=1"})


def failed(comet: Comet) -> Response:
    comet.open_process()
    raise HTTPException(404, headers={"set-cookie": "theirs=1"})


def deleted(comet: Comet) -> Response:
    comet.open_process()
    response = Response(status_code=204)
    response.delete_cookie("theirs")
    return response


@pytest.mark.parametrize("make", [with_cookies, streamed, failed, deleted])
@BOTH
def test_the_cookie_is_set_whatever_the_applications_own_headers_are(
    comet: Comet, kind: str, make: Callable[[Comet], Response]
) -> None:
    app = application(comet)

    def endpoint() -> Response:
        return make(comet)

    async def endpoint_async() -> Response:
        return make(comet)

    app.add_api_route("/x", endpoint if kind == "sync" else endpoint_async, response_class=Response)
    with client(app) as browser:
        headers = browser.get("/x").headers.get_list("set-cookie")
        names = [header.partition("=")[0] for header in headers]
        assert names.count("comet") == 1
        assert names[:-1] == ["theirs", "other"][: len(names) - 1] != []


def test_a_process_cannot_be_opened_once_the_answer_has_begun(comet: Comet) -> None:
    app = application(comet)

    def late() -> Iterator[str]:
        yield "begun "
        try:
            yield comet.open_process().url
        except NoClientProcess as error:
            yield f"refused: {error}"

    @app.get("/late", response_class=Response)
    def stream() -> Response:
        return StreamingResponse(late())

    with client(app) as browser:
        answer = browser.get("/late")
        assert "set-cookie" not in answer.headers
        assert answer.text.startswith("begun refused: ")
        assert len(inside(comet).clients) == 0


async def test_the_cookie_is_set_on_an_answer_without_headers_and_only_there(comet: Comet) -> None:
    sent = list[Any]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        comet.open_process()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "path": "/", "scheme": "http", "headers": []}
    async with comet.lifespan():
        await CometMiddleware(app, comet=comet)(scope, None, send)  # type: ignore[arg-type]  # unused
    start, body = sent
    assert [name for name, _ in start["headers"]] == [b"set-cookie"]
    assert body == {"type": "http.response.body", "body": b"x"}


@BOTH
def test_on_https_the_cookie_is_of_this_host_only_and_secure(comet: Comet, kind: str) -> None:
    with client(application(comet), "https://testserver") as browser:
        answer = browser.get(f"/{kind}/open")
        (header,) = answer.headers.get_list("set-cookie")
        assert header.startswith("__Host-comet=")
        assert header.endswith("; Secure")
        assert browser.get(f"/{kind}/me").json()["session"] == answer.json()["session"]
        value = browser.cookies["__Host-comet"]
        plain = TestClient(browser.app, cookies={"__Host-comet": value})
        assert "NoClientProcess" in told(plain, f"/{kind}/me")
        tricked = TestClient(browser.app, "https://testserver", cookies={"comet": value})
        assert "NoClientProcess" in told(tricked, f"/{kind}/me")


def test_name_and_same_site_of_the_cookie_are_those_of_the_settings() -> None:
    comet = Comet(KEY, settings=Settings(cookie_name="who", cookie_samesite="none"))
    with client(application(comet), "https://testserver") as browser:
        header = browser.get("/async/open").headers["set-cookie"]
        assert header.startswith("__Host-who=")
        assert "; SameSite=None; Secure" in header


# Around it


class Around(BaseHTTPMiddleware):
    """A middleware that runs the application in a task of its own."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-around"] = "1"
        return response


@pytest.mark.parametrize("place", ["inside", "outside"])
@BOTH
def test_middleware_that_runs_the_application_in_another_task_does_not_matter(
    comet: Comet, kind: str, place: str
) -> None:
    app = application(comet)
    app.user_middleware.insert(0 if place == "outside" else 1, Middleware(Around))
    with client(app) as browser:
        answer = browser.get(f"/{kind}/open")
        assert answer.headers["x-around"] == "1"
        assert len(answer.headers.get_list("set-cookie")) == 1
        tab = answer.json()
        assert browser.get(f"/{kind}/me", headers=token_of(tab)).json() == tab


@BOTH
def test_the_url_includes_where_the_application_is_mounted(comet: Comet, kind: str) -> None:
    with client(application(comet), root_path="/api") as browser:
        tab = browser.get(f"/{kind}/open").json()
        assert tab["url"].startswith("/api/comet/p/")
        process = inside(comet).clients.find(tab["id"])
        assert process is not None
        assert process.url == tab["url"].removeprefix("/api")  # outside of a request


def test_a_mounted_application_sees_the_root_path_of_where_the_middleware_is(comet: Comet) -> None:
    inner = FastAPI()

    @inner.get("/open")
    def open_process() -> dict[str, Any]:
        return describe(comet.open_process())

    app = application(comet)
    app.mount("/inner", inner)
    with client(app, root_path="/api") as browser:
        answer = browser.get("/api/inner/open").json()
        assert answer["url"].startswith("/api/comet/p/"), answer


def test_two_requests_at_once_do_not_see_each_others(comet: Comet) -> None:
    app = application(comet)
    count = 8
    threads_met = threading.Barrier(count)
    here = list[int]()
    all_here = anyio.Event()

    @app.get("/async/meet")
    async def meet_async() -> list[dict[str, Any]]:
        opened = describe(comet.open_process())
        here.append(1)
        if len(here) == count:
            all_here.set()
        await all_here.wait()
        return [opened, describe(comet.process())]

    @app.get("/sync/meet")
    def meet_sync() -> list[dict[str, Any]]:
        opened = describe(comet.open_process())
        threads_met.wait(20)
        return [opened, describe(comet.process())]

    with serve(app) as address, ThreadPoolExecutor(count) as threads:
        for path in ("/async/meet", "/sync/meet"):
            answers = list(threads.map(lambda _, p=path: address.request("GET", p), range(count)))
            found = [answer_of(answer.body) for answer in answers]
            assert all(opened == current for opened, current in found)
            assert len({opened["id"] for opened, _ in found}) == count
            identity = inside(comet).requests.identity
            for answer, (opened, _) in zip(answers, found, strict=True):
                value = SimpleCookie(answer.headers["set-cookie"])["comet"].value
                assert identity.unsign_session(value) == opened["session"]


def answer_of(body: bytes) -> list[dict[str, Any]]:
    import json

    found: list[dict[str, Any]] = json.loads(body)
    return found


def test_requests_on_one_connection_do_not_see_each_others(comet: Comet) -> None:
    from http.client import HTTPConnection

    with serve(application(comet)) as address:
        connection = HTTPConnection(address.host, address.port, timeout=20)
        try:
            for path, status in (("/async/open", 200), ("/async/me", 418), ("/sync/me", 418)) * 3:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == status
        finally:
            connection.close()


async def test_the_session_of_a_request_is_read_once(comet: Comet) -> None:
    value = inside(comet).requests.identity.sign_session("a session")
    scope: Scope = {"type": "http", "headers": [(b"cookie", f"comet={value}".encode())]}
    request = CurrentRequest(inside(comet).requests, scope)
    assert request.session_id() == "a session"
    scope["headers"].clear()
    assert request.session_id() == "a session"
