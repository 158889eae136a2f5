"""The recipe of docs/history.md: load from a database, then follow; no gap, no duplicate."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.serving import Address, poll, serve

COUNT = 100
TEXT = {"Content-Type": "text/plain"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with pytest.MonkeyPatch.context() as patch:
        database: Path = tmp_path_factory.mktemp("history") / "messages.sqlite"
        patch.setenv("DATABASE", str(database))
        from examples import history

    with serve(history.app) as server:
        yield server


def load(server: Address) -> tuple[dict[str, str], list[int]]:
    found = json.loads(server.request("GET", "/history").body)
    return found["reference"], [message["id"] for message in found["messages"]]


def follow(server: Address, position: str, shown: list[int], last: int) -> int:
    """Do what the page does, until the last message; tell how many were dropped."""
    dropped = 0
    while last not in shown:
        events: list[dict[str, Any]] = poll(server, {"messages": position})
        for event in events:
            position = event["position"]
            if event["data"]["id"] in shown:
                dropped += 1
            else:
                shown.append(event["data"]["id"])
    return dropped


def test_pages_that_load_while_messages_come_miss_none_and_show_none_twice(
    address: Address,
) -> None:
    publisher = threading.Thread(
        target=lambda: [address.request("POST", "/messages", "x", TEXT) for _ in range(COUNT)]
    )
    publisher.start()
    pages = []
    while publisher.is_alive():
        pages.append(load(address))
    publisher.join()
    last = load(address)[1][-1]
    for reference, shown in pages:
        follow(address, reference["position"], shown, last)
        assert shown == list(range(shown[0] if shown else last, last + 1))
    assert len(pages) > 10


def test_a_message_committed_before_and_published_after_the_history_was_read_is_dropped(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples import history

    publish, pages = history.messages.publish, []

    def publish_after_a_page_was_loaded(message: Any) -> Any:
        pages.append(load(address))
        return publish(message)

    monkeypatch.setattr(
        type(history.messages), "publish", lambda _, m: publish_after_a_page_was_loaded(m)
    )
    posted = json.loads(address.request("POST", "/messages", "y", TEXT).body)["id"]
    ((reference, shown),) = pages
    assert shown[-1] == posted
    (event,) = poll(address, {"messages": reference["position"]})
    assert event["data"]["id"] == posted
