"""A session whose user changes: who had the old cookie gains nothing, and the tabs go on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from starlette.requests import HTTPConnection

from asgi_comet import SITE, Comet, Settings
from asgi_comet.identity.process import Claim
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import END_CONNECTIONS, inside
from tests.kit.clients import BROKEN, BY_HAND, Asking, Client, MakeClient, SseClient
from tests.kit.people import WHO, people, send, who
from tests.kit.processes import process_of
from tests.kit.serving import Address, Tab
from tests.kit.workers import Workers, one_worker


@pytest.fixture
def comet(workers: Workers, settings: Settings) -> Comet:
    return workers.make(settings=settings)


@pytest.fixture(params=BY_HAND)
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server(workers: Workers, comet: Comet) -> Iterator[Address]:
    with workers.serve(people, comet) as address:
        yield address


def end(client: Client) -> list[Any]:
    """Read a connection to its end, which must come; return the values that came before it."""
    found: list[Any] = []
    try:
        while True:
            events = client.read()
            found += [event["data"] for event in events if "data" in event]
            if isinstance(client, Asking):
                return found
            if isinstance(client, SseClient) and client.stream is None:
                return found
            if any("error" in event for event in events):
                assert events == [{"error": "restart"}]
                return found
    except BROKEN:
        return found


def refusal(tab: Tab) -> int:
    """The status with which a tab is refused."""
    return tab.post(f"{tab.url}/poll", {"channels": {"~own": "now"}}).status


# By hand


def test_whoever_planted_the_cookie_gains_nothing(
    comet: Comet, server: Address, make_client: MakeClient
) -> None:
    planted = Tab(server)
    victim = Tab(server, dict(planted.jar))  # her browser took the cookie over
    process = process_of(comet, planted)
    own = comet.create(scope=process, name="own")
    theirs = make_client(planted)
    theirs.follow({"~own": "now"})
    wait_for_listeners(own, 1)

    assert send(victim, "/login", "alice").status == 204
    wait_for_listeners(own, 0)
    own.publish("for alice only")

    assert end(theirs) == []
    assert refusal(planted) == 503  # for a moment, as an honest tab would be
    assert victim.jar != planted.jar
    assert [p.user for p in comet.processes(user="alice")] == ["alice", "alice"]


def test_the_tabs_go_on_and_the_others_are_told(
    comet: Comet, server: Address, make_client: MakeClient
) -> None:
    tab = Tab(server)
    other = Tab(server, tab.jar)
    clients = make_client(tab), make_client(other)
    channels = [comet.create(scope=process_of(comet, one), name="own") for one in (tab, other)]
    for client, channel in zip(clients, channels, strict=True):
        client.follow({"~own": "now"})
        wait_for_listeners(channel, 1)
        channel.publish(1)
        assert client.data(1) == [1]
        client.ensure_connected()
        wait_for_listeners(channel, 1)

    assert send(tab, "/login", "alice").status == 204
    for client, channel in zip(clients, channels, strict=True):
        assert end(client) == []
        channel.publish(2)
        assert client.data(1) == [2]
    assert monitor(tab) is None, "the tab that logged in was told of itself"
    assert monitor(other) == {"event": "user-changed"}


def monitor(tab: Tab) -> Any:
    events = tab.poll({"~comet": "new.0"}, idle=True)
    return events[0]["data"] if events else None


def test_a_connection_to_the_site_ends_too(
    comet: Comet, server: Address, make_client: MakeClient
) -> None:
    tab = Tab(server)
    channel = comet.create(scope=SITE, name="news")
    client = make_client(tab)
    client.base = "/comet"
    client.follow({"news": "now"})
    wait_for_listeners(channel, 1)

    assert send(tab, "/login", "alice").status == 204
    wait_for_listeners(channel, 0)
    assert end(client) == []
    client.ensure_connected()
    if not client.positioned:  # it keeps no position there, as in the original
        wait_for_listeners(channel, 1)
    channel.publish("after")
    assert client.data(1) == ["after"]


def test_logout_closes_the_client_processes(
    comet: Comet, server: Address, make_client: MakeClient
) -> None:
    tab = Tab(server)
    assert send(tab, "/login", "alice").status == 204
    process = process_of(comet, tab)
    own = comet.create(scope=process, name="own")
    client = make_client(tab)
    client.follow({"~own": "now"})
    wait_for_listeners(own, 1)
    assert comet.processes(user="alice") == [process]
    before = dict(tab.jar)

    assert send(tab, "/logout").status == 204
    assert client.error() == client.told("process-closed")
    assert process.closed
    assert comet.processes(user="alice") == []
    assert tab.jar != before


@one_worker("a thread changes the id of a session by parts only in the memory of one worker")
def test_nothing_is_read_from_the_moment_that_the_old_cookie_is_worth_nothing(
    comet: Comet, server: Address, make_client: MakeClient
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    own = comet.create(scope=process, name="own")
    client = make_client(tab)
    client.follow({"~own": "now"})
    wait_for_listeners(own, 1)

    def change() -> None:
        inside(comet).clients.replace_id(
            Claim.of(process.session)
        )  # as a thread does before it ends them
        own.publish("for the next")

    inside(comet).loop.run_now(change)
    inside(comet).loop.run_now(partial(END_CONNECTIONS.function, process.session))
    assert end(client) == []


# By the application's own word


def test_the_application_is_asked_when_a_session_connects(
    workers: Workers, comet: Comet, server: Address, make_client: MakeClient
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    own = comet.create(scope=process, name="own")
    other = Tab(server, tab.jar)
    workers.identify(comet, who)
    before = process.session.id
    tab.jar[WHO] = "alice"

    client = make_client(tab)
    client.follow({"~own": "new.0"})
    if isinstance(client, Asking):
        client.read()  # answered at once, for the cookie
        client.ensure_connected()
    wait_for_listeners(own, 1)
    assert process.user == "alice"
    assert process.session.id != before
    own.publish("hers")
    assert client.data(1) == ["hers"]
    # The other tab comes with the old cookie, and with that of the application.
    assert monitor(other) == {"event": "user-changed"}
    assert process_of(comet, other).session.id == process.session.id


def test_who_is_somebody_else_to_the_application_does_not_come_in(
    workers: Workers, comet: Comet, server: Address, make_client: MakeClient
) -> None:
    workers.identify(comet, who)
    planted = Tab(server)
    victim = Tab(server, {**planted.jar, WHO: "alice"})
    assert process_of(comet, victim).user == "alice"
    own = comet.create(scope=process_of(comet, planted), name="own")
    own.publish("for alice only")
    theirs = make_client(planted)
    theirs.follow({"~own": "new.0"})
    assert end(theirs) == []
    assert refusal(planted) == 503
    assert process_of(comet, victim).user == "alice"


def test_an_application_that_fails_changes_nothing_and_the_client_comes_back(
    workers: Workers,
    comet: Comet,
    server: Address,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    own = comet.create(scope=process, name="own")
    own.publish("waiting")
    asked: list[str] = []

    async def fail_once(connection: HTTPConnection) -> str | None:
        asked.append(connection.url.path)
        if len(asked) == 1:
            raise OSError("the database is away")
        return None

    workers.identify(comet, fail_once)
    client = make_client(tab)
    client.follow({"~own": "new.0"})
    assert end(client) == []
    assert client.data(1) == ["waiting"]
    assert "could not say who" in caplog.text
    assert len(asked) == 2
    assert process.user is None
