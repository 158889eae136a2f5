"""Declared channels: sources that start by themselves, when the server does or when somebody comes.

Owns which of them live, how many members families have, and when a member that nobody listens to
is stopped. Must not know transports, requests or the wire.

Source: docs/declaring.md; docs/semantics.md#families.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.seldom import Seldom
from asgi_comet.channels.channels import Channel, Channels
from asgi_comet.channels.directory import Place
from asgi_comet.channels.expiry import Leave
from asgi_comet.channels.feed import Authorize, Feed, Listener
from asgi_comet.declare.declared import Declaration, DeclaredChannel, Opener
from asgi_comet.declare.restarting import Restarting, Script, Silent
from asgi_comet.declare.shares import Share, Shares
from asgi_comet.errors import InvalidName, NonUniqueChannelName
from asgi_comet.identity.process import ClientProcess
from asgi_comet.settings import Settings

__all__ = ["Declaration", "Declarations", "DeclaredChannel", "Match"]

T = TypeVar("T")

Member = Restarting | Silent

_logger = logging.getLogger(__name__)

NAMED = 20  # channels that a line of the log names, at most
CROWD = 2  # listeners of a member, from which on no bound depends on how many there are


@dataclass(frozen=True, slots=True)
class Match:
    """Whose a name is.

    Attributes:
        declared: The declared channel.
        parameters: The words of the name.
        authorize: Who may read it; `None` is everyone.
    """

    declared: DeclaredChannel[Any, Any]
    parameters: dict[str, Any]
    authorize: Authorize | None


class Declarations(Opener):
    """All declared channels. Thread-safe.

    Args:
        settings: Bounds, and how long a member of a family lingers.
        channels: Where they are made and ended.
        runtime: Where they run.
    """

    def __init__(self, settings: Settings, channels: Channels, runtime: Runtime) -> None:
        self._settings = settings
        self._channels = channels
        self._runtime = runtime
        self._reserved = channels.reserved
        self._lock = threading.Lock()
        self._site: dict[DeclaredChannel[Any, Any], Member | None] = {}  # the last of each
        self._live: dict[DeclaredChannel[Any, Any], dict[Member, tuple[Share[Member], ...]]] = {}
        self._shares: Shares[Member] = Shares(
            settings.max_family_channels, settings.max_family_channels_per_session, runtime.clock
        )
        self._warnings = Seldom(_logger, runtime.clock.now)
        self._begun = False
        self._waiting: list[Callable[[], Awaitable[None]]] = []  # sources to be read once it has

    def add(self, declared: DeclaredChannel[Any, Any]) -> None:
        """Take a declaration; its names are taken from now on.

        Raises:
            NonUniqueChannelName: Another one, or a live channel, has its name.
            InvalidDeclaration: A family could match the same names.
        """
        pattern = declared.declaration.pattern
        with self._lock:
            if declared.own:
                self._reserved.add_own(pattern.name, declared)
                return
            for name in self._channels.site.directory.names():
                words = pattern.match(name)
                if words is None or self._reserved.find(name) is not None:
                    continue  # the latter are our own, of which an exact one may be within
                if declared.read(words) is not None:
                    raise NonUniqueChannelName(name)
            self._reserved.add(pattern, declared)
            if not declared.family:
                self._site[declared] = None
        if not declared.family and self._begun:
            self._start_site(declared)

    def begin(self) -> None:
        """The application has started: so do the channels of the site, and what was asked for."""
        for declared in list(self._site):  # first: where that fails, nothing runs
            self._start_site(declared)
        with self._lock:
            self._begun = True
            waiting, self._waiting = self._waiting, []
            late = [declared for declared, last in self._site.items() if last is None]
        for run in waiting:
            self._runtime.background.start(run)
        for declared in late:  # which another thread has declared meanwhile
            self._start_site(declared)

    def stop(self) -> None:
        """The application is about to stop: no source is read until the next `begin`."""
        self._begun = False

    def match(self, name: str) -> Match | None:
        """Tell whose a name of the site is, if it is declared; starts nothing.

        An exact name wins over a family.
        """
        found = self._reserved.find(name)
        if found is None:
            return None
        declared, parameters = found
        assert isinstance(declared, DeclaredChannel)  # noqa: S101 - for the type checker
        return Match(declared, parameters, declared.authorize)

    def find(self, name: str, listener: Listener | None = None) -> Feed | None:
        """Return the feed of a declared name of the site that lives, or can still be read.

        A member of a family that does not live is started. In the loop's thread.

        Args:
            name: The name.
            listener: The connection that asks, for the bounds of one client; `None` is the
                application.

        Returns:
            `None` if nothing declared has the name, or its source has ended.

        Raises:
            TooManyFamilyChannels: There are `Settings.max_family_channels` already, or the client
                alone has `Settings.max_family_channels_per_session`.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        match = self.match(name)
        if match is None:
            return None
        feed = self._channels.find(name)
        if feed is not None or not match.declared.family:
            return feed
        make = _make_source(match.declared, **match.parameters)
        return self._start(match.declared, self._channels.site, name, make, listener)

    def find_own(self, process: ClientProcess, name: str) -> Feed | None:
        """Return the feed of a declared name, with its `~`, of a client process; started if not.

        In the loop's thread.

        Returns:
            `None` if nothing declared has the name.

        Raises:
            ProcessClosed: The client process has closed.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        declared = self._reserved.find_own(name[1:])
        if declared is None:
            return None
        assert isinstance(declared, DeclaredChannel)  # noqa: S101 - for the type checker
        return self._start_own(declared, process)

    def report(self, name: str, error: Exception) -> None:
        """Log that a channel could not be started, at most once a second: clients choose names."""
        self._warnings.warning("channel %.200r could not be started: %s", name, error)

    def report_unknown(self, name: str) -> None:
        """Log for developers that no channel of the site has a name, and which names there are."""
        if name.startswith(":") or not _logger.isEnabledFor(logging.DEBUG):
            return  # `:` is no mistake: `comet.js` subscribes to it to learn where it is
        live = self._channels.site.directory.names()
        known = [*self._reserved.names(), *(one for one in live if not self._reserved.taken(one))]
        named = ", ".join(map(repr, known[:NAMED])) + (", ..." if known[NAMED:] else "")
        _logger.debug("there is no channel %.200r (there are: %s)", name, named or "none")

    def members(self, declared: DeclaredChannel[Any, Any]) -> list[Feed]:
        """Return the live feeds of a declaration."""
        with self._lock:
            return [member.feed for member in self._live.get(declared, ())]

    def channel(self, declared: DeclaredChannel[Any, T], parameters: dict[str, Any]) -> Channel[T]:
        """Return a channel of the site."""
        name = declared.name_of(parameters)
        match = self.match(name)
        if match is None or match.declared is not declared:
            raise InvalidName(name, "no channel may have it, or another one is declared by it")
        if declared.family:
            make = _make_source(declared, **match.parameters)
            feed = self._start(declared, self._channels.site, name, make)
        else:
            feed = self._site_feed(declared)
        return self._make_channel(declared, feed, self._channels.site)

    def channel_of(self, declared: DeclaredChannel[Any, T], process: ClientProcess) -> Channel[T]:
        """Return a channel of a client process."""
        return self._make_channel(declared, self._start_own(declared, process), process.place)

    def _make_channel(
        self, declared: DeclaredChannel[Any, T], feed: Feed, place: Place
    ) -> Channel[T]:
        self._channels.touch(feed)  # or it might end before the application publishes
        name = feed.name.removeprefix(place.prefix)
        return Channel(self._channels, feed, place, name, declared.declaration.encode)

    def _site_feed(self, declared: DeclaredChannel[Any, Any]) -> Feed:
        """Return the feed of a channel that is started with the application, or before."""
        last = self._site[declared]
        if last is not None and (self._begun or last.feed.latest.closed is None):
            return last.feed.latest
        return self._start_site(declared)

    def _start_site(self, declared: DeclaredChannel[Any, Any]) -> Feed:
        site = self._channels.site
        last = self._site[declared]
        before = None if last is None else last.feed.latest
        if before is not None and before.closed is not None:
            site.directory.forget(before)  # a namesake replaces it at once
        feed = self._start(declared, site, declared.name, _make_source(declared))
        with self._lock:
            if before is not None and before is not feed:
                feed.succeed(before)  # whoever holds a `Channel` from before has this one
        return feed

    def _start_own(self, declared: DeclaredChannel[Any, Any], process: ClientProcess) -> Feed:
        make = _make_source(declared, process)
        return self._start(declared, process.place, declared.name, make)

    def _start(
        self,
        declared: DeclaredChannel[Any, Any],
        place: Place,
        name: str,
        make: Callable[[], Any] | None,
        listener: Listener | None = None,
    ) -> Feed:
        """Start a channel, unless one of its name lives, or has a source and can still be read."""
        while True:
            with self._lock:
                found = place.directory.find(place.prefix + name)
                # One that is only published to begins anew as soon as it was closed.
                if found is not None and (make is not None or found.closed is None):
                    self._shares.touch(found.name)
                    return found
                shares = self._shares.of(listener) if declared.family else ()
                rooms = (share.make_room() for share in shares)
                longest: Member | None = next((member for member in rooms if member), None)
                if longest is None:
                    member = self._make_member(declared, place, name, make)
                    self._live.setdefault(declared, {})[member] = shares
                    for share in shares:
                        share.note(name, member, 0)
                    break
            self._channels.end_unused(longest.feed)
        feed = member.feed
        if self._channels.stopping and self._runtime.loop.running and declared not in self._site:
            self._channels.end(feed, "ended", keep=False)
        if feed.closed is None:
            self._run(declared, member)
        else:  # in this very moment
            member.stop()
        return feed

    def _make_member(
        self,
        declared: DeclaredChannel[Any, Any],
        place: Place,
        name: str,
        make: Callable[[], Any] | None,
    ) -> Member:
        declaration = declared.declaration
        feed = self._channels.make_feed(
            declaration.kind,
            place,
            replace(declaration.options, name=name),
            sourced=make is not None,
            adopt=True,
        )
        left = partial(self._leave, declared)
        if make is None:
            return Silent(feed, left, self._runtime)
        script = Script(make, declaration.encode, left)
        member = Restarting(feed, script, self._channels, self._runtime)
        if declared in self._site:
            self._site[declared] = member
        return member

    def _run(self, declared: DeclaredChannel[Any, Any], member: Member) -> None:
        timers, clock = self._runtime.timers, self._runtime.clock
        leave = Leave(lambda: member.feed, timers, clock, self._channels.end_unused)

        def observe(listeners: int) -> None:
            leave.observe(listeners)
            self._note(declared, member, listeners)

        if declared.family:
            member.feed.observers = (*member.feed.observers, observe)

        def forget() -> None:
            # Else what it was made of would be kept: until the timer expires, and after that until
            # the garbage collector finds the circle, which stops the event loop to look for it.
            timers.stop(leave)
            member.feed.observers, member.feed.stop = (), None

        async def run() -> None:
            if declared.family:
                observe(len(member.feed.listeners))  # also those that came before it was set
            if isinstance(member, Restarting):
                await member.run()
                forget()

        if isinstance(member, Silent):
            member.forget = forget

        with self._lock:
            if not self._begun:
                self._waiting.append(run)
                return
        self._runtime.background.start(run)

    def _note(self, declared: DeclaredChannel[Any, Any], member: Member, listeners: int) -> None:
        """A member has that many listeners now."""
        if listeners > CROWD:
            return  # nothing changes
        with self._lock:
            for share in self._live.get(declared, {}).get(member, ()):
                share.note(member.feed.name, member, listeners)

    def _leave(self, declared: DeclaredChannel[Any, Any], member: Member) -> None:
        with self._lock:
            live = self._live.get(declared, {})
            for share in live.pop(member, ()):
                share.leave(member.feed.name)
            if not live:
                self._live.pop(declared, None)


def _make_source(
    declared: DeclaredChannel[Any, Any], *args: object, **words: object
) -> Callable[[], Any] | None:
    """Return what makes the source of a channel; `None` for one that is only published to."""
    return None if declared.function is None else partial(declared.function, *args, **words)
