"""Declared channels: their sources start with the server or with the first subscription.

Owns which declared channels live, how many members families have, and when a member without
listeners is stopped. Must not know transports, requests or the wire.

Source: docs/declaring.md; docs/semantics.md#families.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.seldom import Seldom
from asgi_comet.channels.channel import Channel
from asgi_comet.channels.directory import Place
from asgi_comet.channels.expiry import Leave
from asgi_comet.channels.feed import Authorize, Feed, Listener
from asgi_comet.channels.registry import Registry
from asgi_comet.declare.declared import Declaration, Opener
from asgi_comet.declare.restarting import Restarting, Script, Silent
from asgi_comet.declare.shares import Share, Shares
from asgi_comet.errors import BrokerUnavailable, CometError, InvalidName, NonUniqueChannelName
from asgi_comet.identity.process import Client
from asgi_comet.log_events import event
from asgi_comet.settings import Settings

__all__ = ["Declarations", "Match", "Member"]

Member = Restarting | Silent
Job = Callable[[], Awaitable[None]]

_logger = logging.getLogger(__name__)

NAMED = 20  # channel names in one log line, at most
CROWD = 2  # listeners; above this, no bound depends on the exact count


@dataclass(frozen=True, slots=True)
class Match:
    """The declaration that a name belongs to.

    Attributes:
        declared: The declared channel.
        parameters: The words of the name.
        authorize: Decides which clients may read; `None` is every client.
    """

    declared: Declaration
    parameters: dict[str, Any]
    authorize: Authorize | None


class Declarations(Opener):
    """All declared channels. Thread-safe.

    Args:
        settings: Limits, and how long a member of a family lingers.
        channels: Makes and ends the channels.
        runtime: Runs the sources.

    Attributes:
        live: The live members of each declaration.
        shares: The members of families, as the limits count them.
    """

    def __init__(self, settings: Settings, channels: Registry, runtime: Runtime) -> None:
        self._channels = channels
        self._runtime = runtime
        self._reserved = channels.reserved
        self._lock = threading.Lock()
        self._site: dict[Declaration, Member | None] = {}  # the last of each
        self.live: dict[Declaration, dict[Member, tuple[Share[Member], ...]]] = {}
        self.shares: Shares[Member] = Shares(
            settings.max_family_channels,
            settings.max_family_channels_per_session,
            runtime.clock,
            channels.sharing.members_elsewhere,
        )
        self._warnings = Seldom(_logger, runtime.clock.now)
        self._begun = False
        self._waiting: list[Job] = []  # sources to read once begun

    def add(self, declared: Declaration) -> None:
        """Take a declaration; its names are taken from now on.

        Raises:
            NonUniqueChannelName: Another declaration or a live channel has the name.
            InvalidDeclaration: A family could match the same names.
        """
        pattern = declared.pattern
        with self._lock:
            if declared.own:
                self._reserved.add_own(pattern.name, declared)
                return
            for name in self._channels.site.directory.names():
                words = pattern.match(name)
                if words is None or self._reserved.find(name) is not None:
                    continue  # reserved names are our own, and an exact one may match a family
                if declared.read(words) is not None:
                    raise NonUniqueChannelName(name)
            self._reserved.add(pattern, declared)
            self._channels.guards.note(declared.authorize)
            if not declared.family:
                self._site[declared] = None
        if not declared.family and self._begun:
            self._start_site(declared)

    def begin(self) -> None:
        """Start the site channels, and the members requested so far, with the application."""
        for declared in list(self._site):  # first: if this fails, nothing runs
            self._start_site(declared)
        with self._lock:
            self._begun = True
            waiting, self._waiting = self._waiting, []
            late = [declared for declared, last in self._site.items() if last is None]
        for run in waiting:
            self._runtime.background.start(run)
        for declared in late:  # another thread declared them meanwhile
            self._start_site(declared)

    def stop(self) -> None:
        """Stop with the application: no new source is read until the next `begin`."""
        self._begun = False

    def match(self, name: str) -> Match | None:
        """Return the declaration of a site name, if there is one; starts nothing.

        An exact name wins over a family.
        """
        found = self._reserved.find(name)
        if found is None:
            return None
        declared, parameters = found
        assert isinstance(declared, Declaration)  # noqa: S101 - for the type checker
        return Match(declared, parameters, declared.authorize)

    def find(self, name: str, listener: Listener | None = None) -> Feed | None:
        """Return the feed of a declared site name that is live or still readable.

        Starts a member of a family that is not live. Call in the loop's thread.

        Args:
            name: The name.
            listener: The connection that subscribes, for the limits per client; `None` is the
                application.

        Returns:
            The feed; `None` if the name is not declared, or its source has ended.

        Raises:
            TooManyFamilyChannels: There are `Settings.max_family_channels` already, or this client
                has `Settings.max_family_channels_per_session`.
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

    def find_own(self, process: Client, name: str) -> Feed | None:
        """Return the feed of a declared name, with its `~`, of a client process; started if not.

        Starts the channel if it is not live. Call in the loop's thread.

        Returns:
            The feed; `None` if the name is not declared.

        Raises:
            ProcessClosed: The client process has closed.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        declared = self._reserved.find_own(name[1:])
        if declared is None:
            return None
        assert isinstance(declared, Declaration)  # noqa: S101 - for the type checker
        return self._start_own(declared, process)

    def report(self, name: str, error: Exception) -> None:
        """Log that a channel could not start, at most once a second: clients choose names."""
        told = event("channel.unstarted", channel=name, reason=str(error))
        self._warnings.warning("channel %.200r could not be started: %s", name, error, extra=told)

    def report_unknown(self, name: str) -> None:
        """Log an unknown name and the known names of the site, at level DEBUG."""
        if name.startswith(":") or not _logger.isEnabledFor(logging.DEBUG):
            return  # `comet.js` subscribes to `:` to learn the position, not by mistake
        live = self._channels.site.directory.names()
        known = [*self._reserved.names(), *(one for one in live if not self._reserved.taken(one))]
        named = ", ".join(map(repr, known[:NAMED])) + (", ..." if known[NAMED:] else "")
        told, named = event("channel.unknown", channel=name), named or "none"
        _logger.debug("there is no channel %.200r (there are: %s)", name, named, extra=told)

    def members(self, declared: Declaration) -> list[Feed]:
        """Return the live feeds of a declaration."""
        with self._lock:
            return [member.feed for member in self.live.get(declared, ())]

    def feeds_of(self, name: str) -> list[Feed]:
        """Return the live feeds of a channel of the site, or of a declaration, by its name."""
        declared = self._reserved.named(name)
        if isinstance(declared, Declaration):
            return self.members(declared)
        feed = self._channels.find(name)
        return [] if feed is None else [feed]

    def channel(self, declared: Declaration, parameters: dict[str, Any]) -> Channel[Any]:
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

    def channel_of(self, declared: Declaration, process: Client) -> Channel[Any]:
        """Return a channel of a client process."""
        return self._make_channel(declared, self._start_own(declared, process), process.place)

    def _make_channel(self, declared: Declaration, feed: Feed, place: Place) -> Channel[Any]:
        self._channels.touch(feed)  # or it might end before the application publishes
        name = feed.name.removeprefix(place.prefix)
        return Channel(self._channels, feed, place, name, declared.encode)

    def _site_feed(self, declared: Declaration) -> Feed:
        """Return the feed of a channel that is started with the application, or before."""
        last = self._site[declared]
        if last is not None and (self._begun or last.feed.latest.closed is None):
            return last.feed.latest
        return self._start_site(declared)

    def _start_site(self, declared: Declaration) -> Feed:
        site = self._channels.site
        last = self._site[declared]
        before = None if last is None else last.feed.latest
        if before is not None and before.closed is not None:
            site.directory.forget(before)  # a channel of the same name replaces it at once
        feed = self._start(declared, site, declared.name, _make_source(declared))
        with self._lock:
            if before is not None and before is not feed:
                feed.succeed(before)  # a `Channel` from before uses the new feed
        return feed

    def _start_own(self, declared: Declaration, process: Client) -> Feed:
        make = _make_source(declared, process)
        feed = self._start(declared, process.place, declared.name, make)
        process.hold()  # or this worker is not told to close the source
        return feed

    def _start(
        self,
        declared: Declaration,
        place: Place,
        name: str,
        make: Callable[[], Any] | None,
        listener: Listener | None = None,
    ) -> Feed:
        """Start a channel, unless the name is live, or has a source and is still readable."""
        while True:
            with self._lock:
                found = place.directory.find(place.prefix + name)
                # A channel without a source starts afresh as soon as it was closed.
                if found is not None and (make is not None or found.closed is None):
                    self.shares.touch(found.name)
                    return found
                bounded = declared.family and self._channels.appending.publisher is None
                shares = self.shares.of(listener) if bounded else ()
                rooms = (share.make_room() for share in shares)
                longest: Member | None = next((member for member in rooms if member), None)
                if longest is not None:
                    self._evict(longest)
                else:
                    barred = next((share.barred for share in shares if share.barred), None)
                    member = self._make_member(declared, place, name, make, barred)
                    self.live.setdefault(declared, {})[member] = shares
                    for share in shares:
                        share.note(name, member, 0)
                    break
            self._channels.ending.end_unused(longest.feed, at_once=True)
        feed = member.feed
        if self._channels.stopping and self._runtime.loop.running and declared not in self._site:
            self._channels.ending.end(feed, "ended", keep=False, tell=False)
        if feed.closed is None:
            self._run(declared, member)
        else:  # closed at this moment
            member.stop()
        return feed

    def _make_member(
        self,
        declared: Declaration,
        place: Place,
        name: str,
        make: Callable[[], Any] | None,
        barred: CometError | None,
    ) -> Member:
        feed = self._channels.make_feed(
            declared.kind,
            place,
            replace(declared.options, name=name),
            sourced=make is not None,
            family=declared.family,
            barred=barred,
        )
        left = partial(self._leave, declared)
        if make is None:
            return Silent(feed, left, self._runtime)
        script = Script(make, declared.encode, left, declared.continues)
        member = Restarting(feed, script, self._channels, self._runtime)
        if declared in self._site:
            self._site[declared] = member
        return member

    def _run(self, declared: Declaration, member: Member) -> None:
        timers, clock = self._runtime.timers, self._runtime.clock
        leave = Leave(lambda: member.feed, timers, clock, self._channels.ending.end_unused)

        def observe(listeners: int) -> None:
            leave.observe(listeners)
            self._note(declared, member, listeners)

        if declared.family:
            member.feed.observers = (*member.feed.observers, observe)

        def forget() -> None:
            # Breaks a reference cycle: the garbage collector would stop the event loop meanwhile.
            timers.stop(leave)
            feed = member.feed
            feed.observers, feed.stop, feed.right = (), None, None

        async def look() -> None:
            if declared.family:  # also for listeners attached before `observe` was set
                observe(len(member.feed.listeners))

        async def run() -> None:
            await look()
            if isinstance(member, Restarting):
                await member.run()
                forget()

        if isinstance(member, Silent):
            member.forget = forget
        self._schedule(run, look)

    def _schedule(self, run: Job, look: Job) -> None:
        """Have a source read once the application runs; in a publisher, never."""
        if self._channels.appending.publisher is not None:
            self._channels.appending.publisher.start(look)
            return
        with self._lock:
            if not self._begun:
                self._waiting.append(run)
                return
        self._runtime.background.start(run)

    def _note(self, declared: Declaration, member: Member, listeners: int) -> None:
        """A member has that many listeners now."""
        if listeners > CROWD:
            return  # no bound changes
        with self._lock:
            for share in self.live.get(declared, {}).get(member, ()):
                share.note(member.feed.name, member, listeners)

    def _evict(self, member: Member) -> None:
        """Count a member no more that ends soon. The caller holds the lock.

        Raises:
            BrokerUnavailable: The member cannot be ended now.
        """
        for share in {share for live in self.live.values() for share in live.get(member, ())}:
            share.leave(member.feed.name)
            if not self._channels.sharing.connected:
                share.note(member.feed.name, member, 0)
        if not self._channels.sharing.connected:
            raise BrokerUnavailable("no member of a family can be ended to make room for another")

    def _leave(self, declared: Declaration, member: Member) -> None:
        with self._lock:
            for share in self.live.get(declared, {}).pop(member, ()):
                share.leave(member.feed.name)


def _make_source(declared: Declaration, *args: object, **words: object) -> Callable[[], Any] | None:
    """Return what makes the source of a channel; `None` for one that is only published to."""
    return None if declared.function is None else partial(declared.function, *args, **words)
