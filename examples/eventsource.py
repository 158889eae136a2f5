"""A page that follows a channel with `EventSource`:

    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.eventsource:app

    curl -H 'Content-Type: text/plain' -d 'Hello' http://127.0.0.1:8000/news

The page at /inbox does the same with a channel of its own. The browser reconnects by itself and
sends its position. The page reconnects only where the browser gives up: after any status but 200,
which a proxy sends while the server restarts. If nothing more can come, the page does not
reconnect.
"""

import json
import os
import secrets
from typing import Annotated

from fastapi import Body, FastAPI
from fastapi.responses import HTMLResponse

from asgi_comet import SITE, Comet, CometMiddleware

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
news = comet.create(scope=SITE, name="news", type=str)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)

PAGE = """<!doctype html>
<title>News by EventSource</title>
<p id=state></p>
<ul id=news></ul>
<script type=module>
const list = document.getElementById("news")
const state = document.getElementById("state")

function show(text) {
  const item = document.createElement("li")
  item.textContent = text
  list.append(item)
}

const ENDS = {
  ":full": "This has overflowed.",
  ":closed": "This was all.",
  ":forbidden": "This is not for you.",
  ":replaced": "This goes on in another tab.",
  ":process-closed": "This was left for too long: load it again.",
}

function follow({url, channel, position}) {
  const name = encodeURIComponent(channel)
  const source = new EventSource(`${url}/events?channel=${name}&position=${position}`)
  const on = (type, act) =>
    source.addEventListener(type, (event) => {
      position = event.lastEventId
      act(JSON.parse(event.data))
    })
  on(":open", () => (state.textContent = "live"))
  on(channel, show)
  on(":full", () => show("Here some are missing."))
  for (const [type, text] of Object.entries(ENDS)) on(type, () => (state.textContent = text))
  source.onerror = () => {
    if (position === "-") {
      source.close() // nothing more comes: stay away
      return
    }
    state.textContent = "away"
    if (source.readyState === EventSource.CLOSED) {
      setTimeout(follow, 2000 + 2000 * Math.random(), {url, channel, position})
    }
  }
}

follow(REFERENCE)
</script>
"""


def write_page(reference: dict[str, str]) -> str:
    return PAGE.replace("REFERENCE", json.dumps(reference))


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return write_page({**news.reference(), "position": "last:10"})


@app.get("/inbox", response_class=HTMLResponse)
async def own_page() -> str:
    comet.open_process()
    inbox = comet.create(name="inbox", type=str)
    inbox.publish("Welcome")
    return write_page(inbox.reference())


@app.post("/news", status_code=204)
def post(text: Annotated[str, Body(media_type="text/plain")]) -> None:
    news.publish(text)
