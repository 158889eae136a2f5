"""The registration protocol at a client process, served by another worker at each request."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

from asgi_comet.brokers.people import Found
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import feed_of
from tests.kit.faults import CuttingProxy
from tests.kit.own import Worker, Workers, open_tab, serving
from tests.kit.serving import COMET, Answer, Held
from tests.kit.workers import own_workers

pytestmark = own_workers("three workers on a store in memory, whose frames the tests hold back")

BROKEN = (OSError, http.client.HTTPException)


class OldPage:
    """A page that speaks the old protocol, each request to the next worker."""

    def __init__(self, workers: Workers) -> None:
        self.tab = open_tab(workers)
        self.workers = cycle(workers)

    def register(self, *names: str, number: int | None = None) -> Answer:
        return self.register_at(next(self.workers), *names, number=number)

    def register_at(self, worker: Worker, *names: str, number: int | None = None) -> Answer:
        self.tab.address = worker.address
        body = "registration=" + "%0A".join(names)
        if number is not None:
            body += f"&number={number}"
        return self.tab.post(f"{self.tab.url}/poll", body, COMET)

    def hold(self, worker: Worker, *names: str, number: int | None = None) -> Held:
        return Held(lambda: self.register_at(worker, *names, number=number))


@pytest.fixture
def workers() -> Iterator[Workers]:
    with serving(sites=["ticker", "other"]) as made:
        yield made


@pytest.fixture
def page(workers: Workers) -> OldPage:
    return OldPage(workers)


def test_every_message_of_own_and_site_channels_once_and_in_order(
    workers: Workers, page: OldPage
) -> None:
    inbox = workers[0].make(page.tab, "inbox")
    ticker = workers[1].sites["ticker"]
    workers[0].stored(inbox, "m0")
    found = page.register("~inbox", "ticker", number=0).pairs
    for number in range(1, 10):
        workers[0].stored(inbox, f"m{number}")
        workers[1].stored(ticker, f"t{number}")
        found += page.register("~inbox", "ticker", number=number).pairs
    assert [pair for pair in found if pair.startswith(b"~")] == [
        f"~inbox:m{number}".encode() for number in range(10)
    ]
    assert [pair for pair in found if pair.startswith(b"t")] == [
        f"ticker:t{number}".encode() for number in range(1, 10)
    ]


def test_the_same_number_at_another_worker_repeats_the_answer(
    workers: Workers, page: OldPage
) -> None:
    inbox = workers[0].make(page.tab, "inbox")
    ticker = workers[1].sites["ticker"]
    workers[0].stored(inbox, "first")
    assert page.register("~inbox", "ticker", number=0).pairs == [b"~inbox:first"]
    workers[0].stored(inbox, "second")
    workers[0].stored(ticker, "tick")
    answer = page.register("~inbox", "ticker", number=1)
    assert answer.pairs == [b"~inbox:second", b"ticker:tick"]
    workers[0].stored(inbox, "third")
    for _ in range(3):
        assert page.register("~inbox", "ticker", number=1).body == answer.body
    assert page.register("~inbox", "ticker", number=2).pairs == [b"~inbox:third"]


def test_nothing_is_lost_if_answers_are_cut_at_every_byte(workers: Workers, page: OldPage) -> None:
    inbox = workers[0].make(page.tab, "inbox")
    seen: list[bytes] = []
    with contextlib.ExitStack() as stack:
        proxies = [stack.enter_context(CuttingProxy(w.address).run()) for w in workers]
        turns = cycle(proxies)
        for number in range(3):
            workers[0].stored(inbox, f"m{number}")
            cut = 0
            while True:
                proxy = next(turns)
                proxy.limit = cut
                page.tab.address = proxy.address
                body = f"registration=~inbox&number={number}"
                with contextlib.suppress(*BROKEN):
                    seen += page.tab.post(f"{page.tab.url}/poll", body, COMET).pairs
                    break
                cut += 1
            assert cut > 100
    assert seen == [f"~inbox:m{number}".encode() for number in range(3)]


def test_a_channel_is_read_from_the_first_request_on_even_if_that_was_cut(
    workers: Workers, page: OldPage
) -> None:
    ticker = workers[1].sites["ticker"]
    body = "registration=ticker&number=0"
    with workers[1].address.connect() as connection:
        connection.sendall(
            f"POST {page.tab.url}/poll HTTP/1.1\r\nHost: a\r\nContent-Type: {COMET}\r\n"
            f"Cookie: {page.tab.cookie}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_for_listeners(ticker, 1)
    wait_for_listeners(ticker, 0)
    workers[0].stored(workers[0].sites["ticker"], "meanwhile")
    page.tab.address = workers[2].address
    assert page.register_at(workers[2], "ticker", number=0).pairs == [b"ticker:meanwhile"]


def test_a_request_at_another_worker_replaces_the_held_one(workers: Workers, page: OldPage) -> None:
    ticker = workers[1].sites["ticker"]
    held = page.hold(workers[1], "ticker", number=0)
    wait_for_listeners(ticker, 1)
    again = page.hold(workers[2], "ticker", number=0)
    assert (held.answer().status, held.answer().body) == (200, b"")
    wait_for_listeners(workers[2].sites["ticker"], 1)
    workers[0].stored(workers[0].sites["ticker"], "tick")
    assert again.answer().pairs == [b"ticker:tick"]


def test_what_is_made_later_and_what_has_gone(workers: Workers, page: OldPage) -> None:
    ticker = workers[0].sites["ticker"]
    held = page.hold(workers[0], "~inbox", "ticker", number=0)
    wait_for_listeners(ticker, 1)
    workers[0].stored(ticker, "tick")
    assert held.answer().pairs == [b"ticker:tick"]
    inbox = workers[1].make(page.tab, "inbox")
    workers[1].stored(inbox, "first")
    assert page.register_at(workers[2], "~inbox", "ticker", number=1).pairs == [b"~inbox:first"]
    inbox.close()
    assert page.register_at(workers[0], "~inbox", "ticker", number=2).pairs == [
        b"~inbox:ENDED_CHANNEL"
    ]


def test_a_channel_that_is_left_for_a_while_goes_on_where_it_was(
    workers: Workers, page: OldPage
) -> None:
    ticker, other = workers[0].sites["ticker"], workers[0].sites["other"]
    held = page.hold(workers[0], "ticker", "other", number=0)
    wait_for_listeners(ticker, 1)
    workers[0].stored(other, "o1")
    assert held.answer().pairs == [b"other:o1"]
    workers[0].stored(ticker, "t1")
    workers[0].stored(other, "o2")
    assert page.register_at(workers[1], "other", number=1).pairs == [b"other:o2"]
    assert page.register_at(workers[2], "ticker", number=2).pairs == [b"ticker:t1"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_log_of_another_epoch_is_told_as_ended(
    workers: Workers, page: OldPage, number: int
) -> None:
    inbox = workers[0].make(page.tab, "inbox")
    workers[0].stored(inbox, "before")
    assert page.register("~inbox", number=0).pairs == [b"~inbox:before"]
    key = f"{workers[0].process_of(page.tab).id}\n~inbox"
    workers[0].broker.store.renew(key, tell=True)
    assert page.register("~inbox", number=number).pairs == [b"~inbox:ENDED_CHANNEL"]
    workers[0].stored(inbox, "after")
    assert page.register("~inbox", number=2).pairs == [b"~inbox:after"]


def test_without_the_broker_the_page_comes_back(workers: Workers, page: OldPage) -> None:
    workers[1].broker.disconnect()
    answer = page.register_at(workers[1], "ticker", number=0)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    workers[1].broker.reconnect()


def test_at_the_endpoint_of_the_site_own_channels_are_read_from_now_on(
    workers: Workers, page: OldPage
) -> None:
    process = workers[0].make_default(workers[0].process_of(page.tab).session.id)
    inbox = workers[0].known(workers[0].comet.create(scope=process, name="inbox"))
    workers[0].stored(inbox, "old")
    page.tab.address = workers[1].address
    held = Held(lambda: page.tab.post("/comet/poll", "registration=~inbox", COMET))
    while process.id not in workers[1].broker.store.readers:
        workers[1].address.request("GET", "/comet/comet.js")
    workers[0].stored(inbox, "new")
    assert held.answer().pairs == [b"~inbox:new"]
    assert feed_of(inbox).spec.owner == process.id


def test_a_state_that_is_too_large_is_refused(
    workers: Workers, page: OldPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_comet.transports.remembered.STATE_LIMIT", 80)
    inbox = workers[0].make(page.tab, "inbox")
    workers[0].stored(inbox, "m")
    answer = page.register("~inbox", number=0)
    assert (answer.status, answer.headers["retry-after"]) == (503, "30")


def test_a_page_whose_process_closes_while_it_claims_is_told_so(
    workers: Workers, page: OldPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers[0].make(page.tab, "inbox")
    people, process = workers[1].broker.shared_people, workers[1].process_of(page.tab)
    claim = people.claim

    async def close(*arguments: Any) -> dict[str, Found]:
        found = await claim(*arguments)
        process.end()
        return found

    monkeypatch.setattr(people, "claim", close)
    assert page.register_at(workers[1], "~inbox", number=0).status == 410


def test_a_page_that_claims_while_the_operator_switches_off_is_told_so(
    workers: Workers, page: OldPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = workers[0].make(page.tab, "inbox")
    workers[0].stored(inbox, "m")
    people, activation = workers[1].broker.shared_people, workers[1].comet.activation
    claim = people.claim

    async def switch_off(*arguments: Any) -> dict[str, Found]:
        found = await claim(*arguments)
        activation.deactivate()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(people, "claim", switch_off)
        assert page.register_at(workers[1], "~inbox", number=0).status == 503
    activation.activate()
    assert page.register("~inbox", number=0).pairs == [b"~inbox:m"]


def test_a_page_that_another_request_replaces_while_the_state_is_stored(
    workers: Workers, page: OldPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(process: str, reader: int, state: bytes) -> bool:
        return False

    inbox = workers[0].make(page.tab, "inbox")
    workers[0].stored(inbox, "m")
    with monkeypatch.context() as patch:
        patch.setattr(workers[1].broker.shared_people, "save", refuse)
        answer = page.register_at(workers[1], "~inbox", number=0)
        assert (answer.status, answer.pairs) == (200, [])
    assert page.register("~inbox", number=0).pairs == [b"~inbox:m"]
