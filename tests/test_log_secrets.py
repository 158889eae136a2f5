"""No record has a cookie, a key, a token, a password or a message, in any of its parts."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Annotated, Any, Literal

import anyio
import pytest
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

from asgi_comet import SITE, ClientProcess, Comet, Settings, lifespan
from asgi_comet.client import AsyncClient
from tests.kit.log_records import Heard, listen_to_logs
from tests.kit.redis import Client, RedisServer
from tests.kit.serving import Tab, reserved_port, serve
from tests.kit.stage import application
from tests.kit.streams import Ws

KEY, TOKEN, WRONG, PAYLOAD, PASSWORD = (secrets.token_urlsafe(32) for _ in range(5))

pytestmark = pytest.mark.own_workers("looks at the records of one worker")


@pytest.fixture
def heard() -> Iterator[Heard]:
    with listen_to_logs() as found:
        yield found


class Price(BaseModel):
    amount: int


class Bid(BaseModel):
    kind: Literal["bid"]


class Ask(BaseModel):
    kind: Literal["ask"]


Order = Annotated[Bid | Ask, Field(discriminator="kind")]


def fail(*_: object) -> Any:
    raise LookupError("on purpose")


def secrets_of(comet: Comet, *tabs: Tab) -> list[str]:
    """The keys of the server, and what lets a request of these tabs in."""
    found = [KEY, TOKEN, WRONG, PAYLOAD, PASSWORD]
    found += [session.id for session in comet.sessions()]
    found += [process.id for process in comet.processes()]
    for tab in tabs:
        found += [tab.url.rpartition("/")[2], *tab.jar.values()]
    return found


def read(tab: Tab, channel: str) -> None:
    tab.post(f"{tab.url}/poll", {"channels": {channel: "now"}})


# A server


@pytest.fixture
def comet() -> Comet:
    comet = Comet(KEY, admin=TOKEN, settings=Settings(timeout=0.1, max_processes_per_session=2))

    @comet.identify
    async def identify(connection: HTTPConnection) -> None:
        if connection.headers.get("x-break"):
            fail()

    @comet.channel("prices")
    async def prices() -> AsyncIterator[Price]:
        price = Price(amount=1)
        price.amount = PAYLOAD  # type: ignore[assignment]  # that is what is tested
        yield price

    @comet.channel("orders")
    async def orders() -> AsyncIterator[Order]:
        yield {"kind": PAYLOAD}  # type: ignore[misc]  # that is what is tested

    comet.create(scope=SITE, name="guarded", authorize=fail)
    comet.on_process_close(fail)
    return comet


def test_a_server_logs_no_secret(comet: Comet, heard: Heard) -> None:
    with serve(application(comet)) as server:
        tab = Tab(server)
        (process,) = comet.processes()
        process.on_close(fail)
        hidden = secrets_of(comet, tab)

        for channel in ("prices", "orders", "guarded", "nothing"):
            read(tab, channel)
        headers = {"Content-Type": "application/json", "Cookie": tab.cookie}
        asked = json.dumps({"channels": {"prices": "now"}})
        for more in ({"Origin": "https://evil.example"}, {"X-Break": "1"}):
            server.request("POST", f"{tab.url}/poll", asked, headers | more)
        with Ws(server, tab.url, cookie=tab.cookie):
            pass

        for token in (WRONG, TOKEN):
            for action in ("deactivate", "activate", "timeout"):
                bearer = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                server.request("POST", f"/comet/admin/{action}", '{"seconds": 5}', bearer)

        notifier = comet.notifier("notes", key=str, prepare=fail)
        notifier.listen(PASSWORD, process)
        notifier.notify(PASSWORD, PAYLOAD)
        heard.wait_for("function.failed")

        others = [Tab(server, tab.jar), Tab(server, tab.jar)]
        hidden += secrets_of(comet, *others)
        heard.wait_for("process.evicted")
        for event in ("source.failed", "source.restarted", "function.failed"):
            heard.wait_for(event)
    assert set(heard.events) >= {
        "admin.acted",
        "admin.refused",
        "authorize.failed",
        "channel.unknown",
        "function.failed",
        "identify.failed",
        "origin.refused",
        "process.evicted",
        "push.activated",
        "push.deactivated",
        "setup.advised",
        "source.failed",
        "source.restarted",
        "timeout.changed",
    }
    heard.check_secret(hidden)
    errors = "".join(str(one.exc_info[1]) for one in heard.records if one.exc_info)
    assert "fits channel 'prices'" in errors
    assert "fits channel 'orders'" in errors


# A broker


def test_a_server_without_its_broker_logs_no_secret(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan, "BROKER_LIMIT", 0.05)
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        url = f"redis://ada:{PASSWORD}@127.0.0.1:{port}/0"
        comet = Comet(KEY, broker=url, settings=Settings(jitter=0))
        news = comet.create(scope=SITE, name="news")
        with serve(application(comet)) as server:
            news.publish(PAYLOAD)
            body = json.dumps({"channels": {"news": "now"}})
            server.request("POST", "/comet/poll", body, {"Content-Type": "application/json"})
            heard.wait_for("request.postponed")
        heard.wait_for("message.lost")
    assert "broker.unavailable" in heard.events
    heard.check_secret([KEY, PASSWORD, PAYLOAD])


def test_what_redis_refuses_of_a_tab_is_logged_without_the_id_of_its_process(
    redis: RedisServer, heard: Heard
) -> None:
    comet = Comet(KEY, broker=redis.url, settings=Settings(timeout=0.1))
    client: Client
    with redis.client() as client, serve(application(comet)) as server:
        tab = Tab(server)
        (process,) = comet.processes()
        hidden = secrets_of(comet, tab)
        channel = comet.create(scope=process, name="mine")
        tab.poll({"~mine": "now"})
        client.config_set("maxmemory", 1)
        try:
            channel.publish(PAYLOAD)
            lost = heard.wait_for("message.lost")
        finally:
            client.config_set("maxmemory", 0)
    assert (lost["channel"], lost["count"]) == ("~mine", 1)
    heard.check_secret(hidden)


# A client


@pytest.mark.parametrize("transport", ["websocket", "sse", "poll"])
async def test_a_client_logs_no_secret(heard: Heard, transport: Any) -> None:
    comet = Comet(KEY)

    @comet.unlimited("steps")
    async def steps(process: ClientProcess) -> AsyncIterator[str]:
        yield PAYLOAD
        await anyio.sleep_forever()

    with serve(application(comet)) as server:
        tab = await anyio.to_thread.run_sync(Tab, server)
        hidden = secrets_of(comet, tab)
        options: dict[str, Any] = {"token": TOKEN, "cookies": tab.jar, "transports": [transport]}
        async with (
            AsyncClient(server.url + tab.url, **options) as client,
            anyio.create_task_group() as tasks,
        ):
            begun = anyio.Event()

            async def follow() -> None:
                async for message in client.follow({"~steps": "last:1"}):
                    assert message.data == PAYLOAD
                    begun.set()

            tasks.start_soon(follow)
            await begun.wait()
            comet.activation.deactivate()
            lost = await anyio.to_thread.run_sync(heard.wait_for, "connection.lost")
            tasks.cancel_scope.cancel()
    assert lost["server"] == f"{server.url}/comet/p/…"
    heard.check_secret(hidden)


async def test_a_client_logs_no_password_of_its_url(heard: Heard) -> None:
    with reserved_port() as port:
        url = f"http://ada:{PASSWORD}@127.0.0.1:{port}/comet"
        async with AsyncClient(url) as client, anyio.create_task_group() as tasks:

            async def follow() -> None:
                async for _ in client.follow({"news": "now"}):
                    pass

            tasks.start_soon(follow)
            lost = await anyio.to_thread.run_sync(heard.wait_for, "connection.lost")
            tasks.cancel_scope.cancel()
    assert lost["count"] >= 1
    heard.check_secret([PASSWORD])
