"""A FastAPI application that pushes live figures of the machine it runs on.

    scripts/demo                                   # or, from the root of the repository:
    uvicorn examples.fastapi_app.main:app          # http://127.0.0.1:8000

The page at `/` is written with the browser client, `comet.js`; `/two` shows it twice, side by side;
`/notifications` has users, who tell each other something; and `/2010` is a page of 2010, which
speaks the registration protocol.

For everyone: `cpu`, `memory`, `network` and `machine`, a figure each second; `wall`, whatever is
posted to `/wall`; and `lateness`, of which only the newest value counts. For one tab alone, the
client process that is opened when the page is served: `~me`, who it is, and `~job`, how far its job
is. To listen without a browser:

    curl -d registration=cpu -H 'Content-Type: application/x-ocsigen-comet' http://127.0.0.1:8000/
    curl --json '{"channels": {"lateness": "last:1"}}' http://127.0.0.1:8000/comet/poll

Environment: `DEMO_ADMIN_TOKEN` (at least 32 characters) and `DEMO_SECRET_KEY`; both are made at
random when they are not set.

**A page with switches hands the admin token to whoever opens it**, so that they work. A real
application never does that: the token belongs to the operator. Here it is bearable because the
server listens on 127.0.0.1 only and answers no other host name, so that no foreign site can read
the page by pointing a name of its own at this machine.
"""

import html
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import create_task_group, sleep, to_thread
from fastapi import FastAPI, Request, status
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from asgi_comet import (
    SITE,
    Channel,
    CometMiddleware,
    NoClientProcess,
    NonUniqueChannelName,
    ProcessClosed,
    TooManyProcesses,
)
from examples.fastapi_app import notifications, people, tabs
from examples.fastapi_app.figures import CHANNELS, UNREADABLE, Sample, figures, take_sample
from examples.fastapi_app.people import MaybeUser
from examples.fastapi_app.push import ADMIN_TOKEN, comet
from examples.fastapi_app.wall import KEPT, NewPost, Post, Wall

logger = logging.getLogger(__name__)

HERE = Path(__file__).parent
TEMPLATES = {path.stem: path.read_text(encoding="utf-8") for path in HERE.glob("templates/*.html")}
MINUTE = 60
"""Figures that are held: a page that is opened shows the last minute at once."""

INTERVAL = 1.0
"""Seconds between two figures."""

OPERATOR = f'<meta name="admin-token" content="{html.escape(ADMIN_TOKEN)}">'
"""Only a demo gives the operator's token to whoever opens the page."""

TAGLINE = "The machine behind this page, pushed to you as it breathes."

PAGE_HEADERS = {
    "Cache-Control": "no-store",  # the page contains the admin token
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'self'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
}

# One sample makes the figures of four channels, so one task writes them all.
channels: dict[str, Channel[dict[str, Any]]] = {
    name: comet.create(scope=SITE, name=name, size=MINUTE) for name in CHANNELS
}
wall = Wall()
wall_channel: Channel[Post] = comet.create(scope=SITE, name="wall", size=KEPT, type=Post)


@comet.newest("lateness")
async def lateness() -> AsyncIterator[float]:
    """Yield twice a second by how many milliseconds the event loop was late, at its worst."""
    nap, naps = 0.05, 10
    while True:
        worst = 0.0
        for _ in range(naps):
            asleep = time.perf_counter()
            await sleep(nap)
            worst = max(worst, time.perf_counter() - asleep - nap)
        yield round(worst * 1000, 3)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Publish figures while the application runs. CometMiddleware runs this inside its own."""
    async with create_task_group() as tasks:
        tasks.start_soon(publish_figures)
        yield {"tasks": tasks}
        tasks.cancel_scope.cancel()


app = FastAPI(title="asgi_comet demo", lifespan=lifespan)
app.add_middleware(CometMiddleware, comet=comet)
# Added last, so asked first: also what CometMiddleware answers is for these host names only.
app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
app.include_router(people.router)
app.include_router(notifications.router)


@app.get("/", response_class=HTMLResponse)
async def page() -> HTMLResponse:
    """The page of a new tab."""
    process = comet.open_process()
    script = comet.script(process, me=tabs.me.channel(process), lateness=lateness.channel())
    return render("live", comet=script)


@app.get("/notifications", response_class=HTMLResponse)
async def notification_centre(user: MaybeUser) -> HTMLResponse:
    """The page of a user, or of somebody who may become one."""
    process = comet.open_process()
    channels = {} if user is None else notifications.introduce(user, process)
    script = comet.script(process, **channels)
    tagline = "Who is told of what, and who has seen it."
    return render("notifications", around=(), tagline=tagline, comet=script, user=user or "")


@app.get("/two", response_class=HTMLResponse)
async def two() -> HTMLResponse:
    """Two tabs side by side."""
    return HTMLResponse(TEMPLATES["two"], headers=PAGE_HEADERS)


@app.get("/2010", response_class=HTMLResponse)
async def page_of_2010() -> HTMLResponse:
    """A page that speaks the registration protocol."""
    return render("2010")


def render(name: str, around: Iterable[str] = ("machine",), **values: str) -> HTMLResponse:
    """Return a page: its template in those around it, the outermost of which is the frame."""
    text = TEMPLATES[name]
    for outer in (*around, "frame"):
        text = TEMPLATES[outer].replace("{{ part }}", text)
    head = OPERATOR if around else ""
    values = {"title": name, "head": head, "tagline": TAGLINE, **values}
    for key, value in values.items():
        text = text.replace(f"{{{{ {key} }}}}", value)
    return HTMLResponse(text, headers=PAGE_HEADERS)


@app.post("/me")
async def introduce() -> dict[str, str]:
    """Tell a tab whose client process is a new one, named in `Comet-Process`, where it is told."""
    return tabs.me.channel().reference()


@app.post("/job", status_code=status.HTTP_201_CREATED)
async def start_job() -> dict[str, str]:
    """Start the job of the tab that the header `Comet-Process` names."""
    return tabs.start_job()


@app.get("/wall")
async def read_wall() -> list[Post]:
    """The posts the wall still holds, oldest first."""
    return list(wall.posts)


@app.post("/wall", status_code=status.HTTP_201_CREATED)
async def write_on_wall(new: NewPost) -> Post:
    """Keep a post and write it to everyone who listens."""
    post = wall.add(new)
    wall_channel.publish(post)
    return post


@app.exception_handler(RequestValidationError)
async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say what is wrong without repeating the input, which need not be text that can be sent."""
    detail = [{"loc": item["loc"], "msg": item["msg"]} for item in error.errors()]
    return JSONResponse({"detail": detail}, status.HTTP_422_UNPROCESSABLE_CONTENT)


REFUSALS: dict[type[Exception], int] = {
    NoClientProcess: status.HTTP_403_FORBIDDEN,
    NonUniqueChannelName: status.HTTP_409_CONFLICT,
    ProcessClosed: status.HTTP_410_GONE,
    TooManyProcesses: status.HTTP_429_TOO_MANY_REQUESTS,
}


async def explain(request: Request, error: Exception) -> JSONResponse:
    """Say why there is no tab, or no job."""
    return JSONResponse({"detail": str(error)}, REFUSALS[type(error)])


for kind in REFUSALS:
    app.add_exception_handler(kind, explain)


async def publish_figures() -> None:
    """Write the figures of each interval to their channels, until cancelled."""
    before = await measure()
    while True:
        await sleep(INTERVAL)
        now = await measure()
        if before and now:
            publish(before, now)
        before = now


async def measure() -> Sample | None:
    """Take a sample in a thread; `None`, with a line in the log, when the machine refuses."""
    try:
        return await to_thread.run_sync(take_sample)
    except UNREADABLE:
        logger.exception("no figures this time")
        return None


def publish(before: Sample, now: Sample) -> None:
    """Write all figures in the same instant, so that one answer carries them together."""
    for name, figure in figures(before, now, posts=wall.latest).items():
        channels[name].publish(figure)
