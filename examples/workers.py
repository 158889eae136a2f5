"""News for every visitor, from any number of workers, which share a Redis.

    examples/workers.sh  # Redis, four workers, and nginx in front of them

Without the variable COMET_BROKER it runs on one worker, with everything in its memory:

    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.workers:app
"""

import os
from collections.abc import AsyncIterator

from anyio import sleep
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from asgi_comet import SITE, Comet, CometMiddleware

KEY = os.environ.get("SECRET_KEY", "change me: a secret of at least 32 bytes")
comet = Comet(KEY, broker=os.environ.get("COMET_BROKER"))
news = comet.create(scope=SITE, name="news", type=str)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@comet.channel("seconds")
async def seconds() -> AsyncIterator[str]:
    """Count in one of the workers; all workers publish what comes."""
    second = 0
    while True:
        second += 1
        yield f"{second} in worker {os.getpid()}"
        await sleep(1)


@app.post("/news")
async def post(text: str) -> dict[str, int]:
    """Answer once Redis has stored the text."""
    await news.publish(f"{text}, in worker {os.getpid()}").stored()
    return {"worker": os.getpid()}


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return """<p></p><ul></ul><script type="module">
      import { connect } from "/comet/comet.js"
      const comet = connect()
      const show = (text) => (document.querySelector("p").textContent = text)
      comet.channel("seconds", { onmessage: show, onfull: "resume" })
      for await (const text of comet.channel("news", { from: "last:10", onfull: "resume" }))
        document.querySelector("ul").append(text, document.createElement("br"))
    </script>"""
