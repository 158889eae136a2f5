"""An application with users of its own: it logs in and out, and says who it takes somebody for."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_comet import Comet, CometMiddleware
from tests.kit.serving import Answer, Tab

WHO = "who"  # the cookie of the application


def people(comet: Comet) -> Starlette:
    """Serve it."""

    async def login(request: Request) -> Response:
        comet.login((await request.body()).decode())
        return Response(status_code=204)

    def logout(request: Request) -> Response:  # in a worker thread
        comet.logout()
        return Response(status_code=204)

    def page(request: Request) -> Response:
        process = comet.open_process()
        return JSONResponse({"url": process.url, "user": process.user})

    async def join(request: Request) -> Response:
        comet.open_process()
        comet.login("alice")
        return JSONResponse(comet.process().user)

    async def me(request: Request) -> Response:
        return JSONResponse(comet.process().user)

    async def session(request: Request) -> Response:
        found = comet.session()
        told = found and {"user": found.user, "tabs": len(found.processes)}
        return JSONResponse(told)

    return Starlette(
        routes=[
            Route("/login", login, methods=["POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/page", page, methods=["POST"]),
            Route("/session", session, methods=["POST"]),
            Route("/join", join, methods=["POST"]),
            Route("/me", me, methods=["POST"]),
        ],
        middleware=[Middleware(CometMiddleware, comet=comet)],
    )


def who(connection: HTTPConnection) -> str | None:
    """For `identify`: believe the cookie of the application."""
    return connection.cookies.get(WHO)


def send(tab: Tab, path: str, body: str = "") -> Answer:
    """Have a page send a request to the application."""
    headers = {"Cookie": tab.cookie}
    if "process" in tab.opened:
        headers["Comet-Process"] = tab.opened["process"]
    answer = tab.address.request("POST", path, body, headers)
    tab.keep(answer)
    return answer
