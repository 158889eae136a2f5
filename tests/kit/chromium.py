"""Chromium, as the tests launch it."""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Playwright

from tests.kit.programs import PROGRAMS, find_program

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch_chromium(playwright: Playwright) -> Browser:
    """Launch Debian's `chromium-headless-shell` if it is installed: a page costs it a quarter."""
    shell = shutil.which("chromium-headless-shell", path=PROGRAMS)
    return playwright.chromium.launch(executable_path=shell or find_program("chromium"), args=QUIET)
