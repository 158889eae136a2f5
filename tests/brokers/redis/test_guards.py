"""Guards with a real Redis: the record of a channel has the name of its rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_comet import SITE, Channel, Comet, CometMiddleware
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from tests.kit.clients import SseClient
from tests.kit.redis import Client, RedisServer
from tests.kit.serving import Address, Answer, serve
from tests.kit.stage import KEY, application

meanwhile: list[Callable[[], None]] = []  # what happens while the rule is asked


def may_enter(connection: HTTPConnection) -> bool:
    if meanwhile:
        meanwhile.pop()()
    return "guest" in connection.cookies


def keep_out(connection: HTTPConnection) -> bool:
    return False


def ask(address: Address, cookie: str) -> Answer:
    headers = {"Content-Type": "application/json", "Cookie": cookie}
    body = json.dumps({"channels": {"room": "last:1"}})
    return address.request("POST", "/comet/poll", body, headers)


def worker(redis: RedisServer, *guards: Any) -> Starlette:
    comet = Comet(KEY, broker=RedisBroker(redis.url))
    rooms: list[Channel[Any]] = []
    for guard in guards:
        comet.guard(guard)

    async def make(request: Request) -> JSONResponse:
        rule = keep_out if "closed" in request.query_params else may_enter
        room = comet.create(scope=SITE, name="room", authorize=rule)
        await room.publish("secret").stored()
        rooms.append(room)
        reference = room.reference()
        if "end" in request.query_params:
            room.close()
        return JSONResponse(reference)

    async def close(request: Request) -> Response:
        rooms.pop().close()
        return Response(status_code=204)

    middleware = [Middleware(CometMiddleware, comet=comet)]
    return Starlette(
        routes=[Route(f"/{call.__name__}", call, methods=["POST"]) for call in (make, close)],
        middleware=middleware,
    )


def test_the_rule_of_a_channel_holds_in_every_worker(redis: RedisServer) -> None:
    apps = worker(redis, may_enter), worker(redis, may_enter), worker(redis)
    with serve(apps[0]) as one, serve(apps[1]) as two, serve(apps[2]) as old:
        assert one.request("POST", "/make").status == 200
        for address in (one, two):
            assert b"forbidden" in ask(address, "").body
            assert b"secret" in ask(address, "guest=1").body
        assert ask(old, "guest=1").status == 503


def test_the_rule_of_a_channel_that_has_ended_holds_in_every_worker(
    redis: RedisServer, client: Client
) -> None:
    apps = worker(redis, may_enter), worker(redis, may_enter), worker(redis)
    with serve(apps[0]) as one, serve(apps[1]) as two, serve(apps[2]) as old:
        assert one.request("POST", "/make?end").status == 200
        while client.hget(Keys().site("room").meta, "c") is None:
            pass
        for address in (one, two):
            assert b"forbidden" in ask(address, "").body
            assert b"secret" in ask(address, "guest=1").body
        assert ask(old, "guest=1").status == 503


def test_a_channel_that_was_made_again_has_its_new_rule(redis: RedisServer, client: Client) -> None:
    rules = may_enter, keep_out
    with serve(worker(redis, *rules)) as one, serve(worker(redis, *rules)) as two:
        assert one.request("POST", "/make").status == 200
        assert b"forbidden" in ask(two, "").body  # which remembers the rule for a while
        assert one.request("POST", "/close").status == 204
        while client.hget(Keys().site("room").meta, "c") is None:
            pass
        assert one.request("POST", "/make?closed").status == 200
        assert b"secret" not in ask(two, "guest=1").body
        assert b"forbidden" in ask(two, "guest=1").body


@pytest.mark.parametrize("asked", [0, 1], ids=["here", "elsewhere"])
def test_a_channel_that_is_made_again_while_its_rule_is_asked_has_its_new_rule(
    redis: RedisServer, client: Client, asked: int
) -> None:
    def make_again() -> None:
        assert one.request("POST", "/close").status == 204
        while client.hget(Keys().site("room").meta, "c") is None:
            pass
        assert one.request("POST", "/make?closed").status == 200

    rules = may_enter, keep_out
    with serve(worker(redis, *rules)) as one, serve(worker(redis, *rules)) as two:
        assert one.request("POST", "/make").status == 200
        meanwhile.append(make_again)
        assert b"forbidden" in ask((one, two)[asked], "guest=1").body


def test_a_channel_that_is_gone_for_good_is_unknown(redis: RedisServer, client: Client) -> None:
    with serve(worker(redis, may_enter)) as one, serve(worker(redis, may_enter)) as two:
        assert one.request("POST", "/make").status == 200
        assert b"forbidden" in ask(two, "").body  # which remembers the channel for a while
        assert one.request("POST", "/close").status == 204
        keys = Keys().site("room")
        while client.hget(keys.meta, "c") is None:
            pass
        client.delete(keys.meta, keys.log)
        assert b"unknown" in ask(two, "guest=1").body


def lose_entries(client: Client) -> None:
    """Let the control log go on without the next entry, as if a worker was away for long."""
    keys, now = Keys(), client.time()[0] * 1000
    epoch, top = (part.decode() for part in client.hmget(keys.control_record, "e", "s"))
    row = b'%d id worker ["told", "of a later version"]' % now
    client.delete(keys.control)
    client.rpush(keys.control, row)
    client.hset(keys.control_record, mapping={"s": int(top) + 2, "f": int(top) + 2})
    client.publish(keys.everyone, f"{epoch} {int(top) + 2} ".encode() + row)


def test_a_right_is_looked_at_again_after_changes_of_which_the_worker_never_hears(
    redis: RedisServer, client: Client
) -> None:
    rights, comet = [True], Comet(KEY, broker=redis.url)
    room = comet.create(scope=SITE, name="room", authorize=lambda connection: rights[0])
    with serve(application(comet)) as address:
        reader = SseClient(None, address)
        reader.follow({"room": "now"})
        room.publish("for all")
        assert reader.data(1) == ["for all"]
        rights[0] = False
        lose_entries(client)
        while not (events := reader.read()):  # the stream ends, and begins anew
            pass
        assert [event["error"] for event in events] == ["forbidden"]
        reader.cut()
