"""An application for tests of the test kit: news for everyone, an inbox and alerts for each tab."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
from fastapi import BackgroundTasks, Body, FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.requests import HTTPConnection

from asgi_comet import CLIENT_PROCESS, SITE, ClientProcess, Comet, CometMiddleware, Settings
from asgi_comet.brokers import Broker
from tests.kit.stage import KEY


def make_app(broker: Broker | None = None) -> FastAPI:
    """Make the application; one of several workers with the broker that joins them."""
    return application(Comet(KEY, broker=broker, settings=Settings(jitter=0)))


def application(comet: Comet) -> FastAPI:  # noqa: C901, PLR0915 - one endpoint after the other
    """Make the application around a `Comet`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with anyio.create_task_group() as tasks:
            yield {"tasks": tasks, "greeting": "Welcome"}
            tasks.cancel_scope.cancel()

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(CometMiddleware, comet=comet)
    news = comet.create(scope=SITE, name="news", type=str, size=3)
    other = comet.create(scope=SITE, name="other", type=str)
    alerts = comet.notifier("alerts", key=str)

    @comet.identify
    def find_user(connection: HTTPConnection) -> str | None:
        return connection.headers.get("X-User")

    @comet.channel("clock:{number}")
    async def tick(number: int) -> AsyncIterator[int]:
        try:
            yield number
            await anyio.sleep_forever()
        finally:
            app.state.stopped = number

    @comet.channel("inbox", scope=CLIENT_PROCESS)
    async def inbox(process: ClientProcess) -> AsyncIterator[str]:
        await anyio.sleep_forever()
        yield ""

    @app.get("/", response_class=HTMLResponse)
    async def page(request: Request) -> str:
        process = comet.open_process()
        inbox.publish(request.state.greeting, process)
        alerts.listen("all", process)
        script = comet.script(process, news=news, inbox=inbox.channel(process))
        return f"<title>News</title><script>1</script>{script}<p>Hello</p>"

    @app.api_route("/news", methods=["POST", "PUT", "PATCH", "DELETE"])
    def post(text: Annotated[str, Body()] = "nothing", topic: str = "news") -> None:
        (news if topic == "news" else other).publish(text)

    @app.post("/inbox")
    def write(text: Annotated[str, Body()]) -> None:
        inbox.publish(text, comet.process())

    @app.post("/alert")
    def alert(text: Annotated[str, Body()]) -> None:
        alerts.notify("all", text)

    @app.get("/me")
    async def me() -> dict[str, Any]:
        process = comet.process()
        return {"user": process.user, "process": process.id}

    @app.post("/end")
    async def end() -> None:
        news.close()

    @app.post("/wave")
    async def wave() -> str:
        return str((await news.publish("a wave")).name)

    @app.get("/fails")
    async def fail() -> None:
        raise LookupError("no such thing")

    @app.get("/fails-later")
    def answer(later: BackgroundTasks) -> str:
        later.add_task(fail_later)
        return "ok"

    app.state.late = anyio.Event()

    async def fail_later() -> None:
        await app.state.late.wait()
        raise LookupError("too late")

    return app
