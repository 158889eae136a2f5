"""A page with its history from a database, which then follows without a gap.

    uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.history:app
    curl -H 'Content-Type: text/plain' -d Hello http://127.0.0.1:8000/messages

The order of three steps makes it safe: take the reference, then read the database, and in the page
drop what is shown already.
"""

import os
import secrets
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

from fastapi import Body, FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from asgi_comet import SITE, Comet, CometMiddleware


class Message(BaseModel):
    id: int
    text: str


DATABASE = Path(os.environ.get("DATABASE") or Path(tempfile.mkdtemp()) / "messages.sqlite")
with closing(sqlite3.connect(DATABASE)) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, text TEXT)")

comet = Comet(os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32))
messages = comet.create(scope=SITE, name="messages", type=Message)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@app.post("/messages", status_code=201)
def post(text: Annotated[str, Body(media_type="text/plain")]) -> Message:
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        row = connection.execute("INSERT INTO messages (text) VALUES (?) RETURNING id", (text,))
        message = Message(id=row.fetchone()[0], text=text)
    messages.publish(message)  # after the commit: a page that is told can also read it
    return message


def read_latest(count: int) -> list[Message]:
    with closing(sqlite3.connect(DATABASE)) as connection:
        rows = connection.execute(
            "SELECT id, text FROM messages ORDER BY id DESC LIMIT ?", (count,)
        ).fetchall()
    return [Message(id=id_, text=text) for id_, text in reversed(rows)]


class History(BaseModel):
    reference: dict[str, str]
    messages: list[Message]


@app.get("/history")
def history() -> History:
    reference = messages.reference()  # 1. from here on nothing is missed
    return History(reference=reference, messages=read_latest(100))  # 2. what was before


PAGE = """<!doctype html><title>History</title><ol></ol>
<script type="module">
import { connect } from "/comet/comet.js"
const comet = connect()
const shown = new Set()
const show = ({ id, text }) => {
  if (shown.has(id)) return // 3. committed before the history was read, published after
  shown.add(id)
  const item = document.createElement("li")
  item.textContent = text
  document.querySelector("ol").append(item)
}
const { reference, messages } = await (await fetch("/history")).json()
messages.forEach(show)
comet.open(reference, { onmessage: show, onfull: () => location.reload() })
</script>"""


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    return PAGE
