"""The auction house of examples/auction, over its endpoints; its pages are in tests/browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.kit.serving import serve
from tests.kit.tabs import Browser

Enter = Callable[..., Browser]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE", str(tmp_path_factory.mktemp("auction") / "auction.sqlite"))
        from examples.auction import store

        yield store


@pytest.fixture
def enter(database: Any) -> Iterator[Enter]:
    from examples.auction.main import app

    with database.transaction() as connection:
        connection.execute("DELETE FROM entries")
    with serve(app) as address, ExitStack() as stack:

        def make(user: str | None = None, other: Browser | None = None) -> Browser:
            browser = Browser(address.url, other)
            stack.callback(browser.client.close)
            if user is not None:
                assert browser.send("POST", f"/login/{user}").status_code == 303
            return browser

        yield make


def load(browser: Browser) -> dict[str, dict[str, str]]:
    """Load the page of room 1; return the references in it."""
    page = browser.client.get("/rooms/1").raise_for_status()
    assert page.headers["cache-control"] == "no-store"
    (found,) = re.findall(r'id="comet">(.*?)</script>', page.text)
    channels: dict[str, dict[str, str]] = json.loads(found)["channels"]
    return channels


def test_a_room_is_for_its_members(enter: Enter) -> None:
    ada, eve, visitor = enter("ada"), enter("eve"), enter()
    for one in (eve, visitor):
        for path in ("", "/history", "/board"):
            assert one.client.get(f"/rooms/1{path}").status_code == 403
        assert one.send("POST", "/rooms/1/said", "let me in").status_code == 403
        assert one.send("POST", "/rooms/1/bids", 1).status_code == 403
        assert one.send("POST", "/rooms/1/appraisal").status_code == 403
        assert one.next("room:1") == "forbidden"
    assert ada.client.get("/rooms/9").status_code == 403
    ada.positions["room:1"] = load(ada)["room"]["position"]
    assert ada.send("POST", "/rooms/1/said", "hello").status_code == 201
    assert ada.next("room:1") == {"type": "said", "id": 1, "user": "ada", "text": "hello"}


def test_a_bid_is_higher_than_those_before_and_tells_who_held_the_highest(enter: Enter) -> None:
    ada, bob = enter("ada"), enter("bob")
    ada.positions["user:ada"] = bob.positions["user:bob"] = "last:9"

    def bid(one: Browser, amount: int) -> int:
        return one.send("POST", "/rooms/1/bids", amount).status_code

    assert [bid(ada, 10), bid(ada, 11), bid(bob, 20)] == [201, 201, 201]
    assert [bid(ada, 20), bid(ada, 0)] == [409, 422]
    lot = "A brass sextant, about 1810"
    assert ada.next("user:ada") == {"type": "outbid", "lot": lot, "amount": 20}
    assert bob.next("user:ada") == "forbidden"
    assert bid(ada, 30) == 201
    assert bob.next("user:bob") == {"type": "outbid", "lot": lot, "amount": 30}
    history = ada.client.get("/rooms/1/history").json()
    assert history["highest"] == {"type": "bid", "id": 4, "user": "ada", "amount": 30}
    assert [entry["amount"] for entry in history["entries"]] == [10, 11, 20, 30]


def test_an_appraisal_is_read_by_its_tab_and_ends(
    enter: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.auction.main.PACE", 0)
    ada = enter("ada")
    reference = ada.send("POST", "/rooms/1/appraisal").json()
    assert reference["url"] == ada.tab["url"]
    name = reference["channel"]
    ada.positions[name] = reference["position"]
    told = []
    while (value := ada.next(name)) != "closed":
        told.append(value)
    assert told == list(range(0, 101, 5))
