from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from asgi_comet import SITE, Channel, Comet, CometMiddleware
from tests.kit import firefox
from tests.kit.chromium import launch_chromium
from tests.kit.following import TRANSPORTS, Network, Tab
from tests.kit.own_server import Server
from tests.kit.programs import ROOT, find_program
from tests.kit.serving import Address, bound_socket, reserved_port, serve
from tests.kit.workers import Workers


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test in Chromium, and those that are marked `firefox` in Firefox, too."""
    if "browser" in metafunc.fixturenames:
        browsers: list[Any] = [pytest.param("chromium", id=pytest.HIDDEN_PARAM)]
        if metafunc.definition.get_closest_marker("firefox"):
            browsers.append("firefox")
        metafunc.parametrize("browser", browsers, indirect=True, scope="package")


@pytest.fixture(scope="package")  # its event loop must not outlive the tests that need it
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Chromium, or the browser that the test is parametrised with."""
    in_firefox = getattr(request, "param", "chromium") == "firefox"
    find_program("firefox-esr" if in_firefox else "chromium")
    with sync_playwright() as playwright:
        browser = (firefox.launch if in_firefox else launch_chromium)(playwright)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    # Drawing what moves in the demo would cost as much as everything else.
    context = browser.new_context(viewport={"width": 1180, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)) if is_exception(error) else None)
    yield page
    context.close()
    assert errors == []


def is_exception(error: Error) -> bool:
    """Tell an exception in a page from what Firefox notes about connections that failed."""
    return not (error.stack or "").endswith("\nundefined")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in Firefox first, so that only one worker of pytest-xdist starts Firefox."""
    items.sort(key=lambda item: not is_in_firefox(item))


def is_in_firefox(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.name.endswith("]") and "firefox" in item.name


@pytest.fixture(scope="module")
def demo(workers: Workers) -> Iterator[str]:
    """Run `scripts/demo`, on several workers with the option `--workers`."""
    yield from run_demo(ROOT / "scripts" / "demo", "--workers", str(workers.count))


def run_demo(*command: str | Path) -> Iterator[str]:
    """Run the demo on a free port; the socket is there before the server is."""
    listening = bound_socket()
    port = listening.getsockname()[1]
    process = subprocess.Popen(
        [*command, "--fd", str(listening.fileno())],
        cwd=ROOT,
        pass_fds=[listening.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    listening.close()
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert "Traceback" not in log
    assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """One for all tests of a module; not started yet, and a test may leave it stopped."""
    with reserved_port() as port:
        server = Server(port)
        try:
            yield server
        finally:
            server.stop()


# For the tests of the browser client


@pytest.fixture
def network(comet: Comet) -> Network:
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>a page</title><link rel=icon href=data:,>")

    async def mine(request: Request) -> JSONResponse:
        between.processes.append(comet.process())
        return JSONResponse(None)

    routes = [Route("/", page), Route("/mine", mine)]
    middleware = [Middleware(CometMiddleware, comet=comet)]
    between = Network(Starlette(routes=routes, middleware=middleware))
    return between


@pytest.fixture
def address(network: Network) -> Iterator[Address]:
    with serve(network) as address:
        yield address


@pytest.fixture
def leaving(page: Page, address: Address) -> Iterator[Page]:
    """The page; closed before the server stops, which waits for streams."""
    yield page
    for one in page.context.pages:
        one.close()


@pytest.fixture
def tab(leaving: Page, address: Address) -> Tab:
    return Tab(leaving, address.url)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, network: Network) -> str:
    """The only one that the network lets through."""
    network.only(request.param)
    return str(request.param)


@pytest.fixture
def news(comet: Comet) -> Channel[Any]:
    return comet.create(scope=SITE, name="news")
