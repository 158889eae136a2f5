"""The sums of the counters are what the clients of each transport have seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from asgi_comet import SITE, Comet
from asgi_comet.testing import wait_for_listeners
from tests.kit.clients import Client
from tests.kit.scraping import scrape, sums
from tests.kit.serving import Address
from tests.kit.workers import Workers


@pytest.fixture
def kind(transport: str) -> str:
    """The label of a client's transport; the Python client speaks WebSocket."""
    return "websocket" if transport == "python" else transport


def encoded(value: Any) -> bytes:
    """A message as it is published."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def test_published_and_delivered_messages_are_counted(
    comet: Comet, server: Address, client: Client, kind: str
) -> None:
    channel = comet.create(scope=SITE, name="c")
    client.follow({"c": "now"})
    wait_for_listeners(channel, 1)
    values: list[Any] = [*range(20), {"text": "ä"}]
    for value in values:
        channel.publish(value)
    assert client.data(len(values)) == values
    found = scrape(server)
    size = sum(map(len, map(encoded, values)))
    assert sums(found, "comet_published_total", "channel") == {"(created)": len(values)}
    assert sums(found, "comet_published_bytes_total", "channel") == {"(created)": size}
    assert sums(found, "comet_delivered_total", "transport") == {kind: len(values)}
    delivered = sums(found, "comet_delivered_bytes_total", "transport")
    assert delivered.keys() == {kind}
    assert delivered[kind] >= size
    while not scrape(server).total("comet_delivery_seconds_count", transport=kind):
        channel.publish("more")  # a busy connection takes messages after the flush
        assert client.data(1) == ["more"]
        client.ensure_connected()
        wait_for_listeners(channel, 1)


def test_each_connection_is_counted_when_it_comes_and_when_it_ends(
    comet: Comet, server: Address, client: Client, kind: str
) -> None:
    channel = comet.create(scope=SITE, name="c")
    client.follow({"c": "now"})
    wait_for_listeners(channel, 1)
    found = scrape(server)
    assert found.total("comet_listeners", transport=kind) == 1
    assert sums(found, "comet_connections_total", "outcome") == {"accepted": client.connected}
    channel.publish("x")
    assert client.data(1) == ["x"]
    client.ensure_connected()
    wait_for_listeners(channel, 1)
    client.cut()
    wait_for_listeners(channel, 0)
    found = scrape(server)
    assert found.total("comet_listeners") == 0
    assert sums(found, "comet_connections_total", "transport") == {kind: client.connected}
    ends = sums(found, "comet_disconnections_total", "reason")
    assert ends.pop("client") == 1
    assert ends == ({} if client.stays else {"answered": client.connected - 1})


def test_what_a_client_missed_is_counted_when_it_is_back(
    workers: Workers, comet: Comet, server: Address, client: Client
) -> None:
    channel = comet.create(scope=SITE, name="c", size=5)
    client.follow({"c": "now"})
    wait_for_listeners(channel, 1)
    channel.publish(0)
    assert client.data(1) == [0]
    client.cut()
    wait_for_listeners(channel, 0)
    workers.store(comet, channel, 1, 2, 3)
    client.resume()
    assert client.data(3) == [1, 2, 3]
    found = scrape(server)
    resumes = sums(found, "comet_resumes_total", "outcome")
    assert (resumes["complete"], resumes.get("full")) == (1, None)
    assert found.total("comet_replayed_messages_count") == 1
    assert found.total("comet_replayed_messages_sum") == 3
    assert sums(found, "comet_gaps_total", "reason") == {}
    client.cut()
    wait_for_listeners(channel, 0)
    workers.store(comet, channel, *range(9))
    client.resume()
    assert client.error() == client.told("full")
    found = scrape(server)
    resumes = sums(found, "comet_resumes_total", "outcome")
    assert (resumes["complete"], resumes["full"]) == (1, 1)
    assert sums(found, "comet_gaps_total", "reason") == {"displaced": 1}
    assert sums(found, "comet_gaps_total", "channel") == {"(created)": 1}
