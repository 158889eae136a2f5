"""Sessions, client processes and users that three workers share: any worker answers any request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_comet import (
    SITE,
    BrokerUnavailable,
    Channel,
    ClientProcess,
    Comet,
    CometMiddleware,
    MustAwait,
    ProcessLocal,
    Settings,
)
from asgi_comet.testing import JoinedBroker, join, wait_for_listeners
from asgi_comet.testing._inspect import inactivity_waits, inside
from tests.kit.clients import PollClient, SseClient
from tests.kit.loop import in_loop, soon, wait_in_loop
from tests.kit.people import WHO
from tests.kit.serving import Address, Answer, Held, Tab, serve
from tests.kit.stage import KEY

SETTINGS = Settings(jitter=0)
NOTES: ProcessLocal[list[str]] = ProcessLocal(list)


class Worker:
    """A `Comet` with its server, and an application with users."""

    def __init__(self, broker: JoinedBroker, settings: Settings, **arguments: Any) -> None:
        self.broker = broker
        self.comet = Comet(KEY, broker=broker, settings=settings, **arguments)
        self.news: Channel[Any] = self.comet.create(scope=SITE, name="news")
        self.closed: list[str] = []
        self.finished: list[str] = []
        self.comet.on_process_close(self.finished.append)
        calls = [self.page, self.me, self.session, self.login, self.logout, self.join_]
        calls += [self.keep, self.note, self.tabs, self.tabs_in_loop, self.me_in_loop]
        self.app = Starlette(
            routes=[
                *(Route(f"/{call.__name__}", call, methods=["POST"]) for call in calls),
                Route("/login_async", self.login_async, methods=["POST"]),
                Route("/come_in", self.come_in, methods=["POST"]),
            ],
            middleware=[Middleware(CometMiddleware, comet=self.comet)],
        )
        self.address: Address

    def page(self, request: Request) -> Response:
        process = self.comet.open_process()
        return JSONResponse({"url": process.url, "process": process.url.rpartition("/")[2]})

    def me(self, request: Request) -> Response:
        process = self.comet.process()
        return JSONResponse({"id": process.id, "user": process.user})

    async def me_in_loop(self, request: Request) -> Response:
        return self.me(request)

    def session(self, request: Request) -> Response:
        found = self.comet.session()
        return JSONResponse(found and {"user": found.user, "tabs": len(found.processes)})

    def login(self, request: Request) -> Response:
        self.comet.login(request.query_params["user"])
        return JSONResponse([self.comet.process().user, self.comet.session() is not None])

    async def login_async(self, request: Request) -> Response:
        return self.login(request)

    def logout(self, request: Request) -> Response:
        self.comet.logout()
        return Response(status_code=204)

    async def join_(self, request: Request) -> Response:
        process = self.comet.open_process()
        self.comet.login("ann")
        return JSONResponse([process.user, self.comet.process() is process])

    async def come_in(self, request: Request) -> Response:
        self.comet.login("ann")
        return self.page(request)

    def keep(self, request: Request) -> Response:
        self.comet.process().on_close(lambda process: self.closed.append(process.id))
        return Response(status_code=204)

    def note(self, request: Request) -> Response:
        NOTES.get(self.comet.process()).append("here")
        return JSONResponse(NOTES.get(self.comet.process()))

    def tabs(self, request: Request) -> Response:
        processes = self.comet.processes(user=request.query_params.get("user"))
        return JSONResponse([len(processes), len(processes.here)])

    async def tabs_in_loop(self, request: Request) -> Response:
        processes = self.comet.processes(user=request.query_params.get("user"))
        with pytest.raises(MustAwait, match=r"write: await comet.processes\(user=user\)"):
            list(processes)
        waited = [process.id async for process in processes]
        assert waited == [process.id for process in await processes]
        sessions = await self.comet.sessions(user=request.query_params.get("user"))
        return JSONResponse([len(waited), len(sessions)])


Workers = list[Worker]
Start = Callable[..., Workers]


@pytest.fixture
def start() -> Iterator[Start]:
    """Serve three workers."""
    with ExitStack() as stack:

        def start(settings: Settings = SETTINGS, count: int = 3, **arguments: Any) -> Workers:
            made = [Worker(broker, settings, **arguments) for broker in join(count)]
            for worker in made:
                worker.address = stack.enter_context(serve(worker.app))
            for worker in made:  # each has joined the others
                assert worker.address.request("GET", "/comet/comet.js").status == 200
            return made

        yield start


@pytest.fixture
def workers(start: Start) -> Workers:
    return start()


def send(
    tab: Tab, worker: Worker, path: str, *, named: bool = True, part: str | None = None
) -> Answer:
    """Have a page send a request to a worker's application."""
    headers = {"Cookie": tab.cookie}
    if part is not None:
        headers["Sec-Fetch-Dest"] = part
    if named:
        headers["Comet-Process"] = tab.opened["process"]
    answer = worker.address.request("POST", path, "", headers)
    tab.keep(answer)
    return answer


def told(tab: Tab, worker: Worker, path: str, **more: Any) -> Any:
    answer = send(tab, worker, path, **more)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def poll(tab: Tab, worker: Worker, name: str = "news") -> int:
    """Poll at a worker; return the status."""
    tab.address = worker.address
    return tab.post(f"{tab.url}/poll", {"channels": {name: "now"}, "idle": True}).status


def hold(tab: Tab, worker: Worker) -> Held:
    """Have a poll held by a worker."""
    tab.address = worker.address
    (event,) = tab.poll({"news": "now"}, idle=True)
    held = tab.hold({"news": event["position"]})
    wait_for_listeners(worker.news, 1)
    return held


def id_of(tab: Tab, worker: Worker) -> str:
    found = inside(worker.comet).requests.identity.unsign_process(tab.opened["process"])
    assert found is not None
    return found


# Any worker answers


def test_any_worker_answers_any_request_of_a_tab(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    other = Tab(workers[1].address, tab.jar)
    for worker in workers:
        assert poll(tab, worker) == 200
        assert told(tab, worker, "/me")["id"] == id_of(tab, worker)
        assert told(other, worker, "/me")["id"] == id_of(other, worker)
        assert told(tab, worker, "/session") == {"user": None, "tabs": 2}


def test_a_page_of_any_worker_has_a_process_that_every_worker_knows(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    for worker in workers:
        tab.opened = told(tab, worker, "/page")
        tab.url = tab.opened["url"]
        assert [poll(tab, one) for one in workers] == [200, 200, 200]
    assert told(tab, workers[0], "/session")["tabs"] == 4


def test_a_process_of_another_session_is_refused_by_every_worker(workers: Workers) -> None:
    tab, thief = Tab(workers[0].address), Tab(workers[1].address)
    thief.url, thief.opened = tab.url, tab.opened
    for worker in workers:
        assert poll(thief, worker) == 403
        assert send(thief, worker, "/me").status == 403
        assert worker.address.request("POST", f"{tab.url}/close").status == 403
    assert poll(tab, workers[2]) == 200


def test_a_session_that_no_worker_knows_is_none(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    assert tab.post(f"{tab.url}/close").status == 204
    assert told(tab, workers[1], "/session") is None


# Closing


def test_a_process_that_closes_is_closed_for_every_worker(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    for worker in workers[:2]:
        assert send(tab, worker, "/keep").status == 204
    assert workers[1].address.request("POST", f"{tab.url}/close").status == 403
    tab.address = workers[1].address
    assert tab.post(f"{tab.url}/close").status == 204
    for worker in workers:
        assert poll(tab, worker) == 410
        assert send(tab, worker, "/me").status == 410
    for worker in workers[:2]:
        assert soon(worker.comet, lambda w=worker: w.closed == [id_of(tab, w)])  # type: ignore[misc]  # inferred
    assert workers[2].closed == []


def test_the_functions_for_each_closed_process_run_once(workers: Workers) -> None:
    tabs = [Tab(worker.address) for worker in workers]
    for tab, worker in zip(tabs, reversed(workers), strict=True):
        assert send(tab, worker, "/keep").status == 204
        tab.address = worker.address
        assert tab.post(f"{tab.url}/close").status == 204
    ids = sorted(id_of(tab, workers[0]) for tab in tabs)

    def finished() -> list[str]:
        return sorted(id_ for worker in workers for id_ in worker.finished)

    assert soon(workers[0].comet, lambda: len(finished()) >= len(tabs))
    assert finished() == ids


def test_a_connection_to_another_worker_ends_when_the_process_closes(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    held = hold(tab, workers[2])
    headers = {"Cookie": tab.cookie}
    assert workers[1].address.request("POST", f"{tab.url}/close", "", headers).status == 204
    assert held.answer().status == 410


def test_a_process_without_a_connection_to_any_worker_closes_soon(start: Start) -> None:
    workers = start(Settings(jitter=0, process_timeout=0.3))
    tab = Tab(workers[0].address)
    assert send(tab, workers[1], "/keep").status == 204
    done = threading.Event()

    async def wait() -> None:
        (process,) = inside(workers[1].comet).clients.processes()
        await process.wait_closed()
        done.set()

    inside(workers[1].comet).background.start(wait)
    assert done.wait(20)
    assert poll(tab, workers[0]) == 410


def test_inactivity_is_that_of_all_workers(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    assert told(tab, workers[1], "/me")["user"] is None
    held = hold(tab, workers[0])
    (process,) = inside(workers[1].comet).clients.processes()
    waited = threading.Event()

    async def wait() -> None:
        await workers[1].comet.wait_timeout(0, process)
        waited.set()

    inside(workers[1].comet).background.start(wait)
    assert soon(workers[1].comet, lambda: inactivity_waits(process) == 1)
    assert not waited.is_set()
    in_loop(workers[0].comet, inside(workers[0].comet).drain.begin)  # which ends the poll
    assert held.answer().status == 200
    assert waited.wait(20)


# Login and logout


@pytest.mark.parametrize("path", ["/login", "/login_async"])
def test_a_login_is_known_to_every_worker(workers: Workers, path: str) -> None:
    tab = Tab(workers[0].address)
    old = dict(tab.jar)
    assert told(tab, workers[1], f"{path}?user=ann") == ["ann", True]
    assert tab.jar != old
    for worker in workers:
        assert told(tab, worker, "/me")["user"] == "ann"
        assert poll(tab, worker) == 200
        assert told(tab, worker, "/tabs?user=ann")[0] == 1
        assert told(tab, worker, "/tabs_in_loop?user=ann") == [1, 1]
        assert told(tab, worker, "/tabs_in_loop?user=bob") == [0, 0]
    stolen = Tab(workers[2].address)
    stolen.url, stolen.opened, stolen.jar = tab.url, tab.opened, old
    assert [poll(stolen, worker) for worker in workers] == [503, 503, 503]


@pytest.mark.parametrize("client", [PollClient, SseClient])
def test_connections_with_the_old_cookie_end_at_every_worker(
    workers: Workers, client: Callable[..., Any]
) -> None:
    tab = Tab(workers[0].address)
    stolen = Tab(workers[0].address, dict(tab.jar))
    stolen.url = tab.url
    follower = client(stolen, workers[2].address)
    follower.follow({"news": "now"})
    follower.ensure_connected()
    wait_for_listeners(workers[2].news, 1)
    told(tab, workers[1], "/login?user=ann")
    wait_for_listeners(workers[2].news, 0)
    follower.cut()


def test_the_request_of_a_login_has_the_new_user_at_once(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    assert told(tab, workers[1], "/join_") == ["ann", True]
    assert told(tab, workers[2], "/session") == {"user": "ann", "tabs": 2}


def test_other_tabs_are_told_of_a_login_through_any_worker(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    other = Tab(workers[1].address, tab.jar)
    told(tab, workers[2], "/login?user=ann")
    for one, events in ((other, [{"event": "user-changed"}]), (tab, [])):
        one.address = workers[0].address
        found = one.poll({"~comet": "new.0"}, idle=True)
        assert [event["data"] for event in found] == events


def test_a_tab_of_the_request_that_logs_in_is_not_told_of_it(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    opened = told(tab, workers[1], "/come_in")
    tab.url, tab.address = opened["url"], workers[0].address
    assert tab.poll({"~comet": "new.0"}, idle=True) == []


def test_a_logout_closes_the_processes_at_every_worker(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    told(tab, workers[1], "/login?user=ann")
    assert send(tab, workers[2], "/keep").status == 204
    assert send(tab, workers[0], "/logout").status == 204
    assert [poll(tab, worker) for worker in workers] == [410, 410, 410]
    assert soon(workers[2].comet, lambda: len(workers[2].closed) == 1)
    assert told(tab, workers[1], "/tabs?user=ann")[0] == 0
    assert told(tab, workers[1], "/session", named=False) is None


def test_two_logins_at_two_workers_at_once_leave_one_user(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    cookie = tab.cookie

    def login(worker: Worker, user: str) -> Answer:
        headers = {"Cookie": cookie, "Comet-Process": tab.opened["process"]}
        return worker.address.request("POST", f"/login?user={user}", "", headers)

    held = [Held(lambda w=w, u=u: login(w, u)) for w, u in zip(workers, "abc", strict=True)]  # type: ignore[misc]  # inferred
    answers = [one.answer() for one in held]
    (won,) = (answer for answer in answers if answer.status == 200)
    assert {answer.status for answer in answers if answer is not won} <= {403, 503}
    tab.keep(won)
    (user, _) = json.loads(won.body)
    for worker in workers:
        assert told(tab, worker, "/me")["user"] == user
        assert told(tab, worker, f"/tabs?user={user}")[0] == 1


@pytest.mark.parametrize("path", ["/login", "/login_async"])
def test_a_user_who_clicks_twice_on_login_is_in(workers: Workers, path: str) -> None:
    for _ in range(5):
        tab = Tab(workers[0].address)
        cookie = tab.cookie

        def login(worker: Worker, tab: Tab = tab, cookie: str = cookie) -> Answer:
            headers = {"Cookie": cookie, "Comet-Process": tab.opened["process"]}
            return worker.address.request("POST", f"{path}?user=ann", "", headers)

        held = [Held(lambda w=worker: login(w)) for worker in workers]  # type: ignore[misc]  # inferred
        answers = [one.answer() for one in held]
        assert [json.loads(answer.body) for answer in answers] == [["ann", True]] * 3
        tab.keep(answers[-1])
        assert told(tab, workers[1], "/me")["user"] == "ann"


@pytest.mark.parametrize("path", ["/login", "/login_async"])
def test_a_login_that_another_worker_was_quicker_with_is_that_login(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    tab, (slow, quick, _) = Tab(workers[0].address), workers
    headers = {"Cookie": tab.cookie, "Comet-Process": tab.opened["process"]}
    people = slow.broker.people
    assert people is not None
    move = people.move

    def login(worker: Worker) -> Answer:
        return worker.address.request("POST", f"{path}?user=ann", "", headers)

    async def late(session: str, new: str, *, user: str | None, keep: bool) -> None:
        await anyio.to_thread.run_sync(login, quick)
        await move(session, new, user=user, keep=keep)

    monkeypatch.setattr(people, "move", late)
    assert json.loads(login(slow).body) == ["ann", True]


def test_the_application_is_asked_by_every_worker_and_changes_the_user_once(start: Start) -> None:
    workers = start()
    for worker in workers:
        worker.comet.identify(lambda connection: connection.cookies.get(WHO))
    tab = Tab(workers[0].address)
    tab.jar[WHO] = "ann"
    assert poll(tab, workers[1]) == 200
    jar = dict(tab.jar)
    for worker in workers:
        assert poll(tab, worker) == 200
        assert told(tab, worker, "/me")["user"] == "ann"
    assert tab.jar == jar
    tab.jar[WHO] = "bob"
    assert poll(tab, workers[2]) == 410  # the processes of ann have closed
    assert told(tab, workers[0], "/session", named=False) == {"user": "bob", "tabs": 0}


def test_a_user_whom_the_store_refuses_has_the_client_come_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(session: str, new: str, *, user: str | None, keep: bool) -> None:
        raise BrokerUnavailable("planned")

    (worker,) = start(count=1)
    worker.comet.identify(lambda connection: connection.cookies.get(WHO))
    tab = Tab(worker.address)
    assert poll(tab, worker) == 200
    tab.jar[WHO] = "ann"
    with monkeypatch.context() as patch:
        patch.setattr(worker.broker.people, "move", refuse)
        assert poll(tab, worker) == 503
    assert poll(tab, worker) == 200
    assert told(tab, worker, "/me")["user"] == "ann"


# The default process


def test_workers_that_need_the_default_process_at_once_have_one(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    held = [Held(lambda w=w: send(tab, w, "/me", named=False)) for w in workers]  # type: ignore[misc]  # inferred
    found = {json.loads(one.answer().body)["id"] for one in held}
    assert len(found) == 1
    tab.address = workers[1].address
    assert tab.post("/comet/poll", {"channels": {"~own": "now"}, "idle": True}).status == 200
    assert told(tab, workers[2], "/session")["tabs"] == 2


def test_a_default_process_that_closed_does_not_come_back(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    first = told(tab, workers[0], "/me", named=False)["id"]

    def close() -> None:
        process = inside(workers[0].comet).clients.find(first)
        assert process is not None
        process.close()

    inside(workers[0].comet).loop.run_now(close)
    found = {told(tab, worker, "/me", named=False)["id"] for worker in workers}
    assert len(found) == 1
    assert first not in found


# Bounds


def test_a_page_too_many_is_refused_by_the_answer(start: Start) -> None:
    workers = start(Settings(jitter=0, max_processes_per_session=1))
    tab = Tab(workers[0].address)
    held = hold(tab, workers[1])
    refused = [send(tab, workers[0], path, named=False) for path in ("/page", "/comet/open")]
    assert [answer.status for answer in refused] == [429, 429]
    assert {answer.headers["retry-after"] for answer in refused} == {"30"}
    in_loop(workers[1].comet, inside(workers[1].comet).drain.begin)
    assert held.answer().status == 200


def test_there_is_a_bound_of_all_workers_together(start: Start) -> None:
    workers = start(Settings(jitter=0, max_processes=1))
    Tab(workers[0].address)
    assert workers[1].address.request("POST", "/comet/open").status == 503
    assert workers[2].address.request("POST", "/page").status == 503


# While the broker is away


def test_while_the_broker_is_away_pages_are_served_and_people_are_not(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    jar = dict(tab.jar)
    workers[1].broker.disconnect()
    for path in ("/me", "/session", "/page", "/login?user=ann", "/logout", "/comet/open"):
        assert send(tab, workers[1], path).status == 503, path
    assert poll(tab, workers[1]) == 503
    assert send(tab, workers[1], "/nowhere").status == 404
    assert tab.jar == jar
    workers[1].broker.reconnect()
    assert soon(workers[1].comet, lambda: workers[1].broker.connected)
    assert told(tab, workers[1], "/me")["user"] is None


def test_a_worker_that_was_away_hears_of_a_login(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    stolen = dict(tab.jar)
    assert poll(tab, workers[1]) == 200
    workers[1].broker.disconnect()
    told(tab, workers[2], "/login?user=ann")
    workers[1].broker.reconnect()
    assert told(tab, workers[1], "/me")["user"] == "ann"
    thief = Tab(workers[0].address)
    thief.url, thief.jar = tab.url, stolen
    assert poll(thief, workers[1]) == 503


# Shutdown


def test_a_worker_that_stops_closes_no_process(start: Start) -> None:
    one, two = start(count=2)
    with ExitStack() as stack:
        broker = JoinedBroker(one.broker.store)
        third = Worker(broker, SETTINGS)
        third.address = stack.enter_context(serve(third.app))
        tab = Tab(third.address)
        assert send(tab, third, "/keep").status == 204
        assert told(tab, third, "/note") == ["here"]
        held = hold(tab, third)
        in_loop(third.comet, inside(third.comet).drain.begin)  # as the signal to stop does
    assert held.answer().status == 200
    assert third.closed == []
    assert [poll(tab, worker) for worker in (one, two)] == [200, 200]
    assert inside(third.comet).clients.processes() == []


# What the application asks


def test_a_view_asks_everywhere_and_says_what_is_here(workers: Workers) -> None:
    tabs = [Tab(worker.address) for worker in workers]
    assert told(tabs[0], workers[0], "/tabs")[0] == 3
    here = [worker.comet.processes().here for worker in workers]
    assert [len(found) for found in here] == [1, 1, 1]
    found: list[Sequence[ClientProcess]] = []

    async def ask() -> None:
        found.append(await workers[1].comet.processes())

    wait_in_loop(workers[1].comet, ask)
    mine = inside(workers[1].comet).clients.processes()
    assert any(process is mine[0] for process in found[0])
    assert repr(workers[1].comet.processes()).startswith("View([<ClientProcess ")
    assert len(workers[2].comet.sessions()) == 3  # in the thread of the test, which blocks


def test_a_process_is_brought_up_to_date(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    assert told(tab, workers[1], "/me")["user"] is None
    (process,) = workers[1].comet.processes().here
    told(tab, workers[0], "/login?user=ann")
    tab.address = workers[0].address
    assert tab.post(f"{tab.url}/close").status == 204
    wait_in_loop(workers[1].comet, process.refresh)
    assert (process.closed, process.user) == (True, "ann")


@pytest.mark.parametrize("prefetch", ["header", "never"])
def test_a_request_that_is_not_looked_up_beforehand_blocks_in_a_thread(
    start: Start, prefetch: Any
) -> None:
    workers = start(Settings(jitter=0, prefetch=prefetch))
    tab = Tab(workers[0].address)
    assert told(tab, workers[1], "/me")["id"] == id_of(tab, workers[1])
    assert told(tab, workers[1], "/login?user=ann") == ["ann", True]
    answer = send(tab, workers[2], "/me_in_loop")
    assert answer.status == (200 if prefetch == "header" else 500)
    assert send(tab, workers[2], "/me_in_loop", named=False).status == 500


def test_the_error_in_the_loop_is_the_line_to_write(start: Start) -> None:
    (worker,) = start(Settings(jitter=0, prefetch="never"), count=1)
    tab = Tab(worker.address)
    scope = {"type": "http", "headers": [(b"cookie", tab.cookie.encode())], "path": "/"}

    async def ask() -> None:
        with inside(worker.comet).requests.begin(scope):
            with pytest.raises(MustAwait) as raised:
                worker.comet.process()
            assert raised.value.instead == "await anyio.to_thread.run_sync(comet.process)"
            found = await anyio.to_thread.run_sync(worker.comet.process)
            assert not found.closed
            assert worker.comet.session() is not None

    wait_in_loop(worker.comet, ask)


def test_parts_of_a_page_ask_nothing(workers: Workers) -> None:
    tab = Tab(workers[0].address)
    assert send(tab, workers[1], "/me_in_loop", part="script").status == 500
    assert send(tab, workers[1], "/me", part="script").status == 200


# Users


@pytest.mark.parametrize("user", ["ann", 5, UUID(int=5)])
def test_a_user_is_the_same_for_every_worker(workers: Workers, user: Any) -> None:
    tab = Tab(workers[0].address)
    scope = {"type": "http", "headers": [(b"cookie", tab.cookie.encode())], "path": "/"}
    comet = workers[1].comet

    async def login() -> None:
        with inside(comet).requests.begin(scope) as request:
            await request.arrive()
            comet.login(user)
            await request.settle()

    wait_in_loop(comet, login)
    (session,) = workers[2].comet.sessions(user=user)
    assert session.user == user
    assert [process.user for process in session.processes] == [user]


@pytest.mark.parametrize("user", [True, 1.5, ("a", 1), frozenset("a")])
def test_a_user_without_a_spelling_is_refused_at_once(start: Start, user: Any) -> None:
    (worker,) = start(count=1)
    with (
        inside(worker.comet).requests.begin({"type": "http", "headers": [], "path": "/"}),
        pytest.raises(TypeError, match=r"write Comet\(key, user=Type\)"),
    ):
        worker.comet.login(user)


def test_users_of_a_type_of_the_application(start: Start) -> None:
    one, two = start(count=2, user=tuple[str, int])
    for worker in (one, two):
        worker.comet.identify(_pair)
    tab = Tab(one.address)
    assert poll(tab, two) == 200
    (session,) = two.comet.sessions(user=("ann", 1))
    assert session.user == ("ann", 1)
    with (
        inside(one.comet).requests.begin({"type": "http", "headers": [], "path": "/"}),
        pytest.raises(TypeError, match="got str"),
    ):
        one.comet.login("ann")


def _pair(connection: HTTPConnection) -> tuple[str, int]:
    return "ann", 1


# Without a broker


def test_a_strict_worker_without_a_broker_raises_where_others_must_await() -> None:
    comet = Comet(KEY, settings=Settings(strict_shared=True))

    async def main() -> None:
        async with comet.lifespan():
            with pytest.raises(MustAwait, match=r"await comet.processes\(\)"):
                list(comet.processes())
            assert await comet.processes() == []
            assert comet.processes().here == []
            found = await anyio.to_thread.run_sync(lambda: list(comet.sessions()))
            assert found == []

    anyio.run(main)
    with pytest.raises(TypeError, match="got tuple"):
        inside(comet).users.check(("a", 1))


def test_the_functions_for_each_closed_process_run_without_a_broker_too() -> None:
    closed: list[str] = []

    async def main() -> None:
        comet = Comet(KEY)
        comet.on_process_close(closed.append)

        @comet.on_process_close
        async def fail(process: str) -> None:
            raise ValueError(process)

        async with comet.lifespan():
            with inside(comet).requests.begin({"type": "http", "headers": [], "path": "/"}):
                process = comet.open_process()
            process.close()
        assert closed == [process.id]
        with pytest.raises(TypeError, match="expected a function of the id of a client process"):
            comet.on_process_close(lambda: None)  # type: ignore[type-var]  # as a user may
        with pytest.raises(TypeError, match="got int"):
            comet.on_process_close(1)  # type: ignore[type-var]  # as a user may

    anyio.run(main)
