"""Ours on all transports, added to a FastAPI application, so inside Starlette's own middleware.

The same channel as in `ours`, with which it shares everything but the application.
"""

from __future__ import annotations

from fastapi import FastAPI

from asgi_comet import CometMiddleware

from .control import PREFIX
from .ours import comet, control

app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)
app.mount(PREFIX, control)
