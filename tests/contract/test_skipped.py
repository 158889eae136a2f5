"""Messages that a client was told to skip: the position that it goes on from acknowledges none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from asgi_comet import Channel, Comet, Delivery, Outcome, Settings
from asgi_comet.testing._inspect import feed_of
from tests.kit.clients import Client, PollClient, SseClient, WebSocketClient
from tests.kit.loop import outcome, wait_in_loop
from tests.kit.own import open_tab, serving
from tests.kit.processes import process_of
from tests.kit.serving import Address, Tab
from tests.kit.workers import one_worker, own_workers

KNOWN = [Outcome.SUCCESS, Outcome.SUCCESS, Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.SUCCESS]


class Inbox:
    """A channel of a tab that holds two messages; its messages, and what became of them.

    Attributes:
        addresses: Where the tab asks next: one worker after the other.
    """

    def __init__(self, comet: Comet, channel: Channel[int], tab: Tab, addresses: list[Address]):
        self.comet, self.channel, self.tab = comet, channel, tab
        self.addresses: Iterator[Address] = iter(addresses)
        self.deliveries: list[Delivery] = []

    def publish(self, *values: int) -> None:
        for value in values:
            delivery = self.channel.publish(value)
            wait_in_loop(self.comet, delivery.stored)
            self.deliveries.append(delivery)

    def follow(self, kind: type[Client], position: str) -> Client:
        client = kind(self.tab, next(self.addresses))
        client.begin({"~inbox": position})
        return client

    def acknowledge(self, client: Client) -> None:
        client.cut()
        answer = self.tab.post(f"{self.tab.url}/ack", {"~inbox": client.positions["~inbox"]})
        assert answer.status == 204

    def skip(self, kind: type[Client]) -> None:
        """Let the client have the first two messages and the last one of five."""
        self.publish(0, 1)
        client = self.follow(kind, "new.0")
        assert client.data(1) == [0]
        first = client.positions["~inbox"]
        assert client.data(1) == [1]
        self.acknowledge(client)
        self.publish(2, 3)
        client = self.follow(kind, first)
        assert client.error() == ("full", None)
        self.acknowledge(client)
        self.publish(4)
        client = self.follow(kind, client.positions["~inbox"])
        assert client.data(1) == [4]
        self.acknowledge(client)

    def outcomes(self) -> list[Outcome]:
        return [outcome(self.comet, lambda one=one: one) for one in self.deliveries]  # type: ignore[misc]


@pytest.fixture(params=[PollClient, SseClient, WebSocketClient])
def kind(request: pytest.FixtureRequest) -> type[Client]:
    found: type[Client] = request.param
    return found


def test_what_was_skipped_is_unknown_for_good(
    comet: Comet, server: Address, tab: Tab, kind: type[Client]
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="inbox", size=2, type=int)
    inbox = Inbox(comet, channel, tab, [server] * 3)
    inbox.skip(kind)
    assert inbox.outcomes() == KNOWN


@own_workers("three workers on a store in memory")
@pytest.mark.parametrize("publisher", [0, 1, 2])
def test_what_was_skipped_at_one_worker_is_unknown_at_all(
    publisher: int, kind: type[Client]
) -> None:
    with ExitStack() as stack:
        workers = stack.enter_context(serving(settings=Settings(jitter=0, timeout=0.3)))
        tab = open_tab(workers)
        worker = workers[publisher]
        channel = worker.make(tab, "inbox", size=2)
        inbox = Inbox(worker.comet, channel, tab, [one.address for one in workers])
        inbox.skip(kind)
        assert inbox.outcomes() == KNOWN


def begin_late(inbox: Inbox, kind: type[Client], start: str) -> list[Outcome]:
    """Let the client begin after two messages, and acknowledge two more; return all outcomes."""
    inbox.publish(0, 1)
    before = [2] if start == "last:1" else []
    inbox.publish(*before)
    client = inbox.follow(kind, start)
    assert client.next()["channel"] == "~inbox"  # where it begins
    assert client.data(len(before)) == before
    inbox.acknowledge(client)
    inbox.publish(3)
    client = inbox.follow(kind, client.positions["~inbox"])
    assert client.data(1) == [3]
    inbox.acknowledge(client)
    return inbox.outcomes()


BEGUN = {
    "now": [Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.SUCCESS],
    "last:1": [Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.SUCCESS, Outcome.SUCCESS],
}


@pytest.mark.parametrize("start", BEGUN)
def test_what_a_client_did_not_ask_for_is_not_taken_for_acknowledged(
    comet: Comet, server: Address, tab: Tab, kind: type[Client], start: str
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="inbox", type=int)
    inbox = Inbox(comet, channel, tab, [server] * 2)
    assert begin_late(inbox, kind, start) == BEGUN[start]


@own_workers("three workers on a store in memory")
@pytest.mark.parametrize("publisher", [0, 1, 2])
@pytest.mark.parametrize("start", BEGUN)
def test_what_a_client_did_not_ask_for_is_not_acknowledged_at_any_worker(
    publisher: int, kind: type[Client], start: str
) -> None:
    with ExitStack() as stack:
        workers = stack.enter_context(serving(settings=Settings(jitter=0, timeout=0.3)))
        tab = open_tab(workers)
        worker = workers[publisher]
        channel = worker.make(tab, "inbox", size=10)
        inbox = Inbox(worker.comet, channel, tab, [one.address for one in workers])
        assert begin_late(inbox, kind, start) == BEGUN[start]


@pytest.mark.parametrize("kind", [SseClient, WebSocketClient], indirect=True)
@one_worker("the store would give the message again")
def test_what_a_stream_is_told_to_skip_is_no_failure(
    comet: Comet, server: Address, tab: Tab, kind: type[Client]
) -> None:
    inbox = comet.create(scope=process_of(comet, tab), name="inbox")
    client = kind(tab, server)
    client.begin({"~inbox": "now"})
    client.next()

    def lose() -> Delivery:
        delivery = inbox.publish("lost")
        feed_of(inbox).drop()
        return delivery

    assert outcome(comet, lose) is Outcome.UNKNOWN
    assert client.error() == ("full", None)
    client.cut()
