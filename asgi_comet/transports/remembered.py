"""The state of a client process in the registration protocol, as any worker finds it in the store.

Owns the form of that state: names and positions in place of feeds, as JSON. Must not know how a
request is held, nor what an answer says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.channels.aged import make_feed
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.channels.kind import Kind
from asgi_comet.core.messages import NEXT_INCARNATION, Last, Start, parse_position
from asgi_comet.http.exchange import Exchange, Refusal
from asgi_comet.identity.process import Client
from asgi_comet.identity.registered import Registered
from asgi_comet.node.build import Node
from asgi_comet.position import Position
from asgi_comet.transports.claiming import claim, come_back
from asgi_comet.transports.registered import TOO_MANY

__all__ = ["State", "load", "save"]

STATE_LIMIT = 256 * 1024  # bytes
ALL = Last(10**15)  # all messages that are held

_Place = tuple[str, str]  # the name of a channel, and its epoch


@dataclass(slots=True)
class State:
    """The state after the last request; see `Registered` for the attributes not listed here.

    Attributes:
        cursors: The positions by name.
        pending: The positions by name that the next request acknowledges.
        answer: Texts; or the name, the epoch, and the offsets of messages.
    """

    cursors: dict[str, Position] = field(default_factory=dict)
    pending: dict[str, Position] = field(default_factory=dict)
    expected: set[str] = field(default_factory=set)
    lost: dict[str, None] = field(default_factory=dict)
    number: str | None = None
    answer: list[tuple[str, str, int, int] | str] | None = None

    @classmethod
    def decode(cls, data: bytes | None) -> State:
        """Decode the state from the store; `None` if there is none."""
        if data is None:
            return cls()
        found: dict[str, Any] = json.loads(data)
        answer = found["answer"]
        return cls(
            {name: parse_position(text) for name, text in found["cursors"].items()},
            {name: parse_position(text) for name, text in found["pending"].items()},
            set(found["expected"]),
            dict.fromkeys(found["lost"]),
            found["number"],
            answer and [one if isinstance(one, str) else tuple(one) for one in answer],
        )

    @property
    def names(self) -> set[str]:
        """The names of the channels that are known to the client process."""
        return {*self.cursors, *self.expected, *self.lost}

    def repeats(self, number: str | None) -> bool:
        """Return whether a request asks for the last answer again."""
        return number is not None and number == self.number and self.answer is not None

    def starts(self, names: Iterable[str]) -> dict[str, Start]:
        """Return where the client goes on in own channels, once the last answer is acknowledged."""
        now = self.cursors | {
            name: position
            for name, position in self.pending.items()
            if name in self.cursors or name in self.expected
        }
        return {n: now.get(n, NEXT_INCARNATION if n in self.expected else ALL) for n in names}

    def answered(self) -> dict[str, Position]:
        """Return the channels of the last answer, each with the position before its messages."""
        told = [one for one in self.answer or () if not isinstance(one, str)]
        return {name: Position(epoch, after) for name, epoch, after, _ in told}

    def thaw(self, node: Node, process: Client, feeds: Iterable[Feed]) -> Registered:
        """Return the state with feeds of this worker in place of names.

        Args:
            node: The parts of the Comet.
            process: The client process.
            feeds: The channels of the request.
        """
        table = _Table(node, process, feeds)
        kept = Registered()
        kept.cursors = table.of(self.cursors)
        kept.pending = table.of(self.pending)
        kept.expected, kept.lost, kept.number = set(self.expected), dict(self.lost), self.number
        if self.answer is not None:
            kept.answer = [
                one.encode() if isinstance(one, str) else (table.find(one[0], one[1]), *one[2:])
                for one in self.answer
            ]
        return kept


class _Table:
    """The feeds of this worker, by name and epoch."""

    def __init__(self, node: Node, process: Client, feeds: Iterable[Feed]) -> None:
        self._node = node
        self._process = process
        self._feeds: dict[_Place, Feed] = {(feed.name, feed.epoch): feed for feed in feeds}

    def of(self, positions: Mapping[str, Position]) -> dict[Feed, int]:
        return {self.find(name, at.epoch): at.offset for name, at in positions.items()}

    def find(self, name: str, epoch: str) -> Feed:
        """Return a feed; a new one, which no table has, for what this worker does not know."""
        feed = self._feeds.get((name, epoch))
        if feed is None:
            own = name.startswith("~")
            place = self._process.place if own else self._node.channels.site
            feed = place.directory.find(name)
            if feed is None or feed.epoch != epoch:
                kind = Kind.PROCESS if own else Kind.SITE
                spec = ChannelSpec(name=name, kind=kind.value, size=1, max_bytes=1)
                feed = make_feed(spec, place.directory, self._node.clock.now, epoch)
            self._feeds[name, epoch] = feed
        return feed


async def load(node: Node, exchange: Exchange, process: Client, listener: Listener) -> State:
    """Let a connection read a client process, and return the state of the connection before.

    Raises:
        TryAgain: The broker could not tell; or a login has changed the session.
        ProcessGone: The client process has closed.
    """
    # First: the connection before cannot save any more.
    await claim(node, exchange, process, listener, {})
    people = node.broker.people
    assert people is not None  # noqa: S101 - `claim` has asked
    with come_back():
        return State.decode(await people.load(process.id))


async def save(node: Node, process: Client, listener: Listener, kept: Registered) -> bool:
    """Store the state; return whether the connection still reads the client process.

    Raises:
        Refusal: 503, if the state is too large.
        TryAgain: The broker could not tell.
    """
    data = _freeze(kept)
    if len(data) > STATE_LIMIT:
        raise Refusal(503, TOO_MANY, Retry_After="30")
    people = node.broker.people
    assert people is not None  # noqa: S101 - `claim` has asked
    with come_back():
        reads = process.reader is listener  # else another connection has taken its place
        return reads and await people.save(process.id, process.number_reader(), data)


def _freeze(kept: Registered) -> bytes:
    state: dict[str, Any] = {
        "cursors": {f.name: str(f.position(offset)) for f, offset in kept.cursors.items()},
        "pending": {f.name: str(f.position(offset)) for f, offset in kept.pending.items()},
        "expected": sorted(kept.expected),
        "lost": list(kept.lost),
        "number": kept.number,
        "answer": kept.answer
        and [
            one.decode() if isinstance(one, bytes) else (one[0].name, one[0].epoch, *one[1:])
            for one in kept.answer
        ],
    }
    return json.dumps(state, separators=(",", ":")).encode()
