"""A FastAPI application that shows what push is good for, and that no message is lost.

    scripts/demo                                   # or, from the root of the repository:
    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.fastapi_app.main:app

It is at http://127.0.0.1:8000.

The page at `/` cuts its own connection while messages go on, and counts what is missing; below that
are live figures of the machine. `/notifications` has two users, who write to each other; `/two` has
two tabs side by side; and `/2010` is a page of 2010, which speaks the registration protocol.

Channels for everyone: `pulse`, which counts twenty times a second; `cpu`, `memory`, `network` and
`machine`, with a figure each second; `wall`, with what is posted to `/wall`; and `lateness`, of
which only the newest value counts. Channels of one tab, the client process that is opened when the
page is served: `~me`, who it is, and `~job`, how far its job is. To listen without a browser:

    curl -N 'http://127.0.0.1:8000/comet/events?channel=pulse&position=now'
    curl -d registration=cpu -H 'Content-Type: application/x-ocsigen-comet' http://127.0.0.1:8000/

`scripts/demo --workers 4` serves the same by four workers: they share channels through a Redis, and
the data of the application through a database, see `store.py`.

Environment: `DEMO_ADMIN_TOKEN` (at least 32 characters) and `DEMO_SECRET_KEY`; both are made at
random when they are not set. `DEMO_SCRAPE_TOKEN` (likewise) lets Prometheus read the metrics, see
`deploy/compose.yml`.

**A page with switches gives the admin token to every visitor**, so that the switches work. A real
application never does that: the token belongs to the operator. Here it is bearable because the
server listens on 127.0.0.1 only and answers no other host name, so that no foreign site can read
the page by pointing a name of its own at this machine.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio import create_task_group
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from asgi_comet import CometMiddleware, NonUniqueChannelName
from examples.fastapi_app import machine, notifications, people, pulse, tabs, wall
from examples.fastapi_app.pages import add_pages, render
from examples.fastapi_app.people import MaybeUser, User
from examples.fastapi_app.push import comet
from examples.fastapi_app.store import changes


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Look at what other workers change. CometMiddleware runs this inside its own."""
    async with create_task_group() as tasks:
        tasks.start_soon(changes.watch)
        tasks.start_soon(pulse.hang_up)
        yield {"tasks": tasks}
        tasks.cancel_scope.cancel()


app = FastAPI(title="asgi_comet demo", lifespan=lifespan)
app.add_middleware(CometMiddleware, comet=comet)
# Added later, so outside of CometMiddleware: its answers are also cut, and only for these hosts.
app.add_middleware(pulse.CutMiddleware)
app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
add_pages(app)
for module in (notifications, people, pulse, tabs, wall):
    app.include_router(module.router)


@app.get("/")
async def page(request: Request) -> HTMLResponse:
    """The page of a new tab."""
    process = comet.open_process()
    script = comet.script(process, me=tabs.me.channel(process), lateness=machine.lateness.channel())
    return render(request, "live", comet=script)


@app.get("/notifications")
async def notification_centre(
    request: Request, user: MaybeUser, guest: User = User.ALICE
) -> HTMLResponse:
    """The page of a user. A browser that comes for the first time is logged in as `guest`."""
    new = people.COOKIE not in request.cookies
    if new:
        user = guest
        comet.login(user)
    process = comet.open_process()
    channels = {} if user is None else notifications.introduce(user, process)
    script = comet.script(process, **channels)
    answer = render(request, "notifications", comet=script, user=user or "")
    if new:
        people.remember(answer, user)
    return answer


@app.get("/two")
async def two(request: Request) -> HTMLResponse:
    """Two tabs side by side: each is `/tab` in a frame."""
    comet.open_process().close()  # starts the session; otherwise each frame would start its own
    return render(request, "two")


@app.get("/tab")
async def tab(request: Request) -> HTMLResponse:
    """The page with the channels of one tab, and the wall of all visitors."""
    process = comet.open_process()
    return render(request, "tab", comet=comet.script(process, me=tabs.me.channel(process)))


@app.exception_handler(NonUniqueChannelName)
async def refuse_twice(request: Request, error: NonUniqueChannelName) -> JSONResponse:
    """Refuse a second job to a tab whose first one still runs."""
    return JSONResponse({"detail": str(error)}, 409)
