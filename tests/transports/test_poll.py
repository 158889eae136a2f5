"""The JSON poll over real sockets: docs/wire.md#json-poll, docs/semantics.md."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from asgi_comet import (
    SITE,
    Channel,
    ChannelFull,
    Comet,
    Delivery,
    MessageTooLarge,
    Outcome,
    Settings,
)
from asgi_comet.channels.feed import Feed
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import awaited, client_of, encoded, expected, feed_of, inside, left
from tests.kit.loop import in_loop, outcome
from tests.kit.processes import default_of, process_of
from tests.kit.registering import read_all
from tests.kit.serving import COMET, Address, Answer, Held, Tab, events, poll

MakeServer = Callable[..., tuple[Comet, Address]]

JSON = {"Content-Type": "application/json"}


def data(found: list[Any]) -> list[Any]:
    return [event["data"] for event in found if "data" in event]


def hold(server: Address, channels: dict[str, str]) -> Held:
    body = json.dumps({"channels": channels})
    return Held(lambda: server.request("POST", "/comet/poll", body, JSON))


# Events


def test_now_and_last_are_answered_at_once_with_where_you_are(
    comet: Comet, server: Address
) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    for n in range(5):
        channel.publish(n)
    epoch = feed_of(channel).history.epoch
    assert poll(server, {"ticker": "now"}) == [{"channel": "ticker", "position": f"{epoch}.5"}]
    assert poll(server, {"ticker": "last:2"}) == [
        {"channel": "ticker", "position": f"{epoch}.3"},
        {"channel": "ticker", "position": f"{epoch}.4", "data": 3},
        {"channel": "ticker", "position": f"{epoch}.5", "data": 4},
    ]
    assert poll(server, {"ticker": "last:0"}) == [{"channel": "ticker", "position": f"{epoch}.5"}]


def test_an_explicit_position_is_not_echoed_and_is_held_until_something_comes(
    comet: Comet, server: Address
) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    held = hold(server, {"ticker": where["position"]})
    wait_for_listeners(channel, 1)
    channel.publish({"price": 1.5})
    answer = held.answer()
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    epoch = feed_of(channel).history.epoch
    assert events(answer) == [
        {"channel": "ticker", "position": f"{epoch}.1", "data": {"price": 1.5}}
    ]
    wait_for_listeners(channel, 0)
    assert len(inside(comet).timers) == 0


def test_what_was_missed_comes_at_once_and_in_order(comet: Comet, server: Address) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    for n in range(100):
        channel.publish(n)
    assert data(poll(server, {"ticker": where["position"]})) == list(range(100))


def test_a_hundred_messages_of_one_turn_are_one_answer(comet: Comet, server: Address) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    held = [hold(server, {"ticker": where["position"]}) for _ in range(5)]
    wait_for_listeners(channel, 5)

    def publish() -> None:
        for n in range(100):
            channel.publish(n)

    in_loop(comet, publish)
    for one in held:
        assert data(events(one.answer())) == list(range(100))


def test_nothing_within_the_timeout_is_an_empty_list(make_server: MakeServer) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    held = hold(server, {"ticker": where["position"]})
    wait_for_listeners(channel, 1)
    clock.advance(20.2)
    assert held.answer().body == b'{"events":[]}'


def test_idle_is_answered_at_once(comet: Comet, server: Address) -> None:
    comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    assert poll(server, {"ticker": where["position"]}, idle=True) == []


def test_an_unknown_channel_is_closed_and_told_at_once(comet: Comet, server: Address) -> None:
    live = comet.create(scope=SITE, name="live")
    (where,) = poll(server, {"live": "now"})
    assert poll(server, {"gone": "now", "live": where["position"]}) == [
        {"channel": "gone", "error": "closed", "reason": "unknown"}
    ]
    assert live.listeners == 0


def test_a_channel_that_ends_is_told_after_what_remains(comet: Comet, server: Address) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    held = hold(server, {"ticker": where["position"]})
    wait_for_listeners(channel, 1)

    def end() -> None:
        channel.publish("last words")
        channel.close()

    in_loop(comet, end)
    first = events(held.answer())
    assert first[0]["data"] == "last words"
    assert first[1] == {"channel": "ticker", "error": "closed", "reason": "ended"}
    # The answer was lost: what remains can be read again, for as long as it lingers.
    assert poll(server, {"ticker": where["position"]}) == first


def test_a_source_that_raised_is_told_as_failed(comet: Comet, server: Address) -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError("secret detail")

    comet.create(broken(), scope=SITE, name="quotes")
    found = poll(server, {"quotes": "last:9"})
    while not any(event.get("error") for event in found):
        found += poll(server, {"quotes": "last:9"})
    assert found[-1] == {"channel": "quotes", "error": "closed", "reason": "failed"}
    assert "secret" not in str(found)


def test_the_content_type_of_its_own_is_taken_on_any_path(comet: Comet, server: Address) -> None:
    comet.create(scope=SITE, name="ticker")
    headers = {"Content-Type": "application/x-ocsigen-comet+json; charset=utf-8"}
    body = '{"channels": {"ticker": "now"}}'
    for path in ("/", "/comet/poll", "/any/where"):
        answer = server.request("POST", path, body, headers)
        assert events(answer)[0]["channel"] == "ticker"
    echoed = server.request("POST", "/any/where", body, JSON)
    assert echoed.body.startswith(b"POST /any/where")


# Full


def test_behind_the_history_is_full_with_the_position_to_go_on_from(
    make_server: MakeServer,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=3))
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    for n in range(4):
        channel.publish(n)
    (full,) = poll(server, {"ticker": where["position"]})
    top = str(feed_of(channel).history.position)
    assert full == {"channel": "ticker", "error": "full", "position": top}
    assert poll(server, {"ticker": full["position"]}, idle=True) == []


def test_overtaken_while_held_is_full_too(make_server: MakeServer) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=3))
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    held = hold(server, {"ticker": where["position"]})
    wait_for_listeners(channel, 1)

    def publish() -> None:
        for n in range(4):
            channel.publish(n)

    in_loop(comet, publish)
    assert [event["error"] for event in events(held.answer())] == ["full"]


@pytest.mark.parametrize("start", ["other.0", "other.5", "{epoch}.9", "new.0"])
def test_another_epoch_or_beyond_the_top_is_full_never_silence(
    comet: Comet, server: Address, start: str
) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    channel.publish(1)
    position = feed_of(channel).history.position
    (event,) = poll(server, {"ticker": start.format(epoch=position.epoch)})
    assert event == {"channel": "ticker", "error": "full", "position": str(position)}
    assert channel.listeners == 0


def test_an_old_position_of_a_channel_created_anew_is_full(comet: Comet, server: Address) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    channel.publish(1)
    old = str(feed_of(channel).history.position)
    channel.close()
    again = comet.create(scope=SITE, name="ticker")
    (event,) = poll(server, {"ticker": old})
    assert event["error"] == "full"
    assert event["position"] == str(feed_of(again).history.position)


def test_newest_gives_only_the_last_message_whatever_the_epoch(
    comet: Comet, server: Address
) -> None:
    gauge = comet.create_newest(name="gauge")
    for n in range(5):
        gauge.publish(n)
    (event,) = poll(server, {"gauge": "another.77"})
    assert event["data"] == 4
    assert data(poll(server, {"gauge": "last:1"})) == [4]
    held = hold(server, {"gauge": event["position"]})
    wait_for_listeners(gauge, 1)

    def publish() -> None:
        gauge.publish(5)
        gauge.publish(6)

    in_loop(comet, publish)
    assert data(events(held.answer())) == [6]


# One answer


def test_an_answer_is_cut_to_size_and_the_rest_comes_with_the_next(
    make_server: MakeServer,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, answer_bytes=1000))
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    for n in range(10):
        channel.publish(str(n) * 398)  # 400 bytes as JSON
    position, seen = where["position"], list[str]()
    while len(seen) < 10:
        found = poll(server, {"ticker": position})
        assert len(found) <= 2
        position = found[-1]["position"]
        seen += data(found)
    assert seen == [str(n) * 398 for n in range(10)]


def test_a_message_larger_than_an_answer_comes_alone(make_server: MakeServer) -> None:
    comet, server = make_server(settings=Settings(jitter=0, answer_bytes=1000))
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    channel.publish("x" * 5000)
    channel.publish("y")
    assert data(poll(server, {"ticker": where["position"]})) == ["x" * 5000]


@pytest.mark.parametrize("size", [600, 1200])
def test_of_several_full_channels_each_gets_its_turn(make_server: MakeServer, size: int) -> None:
    comet, server = make_server(settings=Settings(jitter=0, answer_bytes=1000))
    names = ["a", "b", "c"]
    channels = {name: comet.create(scope=SITE, name=name) for name in names}
    positions = {e["channel"]: e["position"] for e in poll(server, dict.fromkeys(names, "now"))}
    for n in range(10):
        for channel in channels.values():
            channel.publish([n, "x" * size])
    seen: dict[str, list[int]] = {name: [] for name in names}
    while sum(map(len, seen.values())) < 30:
        for event in poll(server, positions):
            positions[event["channel"]] = event["position"]
            seen[event["channel"]].append(event["data"][0])
    assert seen == {name: list(range(10)) for name in names}


def test_a_channel_is_told_to_be_over_only_after_all_it_said(make_server: MakeServer) -> None:
    comet, server = make_server(settings=Settings(jitter=0, answer_bytes=1000))
    channel = comet.create(scope=SITE, name="ticker")
    (where,) = poll(server, {"ticker": "now"})
    for n in range(3):
        channel.publish([n, "x" * 600])
    channel.close()
    position = where["position"]
    for n in range(3):
        found = poll(server, {"ticker": position})
        assert found[0]["data"][0] == n
        position = found[0]["position"]
        assert [event["error"] for event in found[1:]] == ([] if n < 2 else ["closed"])


# Bad requests and limits


@pytest.mark.parametrize(
    "body",
    ["", "x", "[]", "{}", '{"channels": {}}', '{"channels": []}', '{"channels": {"a": 1}}',
     '{"channels": {"a": "then"}}', '{"channels": {"a": "last:-1"}}', '{"channels": {"a": "e.01"}}',
     '{"channels": {"a": "now"}, "idle": 1}', '{"channels": {"a": "now"}, "more": 1}',
     "[" * 10_000, "\xff"],
)  # fmt: skip
def test_a_bad_body_is_400_and_names_what_is_wrong(server: Address, body: str) -> None:
    answer = server.request("POST", "/comet/poll", body.encode("latin-1"), JSON)
    assert answer.status == 400
    assert json.loads(answer.body)["error"].startswith("expected ")


def test_128_channels_are_allowed_and_129_are_not(server: Address) -> None:
    names = [f"c{n}" for n in range(129)]
    assert len(poll(server, dict.fromkeys(names[:128], "now"))) == 128
    body = json.dumps({"channels": dict.fromkeys(names, "now")})
    answer = server.request("POST", "/comet/poll", body, JSON)
    assert (answer.status, answer.body) == (
        400,
        b'{"error": "expected at most 128 channels, got 129"}',
    )


def test_another_type_is_415_another_method_405_a_foreign_origin_403(server: Address) -> None:
    body = '{"channels": {"a": "now"}}'
    for kind in ("text/plain", "text/plain; application/json", ""):
        headers = {"Content-Type": kind} if kind else {}
        assert server.request("POST", "/comet/poll", body, headers).status == 415
    assert server.request("GET", "/comet/poll", None, JSON).status == 405
    evil = {**JSON, "Origin": "http://evil.example"}
    assert server.request("POST", "/comet/poll", body, evil).status == 403


def test_deactivated_is_503_for_all_but_close(comet: Comet, server: Address) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    tab = Tab(server)
    (where,) = poll(server, {"ticker": "now"})
    held = hold(server, {"ticker": where["position"]})
    wait_for_listeners(channel, 1)
    comet.activation.deactivate()
    body = '{"channels": {"a": "now"}}'
    answers: list[Answer] = [
        held.answer(),
        server.request("POST", "/comet/poll", body, JSON),
        server.request("POST", "/comet/open"),
        tab.post(f"{tab.url}/poll", body),
        tab.post(f"{tab.url}/ack", {"~a": "e.1"}),
    ]
    for answer in answers:
        assert answer.status == 503
        assert 5 <= int(answer.headers["retry-after"]) <= 15
    assert tab.post(f"{tab.url}/close").status == 204


# Client processes


def test_open_tells_the_process_and_sets_the_cookie(server: Address) -> None:
    answer = server.request("POST", "/comet/open")
    opened = json.loads(answer.body)
    assert answer.status == 201
    assert opened == {
        "process": opened["process"],
        "url": f"/comet/p/{opened['process']}",
        "processTimeout": 600.0,
    }
    assert answer.headers["set-cookie"].startswith("comet=")
    assert "HttpOnly" in answer.headers["set-cookie"]


def test_two_tabs_of_one_browser_never_receive_each_others_messages(
    comet: Comet, server: Address
) -> None:
    one = Tab(server)
    two = Tab(server, one.jar)
    assert one.url != two.url
    inboxes = [comet.create(scope=process_of(comet, tab), name="inbox") for tab in (one, two)]
    positions = [tab.poll({"~inbox": "last:0"})[0]["position"] for tab in (one, two)]
    inboxes[0].publish("for one")
    inboxes[1].publish("for two")
    assert data(one.poll({"~inbox": positions[0]})) == ["for one"]
    assert data(two.poll({"~inbox": positions[1]})) == ["for two"]


def test_a_token_without_its_sessions_cookie_is_403(comet: Comet, server: Address) -> None:
    victim, thief = Tab(server), Tab(server)
    comet.create(scope=process_of(comet, victim), name="inbox").publish("secret")
    body = {"channels": {"~inbox": "last:9"}}
    for jar in (thief.jar, {}, {"comet": "forged"}):
        headers = {
            "Content-Type": "application/json",
            "Cookie": "; ".join(f"{name}={value}" for name, value in jar.items()),
        }
        for action in ("poll", "ack", "close"):
            answer = server.request("POST", f"{victim.url}/{action}", json.dumps(body), headers)
            assert answer.status == 403
            assert b"secret" not in answer.body
    assert data(victim.poll({"~inbox": "last:9"})) == ["secret"]


def test_a_process_has_only_the_endpoints_it_has(server: Address) -> None:
    tab = Tab(server)
    assert tab.post(f"{tab.url}/nothing").status == 404
    assert tab.post(f"{tab.url}").status == 404
    got = server.request("GET", f"{tab.url}/close", headers={"Cookie": tab.cookie})
    assert (got.status, got.headers["allow"]) == (405, "POST")
    assert server.request("POST", "/comet/open/more").status == 404


@pytest.mark.parametrize(
    ("kind", "body"),
    [("application/json", '{"channels": {"a": "now"}}'), (COMET, "registration=aaaaaaaaaaaaa")],
)
def test_a_process_that_closes_while_the_body_was_coming(
    comet: Comet, server: Address, kind: str, body: str
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    with server.connect() as connection:
        connection.sendall(
            f"POST {tab.url}/poll HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n"
            f"Cookie: {tab.cookie}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
            f"\r\n{body[:5]}".encode()
        )
        while not inside(comet).drain.reading:
            server.request("GET", "/")  # each look gives the server its turn
        process.close()
        connection.sendall(body[5:].encode())
        assert b" 410 " in read_all(connection).split(b"\r\n")[0]


@pytest.mark.parametrize("action", ["ack", "close"])
def test_a_process_that_is_just_closing_in_another_thread_has_closed(
    comet: Comet, server: Address, action: str
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    with inside(comet).channels.site.directory.lock:  # its closing waits for its channels
        thread = threading.Thread(target=process.close)
        thread.start()
        while not process.closed:
            server.request("GET", "/")
        assert inside(comet).clients.find(process.id) is process
        assert tab.post(f"{tab.url}/{action}", {"~inbox": "new.0"}).status == 410
    thread.join()


@pytest.mark.parametrize("token", ["x", "x.y", "", "%00", "a" * 2000])
def test_a_token_that_we_did_not_sign_is_403(server: Address, token: str) -> None:
    tab = Tab(server)
    answer = tab.post(f"/comet/p/{token}/poll", {"channels": {"a": "now"}})
    assert answer.status == 403


def test_a_closed_process_is_410_before_anybody_asks_for_the_cookie(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    assert tab.post(f"{tab.url}/close", "anything", "text/plain;charset=UTF-8").status == 204
    for cookie in (tab.cookie, ""):
        headers = {**JSON, "Cookie": cookie}
        answer = server.request("POST", f"{tab.url}/poll", '{"channels": {"a": "now"}}', headers)
        assert answer.status == 410
        assert answer.body == b'{"events":[{"error":"process-closed"}]}'
    assert len(inside(comet).clients) == 0


def test_a_process_that_closes_while_held_is_told_on_all_its_connections(
    comet: Comet, server: Address
) -> None:
    site = comet.create(scope=SITE, name="ticker")
    tab = Tab(server)
    process = process_of(comet, tab)
    inbox = comet.create(scope=process, name="inbox")
    own = tab.hold({"~inbox": tab.poll({"~inbox": "now"})[0]["position"]})
    other = tab.hold({"ticker": tab.poll({"ticker": "now"})[0]["position"]})
    wait_for_listeners(inbox, 1)
    wait_for_listeners(site, 1)
    process.close()
    for held in (own, other):
        assert held.answer().status == 410
    assert process.closed
    assert len(inside(comet).fanout.listeners) == 0


def test_the_default_process_is_that_of_the_cookie(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    body = {"channels": {"~inbox": "now"}}
    assert events(tab.post("/comet/poll", body)) == [{"channel": "~inbox", "position": "new.0"}]
    (session,) = inside(comet).clients.sessions()
    default = default_of(comet, tab)
    assert default.session is session
    assert default is not process_of(comet, tab)
    comet.create(scope=default, name="inbox").publish("to the default")
    found = events(tab.post("/comet/poll", {"channels": {"~inbox": "new.0"}}))
    assert data(found) == ["to the default"]


def test_without_a_cookie_process_channels_are_forbidden(server: Address) -> None:
    assert poll(server, {"~inbox": "now"}) == [{"channel": "~inbox", "error": "forbidden"}]


def test_a_process_channel_that_does_not_exist_yet_answers_new_and_loses_nothing(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    assert tab.poll({"~inbox": "now"}) == [{"channel": "~inbox", "position": "new.0"}]
    assert tab.poll({"~inbox": "last:5"}) == [{"channel": "~inbox", "position": "new.0"}]
    inbox = comet.create(scope=process_of(comet, tab), name="inbox")
    inbox.publish("first")
    assert data(tab.poll({"~inbox": "new.0"})) == ["first"]


def test_subscribing_to_a_process_channel_that_does_not_exist_yet_waits_for_it(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    site = comet.create(scope=SITE, name="ticker")
    held = tab.hold({"~inbox": "new.0", "ticker": tab.poll({"ticker": "now"})[0]["position"]})
    wait_for_listeners(site, 1)
    comet.create(scope=process, name="inbox").publish("first")
    assert data(events(held.answer())) == ["first"]
    assert expected(client_of(process).place.directory) == {}


def test_a_process_channel_that_came_and_went_is_closed_not_silence(
    make_server: MakeServer,
) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    tab = Tab(server)
    process = process_of(comet, tab)
    tab.poll({"~inbox": "now"})
    inbox = comet.create(scope=process, name="inbox")
    inbox.publish("missed")
    inbox.close()
    found = tab.poll({"~inbox": "new.0"})
    assert data(found) == ["missed"]
    while len(inside(comet).background):  # until the server's thread has begun to count
        tab.poll({"~inbox": "new.0"})
    clock.advance(10.3)
    while client_of(process).place.directory.find("~inbox") is not None:
        pass  # until the sweeper has come by
    closed = {"channel": "~inbox", "error": "closed", "reason": "ended"}
    assert tab.poll({"~inbox": "new.0"}) == [closed]
    assert tab.poll({"~inbox": "now"}) == [{"channel": "~inbox", "position": "new.0"}]
    comet.create(scope=process, name="inbox").publish("again")
    assert data(tab.poll({"~inbox": "new.0"})) == ["again"]


def test_an_old_position_of_a_process_channel_that_is_gone_is_closed(server: Address) -> None:
    tab = Tab(server)
    closed = {"channel": "~inbox", "error": "closed", "reason": "unknown"}
    assert tab.poll({"~inbox": "old.7"}) == [closed]


def test_a_process_channel_that_overflows_answers_a_final_full(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="inbox", size=2)
    (where,) = tab.poll({"~inbox": "now"})
    inbox.publish(1)
    inbox.publish(2)
    with pytest.raises(ChannelFull):
        inbox.publish(3)
    for start in (where["position"], "now", "last:1", "new.0", "other.3"):
        assert tab.poll({"~inbox": start}) == [{"channel": "~inbox", "error": "full"}]


def test_a_full_channel_says_so_for_as_long_as_its_process_lives(make_server: MakeServer) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock, settings=Settings(jitter=0, linger=10))
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="inbox", size=1)
    tab.poll({"~inbox": "now"})
    inbox.publish(1)
    with pytest.raises(ChannelFull):
        inbox.publish(2)
    for _ in range(5):
        clock.advance(100)
        for _ in range(3):  # the first one gives whatever expires its turn
            assert tab.poll({"~inbox": "now"}) == [{"channel": "~inbox", "error": "full"}]


def test_a_held_reader_is_told_when_its_channel_overflows(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="inbox", size=2)
    held = tab.hold({"~inbox": tab.poll({"~inbox": "now"})[0]["position"]})
    wait_for_listeners(inbox, 1)

    def publish() -> None:
        inbox.publish(1)
        inbox.publish(2)
        with pytest.raises(ChannelFull):
            inbox.publish(3)

    in_loop(comet, publish)
    assert events(held.answer()) == [{"channel": "~inbox", "error": "full"}]


def test_the_positions_of_a_request_acknowledge_all_before_them(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="inbox", size=3)
    (where,) = tab.poll({"~inbox": "now"})
    position = where["position"]
    for n in range(10):
        inbox.publish(n)
        (event,) = tab.poll({"~inbox": position})
        assert event["data"] == n
        assert len(feed_of(inbox).history) == 1  # until the next request says that it came
        position = event["position"]
    assert tab.poll({"~inbox": position}, idle=True) == []
    assert len(feed_of(inbox).history) == 0


def test_ack_acknowledges_without_a_poll(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="inbox", size=3)
    comet.create(scope=SITE, name="site").publish("x")
    for n in range(3):
        inbox.publish(n)
    epoch = feed_of(inbox).history.epoch
    sent = {"~inbox": f"{epoch}.2", "~gone": "e.1", "site": "old.1", "nothing": "e.1"}
    assert tab.post(f"{tab.url}/ack", sent).status == 204
    assert feed_of(inbox).history.first == 3
    assert tab.post(f"{tab.url}/ack", {"~inbox": f"{epoch}.99"}).status == 204
    assert feed_of(inbox).history.first == 3
    bad = tab.post(f"{tab.url}/ack", {"~inbox": "now"})
    assert bad.status == 400
    assert "expected a position" in json.loads(bad.body)["error"]


def test_a_process_has_one_reader_and_the_older_is_told(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    inbox = comet.create(scope=process_of(comet, tab), name="inbox")
    start = tab.poll({"~inbox": "now"})[0]["position"]
    older = tab.hold({"~inbox": start})
    wait_for_listeners(inbox, 1)
    newer = tab.hold({"~inbox": start})
    assert json.loads(older.answer().body) == {"events": [], "replaced": True}
    wait_for_listeners(inbox, 1)
    inbox.publish("not lost")
    assert data(events(newer.answer())) == ["not lost"]


def test_connections_for_site_channels_do_not_disturb_each_other(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    site = comet.create(scope=SITE, name="ticker")
    inbox = comet.create(scope=process_of(comet, tab), name="inbox")
    own = tab.hold({"~inbox": tab.poll({"~inbox": "now"})[0]["position"]})
    wait_for_listeners(inbox, 1)
    start = tab.poll({"ticker": "now"})[0]["position"]
    others = [tab.hold({"ticker": start}) for _ in range(2)]
    wait_for_listeners(site, 2)
    site.publish("x")
    assert [data(events(other.answer())) for other in others] == [["x"], ["x"]]
    assert inbox.listeners == 1
    inbox.publish("y")
    assert data(events(own.answer())) == ["y"]


def test_an_on_demand_channel_is_read_as_the_client_asks(comet: Comet, server: Address) -> None:
    taken: list[int] = []

    async def unread() -> AsyncIterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    tab = Tab(server)
    channel = comet.create_unlimited(unread(), scope=process_of(comet, tab), name="unread")
    position = tab.poll({"~unread": "now"})[0]["position"]
    assert taken == []
    for n in range(5):
        (event,) = tab.poll({"~unread": position})
        assert event["data"] == n
        assert taken == list(range(n + 1))
        position = event["position"]
    assert len(feed_of(channel).history) == 1


@pytest.mark.parametrize("start", ["now", "last:1", "last:9"])
def test_a_poll_that_begins_anew_does_not_read_an_on_demand_source(
    comet: Comet, server: Address, start: str
) -> None:
    taken: list[int] = []

    async def unread() -> AsyncIterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    tab = Tab(server)
    comet.create_unlimited(unread(), scope=process_of(comet, tab), name="unread")
    found = [tab.poll({"~unread": start}) for _ in range(5)]  # each gives the source its turn
    assert found == [found[0]] * 5
    ((where,),) = found[:1]
    assert where["position"].endswith(".0")
    assert taken == []
    assert data(tab.poll({"~unread": where["position"]})) == [0]


def test_an_on_demand_source_waits_for_the_reader_however_long(
    comet: Comet, server: Address
) -> None:
    async def endless() -> AsyncIterator[int]:
        n = 0
        while True:
            yield n
            n += 1
            await anyio.lowlevel.checkpoint()

    tab = Tab(server)
    comet.create_unlimited(endless(), scope=process_of(comet, tab), name="n")
    position = tab.poll({"~n": "now"})[0]["position"]
    tab.poll({"~n": position})
    for _ in range(3):  # the same question again: an answer that was lost
        assert data(tab.poll({"~n": position})) == [0]


# Limits of processes


def test_32_processes_in_a_session_and_the_33rd_closes_the_one_longest_idle(
    comet: Comet, server: Address
) -> None:
    first = Tab(server)
    tabs = [first, *(Tab(server, first.jar) for _ in range(31))]
    processes = [process_of(comet, tab) for tab in tabs]
    assert not any(process.closed for process in processes)
    Tab(server, first.jar)
    assert [process.closed for process in processes] == [True] + [False] * 31
    assert first.post(f"{first.url}/poll", {"channels": {"a": "now"}}).status == 410


def test_when_all_processes_of_a_session_are_connected_one_more_is_429(
    make_server: MakeServer,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, max_processes_per_session=2))
    channel = comet.create(scope=SITE, name="ticker")
    start = poll(server, {"ticker": "now"})[0]["position"]
    one = Tab(server)
    two = Tab(server, one.jar)
    held = [tab.hold({"ticker": start}) for tab in (one, two)]
    wait_for_listeners(channel, 2)
    answer = one.post("/comet/open")
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) > 0
    assert "set-cookie" not in answer.headers
    assert "at most 2 client processes connected in this session" in answer.body.decode()
    assert one.post("/comet/poll", {"channels": {"~x": "now"}}).status == 429
    channel.publish("x")
    assert all(one.answer().status == 200 for one in held)
    assert one.post("/comet/open").status == 201


def test_over_max_processes_is_503(make_server: MakeServer) -> None:
    comet, server = make_server(settings=Settings(jitter=0, max_processes=2))
    Tab(server)
    Tab(server)
    answer = server.request("POST", "/comet/open")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert len(inside(comet).clients) == 2


# References


def test_a_reference_leads_to_the_channel_without_losing_anything(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    site = comet.create(scope=SITE, name="ticker")
    newest = comet.create_newest(name="gauge")
    inbox = comet.create(scope=process_of(comet, tab), name="inbox")
    for channel in (site, newest, inbox):
        channel.publish("before")
    references = [channel.reference() for channel in (site, newest, inbox)]
    assert references[0]["url"] == "/comet"
    assert references[2]["url"] == tab.url
    for channel in (site, inbox):
        channel.publish("after")
    found = [
        data(events(tab.post(r["url"] + "/poll", {"channels": {r["channel"]: r["position"]}})))
        for r in references
    ]
    assert found == [["after"], ["before"], ["before", "after"]]


def test_an_external_channel_refers_to_another_server() -> None:
    comet = Comet("k" * 32)
    url = "https://live.example.com/comet"
    external = comet.external_channel(prefix=url, name="news", history=5)
    assert external.reference() == {"url": url, "channel": "news", "position": "last:5"}
    assert comet.external_channel(prefix=url, name="n").reference()["position"] == "last:1"
    newest = comet.external_channel(prefix=url, name="n", history=5, newest=True)
    assert newest.reference()["position"] == "last:1"
    path = comet.external_channel(prefix="/live/comet", name="news", history=0)
    assert path.reference() == {"url": "/live/comet", "channel": "news", "position": "last:0"}
    wrong = ("", "/", "comet", "/comet/", "//a.b/c", "/\\a.b", "/c?d", "/c d", "ftp://a.b/c")
    for prefix in (*wrong, "https:///c", url + "/"):
        with pytest.raises(ValueError, match="expected prefix like"):
            comet.external_channel(prefix=prefix, name="n")
    with pytest.raises(ValueError, match="at least 0"):
        comet.external_channel(prefix=url, name="n", history=-1)


def test_a_channel_of_another_server_can_be_followed_there(make_server: MakeServer) -> None:
    there, other = make_server()
    here, _ = make_server()
    there.create(scope=SITE, name="news").publish("hello")
    reference = here.external_channel(prefix=f"{other.url}/comet", name="news").reference()
    assert reference["url"] == f"{other.url}/comet"
    found = poll(other, {reference["channel"]: reference["position"]})
    assert data(found) == ["hello"]


# The outcome of a write


def test_success_once_a_client_comes_back_with_the_position(comet: Comet, server: Address) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    start = poll(server, {"ticker": "now"})[0]["position"]
    held = hold(server, {"ticker": start})
    wait_for_listeners(channel, 1)
    seen: list[Delivery] = []
    in_loop(comet, lambda: seen.append(channel.publish("x")))
    (event,) = events(held.answer())
    assert feed_of(channel).outcomes.of(1) is None  # handed over is not yet acknowledged
    assert poll(server, {"ticker": event["position"]}, idle=True) == []
    assert outcome(comet, lambda: seen[0]) is Outcome.SUCCESS


def test_failure_when_the_only_listener_got_it_and_never_came_back(
    make_server: MakeServer,
) -> None:
    clock = ManualClock()
    comet, server = make_server(clock=clock)
    channel = comet.create(scope=SITE, name="ticker")
    start = poll(server, {"ticker": "now"})[0]["position"]
    held = hold(server, {"ticker": start})
    wait_for_listeners(channel, 1)
    delivery = channel.publish("x")
    assert data(events(held.answer())) == ["x"]
    clock.advance(20.2)
    assert outcome(comet, lambda: delivery) is Outcome.FAILURE


def test_a_listener_that_came_after_the_message_does_not_decide_what_becomes_of_it(
    make_server: MakeServer,
) -> None:
    comet, server = make_server(clock=ManualClock())
    channel = comet.create(scope=SITE, name="ticker")
    delivery = channel.publish("x")
    epoch = feed_of(channel).history.epoch
    found: list[Outcome] = []
    waiting = threading.Thread(target=lambda: found.append(outcome(comet, lambda: delivery)))
    with server.connect() as late:
        body = json.dumps({"channels": {"ticker": f"{epoch}.1"}})
        head = "POST /comet/poll HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        late.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        wait_for_listeners(channel, 1)
        waiting.start()
        while not awaited(feed_of(channel)):
            server.request("GET", "/")  # each look gives the server its turn
    wait_for_listeners(channel, 0)
    (event,) = poll(server, {"ticker": f"{epoch}.0"})
    assert poll(server, {"ticker": event["position"]}, idle=True) == []
    waiting.join(20)
    assert found == [Outcome.SUCCESS]


def test_failure_at_once_when_every_listener_breaks(comet: Comet, server: Address) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    start = poll(server, {"ticker": "now"})[0]["position"]
    held = hold(server, {"ticker": start})
    wait_for_listeners(channel, 1)

    def publish() -> Delivery:
        delivery = channel.publish("x")
        comet.activation.deactivate()
        return delivery

    assert outcome(comet, publish) is Outcome.FAILURE
    assert held.answer().status == 503


# What a broker with a history of its own makes possible


def test_what_the_window_no_longer_holds_is_asked_of_the_broker(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=2))
    channel = comet.create(scope=SITE, name="ticker")
    start = poll(server, {"ticker": "now"})[0]["position"]
    kept: list[Any] = []
    append = inside(comet).broker.append

    def keep(feed: Feed, message: bytes, **_: Any) -> Any:
        stored = append(feed, message)
        kept.extend(feed.history.after(feed.history.top - 1) or [])
        return stored

    async def recover(feed: Feed, after: int, max_bytes: int) -> Any:
        return kept[after:][:3] or None

    monkeypatch.setattr(inside(comet).broker, "append", keep)
    monkeypatch.setattr(inside(comet).broker, "recover", recover)
    for n in range(6):
        channel.publish(n)
    found = poll(server, {"ticker": start})
    assert data(found) == [0, 1, 2]
    found = poll(server, {"ticker": found[-1]["position"]})
    assert data(found) == [3, 4, 5]


def test_a_channel_of_another_worker_is_asked_of_the_broker(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    comet, server = make_server()
    made: list[Channel[Any]] = []

    async def adopt(name: str) -> Feed | None:
        if name != "elsewhere":
            return None
        made.append(comet.create(scope=SITE, name=name))
        made[0].publish("x")
        return feed_of(made[0])

    monkeypatch.setattr(inside(comet).channels, "adopt", adopt)
    assert data(poll(server, {"elsewhere": "last:1"})) == ["x"]
    assert poll(server, {"nowhere": "last:1"})[0]["reason"] == "unknown"
    position = str(feed_of(made[0]).history.position)
    assert poll(server, {"elsewhere": position}, idle=True) == []
    held = Held(lambda: server.register("registration=elsewhere"))
    wait_for_listeners(made[0], 1)
    made[0].publish("y")
    assert held.answer().pairs == [b"elsewhere:y"]


def test_a_message_in_the_same_moment_as_a_newer_poll_is_the_newers_alone(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    inbox = comet.create(scope=process, name="inbox")
    start = tab.poll({"~inbox": "now"})[0]["position"]
    older = tab.hold({"~inbox": start})
    wait_for_listeners(inbox, 1)

    def both() -> None:
        inbox.publish("x")
        client_of(process).reader = None  # as a newer poll that comes before the older one goes on

    in_loop(comet, both)
    assert json.loads(older.answer().body) == {"events": [], "replaced": True}
    assert data(tab.poll({"~inbox": start})) == ["x"]


def test_a_poll_that_is_replaced_in_the_moment_of_its_timeout_is_told_so(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    inbox = comet.create(scope=process, name="inbox")
    older = tab.hold({"~inbox": tab.poll({"~inbox": "now"})[0]["position"]})
    wait_for_listeners(inbox, 1)

    def both() -> None:
        for listener in client_of(process).listeners:
            listener.expire()
        client_of(process).reader = None  # as a newer poll that comes before the older one goes on

    in_loop(comet, both)
    assert json.loads(older.answer().body) == {"events": [], "replaced": True}


def test_several_process_channels_are_one_reader(comet: Comet, server: Address) -> None:
    tab = Tab(server)
    process = process_of(comet, tab)
    first, second = (comet.create(scope=process, name=name) for name in ("a", "b"))
    start = {event["channel"]: event["position"] for event in tab.poll({"~a": "now", "~b": "now"})}
    held = tab.hold(start)
    wait_for_listeners(second, 1)
    first.publish("x")
    assert data(events(held.answer())) == ["x"]


REFUSED = [
    ("POST", "/comet/poll", "application/json", '{"channels": {}}', {}),
    ("POST", "/comet/poll", "application/json", '{"channels": {"~a": "now"}}', {}),
    ("POST", "/comet/poll", "application/json", "x" * 70_000, {}),
    ("POST", "/comet/poll", "text/plain", "{}", {}),
    ("GET", "/comet/poll", "application/json", "", {}),
    ("POST", "/comet/poll", "application/json", "{}", {"Origin": "http://evil.example"}),
    ("POST", "/", COMET, "", {}),
    ("POST", "/", COMET, "registration=" + "%0A".join(map(str, range(200))), {}),
    ("POST", "/comet/p/forged/poll", "application/json", '{"channels": {"a": "now"}}', {}),
    ("POST", "/comet/open", "text/plain", "", {"Sec-Fetch-Site": "cross-site"}),
    ("POST", "/comet/admin/deactivate", "text/plain", "", {}),
]


def test_a_refused_request_allocates_nothing_that_outlives_it(
    comet: Comet, server: Address
) -> None:
    comet.create(scope=SITE, name="a")
    for method, path, kind, body, more in REFUSED:
        server.request(method, path, body, {"Content-Type": kind, **more})
        assert left(comet) == {"channels": 1}


def test_the_memory_of_a_site_channel_is_independent_of_the_number_of_users(
    comet: Comet, server: Address
) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    start = poll(server, {"ticker": "now"})[0]["position"]
    held = [hold(server, {"ticker": start}) for _ in range(20)]
    wait_for_listeners(channel, 20)
    feed, kept = feed_of(channel), list[int]()
    feed.observers = (*feed.observers, lambda _: kept.append(len(encoded(feed))))
    channel.publish("x" * 1000)
    assert all(data(events(one.answer())) == ["x" * 1000] for one in held)
    wait_for_listeners(channel, 0)
    assert (len(feed.history), feed.history.bytes) == (1, 1002)
    assert kept == [1] * 19 + [0]  # one encoded run for all twenty, until the last one goes


def test_a_message_of_one_mebibyte_is_the_largest_and_still_one_answer(
    comet: Comet, server: Address
) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    start = poll(server, {"ticker": "now"})[0]["position"]
    largest = "x" * (1024 * 1024 - 2)
    channel.publish(largest)
    with pytest.raises(MessageTooLarge, match="at most 1048576 bytes"):
        channel.publish(largest + "x")
    channel.publish("next")
    found = poll(server, {"ticker": start})
    assert data(found) == [largest]
    assert data(poll(server, {"ticker": found[0]["position"]})) == ["next"]


@pytest.mark.parametrize(("more", "count"), [(0, 2), (1, 1)])
def test_an_answer_has_at_most_256_kibibytes_all_that_is_around_messages_included(
    comet: Comet, server: Address, more: int, count: int
) -> None:
    channel = comet.create(scope=SITE, name="ticker")
    start = poll(server, {"ticker": "now"})[0]["position"]
    around = len(b'{"channel":"ticker","position":"%b","data":""}' % start.encode())
    for size in (128 * 1024 - around - len(b'{"events":[]}'), 128 * 1024 - around - 1 + more, 1):
        channel.publish("x" * size)
    body = json.dumps({"channels": {"ticker": start}})
    kind = {"Content-Type": "application/json"}
    answer = server.request("POST", "/comet/poll", body, kind)
    assert len(events(answer)) == count
    assert len(answer.body) <= 256 * 1024
    assert more or len(answer.body) == 256 * 1024
