"""The time of Redis, as a worker tells it."""

import math
import time

from asgi_comet.brokers.redis.timing import REPLIES, RedisTime

SECOND = 1e6


def answer(redis: RedisTime, seconds: int) -> None:
    redis.ask().read([b"%d" % seconds, b"0"])


def test_nothing_is_known_before_redis_has_answered() -> None:
    assert RedisTime().tell(7.0) == (-math.inf, math.inf)


def test_a_time_is_between_those_of_the_question_and_the_answer() -> None:
    redis, before = RedisTime(), time.monotonic()
    answer(redis, 1000)
    after = time.monotonic()
    least, most = redis.tell(before)
    assert (1000 - (after - before)) * SECOND <= least <= 1000 * SECOND
    assert redis.tell(after)[1] >= 1000 * SECOND
    assert redis.tell(before + 1) == (least + SECOND, most + SECOND)


def test_the_quickest_answers_count_for_a_while() -> None:
    redis = RedisTime()
    slow = [redis.ask() for _ in range(REPLIES)]
    answer(redis, 1000)
    quick = redis.tell(0)
    for call in slow:
        assert redis.tell(0) == quick
        call.read([b"1000", b"0"])
    least, most = redis.tell(0)
    assert least < quick[0] < quick[1] < most


def test_a_clock_that_was_set_is_believed() -> None:
    redis = RedisTime()
    answer(redis, 1000)
    answer(redis, 500)
    assert redis.tell(time.monotonic())[1] < 501 * SECOND


def test_another_redis_is_asked_anew() -> None:
    redis = RedisTime()
    answer(redis, 1000)
    redis.forget()
    assert redis.tell(0) == (-math.inf, math.inf)
