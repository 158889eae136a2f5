"""What several workers do not share yet is refused with a real Redis, as with any shared broker."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_comet import SITE, Channel, Comet, NotShared
from asgi_comet.brokers.redis.broker import RedisBroker
from tests.kit.redis import RedisServer
from tests.kit.refused import SENTENCE, check_requests
from tests.kit.serving import poll, serve
from tests.kit.stage import KEY, application


def test_client_processes_are_refused_and_channels_of_the_site_work(redis: RedisServer) -> None:
    comet = Comet(KEY, broker=RedisBroker(redis.url))
    with pytest.raises(NotShared, match=SENTENCE):
        comet.notifier("messages")
    news: Channel[Any] = comet.create(scope=SITE, name="news")
    with serve(application(comet)) as address:
        check_requests(comet, address)
        place = poll(address, {"news": "now"})[0]["position"]
        news.publish("hello")
        assert [event["data"] for event in poll(address, {"news": place})] == ["hello"]
