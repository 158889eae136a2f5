"""docs/operating.md#health without Redis, over real sockets."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp
from websockets.exceptions import InvalidStatus

from asgi_comet import Comet, CometMiddleware, Settings
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timers
from asgi_comet.channels.fanout import Fanout
from asgi_comet.endpoints.health import WORDS
from asgi_comet.lifespan import HEAD_START, LAST, PATIENCE
from asgi_comet.testing import ManualClock, join
from asgi_comet.testing._inspect import inside
from asgi_comet.testing.joined import JoinedBroker
from tests.kit.health import OK, STOPPING, ask, degraded, starting, until
from tests.kit.loop import in_loop, soon
from tests.kit.programs import ROOT
from tests.kit.serving import Address, Tab, poll, serve
from tests.kit.stage import KEY, application
from tests.kit.streams import Ws

Build = Callable[[Comet], ASGIApp]
MakeServer = Callable[..., tuple[Comet, Address]]

PAGE = (ROOT / "docs" / "operating.md").read_text()


def mounted(comet: Comet) -> Starlette:
    return Starlette(routes=[Mount("/comet", comet.app)], lifespan=comet.lifespan)


BUILDS = pytest.mark.parametrize("build", [application, mounted])


@BUILDS
def test_a_worker_that_serves_is_live_and_ready(build: Build) -> None:
    with serve(build(Comet(KEY))) as server:
        assert ask(server, "live") == ask(server, "ready") == OK
        for probe in ("live", "ready"):
            answer = server.request("HEAD", f"/comet/health/{probe}")
            assert (answer.status, answer.body) == (200, b"")
            answer = server.request("POST", f"/comet/health/{probe}")
            assert (answer.status, answer.headers["allow"]) == (405, "GET")


@BUILDS
def test_before_the_start_a_worker_is_live_and_not_ready(build: Build) -> None:
    with serve(build(Comet(KEY)), lifespan="off") as server:
        assert ask(server, "live") == starting("not_started", status=200)
        assert ask(server, "ready") == starting("not_started")
        # Only these two endpoints answer without the lifespan.
        assert server.register("registration=a", "/comet/health/ready").status == 500
        assert server.request("GET", "/comet/comet.js").status == 500


def test_a_supervisor_needs_no_credential_and_no_origin(make_server: MakeServer) -> None:
    _, server = make_server(admin="t" * 32, allowed_origins=["https://app.example.com"])
    for headers in ({"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert ask(server, "live", **headers) == ask(server, "ready", **headers) == OK


def test_a_worker_is_ready_while_push_is_deactivated(make_server: MakeServer) -> None:
    comet, server = make_server()
    comet.activation.deactivate()
    assert ask(server, "live") == ask(server, "ready") == OK


def test_a_websocket_is_refused(make_server: MakeServer) -> None:
    _, server = make_server()
    with pytest.raises(InvalidStatus, match="HTTP 403"):
        Ws(server, "/comet/health/ready")


def test_during_a_drain_a_worker_is_live_and_not_ready() -> None:
    comet = Comet(KEY)

    async def stop(request: Request) -> PlainTextResponse:
        async with comet.lifespan():  # its end is that of the application, inside the middleware
            pass
        return PlainTextResponse("")

    app = Starlette(
        routes=[Route("/stop", stop)], middleware=[Middleware(CometMiddleware, comet=comet)]
    )
    with serve(app) as server:
        assert ask(server, "ready") == OK
        assert server.request("GET", "/stop").status == 200
        assert ask(server, "ready") == STOPPING
        assert ask(server, "live") == (200, STOPPING[1])
    with serve(app) as server:
        assert ask(server, "ready") == OK


# Limits, which clients can fill


@contextmanager
def serving(**limits: Any) -> Iterator[tuple[Comet, Address]]:
    comet = Comet(KEY, settings=Settings(**limits), clock=ManualClock())  # nothing expires

    @comet.channel("room:{room}")
    async def rooms(room: str) -> AsyncIterator[str]:
        yield room
        await anyio.sleep_forever()

    with serve(application(comet)) as server:
        yield comet, server


def fill(setting: str, server: Address, number: int) -> None:
    """Take one more, as any visitor can."""
    if setting == "max_processes":
        Tab(server)
    else:
        poll(server, {f"room:{number}": "now"})


@pytest.mark.parametrize(
    "setting", ["max_processes", "max_family_channels", "max_virtual_channels"]
)
def test_a_limit_that_clients_fill_leaves_a_worker_ready(setting: str) -> None:
    with serving(**{setting: 20}) as (_, server):
        for number in range(18):
            fill(setting, server, number)
        assert ask(server, "ready") == ask(server, "live") == OK
        for number in (18, 19):  # 95 %, and all of it
            fill(setting, server, number)
            assert ask(server, "ready") == ask(server, "live") == degraded(setting)


def test_a_limit_that_all_workers_fill_is_told_by_each() -> None:
    comets = [Comet(KEY, broker=broker, settings=Settings(max_processes=20)) for broker in join(2)]
    with ExitStack() as stack:
        one, two = [stack.enter_context(serve(application(comet))) for comet in comets]
        for _ in range(18):
            Tab(one)
        assert ask(one, "ready") == ask(two, "ready") == OK
        Tab(two)
        assert ask(one, "ready") == ask(two, "ready") == degraded("max_processes")


# A broker that does not tell how long it is away, and tasks


def test_a_worker_whose_broker_tells_no_time_stays_ready_without_it() -> None:
    (broker,) = join(1)
    comet = Comet(KEY, broker=broker, settings=Settings(ready_without_broker=1))
    with serve(application(comet)) as server:
        assert ask(server, "ready") == OK
        in_loop(comet, broker.disconnect)
        until(server, degraded("broker_away"))
        assert ask(server, "live") == degraded("broker_away")
        in_loop(comet, broker.reconnect)
        until(server, OK)


@pytest.mark.parametrize("owner", [Background, Fanout, JoinedBroker, Timers])
def test_a_worker_is_not_live_while_a_task_of_its_own_has_stopped(
    owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, run = [True], owner.run

    async def crash(self: Any) -> None:
        if broken:
            raise LookupError
        await run(self)

    monkeypatch.setattr(owner, "run", crash)
    clock, (broker,) = ManualClock(), join(1)
    comet = Comet(KEY, clock=clock, broker=broker)
    with serve(application(comet)) as server:
        assert ask(server, "live") == degraded("task_stopped", status=503)
        assert ask(server, "ready") == degraded("task_stopped")
        broken.clear()
        clock.advance(1)  # then the task is started again
        assert soon(comet, lambda: not inside(comet).down)
        assert ask(server, "live") == ask(server, "ready") == OK


# The docs


def test_each_word_is_in_the_table_of_the_docs() -> None:
    table = PAGE[PAGE.index("\n| word |") + 1 :].partition("\n\n")[0]
    words = [re.findall(r"`(\w+)`", line.split(" | ")[0]) for line in table.splitlines()[2:]]
    assert [word for row in words for word in row] == [*WORDS]


def test_the_time_for_a_stop_covers_what_the_page_adds_up() -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (\d+) \|$", page, re.MULTILINE)
    (pause, last, head_start, patience, store), together = [int(s) for _, s in rows[:-1]], rows[-1]
    assert (head_start, patience, store) == (HEAD_START, PATIENCE, LAST)
    assert f"sleep: {{seconds: {pause}}}" in page
    assert f'"--timeout-graceful-shutdown", "{last}"' in page
    assert int(together[1]) == pause + last + head_start + patience + store
    (grace,) = re.findall(r"terminationGracePeriodSeconds: (\d+)", page)
    assert int(grace) > int(together[1])


def test_the_probes_of_the_page_are_endpoints(make_server: MakeServer) -> None:
    _, server = make_server()
    paths = re.findall(r"path: (\S+),", (ROOT / "docs" / "kubernetes.md").read_text())
    assert len(paths) == 3
    assert all(server.request("GET", path).status == 200 for path in paths)
