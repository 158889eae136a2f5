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
      const channels = {news: "last:10"}, headers = {"Content-Type": "application/json"}
      const pause = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000))
      while (channels.news) try {
        const body = JSON.stringify({channels})
        const answer = await fetch("/comet/poll", {method: "POST", headers, body})
        if (!answer.ok) await pause(answer.headers.get("Retry-After") ?? 3)
        else for (const {position, data, error} of (await answer.json()).events) {
          channels.news = position  // to go on from; none if the channel has ended
          if (data ?? error) news.append(data ?? error, document.createElement("br"))
        }
      } catch { await pause(3) }  // the server is away
    </script>"""
