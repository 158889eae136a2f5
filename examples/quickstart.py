"""Whatever is posted to /news is pushed to everyone who has the page open."""

import os
from typing import Annotated

from fastapi import Body, FastAPI
from fastapi.responses import HTMLResponse

from asgi_comet import Comet, CometMiddleware

comet = Comet(secret_key=os.environ["SECRET_KEY"])  # at least 32 bytes
news = comet.channels.create("news")
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@app.post("/news")
def post(text: Annotated[str, Body(media_type="text/plain")]) -> int:
    news.write(text)  # from anywhere: async, threads, background tasks
    return news.listeners


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return """<ul id=news></ul><script>
      async function listen() {
        const answer = await fetch("/", {method: "POST", body: "registration=news",
          headers: {"Content-Type": "application/x-ocsigen-comet"}})
        for (const pair of (await answer.text()).split("\\n").filter(Boolean))
          news.append(decodeURIComponent(pair.split(":")[1]), document.createElement("br"))
        listen()
      }
      listen()</script>"""
