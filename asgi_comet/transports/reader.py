"""What a connection that stays is told next: read from its channels, written as its transport does.

Owns the cursors of a stream, and what is in flight: what was written and the server has not taken
yet. A stream is a cursor per channel, never a queue. Must not know how anything is sent.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from starlette.types import Message

from asgi_comet.channels.feed import Encoder, Feed, Listener, Rendered, Wake
from asgi_comet.core.messages import Notice
from asgi_comet.identity.process import ClientProcess
from asgi_comet.node.build import Hub
from asgi_comet.transports.access import leave
from asgi_comet.transports.reading import Budget, End, Gap, Run, read
from asgi_comet.transports.subscribing import gap, over

__all__ = ["Reader"]


class Reader(Listener):
    """A listener that reads on: each write begins where the last one ended.

    Args:
        hub: The rooms.
        process: Whose it is; `None` for nobody's.

    Attributes:
        limit: How many bytes one write has at most, one message at least.
        portion: How many bytes of it may be written before `end` makes them longer.
        told: What goes out first, each with its bytes.
        flight: What is being sent: a feed, after which offset, and what was written.
        gaps: Feeds that the broker has to be asked about.
        sole: Writes what comes while there is one channel only.
        settled: Whether nothing of it is counted any more.
    """

    __slots__ = ("flight", "gaps", "hub", "limit", "portion", "process", "settled", "sole", "told")

    stays = True

    def __init__(self, hub: Hub, process: ClientProcess | None) -> None:
        super().__init__()
        self.hub: Hub = hub
        self.process: ClientProcess | None = process
        self.limit: int = hub.settings.answer_bytes
        self.portion: int = self.limit
        self.told: list[tuple[Any, int]] = []
        self.flight: list[tuple[Feed, int, Rendered]] = []
        self.gaps: list[Feed] = []
        self.sole: Encoder | None = None
        self.settled: bool = False

    # What a transport says in its own way

    @abstractmethod
    def encoder(self, feed: Feed) -> Encoder:
        """Return what writes messages of a feed now, for `frame`."""

    @abstractmethod
    def sole_encoder(self, feed: Feed) -> Encoder | None:
        """Return what writes them for `sole_frame`, as long as there is no other feed.

        `None` if that depends on where the client is on this one.
        """

    @abstractmethod
    def moved(self, feed: Feed, offset: int) -> None:
        """Take note of where the client will be on a feed."""

    @abstractmethod
    def note(self, notice: Notice) -> Any:
        """Write what is no message."""

    @abstractmethod
    def frame(self, parts: list[Any]) -> Message:
        """Put what was written together as one message to the server."""

    @abstractmethod
    def sole_frame(self, data: Any) -> Message:
        """The same for what `sole_encoder` wrote."""

    def belong_to(self, process: ClientProcess) -> None:
        """Be a connection of a client process from now on."""
        process.connect()
        process.listeners.add(self)
        self.process = process

    def tell(self, part: Any, size: int | None = None) -> None:
        """Have something sent before everything else.

        Args:
            part: What a transport wrote.
            size: Its bytes; `None` if it is ASCII.
        """
        self.told.append((part, len(part) if size is None else size))

    def release(self) -> None:
        """Let others read the process' own channels, if it reads none any more."""
        if self.process is not None:
            names = [*(feed.name for feed in self.cursors), *(name for _, name in self.expected)]
            if not any(name.startswith("~") for name in names):
                self.process.left_by(self)

    def settle(self) -> None:
        """Count it out everywhere, and note what it did not get. Idempotent."""
        if self.settled:
            return
        self.settled, self.sole = True, None
        cursors = dict(self.cursors)
        for feed, after, _ in self.flight:
            cursors[feed] = min(after, cursors.get(feed, after))
        leave(self.hub, self.process, self)
        for feed, upto in cursors.items():
            feed.outcomes.leave(self, upto)

    async def recover(self) -> None:
        """Ask the broker for what this worker no longer holds; what stays a gap is told."""
        left = self.limit
        while self.gaps and left > 0:  # what is left then is for the next write
            feed = self.gaps.pop(0)
            after = self.cursors.get(feed)
            run = None if after is None else await self.hub.broker.recover(feed, after, left)
            if after is None or feed not in self.cursors:  # it was forbidden meanwhile
                continue
            if run:
                encode, epoch = self.encoder(feed), feed.history.epoch
                begun = encode.shared.render(feed.name, epoch, run, left)
                part, size, rendered = encode.end(begun, epoch, left)
                self.tell(part, size)
                left -= size
                self.move_on(feed, after, rendered)
            else:
                self.lost(feed)

    def compose(self) -> Message | None:
        """Return the next write: what there is, in order, as much as goes into one."""
        parts: list[Any] = []
        budget = Budget(self.limit, self.portion)
        if self.told:
            budget.left = self._begin_write(parts)
        # Its ids are of before what comes next; and one that is about to end gets nothing now.
        if self.told or (self.caller is not None and self.caller.moved):
            return self.frame(parts) if parts else None
        # A client process that closes in another thread: that is what is told, not each channel.
        going = self.process is not None and self.process.closed
        for found in read(self, self.encoder, budget, self.gaps):
            match found:
                case Run(feed, after, rendered, data):
                    self.move_on(feed, after, rendered)
                    parts.append(data)
                case Gap(feed):
                    self.gaps.append(feed)
                case End(feed) if not going:
                    self.drop(feed)
                    parts.append(self.note(over(feed)))
                    budget.left -= len(parts[-1])
        return self.frame(parts) if parts else None

    def _begin_write(self, parts: list[Any]) -> int:
        """Move what goes out first into a write, as much as fits; return the bytes left."""
        left = self.limit
        while self.told and (not parts or self.told[0][1] <= left):
            part, size = self.told.pop(0)
            parts.append(part)
            left -= size
        return left

    def choose_sole(self) -> Encoder | None:
        """Return what writes messages while there is only one channel, and it is the site's."""
        if len(self.cursors) == 1:
            ((feed, _),) = self.cursors.items()
            if not feed.kind.one_reader:
                return self.sole_encoder(feed)
        return None

    def lost(self, feed: Feed) -> None:
        """A gap that nobody can fill: tell it."""
        self.drop(feed)
        self.tell(self.note(gap(feed)))

    def forbid(self, feed: Feed) -> None:
        """Follow a feed no more, and tell that it may not."""
        self.drop(feed)
        self.tell(self.note(Notice(feed.name, "forbidden")))
        self.wake(Wake.MESSAGE)

    def drop(self, feed: Feed) -> None:
        """Follow a feed no more."""
        feed.outcomes.leave(self, self.cursors[feed])
        self.hub.fanout.leave(self, feed)
        self.sole = None
        self.release()

    def move_on(self, feed: Feed, after: int, rendered: Rendered) -> None:
        """Take note of what is about to be sent."""
        self.cursors[feed] = rendered.upto
        self.moved(feed, rendered.upto)
        if feed.kind.may_fill:
            feed.mark_sent(rendered.upto)
        if not rendered.handed:
            self.flight.append((feed, after, rendered))

    def land(self) -> None:
        """The server has what was in flight."""
        flight, self.flight = self.flight, []
        for feed, after, rendered in flight:
            if not rendered.handed:
                rendered.handed = True
                feed.outcomes.hand(after, rendered.upto)
                feed.outcomes.send(after, rendered.upto)
