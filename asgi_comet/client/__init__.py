"""Follow channels from Python: through lost connections and restarts, nothing lost silently.

The module of a name is imported when the name is first used, as in `asgi_comet`.
"""

from typing import TYPE_CHECKING

from asgi_comet._runtime.lazy import resolver

if TYPE_CHECKING:
    from asgi_comet.client.aio import AsyncClient, AsyncMessages
    from asgi_comet.client.blocking import Client, Messages
    from asgi_comet.client.message import Message
    from asgi_comet.client.positions import FilePositions, Positions

__all__ = [
    "AsyncClient",
    "AsyncMessages",
    "Client",
    "FilePositions",
    "Message",
    "Messages",
    "Positions",
]

_MODULES = {  # the module of each name
    "AsyncClient": "asgi_comet.client.aio",
    "AsyncMessages": "asgi_comet.client.aio",
    "Client": "asgi_comet.client.blocking",
    "FilePositions": "asgi_comet.client.positions",
    "Message": "asgi_comet.client.message",
    "Messages": "asgi_comet.client.blocking",
    "Positions": "asgi_comet.client.positions",
}

if not TYPE_CHECKING:  # a type checker that sees `__getattr__` accepts every name
    __getattr__ = resolver("asgi_comet.client", _MODULES)
