"""Readers: compose the next write of a stream from its channels.

Owns the cursors of a stream, and the writes in flight, which the server has not taken yet. A stream
is a cursor per channel, never a queue. Must not know how a write is sent.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from starlette.types import Message

from asgi_comet._runtime.counters import TransportCounters
from asgi_comet.channels.feed import Chunk, Encoder, Feed, Listener, Wake
from asgi_comet.core.messages import Notice
from asgi_comet.errors import BrokerUnavailable
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.transports.access import leave, stop_reading
from asgi_comet.transports.reading import Budget, End, Gap, Run, read
from asgi_comet.transports.subscribing import ending, gap

__all__ = ["Reader"]


class Reader(Listener):
    """A listener that continues: each write begins where the last one ended.

    Args:
        node: The parts of the Comet.
        process: The client process of the connection, if any.
        counters: The counts of the transport.

    Attributes:
        limit: How many bytes one write may have; at least one message is written.
        portion: How many bytes of messages to encode for one write, before `end` adds the ids.
        told: Parts to send first, each with its size in bytes.
        in_flight: Writes in flight: the feed, the offset before, and the encoded messages.
        gaps: Feeds whose next messages are only at the broker.
        sole: The encoder while there is only one channel.
        settled: Whether the listener is detached everywhere.
    """

    __slots__ = (
        "gaps",
        "in_flight",
        "limit",
        "node",
        "portion",
        "process",
        "settled",
        "sole",
        "told",
    )

    stays = True

    def __init__(self, node: Node, process: Client | None, counters: TransportCounters) -> None:
        super().__init__(counters)
        self.node: Node = node
        self.process: Client | None = process
        self.limit: int = node.settings.answer_bytes
        self.portion: int = self.limit
        self.told: list[tuple[Any, int]] = []
        self.in_flight: list[tuple[Feed, int, Chunk]] = []
        self.gaps: list[Feed] = []
        self.sole: Encoder | None = None
        self.settled: bool = False

    # Implemented by each transport

    @abstractmethod
    def encoder(self, feed: Feed) -> Encoder:
        """Return the encoder of a feed's messages, for `frame`."""

    @abstractmethod
    def sole_encoder(self, feed: Feed) -> Encoder | None:
        """Return the encoder for `sole_frame`, valid while there is no other feed.

        `None` if the encoding depends on the client's position on the feed.
        """

    @abstractmethod
    def moved(self, feed: Feed, offset: int) -> None:
        """Record the client's new offset on a feed."""

    @abstractmethod
    def note(self, notice: Notice) -> Any:
        """Encode a notice."""

    @abstractmethod
    def frame(self, parts: list[Any]) -> Message:
        """Join encoded parts to one ASGI message."""

    @abstractmethod
    def sole_frame(self, data: Any) -> Message:
        """Return the ASGI message for data of `sole_encoder`."""

    def belong_to(self, process: Client) -> None:
        """Be a connection of a client process from now on."""
        process.connect()
        process.listeners.add(self)
        self.process = process

    def tell(self, part: Any, size: int | None = None) -> None:
        """Queue a part to be sent first.

        Args:
            part: The encoded part.
            size: The size in bytes; `None` if the part is ASCII.
        """
        self.told.append((part, len(part) if size is None else size))

    def release(self) -> None:
        """Stop being the reader of the client process, if no process channel is left."""
        if self.process is not None:
            names = [*(feed.name for feed in self.cursors), *(name for _, name in self.expected)]
            if not any(name.startswith("~") for name in names):
                stop_reading(self.node, self.process, self)

    def settle(self) -> None:
        """Detach everywhere, and record which messages were not sent. Idempotent."""
        if self.settled:
            return
        self.settled, self.sole = True, None
        cursors = dict(self.cursors)
        for feed, after, _ in self.in_flight:
            cursors[feed] = min(after, cursors.get(feed, after))
        leave(self.node, self.process, self)
        for feed, upto in cursors.items():
            feed.outcomes.leave(self, upto)

    async def recover(self) -> None:
        """Read the messages of gaps from the broker; tell the gaps that remain."""
        left = self.limit
        while self.gaps and left > 0:  # the rest is for the next write
            feed = self.gaps.pop(0)
            after = self.cursors.get(feed)
            try:
                run = None if after is None else await self.node.broker.recover(feed, after, left)
            except BrokerUnavailable:
                self.end(Wake.TIMEOUT)  # the client comes back, here or to another worker
                return
            if after is None or feed not in self.cursors:  # forbidden meanwhile
                continue
            if run:
                encode, epoch = self.encoder(feed), feed.history.epoch
                begun = encode.shared.render(feed.name, epoch, run, left)
                part, size, chunk = encode.end(begun, epoch, left)
                self.tell(part, size)
                left -= size
                self.move_on(feed, after, chunk, size)
            else:
                self.lost(feed)

    def compose(self) -> Message | None:
        """Return the next write, in order and within the limit; `None` if there is nothing."""
        parts: list[Any] = []
        budget = Budget(self.limit, self.portion)
        if self.told:
            budget.left = self._begin_write(parts)
        # Queued parts have ids from before new messages; and a stale session gets no messages.
        if self.told or (self.claim is not None and self.claim.stale):
            return self.frame(parts) if parts else None
        # A process closing in another thread is told as such, not as the end of each channel.
        going = self.process is not None and self.process.closed
        for found in read(self, self.encoder, budget, self.gaps):
            match found:
                case Run(feed, after, chunk, data, size):
                    self.move_on(feed, after, chunk, size)
                    parts.append(data)
                case Gap(feed):
                    self.gaps.append(feed)
                case End(feed) if not going:
                    self.drop(feed)
                    parts.append(self.note(ending(feed)))
                    budget.left -= len(parts[-1])
        return self.frame(parts) if parts else None

    def _begin_write(self, parts: list[Any]) -> int:
        """Move queued parts into a write, as many as fit; return the bytes left."""
        left = self.limit
        while self.told and (not parts or self.told[0][1] <= left):
            part, size = self.told.pop(0)
            parts.append(part)
            left -= size
        return left

    def choose_sole(self) -> Encoder | None:
        """Return the encoder to use while there is only one channel, of the site."""
        if len(self.cursors) == 1:
            ((feed, _),) = self.cursors.items()
            if not feed.kind.one_reader:
                return self.sole_encoder(feed)
        return None

    def lost(self, feed: Feed) -> None:
        """Tell a gap that the broker cannot fill."""
        note = self.note(gap(feed))  # first: a message that was skipped is no failure
        self.drop(feed)
        self.tell(note)

    def forbid(self, feed: Feed) -> None:
        """Detach from a feed, and tell the client that it may not read the channel."""
        self.drop(feed)
        self.tell(self.note(Notice(feed.name, "forbidden")))
        self.wake(Wake.MESSAGE)

    def drop(self, feed: Feed) -> None:
        """Detach from a feed."""
        feed.outcomes.leave(self, self.cursors[feed])
        self.node.fanout.leave(self, feed)
        self.sole = None
        self.release()

    def move_on(self, feed: Feed, after: int, chunk: Chunk, size: int) -> None:
        """Record messages that are about to be sent, and their bytes."""
        self.cursors[feed] = chunk.upto
        self.counters.delivered += chunk.count
        self.counters.delivered_bytes += size
        self.moved(feed, chunk.upto)
        if feed.kind.may_fill:
            feed.mark_sent(chunk.upto)
        if not chunk.taken:
            self.in_flight.append((feed, after, chunk))

    def taken(self) -> None:
        """Record that the server took the writes in flight."""
        taken, self.in_flight = self.in_flight, []
        for feed, after, chunk in taken:
            if not chunk.taken:
                chunk.taken = True
                feed.outcomes.hand(after, chunk.upto)
                feed.outcomes.send(after, chunk.upto)
