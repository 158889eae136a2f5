"""What the server lets a WebSocket send before this application sees any of it.

Owns the warning about a server that lets in more than `Settings.frame_limit`. ASGI does not say
what the server does: the bound method `send` of uvicorn and hypercorn belongs to an object that has
the server's configuration, and where a middleware wraps it nothing is known.
"""

from __future__ import annotations

import logging

from asgi_comet.http.exchange import Exchange
from asgi_comet.node.build import Hub

__all__ = ["check_limits"]

_logger = logging.getLogger(__name__)


def check_limits(hub: Hub, exchange: Exchange) -> None:
    """Warn, once, if the server takes and unpacks messages that are larger than any of ours."""
    if hub.limits_checked.is_set():
        return
    hub.limits_checked.set()
    config = getattr(getattr(exchange.send, "__self__", None), "config", None)
    limit = hub.settings.frame_limit
    taken: int | None = getattr(config, "ws_max_size", 0)
    if taken is None or taken > limit or getattr(config, "ws_per_message_deflate", False):
        _logger.warning(
            "uvicorn takes WebSocket messages of up to %s bytes, or unpacks compressed ones, "
            "before they can be refused here, so any client can fill the memory: start it with "
            "--ws-max-size %d --ws-per-message-deflate false",
            "any number of" if taken is None else taken,
            limit,
        )
    elif hasattr(config, "websocket_max_message_size"):
        # Measured: a message of 200 MiB is kept until the client leaves, whatever that says.
        _logger.warning(
            "hypercorn has no option that bounds what it keeps of an unfinished WebSocket message, "
            "so any client can fill the memory: serve WebSockets with uvicorn, or have the proxy "
            "refuse them"
        )
