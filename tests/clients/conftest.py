from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.browser.conftest import browser
from tests.clients.servers import Server, reserved_port

__all__ = ["browser"]


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with reserved_port() as port:
        server = Server(port)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def server(own_server: Server) -> Server:
    """One for all tests of a module, started again if the last one left it stopped."""
    own_server.start()
    return own_server
