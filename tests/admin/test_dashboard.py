"""docs/dashboard.md over real sockets: transports of its own, lists, actions and roles."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from websockets.exceptions import ConnectionClosed

from asgi_comet import SITE, Comet, CometMiddleware, Settings
from asgi_comet.admin.tokens import ROLES, Role
from asgi_comet.errors import Unconfirmed
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import app_of, inside
from tests.kit.operating import TOKEN_OF, TOKENS, bearer, signed_in
from tests.kit.programs import ROOT
from tests.kit.serving import Address, Answer, Tab, poll, serve
from tests.kit.stage import KEY, application
from tests.kit.streams import Sse, Ws

PAGE = (ROOT / "docs" / "dashboard.md").read_text()
JSON = "application/json"
OPERATE, LOOK, CONTENTS = (bearer(TOKEN_OF[role]) for role in ("operate", "look", "contents"))


@pytest.fixture
def comet() -> Comet:
    return Comet(KEY, admin=TOKENS, settings=Settings(jitter=0, max_processes=1))


@pytest.fixture
def server(comet: Comet) -> Iterator[Address]:
    with serve(application(comet)) as server:
        yield server


def post(server: Address, path: str, body: Any = None, **headers: str) -> Answer:
    sent = {"Content-Type": JSON, **(headers or OPERATE)}
    return server.request(
        "POST", f"/comet/admin/{path}", json.dumps({} if body is None else body), sent
    )


def value(answer: Answer) -> Any:
    assert answer.status == 200, answer
    return json.loads(answer.body)


def look(server: Address, *names: str, start: str = "last:600", **headers: str) -> Sse:
    channels: dict[str, str | None] = {f":admin/{name}": start for name in names}
    more: dict[str, Any] = {**(headers or OPERATE)}
    return Sse.open(server, channels, "/comet/admin", **more)


def sample(stream: Sse, name: str = "overview") -> Any:
    """Return the next sample of a channel."""
    while (event := stream.next()).name != f":admin/{name}":
        pass
    return event.value


# The transports


def test_each_transport_of_the_dashboard_serves_its_channels(server: Address) -> None:
    with look(server, "overview") as stream:
        assert sample(stream)["listeners"] == 0  # a dashboard is no listener
        asked = {"channels": {":admin/overview": "last:1"}}
        found = value(post(server, "poll", asked, **LOOK))["events"]
        assert [event["channel"] for event in found] == [":admin/overview"] * 2
        cookie = signed_in(server, TOKEN_OF["look"])["Cookie"]
        with Ws(server, "/comet/admin", cookie, server.url) as ws:
            ws.say(subscribe={":admin/overview": "last:1"})
            assert "position" in ws.next()
            assert ws.next()["data"]["tabs"] == 0


def test_a_poll_is_held_until_the_next_sample(server: Address) -> None:
    first = value(post(server, "poll", {"channels": {":admin/overview": "now"}}, **LOOK))
    (event,) = first["events"]
    asked = {"channels": {":admin/overview": event["position"]}}
    (event,) = value(post(server, "poll", asked, **LOOK))["events"]
    assert event["data"]["active"] is True


def test_the_names_exist_nowhere_else_and_no_others_there(comet: Comet, server: Address) -> None:
    comet.create(scope=SITE, name="news").publish("x")
    unknown = [{"channel": ":admin/overview", "error": "closed", "reason": "unknown"}]
    assert poll(server, {":admin/overview": "last:1"}) == unknown
    tab = Tab(server)
    assert tab.poll({":admin/overview": "last:1"}) == unknown
    names = {"news": "last:1", "~comet": "last:1", ":admin/nothing": "last:1"}
    found = value(post(server, "poll", {"channels": names}, Cookie=tab.cookie, **OPERATE))
    assert {event["channel"]: event["error"] for event in found["events"]} == {
        "news": "closed",
        "~comet": "forbidden",
        ":admin/nothing": "closed",
    }


def test_a_page_is_told_where_the_transports_are(server: Address) -> None:
    opened = value(post(server, "open", **LOOK))
    assert opened["url"] == "/comet/admin"
    assert post(server, "close", **LOOK).status == 204
    assert post(server, "open", Cookie="x=1").status == 401


def test_neither_the_switch_nor_the_limits_concern_the_dashboard(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)  # the only one there may be
    with look(server, "overview") as stream:
        value(post(server, "deactivate", None, **OPERATE))
        while sample(stream)["active"]:
            pass
        assert tab.post(f"{tab.url}/poll", {"channels": {"x": "now"}}).status == 503
        with look(server, "overview", "people") as other:
            assert sample(other, "people") == {"tabs": 1, "users": 0}
        value(post(server, "timeout", {"seconds": 3, "kill": True}))
        while sample(stream)["timeout"] != 3:
            pass
        value(post(server, "activate", None, **OPERATE))
        while not sample(stream)["active"]:
            pass
    figures = value(server.request("GET", "/comet/admin/status", headers=LOOK))
    assert (figures["processes"], figures["listeners"]) == (1, 0)


def test_an_open_websocket_outlives_the_role_of_its_operator_by_minutes_only() -> None:
    clock = ManualClock()
    roles: list[Role] = ["operate"]
    comet = Comet(KEY, admin=lambda _: roles[-1], settings=Settings(jitter=0), clock=clock)
    with serve(application(comet)) as server, Ws(server, "/comet/admin", "", server.url) as ws:
        ws.say(subscribe={":admin/people": "now"})
        assert "position" in ws.next()
        roles.append("look")
        clock.advance(661)
        with pytest.raises(ConnectionClosed) as closed:
            ws.take(1000)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012  # the client comes back
        with Ws(server, "/comet/admin", "", server.url) as again:
            again.say(subscribe={":admin/people": "now"})
            assert again.next()["error"] == "forbidden"


def test_a_page_that_is_loaded_again_gets_the_samples_before(server: Address) -> None:
    with look(server, "overview") as stream:
        first = [sample(stream)["at"], sample(stream)["at"]]
    with look(server, "overview") as stream:
        assert [sample(stream)["at"], sample(stream)["at"]] == first


def test_rates_are_told_from_the_second_sample_on(comet: Comet, server: Address) -> None:
    news = comet.create(scope=SITE, name="news")
    with look(server, "overview", "channels") as stream:
        assert sample(stream)["published"] is None
        for number in range(100):
            news.publish(number)
        assert sample(stream)["published"] > 10
        (row,) = sample(stream, "channels")
        assert (row["name"], row["live"], row["published"]) == ("(created)", 1, 100)


def test_a_dashboard_shows_no_event_of_another_comet_in_the_process() -> None:
    first = Comet(KEY, admin=TOKENS, prefix="/first")
    second = Comet("z" * 32, admin=TOKENS, prefix="/second")

    @first.channel("fails")
    async def fails() -> AsyncIterator[int]:
        raise RuntimeError("a secret of the first")
        yield 1

    def events(server: Address, prefix: str) -> Sse:
        more: dict[str, Any] = OPERATE
        return Sse.open(server, {":admin/events": "last:1000"}, f"{prefix}/admin", **more)

    both = [Middleware(CometMiddleware, comet=comet) for comet in (first, second)]
    with serve(Starlette(middleware=both)) as server:
        evil = {"Origin": "https://evil.example"}
        assert server.request("GET", "/first/events?news=now", headers=evil).status == 403
        with events(server, "/first") as stream:  # of a task, and of a request
            seen = set[str]()
            while not seen >= {"source.failed", "origin.refused"}:
                event = stream.next()
                seen |= {event.value["event"]} if event.name == ":admin/events" else set()
        assert server.request("POST", "/second/admin/deactivate", headers=OPERATE).status == 200
        with events(server, "/second") as stream:
            assert stream.next().name == ":open"
            assert stream.next().value["event"] == "push.deactivated"


# Lists


def test_a_page_of_a_list_is_a_part_of_it(comet: Comet, server: Address) -> None:
    rooms = comet.family("room:{room}", type=str)
    for number in range(300):
        rooms.publish("hello", room=str(number))
    asked = {"of": "room:{room}", "start": 290, "count": 20}
    found = value(post(server, "channels", asked, **LOOK))
    assert (found["total"], found["start"], len(found["rows"])) == (300, 290, 10)
    assert [row["name"] for row in found["rows"]] == [f"room:{n}" for n in range(290, 300)]
    row = {key: found["rows"][0][key] for key in ("held", "top", "bytes", "behind", "source")}
    assert row == {"held": 1, "top": 1, "bytes": 7, "behind": 0, "source": "none"}
    found = value(post(server, "channels", {"of": "room:{room}", "find": "m:29", "start": 1}))
    assert (found["total"], len(found["rows"])) == (11, 10)


def test_the_slowest_reader_is_told(comet: Comet, server: Address) -> None:
    news = comet.create(scope=SITE, name="news")
    with Sse.open(server, ["news"]) as stream:
        assert stream.next().name == ":open"
        asked = {"of": "(created)"}
        (row,) = value(post(server, "channels", asked, **LOOK))["rows"]
        assert (row["name"], row["listeners"], row["source"]) == ("news", 1, "none")
        news.close()
    assert value(post(server, "channels", asked, **LOOK))["total"] == 0
    assert value(post(server, "channels", {"of": "no such"}, **LOOK))["rows"] == []


def test_only_contents_is_told_the_channel_that_has_no_name(comet: Comet, server: Address) -> None:
    secret = comet.create(scope=SITE, type=str)  # who knows the id can read it
    asked: dict[str, Any] = {"of": "(created)"}
    for role in (LOOK, OPERATE):
        answer = post(server, "channels", asked, **role)
        (row,) = value(answer)["rows"]
        assert row["name"].startswith("(unnamed) ")
        assert secret.id.encode() not in answer.body
        # A search does not tell the id, letter by letter.
        for find, total in ((secret.id[:3], 0), (row["name"], 1)):
            assert value(post(server, "channels", asked | {"find": find}, **role))["total"] == total
    (row,) = value(post(server, "channels", asked | {"find": secret.id}, **CONTENTS))["rows"]
    assert row["name"] == secret.id
    secret.publish("hello")
    asked = {"channel": row["name"]}
    (message,) = value(post(server, "messages", asked, **CONTENTS))["messages"]
    assert message["text"] == '"hello"'


def test_tabs_are_listed_by_user_and_browser(make_users: tuple[Comet, Address]) -> None:
    comet, server = make_users
    jars: list[dict[str, str]] = [{}, {}]
    tabs = [Tab(server, jars[0]), Tab(server, jars[1]), Tab(server, jars[0])]
    assert tabs[0].post("/login").status == 200
    found = value(post(server, "people"))
    rows = found["rows"]
    assert [row["user"] for row in rows] == ["<b>ada</b>", "<b>ada</b>", ""]
    assert rows[0]["browser"] == rows[1]["browser"] != rows[2]["browser"]
    assert (found["total"], len({row["tab"] for row in rows})) == (3, 3)
    news = comet.create(scope=SITE, name="news")
    with Sse.open(server, ["news"], tabs[0].url, Cookie=tabs[0].cookie):
        wait_for_listeners(news, 1)
        (row,) = value(post(server, "people", {"count": 1}))["rows"]
        assert (row["transport"], row["channels"], row["away"]) == (["sse"], 1, 0)
    assert value(post(server, "people", {"find": "ADA", "start": 1}))["total"] == 2


def test_a_list_is_bounded(server: Address) -> None:
    wrongs: list[Any] = [
        {"count": 201},
        {"start": -1},
        {"find": "x" * 1001},
        {"more": 1},
        [],
        {"of": 1},
    ]
    for wrong in wrongs:
        answer = post(server, "people", wrong)
        assert answer.status == 400
        assert answer.body.startswith(b"expected ")


def test_messages_are_told_by_position(comet: Comet, server: Address) -> None:
    news = comet.create(scope=SITE, name="news", size=200)
    for number in range(100):
        news.publish(f"<b>{number}</b>")
    asked: dict[str, Any] = {"channel": "news"}
    found = value(post(server, "messages", asked, **CONTENTS))
    assert [one["offset"] for one in found["messages"]] == list(range(51, 101))
    assert found["messages"][-1] == {"offset": 100, "text": '"<b>99</b>"', "size": 11}
    asked |= {"epoch": found["epoch"], "after": found["after"]}
    assert value(post(server, "messages", asked, **CONTENTS))["messages"] == []
    news.publish("x" * 5000)
    (last,) = value(post(server, "messages", asked, **CONTENTS))["messages"]
    assert (last["offset"], last["size"], len(last["text"])) == (101, 5002, 2000)
    assert post(server, "messages", {"channel": "other"}, **CONTENTS).status == 404


# Actions


def test_a_tab_is_closed_and_told_and_loses_a_right(
    comet: Comet, server: Address, caplog: pytest.LogCaptureFixture
) -> None:
    news = comet.create(scope=SITE, name="news")
    tab = Tab(server)
    (row,) = value(post(server, "people"))["rows"]
    position = tab.poll({"~comet": "now"})[0]["position"]
    with caplog.at_level(logging.INFO, "asgi_comet"), look(server, "events") as stream:
        value(post(server, "test-message", {"tab": row["tab"]}))
        assert tab.poll({"~comet": position})[0]["data"] == {"event": "test"}
        with Sse.open(server, ["news"], tab.url, Cookie=tab.cookie) as reader:
            wait_for_listeners(news, 1)
            assert reader.next().name == ":open"
            value(post(server, "revoke", {"tab": row["tab"], "channel": "news"}))
            assert reader.next().name == ":forbidden"
        value(post(server, "close-tab", {"tab": row["tab"]}))
        assert tab.post(f"{tab.url}/poll", {"channels": {"x": "now"}}).status == 410
        assert post(server, "close-tab", {"tab": row["tab"]}).status == 404
        acted: list[str] = []
        while len(acted) < 3:
            event = sample(stream, "events")
            if event["event"] == "admin.acted":
                acted.append(event["action"])
                assert event["operator"].startswith("token ")
        assert acted == ["test-message", "revoke", "close-tab"]
    said = [r.getMessage() for r in caplog.records if r.name == "asgi_comet.admin.acting"]
    assert [text.partition(" by token ")[0] for text in said] == acted


def test_an_action_that_other_workers_do_not_confirm_is_logged(
    comet: Comet,
    server: Address,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unconfirmed(name: str, whom: object) -> int:
        raise Unconfirmed("a worker does not answer")

    Tab(server)
    (row,) = value(post(server, "people"))["rows"]
    monkeypatch.setattr(inside(comet).guard, "revoke", unconfirmed)
    with caplog.at_level(logging.INFO, "asgi_comet.admin"):
        answer = post(server, "revoke", {"tab": row["tab"], "channel": "news"})
    assert (answer.status, b"done in this worker" in answer.body) == (503, True)
    assert "revoke by token " in caplog.text


def test_a_published_message_is_checked_by_the_type(comet: Comet, server: Address) -> None:
    rooms = comet.family("room:{room}", type=int)
    asked = {"channel": "room:7", "data": 5}
    position = value(post(server, "publish", asked))["position"]
    assert position.endswith(".1")
    answer = post(server, "publish", asked | {"data": "five"})
    assert answer.status == 422
    assert rooms.channel(room="7").reference("first")["position"].endswith(".0")
    for name in ("other", "~comet", ":admin/overview", "@room:7"):
        assert post(server, "publish", {"channel": name, "data": 1}).status == 404


def test_a_channel_too_many_is_not_published_on() -> None:
    comet = Comet(KEY, admin=TOKENS, settings=Settings(max_family_channels=1))
    comet.family("room:{room}", type=int)
    with serve(application(comet)) as server, Sse.open(server, ["room:1"]) as stream:
        assert stream.next().name == ":open"
        answer = post(server, "publish", {"channel": "room:2", "data": 1})
        assert answer.status == 503
        assert b"max_family_channels" in answer.body


# Events


def test_a_client_that_missed_messages_and_a_refused_origin_are_events(
    comet: Comet, server: Address
) -> None:
    news = comet.create(scope=SITE, name="news", size=1)
    start = news.reference()["position"]
    for number in range(3):
        news.publish(number)
    assert poll(server, {"news": start})[0]["error"] == "full"
    foreign = {"Origin": "https://elsewhere.example", "Content-Type": JSON}
    assert server.request("POST", "/comet/poll", "{}", foreign).status == 403
    with look(server, "events", "overview") as stream:
        assert sample(stream)["gaps"] == 1
    with look(server, "events") as stream:
        found: dict[str, Any] = {}
        while not {"client.missed", "origin.refused"} <= found.keys():
            event = sample(stream, "events")
            found[event["event"]] = event
    missed = found["client.missed"]
    assert (missed["channel"], missed["reason"], missed["count"]) == ("(created)", "displaced", 1)
    assert found["origin.refused"]["origin"] == "https://elsewhere.example"


# Roles


def cells() -> Iterator[tuple[str, Role, str]]:
    """The request, the role and the cell, for each cell of the table."""
    table = PAGE[PAGE.index("\n| request | `look`") + 1 :].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        request, *found = line.strip("| ").split(" | ")
        for role, cell in zip(ROLES, found, strict=True):
            yield request.strip().strip("`"), role, cell.strip()


CELLS = list(cells())


def test_the_table_has_each_endpoint() -> None:
    dashboard = app_of(Comet(KEY, admin=TOKENS)).dashboard
    assert dashboard is not None
    paths = {(f"{r.methods[0]} " if r.methods else "") + r.path for r in dashboard.routes()}
    expected = {path.replace("/admin", "/comet/admin") for path in paths}
    assert {request for request, _, _ in CELLS} == expected


@pytest.mark.parametrize(
    ("request_", "role", "cell"), [one for one in CELLS if one[0].startswith("POST")]
)
def test_a_role_may_do_what_the_table_says(
    everyone: Address, request_: str, role: Role, cell: str
) -> None:
    path = request_.rpartition("/")[2]
    answer = post(everyone, path, {}, **bearer(TOKEN_OF[role]))
    assert (answer.status == 403) == (cell == "403"), answer
    assert post(everyone, path, {}, **bearer("x" * 32)).status == 403
    assert post(everyone, path, {}, Cookie="x=1").status == 401


def test_a_role_may_follow_what_the_table_says(everyone: Address) -> None:
    rows = re.findall(r"^\| `:admin/(\w+)` \| (\w+) \|", PAGE, re.MULTILINE)
    assert dict(rows).keys() == {"overview", "channels", "workers", "people", "events"}
    for name, cell in rows:
        asked = {"channels": {f":admin/{name}": "now"}}
        (event,) = value(post(everyone, "poll", asked, **LOOK))["events"]
        assert event.get("error") == {"yes": None, "403": "forbidden"}[cell]
        (event,) = value(post(everyone, "poll", asked, **OPERATE))["events"]
        assert "error" not in event
    with Sse.open(everyone, [":admin/overview"], "/comet/admin") as stream:
        assert stream.status == 401


@pytest.fixture(scope="module")
def everyone() -> Iterator[Address]:
    with serve(application(Comet(KEY, admin=TOKENS))) as server:
        yield server


@pytest.fixture
def make_users() -> Iterator[tuple[Comet, Address]]:
    comet = Comet(KEY, admin=TOKENS)

    async def login(request: Request) -> PlainTextResponse:
        comet.login("<b>ada</b>")
        return PlainTextResponse("")

    app = Starlette(routes=[Route("/login", login, methods=["POST"])])
    with serve(CometMiddleware(app, comet=comet)) as server:
        yield comet, server
