"""Ours on all transports: one site channel, the middleware around a plain Starlette application."""

from __future__ import annotations

import secrets

from starlette.applications import Starlette
from starlette.routing import Mount

from asgi_comet import SITE, Comet, CometMiddleware, Settings

from .control import PREFIX, Control

# Held as long as it takes: a hold that times out while another peer is measured spoils a round.
settings = Settings(timeout=600, jitter=0)
comet = Comet(secrets.token_bytes(32), settings=settings)
channel = comet.create(scope=SITE, name="ticker")


async def publish(texts: list[str]) -> None:
    """Publish all texts in one turn of the loop."""
    for text in texts:
        channel.publish(text)


control = Control(lambda: channel.listeners, publish)
app = CometMiddleware(Starlette(routes=[Mount(PREFIX, control)]), comet=comet)
