from __future__ import annotations

import pytest
from fastapi import FastAPI

from asgi_comet import Comet, Settings
from tests.kit import newsroom
from tests.kit.stage import KEY


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def comet() -> Comet:
    return Comet(KEY, settings=Settings(jitter=0))


@pytest.fixture
def app(comet: Comet) -> FastAPI:
    return newsroom.application(comet)
