from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.serving import bound_socket

ROOT = Path(__file__).parent.parent.parent

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")  # its event loop must not outlive the tests that need it
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None and not os.environ.get("CI"):
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1180, "height": 900})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """Run `scripts/demo` on a free port; the socket is there before the server is."""
    listening = bound_socket()
    port = listening.getsockname()[1]
    process = subprocess.Popen(
        [ROOT / "scripts" / "demo", "--fd", str(listening.fileno())],
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
