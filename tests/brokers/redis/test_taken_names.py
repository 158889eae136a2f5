"""A name that a channel of another kind, or of another making, has in Redis already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from asgi_comet import SITE, Channel, ChannelClosed, Comet, Delivery, NonUniqueChannelName
from tests.kit.loop import wait_in_loop
from tests.kit.redis import RedisServer
from tests.kit.serving import serve
from tests.kit.stage import KEY, application

Make = Callable[[Comet], Channel[Any]]


def of_site(comet: Comet) -> Channel[Any]:
    return comet.create(scope=SITE, name="score")


def of_newest(comet: Comet) -> Channel[Any]:
    return comet.create_newest(name="score")


def publish_once(redis: RedisServer, make: Make, *, running: bool) -> None:
    """Make a channel when the application is imported, or while it runs."""
    comet = Comet(KEY, broker=redis.url)
    channel = None if running else make(comet)
    with comet.publishing():
        (channel or make(comet)).publish(1)


def fail(comet: Comet, channel: Channel[Any], first: Delivery) -> str:
    """Return why the first message was refused, and the messages behind are."""

    async def wait() -> None:
        with pytest.raises(NonUniqueChannelName) as refused:
            await first.stored()
        told.append(str(refused.value))

    told: list[str] = []
    wait_in_loop(comet, wait)
    with pytest.raises(ChannelClosed, match="'score', which has failed") as closed:
        channel.publish(3)
    assert str(closed.value.__cause__) == told[0]
    return told[0]


@pytest.mark.parametrize(
    ("before", "running", "now", "cause"),
    [
        (of_newest, False, of_site, "of kind newest, and this application makes one of kind site"),
        (of_site, False, of_newest, "of kind site, and this application makes one of kind newest"),
        (of_site, True, of_site, "that a worker made while it ran, and this application makes one"),
    ],
    ids=["newest before", "site before", "made while running"],
)
def test_what_has_the_name_of_an_imported_channel_is_told_with_the_way_out(
    redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    before: Make,
    running: bool,
    now: Make,
    cause: str,
) -> None:
    publish_once(redis, before, running=running)
    comet = Comet(KEY, broker=redis.url)
    channel = now(comet)
    first = channel.publish(2)
    with serve(application(comet)):
        told = fail(comet, channel, first)
    assert f"'score', which is taken: Redis has a live channel of this name {cause}" in told
    assert "; choose another name, or first close the old channel, in the version" in told
    (line,) = [one.message for one in caplog.records if "'score'" in one.message]
    assert line == f"channel 'score' is not known to other workers: {told}"


def test_a_name_that_is_taken_while_the_application_runs_is_told_with_the_way_out(
    redis: RedisServer,
) -> None:
    publish_once(redis, of_site, running=False)
    comet = Comet(KEY, broker=redis.url)
    made: list[tuple[Channel[Any], Delivery]] = []

    async def make() -> None:
        channel = of_site(comet)
        made.append((channel, channel.publish(2)))

    with serve(application(comet)):
        wait_in_loop(comet, make)
        told = fail(comet, *made[0])
    assert "'score', which is taken: another worker has a live channel of this name" in told
    assert "choose another name, or make the channel when the application is imported" in told
