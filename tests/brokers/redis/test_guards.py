"""Guards with a real Redis: the record of a channel has the name of its rule."""

from __future__ import annotations

import json
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_comet import SITE, Comet, CometMiddleware
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.keys import Keys
from tests.kit.redis import Client, RedisServer
from tests.kit.serving import Address, Answer, serve
from tests.kit.stage import KEY


def may_enter(connection: HTTPConnection) -> bool:
    return "guest" in connection.cookies


def ask(address: Address, cookie: str) -> Answer:
    headers = {"Content-Type": "application/json", "Cookie": cookie}
    body = json.dumps({"channels": {"room": "last:1"}})
    return address.request("POST", "/comet/poll", body, headers)


def worker(redis: RedisServer, *guards: Any) -> Starlette:
    comet = Comet(KEY, broker=RedisBroker(redis.url))
    for guard in guards:
        comet.guard(guard)

    async def make(request: Request) -> JSONResponse:
        room = comet.create(scope=SITE, name="room", authorize=may_enter)
        await room.publish("secret").stored()
        reference = room.reference()
        if "end" in request.query_params:
            room.close()
        return JSONResponse(reference)

    middleware = [Middleware(CometMiddleware, comet=comet)]
    return Starlette(routes=[Route("/make", make, methods=["POST"])], middleware=middleware)


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
