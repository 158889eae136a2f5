"""The time, and whatever is posted to /news, for everyone who has the page open; none is lost."""

import os
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import sleep
from fastapi import Body, FastAPI
from fastapi.responses import HTMLResponse

from asgi_comet import Comet, CometMiddleware

# For trying out, a key made at random; set one, of 32 bytes or more, to last over a restart.
comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@comet.channel("news")  # runs as long as the application does
async def news() -> AsyncIterator[str]:
    while True:
        yield time.strftime("It is %H:%M.")
        await sleep(60)


@app.post("/news")
def post(text: Annotated[str, Body(media_type="text/plain")]) -> None:
    news.channel().publish(text)  # from anywhere: async, threads, background tasks


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return """<ul id=news></ul><script type=module>
      import { connect } from "/comet/comet.js"
      const show = (text) => news.append(text, document.createElement("br"))
      const comet = connect()
      const onfull = () => follow(show("(some are missing: you were away too long)"))
      const follow = () => comet.channel("news", { from: "last:10", onmessage: show, onfull })
      follow()
    </script>"""
