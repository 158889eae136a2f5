"""One suite for registration, poll, server-sent events and WebSocket.

The same messages in the same order, the same errors, and nothing lost or told twice after a cut at
any byte. Registration runs at a process endpoint with `number`, where it has positions, too; what
needs positions in the client's own hand is for the other three.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from asgi_comet import SITE, Channel, ChannelFull, ClientProcess, Comet, Settings
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import feed_of, inside
from tests.kit.clients import BROKEN, CLIENTS, Client, MakeClient, RegistrationClient, by_hand_only
from tests.kit.cutting import CuttingPipe
from tests.kit.loop import in_loop, wait_in_loop
from tests.kit.processes import default_of, process_of
from tests.kit.serving import Address, Tab
from tests.kit.workers import Workers

MakeServer = Callable[..., tuple[Comet, Address]]

POSITIONED = [name for name, client in CLIENTS.items() if client.positioned]


def positions_only() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("transport", POSITIONED)


def follow(client: Client, starts: dict[str, str], *channels: Channel[Any]) -> list[Any]:
    """Follow channels; when it returns, the server knows it on those that are given."""
    found = client.follow(starts)
    for channel in channels:
        wait_for_listeners(channel, 1)
    return found


# Messages


def test_messages_come_in_order_each_once(comet: Comet, client: Client) -> None:
    channel = comet.create(scope=SITE, name="c")
    channel.publish("before")
    follow(client, {"c": "now"}, channel)
    for n in range(100):
        channel.publish(n)
    assert client.data(100) == list(range(100))


def test_messages_of_one_turn_come_in_order_each_once(comet: Comet, client: Client) -> None:
    channel = comet.create(scope=SITE, name="c")
    follow(client, {"c": "now"}, channel)

    def publish() -> None:
        for n in range(100):
            channel.publish({"n": n, "text": "ä\n:%\u2028"})

    in_loop(comet, publish)
    assert client.data(100) == [{"n": n, "text": "ä\n:%\u2028"} for n in range(100)]


def test_several_channels_each_keep_their_order(comet: Comet, tab: Tab, client: Client) -> None:
    process = process_of(comet, tab)
    channels = {
        "a": comet.create(scope=SITE, name="a"),
        "b": comet.create(scope=SITE, name="b"),
        "~c": comet.create(scope=process, name="c"),
    }
    follow(client, dict.fromkeys(channels, "now"), *channels.values())
    for n in range(20):
        for channel in channels.values():
            channel.publish(n)
    seen: dict[str, list[int]] = {name: [] for name in channels}
    for _ in range(60):
        event = client.next()
        seen[event["channel"]].append(event["data"])
    assert seen == {name: list(range(20)) for name in channels}


def test_what_is_published_while_it_is_away_comes_when_it_is_back(
    comet: Comet, client: Client
) -> None:
    channel = comet.create(scope=SITE, name="c")
    follow(client, {"c": "now"}, channel)
    channel.publish(0)
    assert client.data(1) == [0]
    client.cut()
    for n in range(1, 10):
        channel.publish(n)
    client.resume()
    assert client.data(9) == list(range(1, 10))


# Starts


@positions_only()
def test_now_tells_where_it_is_and_begins_with_what_comes(
    workers: Workers, comet: Comet, client: Client
) -> None:
    channel = comet.create(scope=SITE, name="c")
    workers.store(comet, channel, "before")
    epoch = feed_of(channel).history.epoch
    assert follow(client, {"c": "now"}) == [{"channel": "c", "position": f"{epoch}.1"}]
    channel.publish("after")
    assert client.next() == {"channel": "c", "position": f"{epoch}.2", "data": "after"}


@positions_only()
@pytest.mark.parametrize(("start", "first"), [("last:0", 5), ("last:2", 3), ("last:99", 0)])
def test_last_tells_where_it_is_and_begins_that_many_before(
    workers: Workers, comet: Comet, client: Client, start: str, first: int
) -> None:
    channel = comet.create(scope=SITE, name="c")
    workers.store(comet, channel, *range(5))
    epoch = feed_of(channel).history.epoch
    assert follow(client, {"c": start}) == [{"channel": "c", "position": f"{epoch}.{first}"}]
    channel.publish(5)
    assert client.data(6 - first) == list(range(first, 6))


@positions_only()
def test_an_explicit_position_is_not_echoed(workers: Workers, comet: Comet, client: Client) -> None:
    channel = comet.create(scope=SITE, name="c")
    workers.store(comet, channel, *range(3))
    epoch = feed_of(channel).history.epoch
    follow(client, {"c": f"{epoch}.1"})
    assert client.next() == {"channel": "c", "position": f"{epoch}.2", "data": 1}
    assert client.next() == {"channel": "c", "position": f"{epoch}.3", "data": 2}


@positions_only()
def test_each_channel_has_its_own_start(workers: Workers, comet: Comet, client: Client) -> None:
    for name in ("a", "b", "c"):
        channel = comet.create(scope=SITE, name=name)
        workers.store(comet, channel, *range(3))
    epoch = feed_of(channel).history.epoch
    told = follow(client, {"a": "now", "b": "last:1", "c": f"{epoch}.1"})
    assert {event["channel"]: event["position"].split(".")[1] for event in told} == {
        "a": "3",
        "b": "2",
    }
    found = [client.next() for _ in range(3)]
    assert sorted((event["channel"], event["data"]) for event in found) == [
        ("b", 2),
        ("c", 1),
        ("c", 2),
    ]


# Full


@pytest.fixture
def small(make_server: MakeServer) -> tuple[Comet, Address]:
    return make_server(settings=Settings(jitter=0, history_size=3))


def check_that_it_goes_on(client: Client, channel: Channel[Any]) -> None:
    """After a gap the client is where the channel is."""
    if not client.positioned:
        client.resume()
        wait_for_listeners(channel, 1)
    channel.publish("goes on")
    assert client.data(1) == ["goes on"]


def test_behind_the_history_is_full_and_it_goes_on_from_the_position(
    workers: Workers, small: tuple[Comet, Address], make_client: MakeClient
) -> None:
    comet, server = small
    client = make_client(Tab(server))
    channel = comet.create(scope=SITE, name="c")
    follow(client, {"c": "now"}, channel)
    channel.publish(0)
    assert client.data(1) == [0]
    client.cut()
    wait_for_listeners(channel, 0)
    *_, top = workers.store(comet, channel, *range(4))
    client.resume()
    assert client.error() == client.told("full")
    if client.positioned:
        assert client.positions == {"c": top}
    check_that_it_goes_on(client, channel)


def test_the_oldest_that_is_held_is_no_gap(
    workers: Workers, small: tuple[Comet, Address], make_client: MakeClient
) -> None:
    comet, server = small
    client = make_client(Tab(server))
    channel = comet.create(scope=SITE, name="c")
    follow(client, {"c": "now"}, channel)
    channel.publish("first")
    assert client.data(1) == ["first"]
    client.cut()
    wait_for_listeners(channel, 0)
    workers.store(comet, channel, *range(3))
    client.resume()
    assert client.data(3) == [0, 1, 2]


def test_another_incarnation_is_full_and_it_goes_on_from_the_position(
    workers: Workers, comet: Comet, client: Client
) -> None:
    channel = comet.create(scope=SITE, name="c")
    follow(client, {"c": "now"}, channel)
    channel.publish(0)
    assert client.data(1) == [0]
    client.cut()
    wait_for_listeners(channel, 0)
    channel.close()
    again = comet.create(scope=SITE, name="c")
    workers.store(comet, again, "not silently")
    client.resume()
    assert client.error() == client.told("full")
    check_that_it_goes_on(client, again)


@positions_only()
@pytest.mark.parametrize("start", ["other.0", "{epoch}.2", "new.0"])
def test_a_position_that_never_was_is_full(
    workers: Workers, comet: Comet, client: Client, start: str
) -> None:
    channel = comet.create(scope=SITE, name="c")
    (top,) = workers.store(comet, channel, 0)
    follow(client, {"c": start.format(epoch=top.partition(".")[0])})
    assert client.next() == {"channel": "c", "error": "full", "position": top}
    check_that_it_goes_on(client, channel)


@positions_only()
def test_of_several_channels_only_the_one_behind_is_full(
    workers: Workers, small: tuple[Comet, Address], make_client: MakeClient
) -> None:
    comet, server = small
    client = make_client(Tab(server))
    slow, fast = (comet.create(scope=SITE, name=name) for name in ("slow", "fast"))
    follow(client, {"slow": "now", "fast": "now"}, slow, fast)
    client.cut()
    wait_for_listeners(fast, 0)
    workers.store(comet, slow, 0)
    workers.store(comet, fast, *range(4))
    client.resume()
    found = [client.next() for _ in range(2)]
    assert sorted(event["channel"] for event in found) == ["fast", "slow"]
    assert {event["channel"]: event.get("data", event.get("error")) for event in found} == {
        "fast": "full",
        "slow": 0,
    }
    slow.publish(1)
    fast.publish(4)
    assert sorted(client.data(2)) == [1, 4]


# Ends


def test_a_channel_that_ends_is_told_after_its_last_words(comet: Comet, client: Client) -> None:
    channel = comet.create(scope=SITE, name="c")
    follow(client, {"c": "now"}, channel)

    def end() -> None:
        channel.publish("last words")
        channel.close()

    in_loop(comet, end)
    assert client.data(1) == ["last words"]
    assert client.error() == client.told("closed", "ended")


def test_a_source_that_raises_is_told_as_failed(comet: Comet, client: Client) -> None:
    go_on = asyncio.Event()

    async def broken() -> AsyncIterator[int]:
        await go_on.wait()
        yield 1
        raise LookupError("a detail that is nobody's business")

    channel = comet.create(broken(), scope=SITE, name="c")
    follow(client, {"c": "now"}, channel)
    in_loop(comet, go_on.set)
    assert client.data(1) == [1]
    assert client.error() == client.told("closed", "failed")


def test_an_unknown_channel_is_closed_and_the_others_go_on(comet: Comet, client: Client) -> None:
    channel = comet.create(scope=SITE, name="c")
    client.follow({"c": "now", "gone": "now"} if not client.positioned else {"c": "now"})
    if client.positioned:
        client.cut()
        client.follow({"c": client.positions["c"], "gone": "other.1"})
    assert client.error() == client.told("closed", "unknown")
    if not client.positioned:
        del client.positions["gone"]
    client.ensure_connected()
    wait_for_listeners(channel, 1)
    channel.publish("goes on")
    assert client.data(1) == ["goes on"]


def test_one_channel_that_ends_leaves_the_others(comet: Comet, client: Client) -> None:
    first, second = (comet.create(scope=SITE, name=name) for name in ("first", "second"))
    follow(client, {"first": "now", "second": "now"}, first, second)
    first.close()
    assert client.error() == client.told("closed", "ended")
    if not client.positioned:
        del client.positions["first"]
        client.resume()
        wait_for_listeners(second, 1)
    second.publish("goes on")
    assert client.data(1) == ["goes on"]


# Channels of a client process


def test_a_process_channel_that_does_not_exist_yet_is_waited_for(
    comet: Comet, tab: Tab, client: Client
) -> None:
    site = comet.create(scope=SITE, name="site")
    told = follow(client, {"~c": "now", "site": "now"}, site)
    if client.positioned:
        assert {"channel": "~c", "position": "new.0"} in told
    channel = comet.create(scope=process_of(comet, tab), name="c")
    for text in ("first", "second", "third"):
        channel.publish(text)
        assert client.data(1) == [text]


def test_a_process_channel_that_is_made_while_the_client_is_away_loses_nothing(
    comet: Comet, tab: Tab, client: Client
) -> None:
    site = comet.create(scope=SITE, name="site")
    follow(client, {"~c": "now", "site": "now"}, site)
    client.cut()
    wait_for_listeners(site, 0)
    channel = comet.create(scope=process_of(comet, tab), name="c")
    channel.publish("first")
    client.resume()
    assert client.data(1) == ["first"]


def test_an_unlimited_channel_that_is_made_while_the_client_waits_is_read(
    comet: Comet, tab: Tab, client: Client
) -> None:
    async def count() -> AsyncIterator[int]:
        for n in range(3):
            yield n

    site = comet.create(scope=SITE, name="site")
    follow(client, {"~c": "now", "site": "now"}, site)
    comet.create_unlimited(count(), scope=process_of(comet, tab), name="c")
    assert client.data(3) == [0, 1, 2]


def test_a_process_channel_of_which_too_much_was_never_sent_is_full_for_good(
    workers: Workers, comet: Comet, tab: Tab, client: Client
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="c", size=2)
    follow(client, {"~c": "now"}, channel)
    client.cut()
    wait_for_listeners(channel, 0)
    workers.store(comet, channel, 0, 1)
    with pytest.raises(ChannelFull):
        workers.store(comet, channel, 2)
    client.resume()
    event = client.next()
    assert (event["error"], event.get("reason")) == client.told("full")
    assert "position" not in event


def test_a_process_channel_that_overflows_in_one_turn_is_told_at_once(
    comet: Comet, tab: Tab, client: Client
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="c", size=2)
    follow(client, {"~c": "now"}, channel)

    def overflow() -> None:
        channel.publish(0)
        channel.publish(1)
        with pytest.raises(ChannelFull):
            channel.publish(2)

    in_loop(comet, overflow)
    event = client.next()
    assert (event["error"], event.get("reason")) == client.told("full")
    assert "position" not in event


def test_what_was_sent_to_a_client_that_left_stays_for_when_it_is_back(
    comet: Comet, tab: Tab, client: Client
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="c")
    follow(client, {"~c": "now"}, channel)
    for n in range(3):
        channel.publish(n)
    assert client.data(1) == [0]  # the others are sent or not: it cannot tell
    if not client.positioned:
        client.data(2)
    client.cut()
    wait_for_listeners(channel, 0)
    channel.publish(3)
    client.resume()
    assert client.data(3 if client.positioned else 1)[-1] == 3


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.parametrize(("start", "expected"), [("now", [3, 4]), ("last:1", [2, 3, 4])])
def test_messages_before_the_start_of_a_stream_do_not_fill_its_channel(
    workers: Workers, comet: Comet, tab: Tab, client: Client, start: str, expected: list[int]
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="c", size=3)
    workers.store(comet, channel, *range(3))
    follow(client, {"~c": start}, channel)
    for n in (3, 4):
        channel.publish(n)
    assert client.data(len(expected)) == expected


@by_hand_only()
def test_without_a_cookie_a_process_channel_is_forbidden_and_nobody_hears_whether_it_lives(
    comet: Comet, tab: Tab, make_client: MakeClient
) -> None:
    comet.create(scope=process_of(comet, tab), name="there").publish("secret")
    for name in ("~there", "~nowhere"):
        client = make_client(None)
        client.follow({name: "other.1"})
        assert client.error() == client.told("forbidden")


@by_hand_only()
def test_the_own_channels_of_the_site_endpoint_are_those_of_the_cookies_default_process(
    comet: Comet, tab: Tab, client: Client
) -> None:
    client.base = "/comet"
    site = comet.create(scope=SITE, name="site")
    follow(client, {"~c": "now", "site": "now"}, site)
    default = default_of(comet, tab)
    channel = comet.create(scope=default, name="c")
    channel.publish("to the default")
    assert client.data(1) == ["to the default"]


# What ends a connection


def test_a_process_that_closes_is_told(comet: Comet, tab: Tab, client: Client) -> None:
    process = process_of(comet, tab)
    site, own = comet.create(scope=SITE, name="s"), comet.create(scope=process, name="c")
    follow(client, {"s": "now", "~c": "now"}, site, own)
    in_loop(comet, process.close)
    assert client.error() == client.told("process-closed")
    wait_for_listeners(site, 0)


def test_a_process_that_a_thread_closes_is_told_likewise(
    comet: Comet, tab: Tab, client: Client
) -> None:
    """Its channels end first, and the flush may come before it is known why."""
    process = process_of(comet, tab)
    own = comet.create(scope=process, name="c")
    follow(client, {"~c": "now"}, own)

    def let_the_flush_pass(closing: ClientProcess) -> None:
        if closing is process:
            wait_for_listeners(own, 0)

    inside(comet).notifiers["the last to hear of it"] = let_the_flush_pass
    process.close()
    event = client.next()
    while "error" not in event or event["error"] in ("closed", "ended"):
        event = client.next()  # that the channel has ended may be told, too
    assert (event["error"], None) == client.told("process-closed")


def test_a_process_that_has_closed_is_told(comet: Comet, tab: Tab, client: Client) -> None:
    process = process_of(comet, tab)
    assert tab.post(f"{process.url}/close").status == 204  # all workers know by then
    client.follow({"s": "other.1"})
    assert client.error() == client.told("process-closed")


def test_a_newer_connection_replaces_the_older_and_nothing_is_lost(
    comet: Comet, tab: Tab, make_client: MakeClient
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="c")
    older, newer = make_client(tab), make_client(tab)
    follow(older, {"~c": "now"}, channel)
    if newer.positioned:
        newer.follow({"~c": older.positions["~c"]})
    else:
        newer.number = 1  # type: ignore[attr-defined]
        newer.follow({"~c": "now"})
    assert older.error() == older.told("replaced")
    wait_for_listeners(channel, 1)
    channel.publish("not lost")
    assert newer.data(1) == ["not lost"]


@positions_only()
def test_connections_for_site_channels_do_not_disturb_each_other(
    comet: Comet, tab: Tab, make_client: MakeClient
) -> None:
    # A process that speaks the old protocol has one connection.
    channel = comet.create(scope=SITE, name="c")
    clients = [make_client(tab) for _ in range(3)]
    for client in clients:
        client.follow({"c": "now"})
    wait_for_listeners(channel, 3)
    channel.publish("x")
    assert [client.data(1) for client in clients] == [["x"]] * 3


@by_hand_only()
def test_deactivated_is_told_and_once_activated_nothing_is_missing(
    comet: Comet, client: Client
) -> None:
    channel = comet.create(scope=SITE, name="c")
    follow(client, {"c": "now"}, channel)
    channel.publish(0)
    assert client.data(1) == [0]
    client.ensure_connected()
    wait_for_listeners(channel, 1)
    comet.activation.deactivate()
    assert client.error() == client.told("deactivated")
    wait_for_listeners(channel, 0)
    channel.publish(1)
    client.resume()
    assert client.error() == client.told("deactivated")
    comet.activation.activate()
    client.resume()
    assert client.data(1) == [1]


# Kinds of channel


def test_newest_gives_the_last_message_only(workers: Workers, comet: Comet, client: Client) -> None:
    channel = comet.create_newest(name="c")
    follow(client, {"c": "now"}, channel)
    channel.publish(0)
    assert client.data(1) == [0]
    client.cut()
    wait_for_listeners(channel, 0)
    workers.store(comet, channel, *range(1, 5))
    client.resume()
    assert client.data(1) == [4]

    def publish() -> None:
        channel.publish(5)
        channel.publish(6)

    client.ensure_connected()
    wait_for_listeners(channel, 1)
    in_loop(comet, publish)
    assert client.data(1) == [6]


def test_an_on_demand_source_is_read_at_most_one_ahead_of_what_was_taken(
    comet: Comet, tab: Tab, client: Client
) -> None:
    taken: list[int] = []

    async def count() -> AsyncIterator[int]:
        for n in range(20):
            taken.append(n)
            yield n

    comet.create_unlimited(count(), scope=process_of(comet, tab), name="c")
    assert taken == []
    client.follow({"~c": "now"})
    for n in range(20):
        assert client.data(1) == [n]
        assert n + 1 <= len(taken) <= n + 1 + client.stays  # a stream acknowledges as it reads
    assert taken == list(range(20))


@positions_only()
@pytest.mark.parametrize("ahead", [1, 3])
def test_an_on_demand_channel_is_never_full_however_often_its_reader_is_cut(
    comet: Comet, tab: Tab, client: Client, ahead: int
) -> None:
    taken: list[int] = []

    async def count() -> AsyncIterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    comet.create_unlimited(count(), scope=process_of(comet, tab), name="c", ahead=ahead)
    client.follow({"~c": "now"})
    for n in range(20):  # of which each is more than the channel holds
        assert client.data(1) == [n]
        assert len(taken) <= n + 1 + ahead
        client.cut()
        client.resume()


@positions_only()
def test_first_begins_with_the_first_message(
    workers: Workers, comet: Comet, tab: Tab, client: Client
) -> None:
    channel = comet.create(scope=SITE, name="news", size=3)
    workers.store(comet, channel, *range(3))
    (told,) = client.follow({"news": "first"})
    assert told["position"].endswith(".0")
    assert client.data(3) == [0, 1, 2]
    channel.publish(3)
    assert client.data(1) == [3]


@positions_only()
def test_first_is_full_once_the_first_message_has_gone(
    workers: Workers, comet: Comet, tab: Tab, client: Client
) -> None:
    channel = comet.create(scope=SITE, name="news", size=3)
    workers.store(comet, channel, *range(4))
    client.begin({"news": "first"})
    event = client.next()
    assert (event["error"], event["position"].rpartition(".")[2]) == ("full", "4")


@positions_only()
def test_first_of_a_newest_channel_is_its_last_message(
    workers: Workers, comet: Comet, tab: Tab, client: Client
) -> None:
    channel = comet.create_newest(name="newest")
    workers.store(comet, channel, *range(4))
    client.follow({"newest": "first"})
    assert client.data(1) == [3]


@positions_only()
def test_first_of_a_process_channel_is_what_was_not_acknowledged(
    workers: Workers, comet: Comet, tab: Tab, client: Client
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="c")
    workers.store(comet, channel, 0, 1, 2)
    client.follow({"~c": "first"})
    assert client.data(1) == [0]
    client.cut()
    client.begin({"~c": client.positions["~c"]})  # acknowledges the first
    while not client.read():
        pass  # the beginning of a stream
    client.cut()
    client.follow({"~c": "first"})
    assert client.data(2) == [1, 2]


@positions_only()
def test_first_of_a_process_channel_that_does_not_exist_yet_is_all_of_its_next_incarnation(
    comet: Comet, tab: Tab, client: Client
) -> None:
    (told,) = client.follow({"~c": "first"})
    assert told["position"] == "new.0"
    comet.create(scope=process_of(comet, tab), name="c").publish("x")
    assert client.data(1) == ["x"]


@positions_only()
@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (None, [4]),
        ("now", [4]),
        ("last:2", [2, 3, 4]),
        ("last:9", [*range(5)]),
        ("first", [*range(5)]),
    ],
)
def test_a_reference_tells_where_to_begin(
    workers: Workers,
    comet: Comet,
    tab: Tab,
    client: Client,
    start: str | None,
    expected: list[int],
) -> None:
    channel = comet.create(scope=SITE, name="news")
    workers.store(comet, channel, *range(4))
    reference = channel.reference(start)
    channel.publish(4)  # what is published meanwhile is not lost
    client.begin({"news": reference["position"]})
    assert client.data(len(expected)) == expected


@positions_only()
def test_a_reference_to_the_first_message_that_has_gone_is_full(
    workers: Workers, comet: Comet, tab: Tab, client: Client
) -> None:
    channel = comet.create(scope=SITE, name="news", size=1)
    workers.store(comet, channel, 0, 1)
    client.begin({"news": channel.reference("first")["position"]})
    assert client.error() == ("full", None)


@positions_only()
@pytest.mark.parametrize(("start", "expected"), [(None, [2, 3]), ("first", [2, 3]), ("now", [3])])
def test_a_reference_to_a_process_channel_begins_with_what_was_not_acknowledged(
    workers: Workers,
    comet: Comet,
    tab: Tab,
    client: Client,
    start: str | None,
    expected: list[int],
) -> None:
    channel = comet.create(scope=process_of(comet, tab), name="c")
    *_, second, _ = workers.store(comet, channel, 0, 1, 2)
    assert tab.post(f"{tab.url}/ack", {"~c": second}).status == 204
    client.begin({"~c": channel.reference(start)["position"]})
    workers.store(comet, channel, 3)
    if workers.count > 1:  # the worker that publishes does not know where the end is
        expected = [2, 3]
    assert client.data(len(expected)) == expected


def test_a_reference_with_another_start_says_what_was_expected(comet: Comet) -> None:
    channel = comet.create(scope=SITE, name="news")
    with pytest.raises(ValueError, match="expected start to be 'now', 'first' or like 'last:10'"):
        channel.reference("begin")


def test_an_on_demand_source_waits_while_nobody_asks(
    comet: Comet, tab: Tab, client: Client
) -> None:
    taken: list[int] = []

    async def count() -> AsyncIterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n
            await step.wait()
            step.clear()

    step = asyncio.Event()
    channel = comet.create_unlimited(count(), scope=process_of(comet, tab), name="c")
    client.follow({"~c": "now"})
    for n in range(3):
        assert client.data(1) == [n]
        in_loop(comet, step.set)
    client.cut()
    wait_for_listeners(channel, 0)
    for _ in range(20):
        in_loop(comet, step.set)
    assert len(taken) <= 5  # what was sent at most, and one ahead
    client.resume()
    assert client.data(1) == [3]


# A cut at every byte


def wait_until_remembered(comet: Comet, process: str) -> None:
    """Wait until the store has where the client of a process is, if several workers share it."""
    people = inside(comet).broker.people

    async def wait() -> None:
        while people is not None and await people.load(process) is None:
            pass

    wait_in_loop(comet, wait)


@by_hand_only()
@pytest.mark.parametrize("scope", ["site", "process"])
def test_every_message_once_and_in_order_after_a_cut_at_every_byte(
    workers: Workers, comet: Comet, server: Address, make_client: MakeClient, scope: str
) -> None:
    tab = Tab(server)
    # Of several workers only the next one matters, which has a turn at each cut.
    step = 1 if workers.count == 1 else workers.count + 1
    own = scope == "process"
    channel = comet.create(scope=process_of(comet, tab) if own else SITE, name="c")
    seen: list[Any] = []
    with CuttingPipe(server).run() as pipe:
        client = make_client(tab, pipe.address)
        follow(client, {channel.id: "now"}, channel)
        client.cut()
        cut, whole = 0, False
        while not whole:
            channel.publish([cut, 0])
            channel.publish([cut, 1])
            pipe.limit = cut
            whole = read_until(client, seen, [cut, 1])
            pipe.limit = None
            assert whole or read_until(client, seen, [cut, 1])
            if own and isinstance(client, RegistrationClient):
                wait_until_remembered(comet, process_of(comet, tab).id)
            client.cut()
            cut += step
    assert seen == [[n, part] for n in range(0, cut, step) for part in range(2)]
    assert cut > 200  # the head of the answer was cut at every byte, too


def read_until(client: Client, seen: list[Any], last: Any) -> bool:
    """Read on from where the client is; tell whether it got to the last message uncut."""
    try:
        client.resume()
        while seen[-1:] != [last]:
            event = client.next()
            if event == {"error": "replaced"}:  # by its last connection, late at another worker
                client.begin(client.positions)  # `resume` says that the stream has ended for good
                continue
            assert "data" in event, event
            seen.append(event["data"])
    except BROKEN:
        client.cut()
        return False
    return True
