"""Where a start leads, for what only one moment or one place decides; the rest is in `contract`."""

from __future__ import annotations

import logging

import pytest

from asgi_comet import SITE, Comet
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed
from asgi_comet.core.messages import NEXT_INCARNATION
from asgi_comet.position import Position
from asgi_comet.testing import wait_for_listeners
from asgi_comet.testing._inspect import client_of, feed_of, inside
from asgi_comet.transports.subscribing import acknowledge
from tests.kit.processes import process_of
from tests.kit.serving import Address, Tab
from tests.kit.streams import Ws

LOGGER = "asgi_comet.declare.declarations"


def test_an_old_position_of_a_process_channel_that_is_gone_is_closed(
    comet: Comet, server: Address
) -> None:
    tab = Tab(server)
    with Ws(server, tab.url, tab.cookie) as socket:
        socket.say(subscribe={"~b": "old.7"})
        assert socket.next() == {"channel": "~b", "error": "closed", "reason": "unknown"}
        process = process_of(comet, tab)
        channel = comet.create(scope=process, name="b")
        channel.close()
        client_of(process).place.directory.forget(feed_of(channel))
        socket.say(subscribe={"~b": "new.0"})
        assert socket.next() == {"channel": "~b", "error": "closed", "reason": "ended"}
        socket.say(subscribe={"~b": "now"})
        assert socket.next() == {"channel": "~b", "position": "new.0"}


@pytest.mark.parametrize("start", ["now", "new.0"])
def test_a_process_channel_that_a_thread_makes_in_this_very_moment_is_followed(
    comet: Comet, server: Address, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    tab = Tab(server)
    channel = comet.create(scope=process_of(comet, tab), name="b")
    find, missed = Directory.find, list[str]()

    def miss_once(self: Directory, name: str) -> Feed | None:
        if name == "~b" and not missed:
            missed.append(name)
            return None
        return find(self, name)

    monkeypatch.setattr(Directory, "find", miss_once)
    with Ws(server, tab.url, tab.cookie) as socket:
        socket.say(subscribe={"~b": start})
        if start == "now":
            assert socket.next() == {"channel": "~b", "position": "new.0"}
        wait_for_listeners(channel, 1)
        channel.publish("x")
        assert socket.next()["data"] == "x"
    assert missed == ["~b"]


def test_an_acknowledgement_is_of_a_position_of_this_incarnation(comet: Comet) -> None:
    site = comet.create(scope=SITE, name="a")
    for n in range(3):
        site.publish(n)
    feed_of(site).outcomes.send(0, 2)
    epoch = feed_of(site).history.epoch
    for position in (Position("other", 2), Position(epoch, 4), NEXT_INCARNATION):
        acknowledge(inside(comet), None, {"a": position, "~a": position, "gone": position}, ())
        assert feed_of(site).outcomes.of(1) is None
    acknowledge(inside(comet), None, {"a": Position(epoch, 2)}, ())
    assert feed_of(site).outcomes.of(1) is not None
    assert feed_of(site).outcomes.of(3) is None


@pytest.mark.parametrize("others", [17, 18])
def test_a_mistyped_name_is_logged_for_developers_with_the_names_there_are(
    comet: Comet, server: Address, caplog: pytest.LogCaptureFixture, others: int
) -> None:
    comet.create(scope=SITE, name="news")
    comet.family("room:{room}", authorize=lambda connection, room: False)
    comet.family("user:{user}").channel(user="ada")
    for n in range(others):
        comet.create(scope=SITE, name=f"more{n}")
    line = "there is no channel 'nws\\u2028' (there are: 'room:{room}', 'user:{user}', 'news', "
    with caplog.at_level(logging.DEBUG, "asgi_comet.declare.declarations"), Ws(server) as socket:
        socket.say(subscribe={":": "now"})
        assert socket.next()["reason"] == "unknown"
        socket.say(subscribe={"nws\u2028": "now"})
        assert socket.next()["reason"] == "unknown"
    (said,) = [
        r.getMessage() for r in caplog.records if r.name == "asgi_comet.declare.declarations"
    ]
    assert said.startswith(line)
    assert said.endswith("'more16')" if others == 17 else "'more16', ...)")


def test_a_mistyped_name_is_logged_where_there_is_no_channel_at_all(
    comet: Comet, server: Address, caplog: pytest.LogCaptureFixture
) -> None:
    with Ws(server) as socket:  # not at other levels
        socket.say(subscribe={"nws": "now"})
        assert socket.next()["reason"] == "unknown"
        with caplog.at_level(logging.DEBUG, "asgi_comet.declare.declarations"):
            socket.say(subscribe={"x" * 255: "now"})
            assert socket.next()["reason"] == "unknown"
    (said,) = [
        r.getMessage() for r in caplog.records if r.name == "asgi_comet.declare.declarations"
    ]
    assert said.startswith("there is no channel 'xxx")
    assert said.endswith("(there are: none)")
    assert len(said) < 250
