"""Chromium, as the tests launch it."""

from __future__ import annotations

from playwright.sync_api import Browser, Playwright

from tests.kit.programs import find_program

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
    return playwright.chromium.launch(executable_path=find_program("chromium"), args=QUIET)
