"""Whatever is posted to /news is pushed to everyone who has the page open; nobody misses any."""

import os
import secrets
from typing import Annotated

from fastapi import Body, FastAPI
from fastapi.responses import HTMLResponse

from asgi_comet import SITE, Comet, CometMiddleware

# For trying out, a key made at random; set one, of 32 bytes or more, to last over a restart.
comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
news = comet.create(scope=SITE, name="news", type=str)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@app.post("/news")
def post(text: Annotated[str, Body(media_type="text/plain")]) -> int:
    news.publish(text)  # from anywhere: async, threads, background tasks
    return news.listeners


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return """<ul id=news></ul><script type=module>
      const events = new EventSource("/comet/events?channel=news&position=last:10")
      const show = (text) => news.append(text, document.createElement("br"))
      events.addEventListener("news", ({data}) => show(JSON.parse(data)))
      events.addEventListener(":full", () => show("(some are missing: you were away too long)"))
      events.addEventListener(":closed", () => show("(no more news)"))
    </script>"""
