"""A page that follows a channel with htmx, without a line of its own script for each message.

    npm install htmx.org htmx-ext-sse
    uvicorn examples.htmx:app
    curl -H 'Content-Type: text/plain' -d 'Hello' http://127.0.0.1:8000/news

What is published is HTML, so it is escaped here. The page is served with all posts there are, and
with the position from which to go on; where it cannot go on, it is loaded again.
"""

import html
import os
import secrets
from collections import deque
from pathlib import Path
from typing import Annotated

from fastapi import Body, FastAPI
from fastapi.responses import FileResponse, HTMLResponse

from asgi_comet import SITE, Comet, CometMiddleware

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
news = comet.create(scope=SITE, name="news", type=str)
posts: deque[str] = deque(maxlen=100)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)

MODULES = Path(os.environ.get("NODE_MODULES", "node_modules"))
SCRIPTS = {"htmx": "htmx.org/dist/htmx.min.js", "sse": "htmx-ext-sse/sse.js"}

PAGE = """<!doctype html>
<title>News by htmx</title>
<script src="/scripts/htmx"></script>
<script src="/scripts/sse"></script>
<body hx-ext="sse">
<main sse-connect="/comet/events?channel=news&position=POSITION&format=text" sse-close=":closed">
  <ul sse-swap="news" hx-swap="beforeend">POSTS</ul>
  <p sse-swap=":full"></p>
</main>
<script>
// Where the browser gives up, htmx begins again at the page's position; let it go on instead.
let position
htmx.createEventSource = (url) => {
  if (position) url = url.replace(/position=[^&]+/, `position=${position}`)
  const source = new EventSource(url)
  for (const name of [":open", "news"]) {
    source.addEventListener(name, (event) => (position = event.lastEventId))
  }
  // For good, but htmx would begin again: of a tab's own channel two tabs would rob each other.
  for (const name of [":forbidden", ":replaced", ":process-closed"]) {
    source.addEventListener(name, () => source.close())
  }
  return source
}
document.addEventListener("htmx:sseBeforeMessage", ({detail: {type}}) => {
  if (type === ":full") location.reload()
})
</script>
"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    # Async, so that nothing is published between the two.
    position, shown = news.reference()["position"], "".join(posts)
    return PAGE.replace("POSITION", position).replace("POSTS", shown)


@app.get("/scripts/{name}")
def script(name: str) -> FileResponse:
    return FileResponse(MODULES / SCRIPTS[name], media_type="text/javascript")


@app.post("/news", status_code=204)
async def post(text: Annotated[str, Body(media_type="text/plain")]) -> None:
    item = f"<li>{html.escape(text)}</li>"
    posts.append(item)
    news.publish(item)
