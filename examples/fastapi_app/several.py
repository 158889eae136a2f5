"""The demo on several workers: the pages of channels for everyone.

    scripts/demo --workers 4

Channels of one tab, users and notifications need client processes, which workers do not share yet:
their pages say so, and are not served. The wall keeps no posts but those of its channel.
"""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from asgi_comet import CometMiddleware
from examples.fastapi_app import machine, pulse
from examples.fastapi_app.pages import add_pages, render
from examples.fastapi_app.push import comet
from examples.fastapi_app.wall import NewPost, Post, posts

LATER = ("/notifications", "/two", "/tab")
"""Pages that need client processes."""

app = FastAPI(title="asgi_comet demo, on several workers")
app.add_middleware(CometMiddleware, comet=comet)
app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
add_pages(app)


@comet.channel("figures")
async def figures() -> AsyncIterator[None]:
    """Publish the figures of the machine in one worker: the one that reads this source."""
    await machine.publish_figures()
    yield  # never; it makes this a source


@app.get("/")
async def page(request: Request) -> HTMLResponse:
    """The page of a visitor."""
    script = comet.script(pulse=pulse.pulse, lateness=machine.lateness)
    return render(request, "several", comet=script, worker=os.getpid())


@app.post("/wall", status_code=201)
async def write_on_wall(new: NewPost) -> Post:
    """Publish a post to everyone. It has no number: each worker would count for itself."""
    post = Post(number=0, text=new.text, at=datetime.now(UTC))
    await posts.publish(post).stored()
    return post


async def later(request: Request) -> HTMLResponse:
    """Say why a page is not served."""
    return render(request, "later", status=501)


for path in LATER:
    app.add_api_route(path, later)
