"""Tabs of users that listen to notifiers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from asgi_comet import ClientProcess, Comet, Notifier
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import client_of
from tests.kit.processes import open_in
from tests.kit.running import running


@dataclass
class House:
    """A running `Comet` with tabs of users, who are named by letters."""

    comet: Comet
    clock: ManualClock
    tabs: dict[str, ClientProcess] = field(default_factory=dict)

    def open(self, name: str, user: Any = None) -> ClientProcess:
        session = name if user is None else f"session of {user}"
        tab = self.tabs[name] = open_in(self.comet, session)
        tab.session.user = user
        return tab

    def open_all(self, notifier: Notifier[Any], *names: str, key: Any = 1) -> None:
        """Open a tab of each user, which listens."""
        for name in names:
            notifier.listen(key, self.open(name, user=name))

    def values(self, name: str, notifier: str = "n") -> list[Any]:
        return [message["value"] for message in messages(self.tabs[name], notifier)]


def messages(process: ClientProcess, notifier: str = "n") -> list[Any]:
    """What a client process got of a notifier."""
    feed = client_of(process).place.directory.find(f"~{notifier}")
    assert feed is not None
    return [json.loads(message.data) for message in feed.history.after(0) or []]


@asynccontextmanager
async def housing(**settings: Any) -> AsyncIterator[House]:
    async with running(**settings) as (comet, clock):
        yield House(comet, clock)
