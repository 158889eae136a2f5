"""A page that follows channels with the browser client, and what lies between it and them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from playwright.sync_api import Page
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_comet import ClientProcess

PATIENCE = 60_000  # milliseconds until a test fails for what does not come
POLLING = 20  # milliseconds between two looks; Playwright otherwise has each frame drawn to look

TRANSPORTS = ("websocket", "sse", "poll")

# `follow(key, name, options)` notes what a consumer is told, and its end, under the key.
CONNECT = """async (options) => {
    const { connect } = await import("/comet/comet.js")
    Object.assign(window, { comet: connect(options), consumers: {}, seen: {} })
    const told = ({ name, channel, reason = null, position = null }) =>
        [name, channel, reason, position]
    window.follow = (key, name, options) => {
        const heard = seen[key] = []
        const consumer = consumers[key] = comet.channel(name, options)
        if (options?.onmessage) return
        void (async () => {
            try {
                for await (const value of consumer) heard.push(value)
            } catch (error) {
                heard.push(told(error))
            }
            heard.push((await consumer.next()).done)
        })()
    }
    window.callbacks = (key) => {
        const note = (what) => (error) => seen[key].push([what, ...told(error)])
        return {
            onmessage: (value) => seen[key].push(value),
            onclosed: note("onclosed"), onerror: note("onerror"),
        }
    }
}"""


class Network:
    """What lies between the page and the application: lets some transports through, and counts."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.blocked: set[str] = set()
        self.tried: Counter[str] = Counter()
        self.processes: list[ClientProcess] = []  # of those who asked which is theirs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = {"socket": "websocket", "events": "sse", "poll": "poll"}.get(
            scope.get("path", "").rpartition("/")[2], ""
        )
        if kind:
            self.tried[kind] += 1
        if kind not in self.blocked:
            await self.app(scope, receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close"})  # 403
        else:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})

    def only(self, transport: str) -> None:
        self.blocked = set(TRANSPORTS) - {transport}


class Tab:
    """A page with a client in it."""

    def __init__(self, page: Page, url: str, **options: Any) -> None:
        self.page = page
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.evaluate(CONNECT, options)

    def follow(self, key: str, channel: str | None = None, options: str = "{}") -> None:
        name = channel or key
        script = f"follow({json.dumps(key)}, {json.dumps(name)}, {options})"
        self.page.evaluate(f"() => {{ {script} }}")

    def placed(self, *keys: str) -> None:
        """Wait until consumers know where they are."""
        script = "(keys) => keys.every((key) => consumers[key].position)"
        self.page.wait_for_function(script, arg=keys, polling=POLLING)

    def seen(self, key: str, count: int) -> list[Any]:
        """Wait until that much has come; return all that has."""
        found: list[Any] = self.page.wait_for_function(
            "([key, count]) => seen[key].length >= count && seen[key]",
            arg=[key, count],
            polling=POLLING,
        ).json_value()
        return found


def own_process(tab: Tab, network: Network) -> ClientProcess:
    """Return the page's client process."""
    tab.page.evaluate("comet.fetch('/mine').then((answer) => answer.json())")
    return network.processes[-1]
