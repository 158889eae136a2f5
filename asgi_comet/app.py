"""The mountable application: which endpoint serves a request below PREFIX.

Owns the routes of wire.md. Must not know how an endpoint works.
"""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from .admin.endpoints import Admin, Credential
from .headers import content_type
from .hub import Hub
from .protocol.registration import CONTENT_TYPE
from .transports.http import Refusal, refuse
from .transports.registration import registration

__all__ = ["CometApp", "route_path"]


def route_path(scope: Scope) -> str:
    """Return the path below where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    below = path.removeprefix(root)
    return below if below.startswith("/") or not below else path


class CometApp:
    """An ASGI application that serves everything below PREFIX.

    Args:
        hub: The rooms.
        admin: The credential for `PREFIX/admin`; `None` switches it off.
    """

    def __init__(self, hub: Hub, admin: Credential | None) -> None:
        self._hub = hub
        self._admin = Admin(hub, admin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection.

        Raises:
            NotRunning: The lifespan does not run.
        """
        if scope["type"] == "websocket":
            # Refused before it is accepted: the server answers 403.
            await send({"type": "websocket.close", "code": 1000})
            return
        self._hub.loop.check()
        if content_type(scope) == CONTENT_TYPE:
            await registration(self._hub, scope, receive, send)
            return
        area, _, rest = route_path(scope).lstrip("/").partition("/")
        if area == "admin":
            await self._admin(rest, scope, receive, send)
        else:
            await refuse(Refusal(404, "Not Found"), scope, receive, send)
