"""The operator of a loader: login, logout, and rights that are taken away and given back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from tests.nemesis.browsers import Browser, Page
from tests.nemesis.history import Journal

USERS = 4  # of each loader
LEFT = 20.0  # seconds in which all pages are closed
ACTS = ("login", "login", "logout", "revoke", "revoke", "grant", "grant")


class Operator:
    """Logs browsers in and out, and takes rights from their users.

    Attributes:
        stopped: Whether it acts no more.
    """

    def __init__(
        self, browsers: Sequence[Browser], setup: dict[str, Any], journal: Journal
    ) -> None:
        self.stopped = False
        self._browsers = browsers
        self._ports: list[int] = setup["ports"]
        self._pause: float = setup["acts"]
        self._trials: int = setup["trials"]
        self._journal = journal
        self._chance = random.Random(f"{setup['seed']} {setup['name']} operator")
        self._lock = asyncio.Lock()
        self._users = [f"{setup['name']}-u{number}" for number in range(USERS)]

    async def run(self) -> None:
        """Act again and again."""
        count = 0
        while not self.stopped:
            await asyncio.sleep(self._chance.random() * 2 * self._pause)
            await self._act(self._chance.choice(ACTS))
            count += 1
            if count == self._trials:
                print("done", flush=True)

    async def act_twice(self) -> None:
        """Change a user and a right, now."""
        for name in ("login", "revoke"):
            await self._act(name)

    async def _act(self, name: str) -> None:
        async with self._lock:
            browser, port = self._chance.choice(self._browsers), self._chance.choice(self._ports)
            user = self._chance.choice(self._users) if name != "logout" else ""
            await browser.act(name, port, f"/{name}", user)

    # At the end

    async def leave(self, pages: Sequence[Page]) -> None:
        """Close all pages, log out all users, and give all rights back."""
        self.stopped = True
        try:
            async with asyncio.timeout(LEFT):
                for page in pages:
                    await page.close(self._ports[0])
                for browser in self._browsers:
                    await self._leave(browser)
        except TimeoutError:
            self._journal.write("note", text="not all pages were closed")

    async def _leave(self, browser: Browser) -> None:
        for process in list(browser.left):
            await browser.close_left(self._ports[0], process)
        if browser.user:
            await browser.act("logout", self._ports[0], "/logout")
