"""The scripts that run in Redis, each as a function of its arguments.

Owns the order of keys and arguments, as in the files of `lua/`. The worker calls a script by hash;
if Redis does not know the hash, the call did nothing, and is repeated after loading the script.
Must not know connections, nor when a script is to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from asgi_comet.brokers.redis import lua, replies
from asgi_comet.brokers.redis.calls import Argument, Call, Group, Item, Log, call_of, fresh
from asgi_comet.brokers.redis.keys import ChannelKeys, Keys
from asgi_comet.brokers.redis.lua import Script
from asgi_comet.brokers.redis.pages import Page, read_page
from asgi_comet.brokers.redis.replies import (
    AppendReply,
    Beat,
    Ended,
    Gone,
    Opened,
    Owned,
    Record,
    Refused,
    Renewed,
    Reply,
    Tops,
)
from asgi_comet.core.messages import NEXT_INCARNATION, First, Last, Now, Start
from asgi_comet.position import Position

__all__ = ["Scripts", "arguments_of_start", "load"]

T = TypeVar("T")


MOST = 256  # messages of a page
MOST_BYTES = 256 * 1024  # of a page
LIFE = 10_000  # ms until a worker without another heartbeat counts as dead
TURN = 1.5  # lives: the time for inheriting the channels of a dead worker
QUIET = 0.5  # lives without any heartbeat, after which no worker counts as dead
CALM = 9  # lives after that, until unused channels are ended again
SWEPT = 100  # names that one sweep returns


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts of one database.

    Attributes:
        keys: The names of the keys.
        durable: Whether the operator vouches that no acknowledged write is ever lost, so a restart
            of the server loses no message.
        fresh: Returns unused names.
    """

    keys: Keys
    durable: bool = False
    fresh: Callable[[], str] = field(default=fresh)

    def lineage(self) -> Call[str]:
        """Return the generation of the server's data; renewed if data may be lost."""
        return call_of(lua.LINEAGE, [self.keys.lineage], self._generation(), _text)

    def open(
        self,
        log: Log,
        epoch: str,
        *,
        owner: str = "",
        fence: str = "",
        make: bool = True,
        again: bool = False,
    ) -> Call[Opened | Gone | Refused]:
        """Make a channel, or take a channel of the same making.

        Args:
            log: The channel.
            epoch: The epoch of a new channel. A repeated call with the same epoch changes nothing.
            owner: The worker that reads a source given at run time.
            fence: The fence of that worker.
            make: Whether to make the channel, if there is none.
            again: Whether the channel was made before, and Redis may have lost it. An own channel
                that has ended meanwhile stays ended.
        """
        keys = log.keys
        return call_of(
            lua.OPEN,
            [
                keys.meta,
                keys.log,
                keys.ids,
                keys.positions,
                keys.state,
                keys.names,
                keys.owned_by(owner),
                self.keys.lineage,
                *_keys_of_process(keys),
            ],
            [
                *(keys.name, log.kind, log.making, epoch),
                *(log.size, log.max_bytes, _optional(log.max_age), log.guard, owner, fence),
                *(_optional(log.lives), _optional(log.history_lives), *self._generation()),
                *(log.traits, ("again" if again else "1") if make else "", "PUBLISH"),
            ],
            replies.read_opened,
            channel=keys.name,
        )

    def append(self, worker: str, number: int, groups: Sequence[Group]) -> Call[AppendReply]:
        """Append messages to channels, as one numbered batch of a worker.

        The same number answers as before, a lower one is stale: no batch is stored twice.
        """
        keys: list[str] = [self.keys.batch(worker), self.keys.lineage]
        arguments: list[Argument] = [number, "PUBLISH", *self._generation(), self.keys.inboxes]
        epoch = self.fresh()
        for group in groups:
            ids = any(item.id for item in group.items)
            keys += _keys_of(group.log, ids=ids)
            arguments += _arguments_of(group, epoch, ids=ids)
        return call_of(lua.APPEND, keys, arguments, replies.read_append)

    def void(self, worker: str, number: int, read: Callable[[Reply], T]) -> Call[T]:
        """Have a batch never be stored under its number, unless it is; return its reply."""
        return call_of(lua.VOID, [self.keys.batch(worker)], [number], read)

    def follow(
        self,
        keys: ChannelKeys,
        start: Start,
        *,
        most: int = MOST,
        max_bytes: int = MOST_BYTES,
        for_client: bool = False,
    ) -> Call[Page | Gone]:
        """Read a part of a log."""
        return call_of(
            lua.FOLLOW,
            [keys.meta, keys.log, self.keys.lineage],
            [
                *("own" if keys.process else "site", *self._generation(), self.fresh()),
                *arguments_of_start(start, own=bool(keys.process)),
                *(most, max_bytes, "1" if for_client else ""),
            ],
            read_page,
        )

    def find(self, keys: ChannelKeys) -> Call[Record | None]:
        """Return the properties of a channel that the workers agree on."""
        fields = ("K", "i", "z", "m", "A", "c", "o", "g", "t")
        return Call(("HMGET", keys.meta, *fields), replies.read_record)

    def tops(self, channels: Sequence[ChannelKeys]) -> Call[Tops]:
        """Return the states of logs."""
        keys = [self.keys.lineage, *(one.meta for one in channels)]
        return call_of(lua.TOPS, keys, self._generation(), replies.read_tops)

    def own(
        self, log: Log, worker: str, fence: str, epoch: str, *, instead_of: str = "", keep: bool
    ) -> Call[Owned | Gone | Ended | Refused]:
        """Own a channel, if no other worker does.

        Args:
            log: The channel.
            worker: The caller.
            fence: `WORKER:N`, with a number that rises in the worker.
            epoch: The next epoch, if messages of the former owner may be lost.
            instead_of: A dead worker that may still own the channel.
            keep: Whether the source goes on from the newest message, so the epoch may stay.
        """
        keys = log.keys
        mine = keys.owned_by(worker)
        theirs = keys.owned_by(instead_of) if instead_of else mine
        return call_of(
            lua.OWN,
            [keys.meta, keys.log, self.keys.lineage, mine, theirs],
            [
                *(keys.name, log.kind, worker, fence, instead_of, "1" if keep else "", epoch),
                *(*self._generation(), keys.topic, "PUBLISH", log.making),
                self.keys.inboxes + worker,
            ],
            replies.read_owned,
        )

    def free(self, keys: ChannelKeys, worker: str, fence: str, *, clean: bool) -> Call[bool]:
        """Give up a channel; `clean` if all values of the source are stored."""
        arguments = [keys.name, fence, "1" if clean else "", keys.topic, "PUBLISH"]
        return call_of(
            lua.FREE, [keys.meta, keys.owned_by(worker)], arguments, bool, channel=keys.name
        )

    def renew(
        self, log: Log, epoch: str, *, fence: str = ""
    ) -> Call[Renewed | Gone | Ended | Refused]:
        """Give a channel another epoch: the source has failed."""
        keys = log.keys
        return call_of(
            lua.RENEW,
            [keys.meta, self.keys.lineage],
            [keys.name, log.making, fence, epoch, *self._generation(), keys.topic, "PUBLISH"],
            replies.read_renewed,
            channel=keys.name,
        )

    def end(
        self, log: Log, reason: str, linger: int, *, owner: str = "", fence: str = ""
    ) -> Call[Gone | Ended | Refused]:
        """End a channel; Redis keeps the messages for `linger` milliseconds."""
        keys = log.keys
        return call_of(
            lua.END,
            [
                *(keys.meta, keys.log, keys.state, keys.names, keys.owned_by(owner)),
                *_keys_of_process(keys),
            ],
            [
                *(keys.name, log.making, fence, reason, linger, keys.topic, "PUBLISH"),
                self.keys.inboxes,
            ],
            replies.read_ended,
            channel=keys.name,
        )

    def unused(self, keys: ChannelKeys, linger: int, *, owner: str, fence: str) -> Call[bool]:
        """End a channel without subscribers that was not used for `linger` milliseconds."""
        return call_of(
            lua.UNUSED,
            [keys.meta, keys.log, keys.names, keys.owned_by(owner)],
            [keys.topic, keys.name, fence, "PUBLISH", "NUMSUB", linger],
            bool,
        )

    def keep(self, log: Log) -> Call[bool]:
        """Let the record and the messages of a live channel last as after a new message."""
        aged = log.history_lives != log.lives  # messages have a time of their own
        arguments = [_optional(log.lives), "" if aged else _optional(log.history_lives)]
        return call_of(lua.KEEP, [log.keys.meta, log.keys.log], arguments, bool)

    def want(self, keys: ChannelKeys, upto: Position) -> Call[int]:
        """Ask the owner of a channel for messages; return how many workers were told.

        None is, if the channel has another epoch, in which the offset means something else; an
        empty epoch is the present one.
        """
        arguments: list[Argument] = [keys.name, upto.epoch, upto.offset]
        arguments += [self.keys.inboxes, "PUBLISH"]
        return call_of(lua.WANT, [keys.meta], arguments, int)

    def beat(
        self,
        worker: str,
        *,
        joins: bool,
        life: int = LIFE,
        members: int = 0,
        digest: str = "",
        number: int = 0,
    ) -> Call[Beat]:
        """Report that a worker is alive for `life` milliseconds; with `joins` a new worker.

        Args:
            worker: The worker.
            joins: Whether this is the first heartbeat of the worker.
            life: How long the heartbeat lasts, in milliseconds.
            members: How many members of families the worker owns.
            digest: Stands for the names that the worker declares.
            number: The number that the worker had; the lowest free one if another worker has it.
        """
        keys = [self.keys.workers, self.keys.dead, self.keys.calm, self.keys.members]
        keys.append(self.keys.numbers)
        times = [int(life * one) for one in (1, TURN, QUIET, CALM)]
        return call_of(
            lua.BEAT,
            keys,
            [worker, "1" if joins else "", *times, members, digest, number],
            replies.read_beat,
        )

    def owned_by(self, worker: str) -> list[Call[tuple[str, ...]]]:
        """Return the names of the channels that a worker owns, one call for each partition."""
        keys = self.keys.owned_by(worker)
        return [Call(("SMEMBERS", key), replies.read_texts) for key in keys]

    def disown(self, keys: ChannelKeys, worker: str) -> Call[bool]:
        """Forget that a worker owned a channel, which has ended."""
        return Call(("SREM", keys.owned_by(worker), keys.name), bool)

    def inherit(self, keys: ChannelKeys, dead: str, linger: int) -> Call[bool]:
        """Free a channel of a dead worker, or end the channel if no other worker has the source."""
        return call_of(
            lua.INHERIT,
            [
                *(keys.meta, keys.log, keys.state, keys.names, keys.owned_by(dead)),
                *_keys_of_process(keys),
            ],
            [keys.name, dead, linger, keys.topic, "PUBLISH"],
            bool,
        )

    def sweep(self, partition: int, unseen: int) -> Call[tuple[str, ...]]:
        """Return channels that may be unused, and were not returned for `unseen` milliseconds."""
        keys = [self.keys.names(partition)]
        return call_of(lua.SWEEP, keys, [unseen, SWEPT], replies.read_texts)

    def others(self, channels: Sequence[ChannelKeys]) -> Call[tuple[int, ...]]:
        """Return how many connections are subscribed to each topic."""
        topics = [one.topic for one in channels]
        return Call(("PUBSUB", "NUMSUB", *topics), replies.read_counts)

    def inherited(self, dead: str) -> Call[bool]:
        """Report that a dead worker owns no channel any more."""
        return call_of(lua.INHERITED, [self.keys.dead], [dead], bool)

    def depart(self, worker: str, *, owning: bool) -> Call[bool]:
        """Report that a worker stops; if channels are left, another worker inherits at once."""
        keys = [self.keys.workers, self.keys.dead, self.keys.members, self.keys.numbers]
        return call_of(lua.DEPART, keys, [worker, "1" if owning else ""], bool)

    def _generation(self) -> list[Argument]:
        return ["1" if self.durable else "", self.fresh()]


def load(script: Script) -> Call[str]:
    """Load a script into Redis."""
    return Call(("SCRIPT", "LOAD", script.source), _text)


def _keys_of(log: Log, *, ids: bool) -> list[str]:
    keys = log.keys
    found = [keys.meta, keys.log]
    if ids:
        found += (keys.ids, keys.positions)
    if log.kind == "K":
        found.append(keys.state)
    return found


def _arguments_of(group: Group, epoch: str, *, ids: bool) -> list[Argument]:
    log, items = group.log, group.items
    keyed = log.kind == "K"
    head: list[Argument] = [
        *(log.keys.topic, log.kind, log.making, group.fence, epoch, log.size, log.max_bytes),
        *(_optional(log.lives), _optional(log.history_lives)),
        *(("i" if ids else "") + ("s" if keyed else ""), log.most_keys, len(items)),
    ]
    if not ids and not keyed:
        return head + [item.data for item in items]
    for item in items:
        head.append(item.data)
        if ids:
            head.append(item.id)
        if keyed:
            head += _arguments_of_state(item)
    return head


def _arguments_of_state(item: Item) -> Iterator[Argument]:
    yield len(item.changed)
    for key, value in item.changed:
        yield from (key, value)
    yield len(item.deleted)
    yield from item.deleted


def _keys_of_process(keys: ChannelKeys) -> tuple[str, ...]:
    return (keys.process, keys.siblings) if keys.process else ()


def arguments_of_start(start: Start, *, own: bool) -> tuple[Argument, Argument, Argument]:
    """Return a start position as the scripts take it.

    Args:
        start: The start position.
        own: Whether the channel is of a client process, where `new.0` has a meaning.
    """
    if own and start == NEXT_INCARNATION:
        return "next", "", ""
    match start:
        case Now():
            return "now", "", ""
        case Last(count):
            return "last", count, ""
        case First():
            return "first", "", ""
        case _:
            return "at", start.epoch, start.offset


def _optional(number: int | None) -> Argument:
    return "" if number is None else number


def _text(reply: Reply) -> str:
    text: str = reply.decode()
    return text
