"""The rights to read site channels: the application decides at each subscription and each resume.

Owns the call of `authorize` and the revocation of a right. The server calls `authorize` before it
looks for the channel, so a refusal tells a client nothing about the channel; and never per message.
Must not know transports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from asgi_comet._runtime.counters import ChannelCounters, Histogram
from asgi_comet._runtime.functions import call
from asgi_comet._runtime.runtime import Runtime
from asgi_comet.channels.feed import Authorize, Feed, Listener
from asgi_comet.channels.registry import Registry
from asgi_comet.identity.changes import Changes, Confirmation
from asgi_comet.identity.clients import Clients

__all__ = ["Guard", "Guards", "Whom"]

REFUSALS = frozenset([401, 403, 404])
ASK_LIMIT = 10.0  # seconds that `authorize` may take


@dataclass(frozen=True, slots=True)
class Guard:
    """The rule of one channel.

    Attributes:
        guards: The rules that this rule belongs to.
        authorize: The application's function.
        parameters: The words of the channel's name.
        counters: The counts of the channel.
    """

    guards: Guards
    authorize: Authorize
    parameters: Mapping[str, Any]
    counters: ChannelCounters

    async def admits(self, connection: HTTPConnection) -> bool:
        """Return whether a connection may read the channel.

        The application refuses also by raising `PermissionError`, or `HTTPException` with 401, 403
        or 404. If a right was revoked while `authorize` ran, the server calls `authorize` again.

        Raises:
            TimeoutError: The application did not answer within 10 s.
            Exception: Any other exception of the application.
        """
        began, answers = perf_counter(), self.counters.authorisations
        try:
            with anyio.fail_after(ASK_LIMIT):
                may = await self._ask_again(connection)
        except TimeoutError:
            answers["late"] += 1
            raise
        except Exception:
            answers["failed"] += 1
            raise
        finally:
            self.guards.asked.observe(perf_counter() - began)
        answers["yes" if may else "no"] += 1
        return may

    async def _ask_again(self, connection: HTTPConnection) -> bool:
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
        except HTTPException as error:  # as endpoints and their dependencies refuse
            if error.status_code in REFUSALS:
                return False
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Whom:
    """The listeners that a change concerns: all connections of one of these.

    Attributes:
        user: A user.
        session: The id of a session.
        process: The id of a client process.
    """

    user: Any = None
    session: str | None = None
    process: str | None = None


class Guards:
    """The rules of all site channels, and their revocation. Thread-safe.

    Args:
        channels: The live channels and the declared names.
        runtime: The thread of the connections, and the counters.
        changes: The other workers.
        clients: The client processes.
        spell: Returns the form of a user in which workers tell each other of the user.

    Attributes:
        revoked: How often rights were revoked.
        asked: How long the application took to answer.
        find_feeds: Returns the live channels of a name, which may be that of a family.
    """

    find_feeds: Callable[[str], list[Feed]]  # set by `Comet`

    def __init__(
        self,
        channels: Registry,
        runtime: Runtime,
        changes: Changes,
        clients: Clients,
        spell: Callable[[Any], Any],
    ) -> None:
        self._channels = channels
        self._loop = runtime.loop
        self.asked: Histogram = runtime.counters.asked["authorize"]
        self._changes = changes
        self._clients = clients
        self._spell = spell
        self.revoked: int = 0
        changes.add("revoke", self._revoke)

    def find(self, name: str) -> Guard | None:
        """Return the rule of a site channel by its name, whether or not the channel lives."""
        return self._find(name, self._channels.find(name))

    def holds(self, guard: Guard | None, feed: Feed) -> bool:
        """Return whether a rule is that of a feed, and not of a former channel of the name."""
        rule = self._find(feed.name, feed)
        return (rule and rule.authorize) is (guard and guard.authorize)

    def _find(self, name: str, feed: Feed | None) -> Guard | None:
        found = self._channels.reserved.find(name)
        if found is not None:
            owner, parameters = found
            if owner.authorize is None:
                return None
            counters = self._channels.counters_of(name)
            return Guard(self, owner.authorize, parameters, counters)
        if feed is None or feed.authorize is None:
            return None
        return Guard(self, feed.authorize, {}, feed.counters)

    def revoke(self, name: str, whom: Whom) -> Confirmation:
        """Revoke the right of some listeners to read channels; the server tells each of them.

        Messages published after this call do not reach these listeners. Their next resume calls
        `authorize` again.

        Args:
            name: The name of the channel, or of a family with its words.
            whom: The listeners that lose their right.

        Raises:
            TypeError: The workers have no form for such a user.
            Unconfirmed: In a worker thread: not all other workers have confirmed.
        """
        user = self._spell(whom.user)
        return self._changes.make("revoke", [name, user, whom.session, whom.process])

    def _revoke(self, details: tuple[str, Any, str | None, str | None]) -> None:
        name, user, session, process = details
        client = None if process is None else self._clients.find(process)

        def concerns(listener: Listener) -> bool:
            if process is not None:
                return client is not None and listener in client.listeners
            claim = listener.claim
            if claim is None:
                return False
            of = claim.session
            same = of.id == session if session is not None else self._spell(of.user) == user
            return bool(same)

        self.revoked += 1
        self._loop.run_now(partial(_forbid, self.find_feeds(name), concerns))


def _forbid(feeds: Iterable[Feed], concerns: Callable[[Listener], bool]) -> None:
    for feed in feeds:
        for listener in [one for one in feed.listeners if concerns(one)]:
            listener.forbid(feed)
