"""The ASGI server's limits for WebSocket messages.

Owns the warning about a server that accepts more than `Settings.frame_limit`. ASGI does not expose
the limits. In uvicorn and hypercorn, the bound method `send` belongs to an object with the server's
configuration; if a middleware wraps `send`, the limits are unknown.
"""

from __future__ import annotations

import logging

from asgi_comet.http.exchange import Exchange
from asgi_comet.log_events import event
from asgi_comet.node.build import Node

__all__ = ["check_limits"]

_logger = logging.getLogger(__name__)


def check_limits(node: Node, exchange: Exchange) -> None:
    """Warn, once, if the server accepts or decompresses larger messages than the limit."""
    if node.limits_checked.is_set():
        return
    node.limits_checked.set()
    config = getattr(getattr(exchange.send, "__self__", None), "config", None)
    limit = node.settings.frame_limit
    taken: int | None = getattr(config, "ws_max_size", 0)
    if taken is None or taken > limit or getattr(config, "ws_per_message_deflate", False):
        _logger.warning(
            "uvicorn takes WebSocket messages of up to %s bytes, or unpacks compressed ones, "
            "before they can be refused here, so any client can fill the memory: start it with "
            "--ws-max-size %d --ws-per-message-deflate false",
            "any number of" if taken is None else taken,
            limit,
            extra=event("setup.advised"),
        )
    elif hasattr(config, "websocket_max_message_size"):
        # Measured: a message of 200 MiB is kept until the client disconnects, despite this option.
        _logger.warning(
            "hypercorn has no option that bounds what it keeps of an unfinished WebSocket message, "
            "so any client can fill the memory: serve WebSockets with uvicorn, or have the proxy "
            "refuse them",
            extra=event("setup.advised"),
        )
