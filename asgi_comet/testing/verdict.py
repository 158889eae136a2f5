"""The rules of the promise: the messages of readers are compared with the published ones.

Owns the rules, which are sentences of docs/semantics.md. Must not know how messages came, nor how
the server decides what to send.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from asgi_comet.channels.kind import Kind
from asgi_comet.channels.outcomes import Outcome
from asgi_comet.core.messages import NEXT_INCARNATION
from asgi_comet.errors import ChannelClosed, ChannelFull, Replaced
from asgi_comet.position import Position
from asgi_comet.protocol.registration import decode_text
from asgi_comet.testing.ledger import Kept, Key, Ledger, Published
from asgi_comet.testing.lines import HttpConnection
from asgi_comet.testing.reading import ChannelReader, Reading
from asgi_comet.testing.traffic import Traffic

__all__ = ["judge"]


def judge(tabs: Iterable[Traffic], ledger: Ledger, processes: dict[str, str]) -> list[str]:
    """Return how the promise was broken. Call when nothing can happen any more.

    Args:
        tabs: All tabs.
        ledger: The published messages.
        processes: The ids of client processes by token.
    """
    tabs = list(tabs)
    readers = [one for number, tab in enumerate(tabs) for one in _list(number, tab, processes)]
    by_key: dict[Key, list[_Reader]] = {}
    for reader in readers:
        by_key.setdefault(reader.key, []).append(reader)
    found = [*ledger.wrong, *_judge_outcomes(ledger), *_judge_claims(tabs)]
    for reader in readers:
        found += reader.judge(ledger.messages(reader.key), ledger.kept.get(reader.key))
    for key, those in by_key.items():
        kept = ledger.kept.get(key)
        found += _judge_ends(those, kept)
        by_hand = any(reader.tab.sender.by_hand for reader in those)
        if kept is not None and Kind(kept.spec.kind).on_demand and not by_hand:
            found += _judge_demand(key, kept.spec.size, those, ledger.messages(key))
    return found


def _list(number: int, tab: Traffic, processes: dict[str, str]) -> Iterator[_Reader]:
    """Yield the readers of a tab."""
    readings = {one: of for of in tab.readings for one in of.channels.values()}
    for one in tab.channels:
        key = Key(processes.get(tab.process, "") if one.name[0] == "~" else "", one.name)
        yield _Reader(f"tab {number}", tab, one, readings.get(one), key)


@dataclass(frozen=True, slots=True)
class _Reader:
    """One reader of a channel.

    Attributes:
        who: What to call it.
        tab: Its tab.
        one: What it has got.
        reading: Its connection; `None` if another reader goes on in its place.
        key: The channel.
    """

    who: str
    tab: Traffic
    one: ChannelReader
    reading: Reading | None
    key: Key

    @property
    def live(self) -> bool:
        """Whether it reads now, so that nothing keeps messages from it."""
        of = self.reading
        if of is None or self.one.error is not None or of.ended or of.away or self.tab.line.faulty:
            return False
        return self.one in of.left

    @property
    def registered(self) -> bool:
        """Whether it reads over the registration protocol, so without positions."""
        return self.transport == "registration" or set(self.one.positions) == {""}

    @property
    def transport(self) -> str:
        """How it reads; empty if another reader goes on in its place."""
        return "" if self.reading is None else self.reading.transport

    def judge(self, published: dict[Position, Published], kept: Kept | None) -> Iterator[str]:
        """Return what is wrong with what it has got."""
        if self.live and self.reading is not None and self.reading.own and self.tab.closed:
            yield f"{self.who} was not told that its client process has closed"
        elif self.registered:
            yield from self._judge_values(published, kept)
        else:
            at = yield from self._judge_positions(published, kept)
            if self.live:
                yield from self._judge_end(published, kept, at)

    def _judge_positions(
        self, published: dict[Position, Published], kept: Kept | None
    ) -> Generator[str, None, Position | None]:
        at = Position.parse(self.one.began) if self.one.began else None
        only_last = _is_only_last(kept)
        name = self.key.name
        for text, value in zip(self.one.positions, self.one.messages, strict=True):
            if not text:
                continue  # from the time when it was registered
            position = Position.parse(text)
            if at is None:
                yield f"{self.who} was not told where it begins to read {name!r}"
                at = Position(position.epoch, position.offset - 1)
            if position not in published:
                yield f"{self.who} got {text} of {name!r}, which nobody has published"
            elif json.loads(published[position].data) != value:
                yield f"{self.who} got {value!r:.80} as {text} of {name!r}, which is another"
            else:
                yield from self._judge_step(at, position, only_last=only_last)
            at = position
        return at

    def _judge_step(self, at: Position, then: Position, *, only_last: bool) -> Iterator[str]:
        who, name = self.who, self.key.name
        if at == NEXT_INCARNATION:
            at = Position(then.epoch, 0)
        if then.epoch != at.epoch:
            if not only_last:
                yield f"{who} went on from {at} to {then} of {name!r}, and was not told of a gap"
        elif then.offset <= at.offset:
            yield f"{who} got {then} of {name!r} after {at}: twice, or out of order"
        elif then.offset != at.offset + 1 and not only_last:
            yield f"{who} got {then} of {name!r} after {at}: what is between was lost silently"

    def _judge_end(
        self, published: dict[Position, Published], kept: Kept | None, at: Position | None
    ) -> Iterator[str]:
        """Judge a reader that reads still: it has everything, and the server knows."""
        who, name = self.who, self.key.name
        waits = at == NEXT_INCARNATION  # for a channel that does not exist
        if at is None:
            yield f"{who} was not told where it begins to read {name!r}"
        elif kept is not None and kept.closed is not None:
            if kept.closed == "full" or not waits:
                yield f"{who} was not told that {name!r} has ended: {kept.closed}"
        elif published and at != (newest := list(published)[-1]) and newest.epoch == _epoch(kept):
            yield f"{who} lacks {newest} of {name!r}, and has only got {at}"
        elif kept is not None and not waits:
            yield from self._judge_place(kept, at)

    def _judge_place(self, kept: Kept, at: Position) -> Iterator[str]:
        """Judge whether both sides know where a reader is."""
        who, name, kind = self.who, self.key.name, Kind(kept.spec.kind)
        if at.epoch != kept.history.epoch and not kind.only_last:
            yield f"{who} was not told that {name!r} has begun anew after {at}"
        elif kind.one_reader and kept.acknowledged < at.offset:
            yield f"the server does not know that {who} has {at} of {name!r}: no `ack`"

    def _judge_values(
        self, published: dict[Position, Published], kept: Kept | None
    ) -> Iterator[str]:
        """Judge what came without positions: it must be a part of what was published."""
        values = [_read_text(one.data) for one in published.values()]
        got, name = self.one.messages, self.key.name
        ends = _ends_within(got, values, gaps=_is_only_last(kept))
        if got and not ends:
            yield f"{self.who} got {got!r:.200} of {name!r}, not as it was published"
        elif got and self.live and len(values) not in ends:
            yield f"{self.who} lacks {values[-1]!r:.80} of {name!r}"


def _read_text(data: bytes) -> Any:
    """Return a value as the registration protocol tells it, where a text may look like JSON."""
    value = json.loads(data)
    return decode_text(value) if isinstance(value, str) else value


def _ends_within(got: list[Any], values: list[Any], *, gaps: bool) -> set[int]:
    """Return where a part of a list may end; `gaps` allows that values are left out."""
    ends = set(range(len(values) + 1))  # of what was found so far: at first of nothing
    for value in got:
        begins = range(min(ends, default=len(values)), len(values)) if gaps else ends
        ends = {at + 1 for at in begins if at < len(values) and values[at] == value}
    return ends


def _is_only_last(kept: Kept | None) -> bool:
    return kept is not None and Kind(kept.spec.kind).only_last


def _epoch(kept: Kept | None) -> str:
    return "" if kept is None else kept.history.epoch


def _judge_outcomes(ledger: Ledger) -> Iterator[str]:
    for told in ledger.told:
        if told.outcome is Outcome.FAILURE and told.early and not told.lacking:
            yield (
                f"a message of {told.name!r} counts as lost before its time is over, though no "
                "connection has broken that lacked it"
            )


def _judge_claims(tabs: list[Traffic]) -> Iterator[str]:
    """Judge what client processes are told: each has one reader, and one that has closed none."""
    count = Counter(
        tab.process
        for tab in tabs
        for reading in tab.readings
        if reading.own and not reading.ended and not reading.away and not tab.line.faulty
    )
    for number in count.values():
        if number > 1:
            yield f"{number} connections read the own channels of one client process"
    for number, tab in enumerate(tabs):
        for endpoint in tab.served:
            yield f"tab {number} was served at {endpoint!r}, though its client process has closed"
        others = [one for other in tabs if other is not tab for one in other.polls]
        if _is_replaced_silently(tab, others):
            yield f"tab {number} was not told that a newer connection reads in its place"


def _is_replaced_silently(tab: Traffic, polls: list[HttpConnection]) -> bool:
    """Return whether a poll was answered as usual, though a newer one had taken its place."""
    if any(isinstance(one.error, Replaced) for one in tab.channels):
        return False
    return any(
        old.asked < new.asked and 0 < new.taken < old.answered
        for old in tab.polls
        for new in polls
        if old.status == 200 and new.status in {0, 200} and _are_rivals(old, new, tab)
    )


def _are_rivals(old: HttpConnection, new: HttpConnection, tab: Traffic) -> bool:
    """Return whether two polls read for one client process, whose session has kept its id."""
    same = new.path == old.path and new.app is old.app
    return same and old.cookies == new.cookies == tab.polls[-1].cookies


def _judge_ends(readers: list[_Reader], kept: Kept | None) -> Iterator[str]:
    """Judge whether those that come later are told of the end of a channel."""
    full = read = False
    for reader in readers:
        name, error = reader.key.name, reader.one.error
        read |= reader.registered and error is None and bool(reader.one.messages)
        if isinstance(error, ChannelFull) and error.position is None:
            full = True
        elif isinstance(error, ChannelClosed) and full:
            yield f"{name!r} was full, and a reader that came later was told that it closed"
        elif kept is not None and kept.closed is not None and reader.registered and reader.live:
            may_wait = reader.key.owner and kept.closed != "full" and not read
            if not may_wait:
                yield f"{reader.who} was not told that {name!r} has ended: {kept.closed}"


def _judge_demand(
    key: Key, ahead: int, readers: list[_Reader], published: dict[Position, Published]
) -> Iterator[str]:
    """Judge whether a source was read no further than its reader has asked."""
    for position, one in published.items():
        if not any(_has_asked(reader, position, ahead, one.moment) for reader in readers):
            yield (
                f"the source of {key.name!r} was read up to {position} before its reader has asked"
            )


def _has_asked(reader: _Reader, position: Position, ahead: int, by: int) -> bool:
    """Return whether a reader may have asked for a message of an on-demand channel in time."""
    one = reader.one
    if reader.registered:
        return one.made < by  # the server keeps what it has
    began = Position.parse(one.began) if one.began else NEXT_INCARNATION
    if reader.transport == "poll" and not 0 < one.began_at < by:
        return False  # a poll asks once it has a position
    had = [Position.parse(at) for at, came in zip(one.positions, one.moments, strict=True)
           if at and came < by]  # fmt: skip
    offsets = [at.offset for at in [began, *had] if at.epoch == position.epoch]
    return one.made < by and position.offset <= max(offsets, default=0) + ahead
