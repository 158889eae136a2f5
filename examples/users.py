"""Tabs that know who is logged in, and notice when that changes:

uvicorn --ws-max-size 65536 --ws-per-message-deflate false examples.users:app
"""

import os
import secrets

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

from asgi_comet import Comet, CometMiddleware

KEY = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)
comet = Comet(KEY)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)
app.add_middleware(SessionMiddleware, secret_key=KEY)  # later: around it, so it knows the session


@comet.identify
async def find_user(connection: HTTPConnection) -> str | None:
    user: str | None = connection.session.get("user")
    return user


@app.post("/login/{user}")
async def login(user: str, request: Request) -> None:
    request.session["user"] = user  # once you know that it is true
    comet.login(user)


@app.post("/logout")
async def logout(request: Request) -> None:
    request.session.clear()
    comet.logout()


@app.get("/online/{user}")
def online(user: str) -> dict[str, int]:
    return {"browsers": len(comet.sessions(user=user)), "tabs": len(comet.processes(user=user))}


PAGE = """<!doctype html>{comet}
<p>You are {user}.</p><button>Become ada</button>
<script type="module">
import {{ connect }} from "/comet/comet.js"
const comet = connect()
const reload = () => location.reload()
comet.channel("~comet", {{ from: "last:1", onmessage: reload, onerror: reload }})
document.querySelector("button").onclick = async () => {{
  await comet.fetch("/login/ada", {{ method: "POST" }})
  reload()
}}
</script>"""


@app.get("/", response_class=HTMLResponse)
async def page(request: Request) -> HTMLResponse:
    process = comet.open_process()
    text = PAGE.format(comet=comet.script(process), user=await find_user(request) or "a visitor")
    return HTMLResponse(text, headers={"Cache-Control": "no-store"})
