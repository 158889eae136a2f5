"""How many cookies of a request are looked at, and which of them counts."""

from __future__ import annotations

import json
import time

import pytest

from asgi_comet import Comet
from asgi_comet.http.headers import read_headers
from asgi_comet.testing._inspect import inside
from tests.kit.processes import process_of
from tests.kit.serving import Address, Answer, Tab

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def looks(comet: Comet, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The values whose signature was looked at."""
    identity = inside(comet).requests.identity
    unsign, found = identity.unsign_session, list[str]()

    def count(value: str) -> str | None:
        found.append(value)
        return unsign(value)

    monkeypatch.setattr(identity, "unsign_session", count)
    return found


def request(server: Address, path: str, cookie: str, body: str = "") -> Answer:
    return server.request("POST", path, body, {**JSON, "Cookie": cookie})


IDLE = json.dumps({"channels": {"a": "now"}, "idle": True})


@pytest.mark.parametrize(("path", "body"), [("/comet/open", ""), ("/comet/poll", IDLE)])
def test_a_request_costs_four_signatures_whatever_it_carries(
    server: Address, looks: list[str], path: str, body: str
) -> None:
    request(server, path, "; ".join(f"comet=a.b.{n}" for n in range(1000)), body)
    assert looks == [f"a.b.{n}" for n in range(4)]


def test_a_guarded_channel_costs_no_further_look(
    comet: Comet, server: Address, looks: list[str]
) -> None:
    for name in "abc":
        comet.channel(f"{name}:{{x}}", authorize=lambda _, x: comet.session() is not None)(of)
    channels = {f"{name}:1": "now" for name in "abc"}
    body = json.dumps({"channels": channels, "idle": True})
    answer = request(server, "/comet/poll", "comet=x.y.z", body)
    assert answer.body.count(b'"forbidden"') == 3
    assert looks == ["x.y.z"]


async def of(x: str):  # type: ignore[no-untyped-def]  # what a family needs, and never runs
    yield x


def test_the_fourth_cookie_names_the_session_and_a_fifth_does_not(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    planted = "; ".join("comet=planted.by.somebody" for _ in range(3))
    path = f"{tab.url}/poll"
    assert request(server, path, f"{planted}; {tab.cookie}", IDLE).status == 200
    assert request(server, path, f"{planted}; comet=x; {tab.cookie}", IDLE).status == 403


def test_of_two_valid_cookies_that_of_the_tabs_session_counts(
    comet: Comet, server: Address
) -> None:
    tab, attacker = Tab(server), Tab(server)
    for cookies in (f"{attacker.cookie}; {tab.cookie}", f"{tab.cookie}; {attacker.cookie}"):
        assert request(server, f"{tab.url}/poll", cookies, IDLE).status == 200
        assert request(server, f"{tab.url}/ack", cookies, '{"a": "e.1"}').status == 204
    assert request(server, f"{tab.url}/poll", attacker.cookie, IDLE).status == 403
    assert process_of(comet, tab).session is not process_of(comet, attacker).session


def test_many_headers_of_one_name_are_joined_in_linear_time() -> None:
    raw = [(b"cookie", b"x" * 100)] * 50_000
    before = time.thread_time()
    joined = read_headers({"headers": raw})
    assert time.thread_time() - before < 0.5  # one after the other took more than a minute
    assert joined == {b"cookie": b"; ".join([b"x" * 100] * 50_000)}
