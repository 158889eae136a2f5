"""Notifications, receipts and `revoke` through three workers on Redis, and from a script."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_comet import (
    SITE,
    BrokerUnavailable,
    Comet,
    CometMiddleware,
    Delivery,
    Notification,
    Receipt,
    Settings,
)
from asgi_comet.brokers.redis import RedisBroker
from tests.kit.clients import PollClient, SseClient
from tests.kit.forking import fork, wait
from tests.kit.measuring import MEASURED
from tests.kit.programs import ROOT
from tests.kit.redis import RedisServer
from tests.kit.serving import Address, Tab, serve
from tests.kit.stage import KEY


class Worker:
    """An application with a notifier and a guarded channel: a worker, or a script."""

    def __init__(self, url: str, **options: Any) -> None:
        settings = Settings(timeout=2)  # of an outcome
        self.comet = Comet(KEY, broker=RedisBroker(url, **options), settings=settings)
        self.mail = self.comet.notifier("mail", key=str)
        self.greetings = self.comet.notifier("greetings", key=str, prepare=self.greet)
        self.room = self.comet.create(scope=SITE, name="room", authorize=lambda connection: True)
        self.notification: Notification
        self.delivery: Delivery
        self.address: Address

    async def greet(self, user: str | None, value: str) -> str:
        await anyio.lowlevel.checkpoint()
        return f"{value}, {user}"

    def serve(self, stack: ExitStack) -> None:
        calls = [self.login, self.listen, self.notify, self.receipt, self.revoke, self.publish]
        calls.append(self.outcome)
        routes = [Route(f"/{one.__name__}", one, methods=["POST"]) for one in calls]
        app = Starlette(routes=routes, middleware=[Middleware(CometMiddleware, comet=self.comet)])
        self.address = stack.enter_context(serve(app))

    async def login(self, request: Request) -> Response:
        self.comet.login(request.query_params["user"])
        return Response()

    async def listen(self, request: Request) -> Response:
        key = request.query_params["key"]
        self.greetings.listen(key)
        return JSONResponse(self.mail.listen(key).reference())

    async def notify(self, request: Request) -> Response:
        asked = request.query_params
        self.notification = self.mail.notify(asked["key"], asked["text"])
        return JSONResponse(await self.notification)

    async def receipt(self, request: Request) -> Response:
        receipt = await self.notification.received(float(request.query_params["timeout"]))
        return JSONResponse(names(receipt))

    async def revoke(self, request: Request) -> Response:
        return JSONResponse(await self.comet.revoke(self.room, user=request.query_params["user"]))

    async def publish(self, request: Request) -> Response:
        self.delivery = self.room.publish("secret")
        return JSONResponse(str(await self.delivery.stored()))

    async def outcome(self, request: Request) -> Response:
        return JSONResponse((await self.delivery).value)


def names(receipt: Receipt) -> list[list[Any]]:
    """Return the users of the tabs of a receipt."""
    parts = (receipt.acknowledged, receipt.silent, receipt.missing)
    return [sorted(process.user for process in part) for part in parts]


@pytest.fixture
def workers(redis: RedisServer) -> Iterator[list[Worker]]:
    workers = [Worker(redis.url) for _ in range(3)]
    with ExitStack() as stack:
        for worker in workers:
            worker.serve(stack)
        yield workers


def post(worker: Worker, path: str, tab: Tab | None = None, **query: Any) -> Any:
    headers = {} if tab is None else {"Cookie": tab.cookie, "Comet-Process": tab.opened["process"]}
    answer = worker.address.request("POST", f"/{path}?{urlencode(query)}", "", headers)
    assert answer.status == 200, answer
    if tab is not None:
        tab.keep(answer)
    return json.loads(answer.body or b"null")


def listen(worker: Worker, user: str) -> Tab:
    """Open a tab of a user, who listens at a worker."""
    tab = Tab(worker.address)
    post(worker, "login", tab, user=user)
    post(worker, "listen", tab, key="k")
    return tab


def read(tab: Tab, name: str = "~mail") -> list[Any]:
    """Read all that a tab has not acknowledged."""
    answer = tab.post(f"{tab.url}/poll", {"channels": {name: "new.0"}, "idle": True})
    assert answer.status == 200, answer
    return [event["data"]["value"] for event in json.loads(answer.body)["events"]]


def test_a_receipt_tells_what_became_of_each_tab_at_any_worker(workers: list[Worker]) -> None:
    ann, bob, eve = (
        listen(worker, user) for worker, user in zip(workers, ["ann", "bob", "eve"], strict=True)
    )
    poll = PollClient(ann, workers[2].address)
    stream = SseClient(bob, workers[0].address)
    for client in (poll, stream):
        client.begin({"~mail": "new.0"})
    assert post(workers[1], "notify", key="k", text="hello") == 3
    for client in (poll, stream):
        assert client.data(1) == [{"key": "k", "value": "hello"}]
    poll.resume()  # at the same worker; its position acknowledges
    while (found := post(workers[1], "receipt", timeout=0.05))[0] != ["ann"]:
        pass
    assert found == [["ann"], ["bob"], ["eve"]]
    poll.cut()
    stream.cut()
    del eve


def test_a_receipt_comes_when_the_last_tab_has_acknowledged_at_another_worker(
    workers: list[Worker],
) -> None:
    tab = listen(workers[0], "ann")
    assert post(workers[1], "notify", key="k", text="hello") == 1
    tab.address = workers[2].address
    answer = tab.post(f"{tab.url}/poll", {"channels": {"~mail": "new.0"}, "idle": True})
    (event,) = json.loads(answer.body)["events"]
    tab.address = workers[0].address
    assert tab.post(f"{tab.url}/ack", {"~mail": event["position"]}).status == 204
    assert post(workers[1], "receipt", timeout=20) == [["ann"], [], []]


def test_a_position_that_came_with_full_at_any_worker_acknowledges_nothing(
    workers: list[Worker],
) -> None:
    tab = listen(workers[0], "ann")

    def tell(text: str, position: str, worker: int) -> list[Any]:
        """Notify, poll at a worker, and acknowledge the position at the next one."""
        assert post(workers[1], "notify", key="k", text=text) == 1
        tab.address = workers[worker].address
        body = {"channels": {"~mail": position}, "idle": True}
        events: list[Any] = json.loads(tab.post(f"{tab.url}/poll", body).body)["events"]
        tab.address = workers[(worker + 1) % 3].address
        assert tab.post(f"{tab.url}/ack", {"~mail": events[-1]["position"]}).status == 204
        return events

    (first,) = tell("first", "new.0", 0)
    tell("second", first["position"], 1)
    assert post(workers[1], "receipt", timeout=20) == [["ann"], [], []]
    (told,) = tell("skipped", first["position"], 2)
    assert told["error"] == "full"
    assert post(workers[1], "receipt", timeout=20) == [[], [], ["ann"]]
    tell("last", told["position"], 0)
    assert post(workers[1], "receipt", timeout=20) == [["ann"], [], []]


def test_nothing_published_after_revoke_has_returned_is_read_at_any_worker(
    workers: list[Worker],
) -> None:
    tabs = [listen(worker, "ann") for worker in workers]
    streams = [SseClient(tab, worker.address) for tab, worker in zip(tabs, workers, strict=True)]
    for stream in streams:
        stream.begin({"room": "now"})
        stream.next()
    assert post(workers[1], "revoke", user="ann") == 3
    for worker in workers:
        post(worker, "publish")
    for stream in streams:
        assert stream.next()["error"] == "forbidden"
        stream.cut()


def test_a_tab_acknowledges_at_any_worker_what_its_stream_has_brought(
    workers: list[Worker],
) -> None:
    tab = listen(workers[0], "ann")
    stream = SseClient(tab, workers[0].address)
    stream.begin({"room": "now"})
    stream.next()
    position = {"room": post(workers[0], "publish")}
    assert stream.data(1) == ["secret"]
    tab.address = workers[1].address
    assert tab.post(f"{tab.url}/ack", position).status == 204
    assert post(workers[0], "outcome") == "success"
    stream.cut()


def test_a_tab_cannot_acknowledge_elsewhere_what_it_may_not_read(workers: list[Worker]) -> None:
    ann, eve = listen(workers[0], "ann"), listen(workers[0], "eve")
    stream = SseClient(ann, workers[0].address)
    stream.begin({"room": "now"})
    stream.next()
    position = {"room": post(workers[0], "publish")}
    assert stream.data(1) == ["secret"]
    eve.address = workers[1].address
    assert eve.post(f"{eve.url}/ack", position).status == 204
    stream.cut()
    assert post(workers[0], "outcome") != "success"


# Scripts


def test_a_script_notifies_tabs_of_all_workers(workers: list[Worker], redis: RedisServer) -> None:
    tabs = [listen(worker, f"user {n}") for n, worker in enumerate(workers)]
    script = Worker(redis.url)
    with script.comet.publishing():
        for number in range(3):
            script.mail.notify("k", number)
        script.greetings.notify("k", "Hello")
    for number, tab in enumerate(tabs):
        assert read(tab) == [0, 1, 2]
        assert read(tab, "~greetings") == [f"Hello, user {number}"]


def test_a_script_in_asyncio_is_told_who_has_got_a_notification(
    workers: list[Worker], redis: RedisServer
) -> None:
    tab = listen(workers[0], "ann")
    script = Worker(redis.url)

    async def main() -> None:
        async with script.comet.publishing():
            notification = script.mail.notify("k", "hello")
            assert await notification == 1
            assert [one.user for one in await script.mail.listeners("k")] == ["ann"]
            assert names(await notification.received(timeout=0.05)) == [[], [], ["ann"]]
            answer = await asyncio.to_thread(
                tab.post, f"{tab.url}/poll", {"channels": {"~mail": "new.0"}, "idle": True}
            )
            (event,) = json.loads(answer.body)["events"]
            position = {"~mail": event["position"]}
            await asyncio.to_thread(tab.post, f"{tab.url}/ack", position)
            assert names(await notification.received(timeout=20)) == [["ann"], [], []]

    asyncio.run(main())


def test_a_script_asks_in_a_thread_who_listens(workers: list[Worker], redis: RedisServer) -> None:
    listen(workers[0], "ann")
    script = Worker(redis.url)
    with script.comet.publishing():
        assert [process.user for process in script.mail.listeners("k")] == ["ann"]


def test_a_script_that_never_enters_is_told_that_its_notifications_reach_no_tab(
    redis: RedisServer,
) -> None:
    text = (
        "from asgi_comet import Comet\n"
        f"mail = Comet({'k' * 40!r}, broker={redis.url!r}).notifier('mail', key=str)\n"
        "for number in range(2): mail.notify('k', number)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, **MEASURED},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "2 messages were published where no server ran" in ran.stderr
    assert "publish within `with comet.publishing():`" in ran.stderr


def test_a_notification_that_a_script_cannot_hand_out_is_told() -> None:
    script = Worker("redis+unix:///nowhere", patience=0.1)
    with (
        pytest.raises(BrokerUnavailable, match="1 message was not stored"),
        script.comet.publishing(),
    ):
        script.mail.notify("k", "hello")


def test_a_forked_script_notifies_only_what_is_its_own(
    workers: list[Worker], redis: RedisServer
) -> None:
    tab = listen(workers[0], "ann")
    script = Worker(redis.url)
    with script.comet.publishing():
        script.mail.notify("k", "parent")
        with script.comet.publishing():
            pass
        redis.send(signal.SIGSTOP)
        script.mail.notify("k", "on its way")  # of the parent alone
        child = fork(notify, script)
        redis.send(signal.SIGCONT)
        assert wait(child) == 0
    assert sorted(read(tab)) == ["child", "on its way", "parent"]


def notify(script: Worker) -> None:
    with script.comet.publishing():
        script.mail.notify("k", "child")
