"""A page that follows a channel with a WebSocket:

    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.websocket:app

    curl -H 'Content-Type: text/plain' -d 'Hello' http://127.0.0.1:8000/news

A browser does not come back by itself here, so the page keeps the positions and does. It needs a
server that speaks WebSocket: uvicorn does with the package `websockets`.
"""

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
<title>News by WebSocket</title>
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

const positions = {news: "last:10"}

function connect() {
  const socket = new WebSocket(location.origin.replace("http", "ws") + "/comet/socket", "comet.v1")
  const subscribe = (channels) => socket.send(JSON.stringify({subscribe: channels}))
  socket.onopen = () => {
    state.textContent = "live"
    subscribe(positions)
  }
  socket.onmessage = (message) => {
    for (const {channel, position, data, error} of JSON.parse(message.data).events ?? []) {
      if (position) positions[channel] = position
      else delete positions[channel]
      if (data !== undefined) show(data)
      if (error === "full") show("Here some are missing.")
      if (error && position) subscribe({[channel]: position})
    }
    if (Object.keys(positions).length === 0) socket.close()
  }
  socket.onclose = ({code}) => {
    const over = code >= 4000 || Object.keys(positions).length === 0
    state.textContent = over ? "This was all." : "away"
    if (!over) setTimeout(connect, 2000 + 2000 * Math.random())
  }
}

connect()
</script>
"""


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return PAGE


@app.post("/news", status_code=204)
def post(text: Annotated[str, Body(media_type="text/plain")]) -> None:
    news.publish(text)
