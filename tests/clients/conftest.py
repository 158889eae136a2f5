from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.browser.conftest import browser, own_server
from tests.kit.own_server import Server

__all__ = ["browser", "own_server"]


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


@pytest.fixture
def server(own_server: Server) -> Server:
    """One for all tests of a module, started again if the last one left it stopped."""
    own_server.start()
    return own_server
