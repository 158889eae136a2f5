"""Litestar's channels in memory, with the WebSocket handlers that it makes itself."""

from __future__ import annotations

from typing import cast

from litestar import Litestar
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from starlette.types import ASGIApp, Receive, Scope, Send

from .control import PREFIX, Control

channels = ChannelsPlugin(
    backend=MemoryChannelsBackend(), channels=["ticker"], create_ws_route_handlers=True
)
served = cast("ASGIApp", Litestar(plugins=[channels], openapi_config=None))  # by types of its own


async def publish(texts: list[str]) -> None:
    """Publish the texts; its tasks pass them on afterwards."""
    for text in texts:
        channels.publish(text, "ticker")


# How many there are it keeps to itself.
control = Control(lambda: len(channels._channels["ticker"]), publish)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve, or be driven."""
    if scope["type"] == "http" and scope["path"].startswith(PREFIX):
        await control(scope, receive, send)
        return
    await served(scope, receive, send)
