"""Declared channels: sources that start by themselves, when the server does or when somebody comes.

Owns which of them live, how many members families have, and when a member that nobody listens to
is stopped. Must not know transports, requests or the wire.

Source: api.md, "Declaring channels"; semantics.md, "Kinds of channel".
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from .channels import Channel, Channels
from .declared import Declaration, DeclaredChannel
from .directory import Place
from .errors import InvalidName, NonUniqueChannelName, TooManyFamilyChannels
from .feeds import Authorize, Feed
from .lingering import Idle, Leave
from .names import check_name
from .processes import ClientProcess
from .restarting import Restarting, Script
from .runtime import Runtime
from .settings import Settings

__all__ = ["Declaration", "Declarations", "DeclaredChannel", "Match"]

T = TypeVar("T")


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


class Declarations:
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
        self._site: dict[DeclaredChannel[Any, Any], Restarting | None] = {}  # the last of each
        self._live: dict[DeclaredChannel[Any, Any], dict[Restarting, None]] = {}
        self._members = 0  # of all families
        self._idle: Idle[Restarting] = Idle(runtime.clock)  # those nobody listens to, by name
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
        if declared.family and not _is_name(name):
            return None
        return Match(declared, parameters, declared.authorize)

    def find(self, name: str) -> Feed | None:
        """Return the feed of a declared name of the site that lives, or can still be read.

        A member of a family that does not live is started. In the loop's thread.

        Returns:
            `None` if nothing declared has the name, or its source has ended.

        Raises:
            TooManyFamilyChannels: There are `Settings.max_family_channels` already.
            TooManyVirtualChannels: There are `Settings.max_virtual_channels` already.
        """
        match = self.match(name)
        if match is None:
            return None
        feed = self._channels.find(name)
        if feed is not None or not match.declared.family:
            return feed
        return self._start(match.declared, self._channels.site, name, match.parameters)

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

    def members(self, declared: DeclaredChannel[Any, Any]) -> list[Feed]:
        """Return the live feeds of a declaration."""
        with self._lock:
            return [member.feed for member in self._live.get(declared, ())]

    def channel(self, declared: DeclaredChannel[Any, T], parameters: dict[str, Any]) -> Channel[T]:
        """Return a channel of the site, see `DeclaredChannel.channel`."""
        name = declared.name_of(parameters)
        match = self.match(name)
        if match is None or match.declared is not declared:
            raise InvalidName(name, "no channel may have it, or another one is declared by it")
        if declared.family:
            feed = self._start(declared, self._channels.site, name, match.parameters)
        else:
            feed = self._site_feed(declared)
        return self._make_channel(declared, feed, self._channels.site)

    def channel_of(self, declared: DeclaredChannel[Any, T], process: ClientProcess) -> Channel[T]:
        """Return a channel of a client process, see `DeclaredChannel.channel`."""
        return self._make_channel(declared, self._start_own(declared, process), process.place)

    def _make_channel(
        self, declared: DeclaredChannel[Any, T], feed: Feed, place: Place
    ) -> Channel[T]:
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
        feed = self._start(declared, site, declared.name, {})
        with self._lock:
            if before is not None and before is not feed:
                feed.succeed(before)  # whoever holds a `Channel` from before has this one
        return feed

    def _start_own(self, declared: DeclaredChannel[Any, Any], process: ClientProcess) -> Feed:
        return self._start(declared, process.place, declared.name, {}, process)

    def _start(
        self,
        declared: DeclaredChannel[Any, Any],
        place: Place,
        name: str,
        parameters: dict[str, Any],
        *process: ClientProcess,
    ) -> Feed:
        """Start a channel, if there is none of its name that lives, or can still be read."""
        while True:
            with self._lock:
                found = place.directory.find(place.prefix + name)
                if found is not None:
                    self._idle.touch(found.name)
                    return found
                longest = self._make_room(declared)
                if longest is None:
                    make = partial(declared.function, *process, **parameters)
                    member = self._make_member(declared, place, name, make)
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

    def _make_room(self, declared: DeclaredChannel[Any, Any]) -> Restarting | None:
        """Return which member has to go so that there may be another one, if any has."""
        limit = self._settings.max_family_channels
        if not declared.family or self._members < limit:
            return None
        longest = self._idle.pop()
        if longest is None:
            raise TooManyFamilyChannels(limit)
        return longest

    def _make_member(
        self,
        declared: DeclaredChannel[Any, Any],
        place: Place,
        name: str,
        make: Callable[[], Any],
    ) -> Restarting:
        declaration = declared.declaration
        feed = self._channels.make_feed(
            declaration.kind, place, replace(declaration.options, name=name)
        )
        script = Script(make, declaration.encode, partial(self._leave, declared))
        member = Restarting(feed, script, self._channels, self._runtime)
        self._live.setdefault(declared, {})[member] = None
        self._members += declared.family
        if declared in self._site:
            self._site[declared] = member
        if declared.family:
            self._idle.add(name, member)
        return member

    def _run(self, declared: DeclaredChannel[Any, Any], member: Restarting) -> None:
        timers, linger = self._runtime.timers, self._settings.linger
        leave = Leave(lambda: member.feed, timers, linger, self._channels.end_unused)

        def observe(listeners: int) -> None:
            leave.observe(listeners)
            self._note(declared, member, listeners)

        if declared.family:
            member.feed.observers = (*member.feed.observers, observe)

        async def run() -> None:
            if declared.family:
                leave.observe(len(member.feed.listeners))
            await member.run()

        with self._lock:
            if not self._begun:
                self._waiting.append(run)
                return
        self._runtime.background.start(run)

    def _note(
        self, declared: DeclaredChannel[Any, Any], member: Restarting, listeners: int
    ) -> None:
        """A member has that many listeners now."""
        name = member.feed.name
        if bool(listeners) is not (name in self._idle):
            return  # nothing changes
        with self._lock:
            if listeners:
                self._idle.discard(name)
            elif member in self._live.get(declared, ()):
                self._idle.add(name, member)

    def _leave(self, declared: DeclaredChannel[Any, Any], member: Restarting) -> None:
        with self._lock:
            live = self._live.get(declared, {})
            if member in live:
                del live[member]
                self._members -= declared.family
                if declared.family:
                    self._idle.discard(member.feed.name)
            if not live:
                self._live.pop(declared, None)


def _is_name(name: str) -> bool:
    try:
        check_name(name)
    except InvalidName:
        return False
    return True
