"""Who may read a site channel: the application is asked at subscription and on every resume.

Owns the question, and that somebody may no more. It is asked before anyone looks whether the
channel lives, so a refusal tells nothing about it; and never per message. Must not know transports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from asgi_comet._runtime.functions import call
from asgi_comet._runtime.loop import LoopThread
from asgi_comet.channels.channels import Channels
from asgi_comet.channels.feed import Authorize, Feed, Listener

__all__ = ["Guard", "Guards"]

REFUSALS = frozenset([401, 403, 404])
ASK_LIMIT = 10.0  # seconds that the application may take to say whether somebody may


@dataclass(frozen=True, slots=True)
class Guard:
    """The rule of one channel.

    Attributes:
        guards: Which of them it is.
        authorize: What is asked.
        parameters: What the channel's name says.
    """

    guards: Guards
    authorize: Authorize
    parameters: Mapping[str, Any]

    async def admits(self, connection: HTTPConnection) -> bool:
        """Tell whether a connection may read the channel.

        What the application raises as a refusal is one: `PermissionError`, and `HTTPException` with
        401, 403 or 404. If somebody lost that right while the application was asked, it is asked
        again.

        Raises:
            TimeoutError: It did not say so within 10 s.
            Exception: What else the application raises.
        """
        with anyio.fail_after(ASK_LIMIT):
            while True:
                revoked = self.guards.revoked
                may = await self._ask(connection)
                if revoked == self.guards.revoked or not may:
                    return may

    async def _ask(self, connection: HTTPConnection) -> bool:
        try:
            return bool(await call(self.authorize, connection, **self.parameters))
        except PermissionError:
            return False
        except HTTPException as error:  # what endpoints and their dependencies say
            if error.status_code in REFUSALS:
                return False
            raise


class Guards:
    """The rules of all site channels, and their revocation. Thread-safe.

    Args:
        channels: Those that were made, and the names that are declared.
        loop: Where connections live.

    Attributes:
        revoked: How often somebody lost a right.
    """

    def __init__(self, channels: Channels, loop: LoopThread) -> None:
        self._channels = channels
        self._loop = loop
        self.revoked: int = 0

    def find(self, name: str) -> Guard | None:
        """Return the rule of a site channel by its name, whether or not it lives."""
        found = self._channels.reserved.find(name)
        if found is not None:
            owner, parameters = found
            return None if owner.authorize is None else Guard(self, owner.authorize, parameters)
        feed = self._channels.find(name)
        if feed is None or feed.authorize is None:
            return None
        return Guard(self, feed.authorize, {})

    def revoke(self, feeds: Iterable[Feed], concerns: Callable[[Listener], bool]) -> None:
        """Let some listeners read feeds no more; each is told. Its next resume asks again.

        What is published once this has returned does not reach them.

        Args:
            feeds: What they may not read.
            concerns: Tells of a listener whether it is one of them.
        """
        self.revoked += 1
        self._loop.run_now(partial(_forbid, feeds, concerns))


def _forbid(feeds: Iterable[Feed], concerns: Callable[[Listener], bool]) -> None:
    for feed in feeds:
        for listener in [one for one in feed.listeners if concerns(one)]:
            listener.forbid(feed)
