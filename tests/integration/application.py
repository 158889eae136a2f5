"""The application that the tests of whole processes serve."""

from __future__ import annotations

import os

from fastapi import FastAPI

from asgi_comet import Comet, CometMiddleware

comet = Comet("k" * 32)
channels = [comet.channels.create(f"held{n}") for n in range(2)]
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)


@app.get("/listeners")
async def listeners() -> int:
    """Tell how many listen."""
    return channels[0].listeners


@app.get("/pid")
async def pid() -> int:
    """Tell which process this is."""
    return os.getpid()
