"""What the clients follow, in a process of its own: uvicorn tests.kit.followed:app.

Browsers are asked to come back at once, so that no test waits for seconds.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from asgi_comet import SITE, Channel, Comet, CometMiddleware, Settings
from asgi_comet.testing import wait_for_listeners
from asgi_comet.transports import sse
from tests.kit.programs import MODULES
from tests.kit.stage import KEY, TOKEN

sse.RETRY = sse.RETRY_LATER = (50, 100)

comet = Comet(KEY, admin=TOKEN, settings=Settings(jitter=0))
channels: dict[str, Channel[Any]] = {
    "news": comet.create(scope=SITE, name="news"),
    "gauge": comet.create_newest(name="gauge"),
}
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)
modules = StaticFiles(directory=MODULES, check_dir=False)
app.mount("/modules", modules)

HTMX = """<!doctype html><title>htmx</title>
<script src=/modules/htmx.org/dist/htmx.min.js></script>
<script src=/modules/htmx-ext-sse/sse.js></script>
<script>
  const seen = []
  document.addEventListener("htmx:sseOpen", () => seen.push(":open"))
  document.addEventListener("htmx:sseMessage", ({target, detail: {type}}) => {
    const text = () => target.querySelector("li:last-child").innerHTML
    seen.push(type === ":full" ? ":full news" : `${type} <li>${text()}</li>`)
  })
</script>
<body hx-ext=sse>
  <div sse-connect="/comet/events?QUERY&format=text">
    <ul sse-swap=news hx-swap=beforeend></ul>
    <ul sse-swap=gauge></ul>
    <p sse-swap=":full"></p>
  </div>
</body>"""


EXTENSION = """<!doctype html><title>htmx with our own extension</title>
<script src=/modules/htmx.org/dist/htmx.min.js></script>
<script src=/comet/htmx.js></script>
<script>
  const seen = []
  document.addEventListener("htmx:afterSwap", ({target}) => {
    seen.push(`${target.id} <li>${target.lastElementChild.innerHTML}</li>`)
  })
  document.addEventListener("comet:full", (event) => {
    event.preventDefault()
    seen.push(`:full ${event.detail.channel}`)
  })
  const observer = new MutationObserver(([{oldValue}]) => oldValue === "now" && seen.push(":open"))
  const attributes = {attributeFilter: ["comet-from"], attributeOldValue: true}
  observer.observe(document, {...attributes, subtree: true})
</script>
<body hx-ext=comet>LISTS</body>"""


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """A page in which a test runs its script."""
    return "<!doctype html><title>a page</title><script>const seen = []</script>"


@app.get("/htmx", response_class=HTMLResponse)
def htmx(channels: str) -> str:
    """A page without a script of its own but for telling what htmx did."""
    query = "&".join(f"channel={name}" for name in channels.split(","))
    return HTMX.replace("QUERY", query)


@app.get("/extension", response_class=HTMLResponse)
def extension(channels: str) -> str:
    """The same with our own extension."""
    lists = [
        f'<ul id={name} comet-channel={name} comet-from=now hx-swap="beforeend"></ul>'
        for name in channels.split(",")
    ]
    return EXTENSION.replace("LISTS", "".join(lists))


@app.post("/publish/{name}", status_code=204)
def publish(name: str, value: Annotated[Any, Body()]) -> None:
    """Publish on a channel."""
    channels[name].publish(value)


@app.post("/end/{name}", status_code=204)
def end(name: str) -> None:
    """Close a channel."""
    channels[name].close()


@app.get("/listeners/{name}/{count}", status_code=204)
def wait(name: str, count: int) -> None:
    """Answer as soon as a channel has exactly that many listeners."""
    wait_for_listeners(channels[name], count)
