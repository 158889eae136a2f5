"""The demo with jobs that take a second instead of six."""

from __future__ import annotations

from examples.fastapi_app import tabs
from examples.fastapi_app.main import app

__all__ = ["app"]

tabs.PACE = 0.02
