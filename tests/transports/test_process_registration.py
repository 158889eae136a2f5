"""The registration protocol at a client process: nothing is lost between two requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from asgi_comet import SITE, Channel, Comet, Outcome, Session, Settings
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.identity.process import Claim
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import client_of, feed_of, inside
from tests.kit.clients import PollClient
from tests.kit.loop import outcome
from tests.kit.registering import OldPage
from tests.kit.serving import COMET, Address, Held, Tab

MakeServer = Callable[..., tuple[Comet, Address]]


@pytest.fixture
def page(comet: Comet, server: Address) -> OldPage:
    return OldPage(comet, server)


@pytest.fixture
def ticker(comet: Comet, page: OldPage) -> Channel[str]:
    """A site channel that the page has registered once, so that its position is kept."""
    channel = comet.channels.create("ticker")
    held = page.hold("ticker", number=0)
    wait_for_listeners(channel, 1)
    channel.write("0")
    assert held.answer().body == b"ticker:0"
    return channel


def test_what_is_written_between_two_requests_comes_with_the_next(
    page: OldPage, ticker: Channel[str]
) -> None:
    ticker.write("1")
    ticker.write("2")
    assert page.register("ticker", number=1).pairs == [b"ticker:1", b"ticker:2"]
    ticker.write("3")
    assert page.register("ticker", number=2).pairs == [b"ticker:3"]


def test_the_same_number_again_repeats_the_last_answer_a_new_one_acknowledges_it(
    page: OldPage, ticker: Channel[str]
) -> None:
    ticker.write("1")
    first = page.register("ticker", number=1)
    ticker.write("2")
    for _ in range(3):
        assert page.register("ticker", number=1).body == first.body == b"ticker:1"
    assert page.register("ticker", number=2).pairs == [b"ticker:2"]
    assert page.register("ticker", number=2).pairs == [b"ticker:2"]


def test_without_a_number_the_next_request_acknowledges(
    page: OldPage, ticker: Channel[str]
) -> None:
    ticker.write("1")
    assert page.register("ticker").pairs == [b"ticker:1"]
    ticker.write("2")
    assert page.register("ticker").pairs == [b"ticker:2"]


def test_a_request_that_was_cut_while_held_goes_on_with_the_same_number(
    comet: Comet, page: OldPage, ticker: Channel[str]
) -> None:
    with page.tab.address.connect() as connection:
        body = "registration=ticker&number=1"
        connection.sendall(
            f"POST {page.tab.url}/poll HTTP/1.1\r\nHost: a\r\nContent-Type: {COMET}\r\n"
            f"Cookie: {page.tab.cookie}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_for_listeners(ticker, 1)
    wait_for_listeners(ticker, 0)
    ticker.write("1")
    assert page.register("ticker", number=1).pairs == [b"ticker:1"]


def test_an_empty_answer_is_repeated_too(make_server: MakeServer) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    page = OldPage(comet, server)
    channel = comet.channels.create("ticker")
    held = page.hold("ticker", number=1)
    wait_for_listeners(channel, 1)
    clock.advance(20.2)
    assert held.answer().body == b""
    channel.write("x")
    assert page.register("ticker", number=1).body == b""
    assert page.register("ticker", number=2).body == b"ticker:x"


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "", "1" * 17])
def test_a_number_that_is_none_is_400(page: OldPage, number: str) -> None:
    answer = page.register("ticker", number=number)
    assert answer.status == 400
    assert answer.body.startswith(b"expected number to be at most 16 digits")


def test_the_process_own_channels_can_be_registered(comet: Comet, page: OldPage) -> None:
    inbox = comet.create(scope=page.process, name="inbox")
    inbox.publish("héllo")
    inbox.publish({"n": 1})
    assert page.register("~inbox", number=1).pairs == [
        b"~inbox:h%C3%A9llo",
        b"~inbox:%7B%22n%22%3A1%7D",
    ]
    assert len(feed_of(inbox).history) == 2
    held = page.hold("~inbox", number=2)
    wait_for_listeners(inbox, 1)
    assert len(feed_of(inbox).history) == 0  # acknowledged
    inbox.publish("more")
    assert held.answer().pairs == [b"~inbox:more"]


def test_a_process_channel_that_does_not_exist_yet_is_waited_for(
    comet: Comet, page: OldPage, ticker: Channel[str]
) -> None:
    held = page.hold("~inbox", "ticker", number=1)
    wait_for_listeners(ticker, 1)
    inbox = comet.create(scope=page.process, name="inbox")
    inbox.publish("first")
    assert held.answer().pairs == [b"~inbox:first"]


def test_a_process_channel_made_between_two_requests_is_read_from_its_first_message(
    comet: Comet, page: OldPage, ticker: Channel[str]
) -> None:
    held = page.hold("~inbox", "ticker", number=1)
    wait_for_listeners(ticker, 1)
    ticker.write("1")
    assert held.answer().pairs == [b"ticker:1"]
    comet.create(scope=page.process, name="inbox").publish("first")
    assert page.register("~inbox", "ticker", number=2).pairs == [b"~inbox:first"]


def test_a_process_channel_that_came_and_went_between_is_told_as_ended(
    make_server: MakeServer,
) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    page = OldPage(comet, server)
    ticker = comet.channels.create("ticker")
    held = page.hold("~inbox", "ticker", number=1)
    wait_for_listeners(ticker, 1)
    ticker.write("1")
    held.answer()
    comet.create(scope=page.process, name="inbox").close()
    while len(inside(comet).background):  # until the server's thread has begun to count
        page.tab.poll({"ticker": "now"})
    clock.advance(10.3)
    while client_of(page.process).place.directory.find("~inbox") is not None:
        pass  # until the sweeper has come by
    assert page.register("~inbox", "ticker", number=2).pairs == [b"~inbox:ENDED_CHANNEL"]


def test_a_channel_made_anew_between_two_requests_is_told_as_ended_then_followed(
    comet: Comet, page: OldPage, ticker: Channel[str]
) -> None:
    ticker.close()
    again = comet.channels.create("ticker")
    again.write("of another epoch")
    assert page.register("ticker", number=1).pairs == [b"ticker:ENDED_CHANNEL"]
    held = page.hold("ticker", number=2)
    wait_for_listeners(again, 1)
    again.write("x")
    assert held.answer().pairs == [b"ticker:x"]


def test_a_channel_that_is_gone_is_told_as_ended(
    comet: Comet, page: OldPage, ticker: Channel[str]
) -> None:
    ticker.write("1")
    ticker.close()
    assert page.register("ticker", "nothing", number=1).pairs == [
        b"ticker:1",
        b"ticker:ENDED_CHANNEL",
        b"nothing:ENDED_CHANNEL",
    ]


def test_behind_the_history_is_told_as_ended(make_server: MakeServer) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=2))
    page = OldPage(comet, server)
    channel = comet.channels.create("ticker")
    held = page.hold("ticker", number=0)
    wait_for_listeners(channel, 1)
    channel.write("0")
    held.answer()
    for n in range(3):
        channel.write(str(n))
    assert page.register("ticker", number=1).pairs == [b"ticker:ENDED_CHANNEL"]


def test_an_answer_is_cut_to_size_and_the_rest_comes_with_the_next(
    make_server: MakeServer,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, answer_bytes=1000))
    page = OldPage(comet, server)
    inbox = comet.create(scope=page.process, name="inbox")
    for n in range(5):
        inbox.publish(str(n) * 398)
    seen, number = list[bytes](), 0
    while len(seen) < 5:
        number += 1
        found = page.register("~inbox", number=number).pairs
        assert 1 <= len(found) <= 2
        seen += found
    assert seen == [b"~inbox:" + str(n).encode() * 398 for n in range(5)]


def test_an_on_demand_channel_is_read_as_the_client_asks(comet: Comet, page: OldPage) -> None:
    taken: list[int] = []

    async def unread() -> AsyncIterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    comet.create_unlimited(unread(), scope=page.process, name="unread")
    for n in range(3):
        assert page.register("~unread", number=n).pairs == [f"~unread:{n}".encode()]
        assert taken == list(range(n + 1))


def test_a_newer_request_replaces_the_older_and_nothing_is_lost(
    page: OldPage, ticker: Channel[str]
) -> None:
    older = page.hold("ticker", number=1)
    wait_for_listeners(ticker, 1)
    newer = page.hold("ticker", number=2)
    assert older.answer().body == b""
    wait_for_listeners(ticker, 1)
    ticker.write("1")
    assert newer.answer().pairs == [b"ticker:1"]


def test_a_closed_process_is_410_and_empty(page: OldPage, ticker: Channel[str]) -> None:
    held = page.hold("ticker", number=1)
    wait_for_listeners(ticker, 1)
    page.process.close()
    for answer in (held.answer(), page.register("ticker", number=2)):
        assert (answer.status, answer.body) == (410, b"")


def test_deactivated_while_held_is_503_and_loses_nothing(
    comet: Comet, page: OldPage, ticker: Channel[str]
) -> None:
    held = page.hold("ticker", number=1)
    wait_for_listeners(ticker, 1)
    comet.activation.deactivate()
    assert held.answer().status == 503
    ticker.write("meanwhile")
    assert page.register("ticker", number=1).status == 503
    comet.activation.activate()
    assert page.register("ticker", number=1).pairs == [b"ticker:meanwhile"]


def test_a_client_with_only_the_cookie_registers_channels_of_its_default_process(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    (session,) = inside(comet).clients.sessions()
    default = inside(comet).clients.default(Claim.of(Session(session.id))).process
    inbox = comet.create(scope=default, name="inbox", size=2)
    held = Held(lambda: tab.post("/", "registration=~inbox", COMET))
    wait_for_listeners(inbox, 1)
    inbox.publish("x")
    assert held.answer().pairs == [b"~inbox:x"]
    for _ in range(5):  # nobody keeps a position here, so what nobody heard may go
        held = Held(lambda: tab.post("/", "registration=~inbox", COMET))
        wait_for_listeners(inbox, 1)
        inbox.publish("y")
        assert held.answer().pairs == [b"~inbox:y"]
        inbox.publish("between")
    assert feed_of(inbox).readable
    assert server.register("registration=~inbox").pairs == [b"~inbox:ENDED_CHANNEL"]


def test_a_default_processes_channel_that_does_not_exist_yet_is_waited_for(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    (session,) = inside(comet).clients.sessions()
    default = inside(comet).clients.default(Claim.of(Session(session.id))).process
    site = comet.create(scope=SITE, name="site")
    held = Held(lambda: tab.post("/", "registration=~inbox%0Asite", COMET))
    wait_for_listeners(site, 1)
    comet.create(scope=default, name="inbox").publish("first")
    assert held.answer().pairs == [b"~inbox:first"]


def test_an_on_demand_channel_of_the_default_process(comet: Comet, server: Address) -> None:
    async def numbers() -> AsyncIterator[int]:
        for n in range(10):
            yield n

    tab = Tab(server)
    (session,) = inside(comet).clients.sessions()
    default = inside(comet).clients.default(Claim.of(Session(session.id))).process
    comet.create_unlimited(numbers(), scope=default, name="n")
    for n in range(3):
        assert tab.post("/", "registration=~n", COMET).pairs == [f"~n:{n}".encode()]


def test_a_message_in_the_same_moment_as_a_newer_request_is_the_newers_alone(
    comet: Comet, page: OldPage, ticker: Channel[str]
) -> None:
    older = page.hold("ticker", number=1)
    wait_for_listeners(ticker, 1)
    reader = client_of(page.process).reader
    assert reader is not None

    def both() -> None:
        ticker.write("x")
        client_of(
            page.process
        ).reader = None  # as a newer request that comes before the older one goes on

    inside(comet).loop.run(both)
    assert older.answer().body == b""
    for _ in range(2):  # and its answer can still be repeated
        assert page.register("ticker", number=2).pairs == [b"ticker:x"]


def test_a_channel_that_a_request_does_not_name_keeps_its_position(
    comet: Comet, page: OldPage, ticker: Channel[str]
) -> None:
    other = comet.channels.create("other")
    held = page.hold("other", number=1)
    wait_for_listeners(other, 1)
    ticker.write("meanwhile")
    other.write("x")
    assert held.answer().pairs == [b"other:x"]
    assert page.register("ticker", number=2).pairs == [b"ticker:meanwhile"]


def test_a_channel_that_ended_while_others_were_asked_for_is_told_before_its_namesake(
    comet: Comet, page: OldPage
) -> None:
    first, other = (comet.create(scope=page.process, name=name) for name in ("a", "b"))
    first.publish(1)
    assert page.register("~a", "~b", number=1).pairs == [b"~a:1"]
    first.publish("lost")
    first.close()
    other.publish(2)
    assert page.register("~b", number=2).pairs == [b"~b:2"]
    comet.create(scope=page.process, name="a").publish("of the new one")
    assert page.register("~a", number=3).pairs == [b"~a:ENDED_CHANNEL"]
    assert page.register("~a", number=4).pairs == [b"~a:of%20the%20new%20one"]


def test_positions_are_kept_of_as_many_channels_as_a_request_may_name(
    make_server: MakeServer,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, max_channels_per_request=3))
    page = OldPage(comet, server)
    names = [f"c{n}" for n in range(5)]
    for number, name in enumerate(names):
        comet.create(scope=page.process, name=name).publish(number)
        assert page.register(f"~{name}", number=number).pairs == [f"~{name}:{number}".encode()]
        kept = client_of(page.process).registered
        assert kept is not None
        assert len(kept.cursors) == min(number + 1, 3)


def test_a_channel_that_another_thread_makes_in_the_very_moment_is_read_at_once(
    comet: Comet, page: OldPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = client_of(page.process).place.directory
    expect = directory.expect

    def late(name: str, listener: Listener) -> Feed | None:
        if directory.find(name) is None:
            comet.create(scope=page.process, name=name[1:]).publish("first")
        return expect(name, listener)

    monkeypatch.setattr(Directory, "expect", lambda self, name, listener: late(name, listener))
    assert page.register("~inbox", number=1).pairs == [b"~inbox:first"]
    assert page.tab.poll({"~later": "new.0"})[0]["data"] == "first"


def test_messages_that_went_before_the_page_registered_are_not_taken_for_acknowledged(
    comet: Comet, page: OldPage
) -> None:
    channel = comet.create(scope=page.process, name="inbox", size=2, type=int)
    deliveries = [channel.publish(value) for value in (0, 1)]
    client = PollClient(page.tab, page.tab.address)
    client.begin({"~inbox": "new.0"})
    assert client.data(2) == [0, 1]  # which are not acknowledged
    client.cut()
    deliveries += [channel.publish(value) for value in (2, 3)]
    assert len(page.register("~inbox", number=1).pairs) == 2
    held = page.hold("~inbox", number=2)
    wait_for_listeners(channel, 1)
    assert [outcome(comet, lambda one=one: one) for one in deliveries] == [  # type: ignore[misc]
        *[Outcome.UNKNOWN] * 2, *[Outcome.SUCCESS] * 2
    ]  # fmt: skip
    channel.close()
    held.answer()
