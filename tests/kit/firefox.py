#!/usr/bin/env python3
"""Firefox as distributions package it, driven by Playwright over WebDriver BiDi.

Playwright runs this file in the place of Firefox. It starts Firefox and relays the commands between
the two, except one that Firefox ESR does not know, and that Playwright sends for every page.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

LISTENING = re.compile(rb"(?<=WebDriver BiDi listening on )ws://\S+")
UNKNOWN = "emulation.setMediaFeaturesOverride"
PLAIN: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}


def launch(playwright: Playwright) -> Browser:
    """Launch `firefox-esr`, which must be on the PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return playwright.firefox.launch(
        channel="moz-firefox",  # WebDriver BiDi instead of the protocol of Playwright's own build
        executable_path=__file__,
        env={**os.environ, "PATH": path},
    )


async def relay(playwright: ServerConnection, url: str) -> None:
    """Relay a session until one side ends it."""

    async def answer() -> None:
        async for message in firefox:
            await playwright.send(message)
        await playwright.close()

    async with connect(f"{url}/session", **PLAIN) as firefox, asyncio.TaskGroup() as tasks:
        tasks.create_task(answer())
        async for message in playwright:
            command = json.loads(message)
            if command["method"] == UNKNOWN:
                done = {"type": "success", "id": command["id"], "result": {}}
                await playwright.send(json.dumps(done))
            else:
                await firefox.send(message)
        await firefox.close()


async def main(*arguments: str) -> int:
    """Run Firefox; its log names our port instead of its own.

    Returns:
        The exit code of Firefox.
    """
    firefox = await asyncio.create_subprocess_exec("firefox-esr", *arguments, stderr=PIPE)
    url = ""
    async with serve(lambda one: relay(one, url), "127.0.0.1", 0, **PLAIN) as server:
        port = server.sockets[0].getsockname()[1]
        assert firefox.stderr is not None
        async for line in firefox.stderr:
            if found := LISTENING.search(line):
                url = found[0].decode()
            sys.stderr.buffer.write(LISTENING.sub(f"ws://127.0.0.1:{port}".encode(), line))
            sys.stderr.flush()
    return await firefox.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
