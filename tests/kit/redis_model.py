"""What the scripts in Redis do, in Python: a model that the scripts are compared with.

Written from the design and not from the Lua. Knows no time: messages and ids are old when told so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.redis.calls import Group, Item, Log
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.pages import Page
from asgi_comet.brokers.redis.replies import (
    AppendReply,
    Ended,
    Gone,
    Opened,
    Outcome,
    Owned,
    Record,
    Refused,
    Renewed,
    Stale,
    Standing,
    Stored,
    Tops,
)
from asgi_comet.core.messages import NEXT_INCARNATION, First, Last, Message, Now, Start
from asgi_comet.position import Position

T = TypeVar("T")
OWN = "PU"
TIME = 13 + 1  # bytes that a message with a time has more


@dataclass
class Row:
    data: bytes
    old: bool = False


@dataclass
class Channel:
    """A record and what belongs to it. The log may have been deleted behind the record's back."""

    log: Log
    epoch: str
    generation: str
    top: int = 0
    first: int = 1
    rows: list[Row] = field(default_factory=list)
    closed: str = ""
    owner: str = ""
    fence: str = ""
    left: str | None = None  # how the owner before left: None, "clean", "lost", "" while owned
    answered: str = ""
    wish: Position | None = None  # what a reader asked for while no worker owned the channel
    ids: dict[str, bool] = field(default_factory=dict)  # whether an id is old
    positions: dict[str, Position] = field(default_factory=dict)
    ids_generation: str = ""
    state: dict[str, bytes] = field(default_factory=dict)
    keys: int = 0  # of the state, as the record says
    reader: str = ""
    sent: int = 0
    acknowledged: int = 0
    skipped: tuple[int, int] = (0, 0)
    began: int = 0

    @property
    def own(self) -> bool:
        return self.log.kind in OWN

    @property
    def progress(self) -> Progress:
        return Progress(self.epoch, self.sent, self.acknowledged, self.skipped)

    def begin(self, epoch: str) -> None:
        if epoch != self.epoch:
            self.epoch, self.began = epoch, self.top

    @property
    def bytes(self) -> int:
        return sum(map(self.cost, self.rows))

    def cost(self, row: Row) -> int:
        return len(row.data) + TIME * (self.log.max_age is not None)

    def hold(self) -> None:
        """Leave out what is lost, and what is too old."""
        if len(self.rows) != self.top + 1 - self.first:
            self.rows.clear()
            self.first = self.top + 1
        while self.log.max_age is not None and self.rows and self.rows[0].old:
            self.drop()

    def drop(self) -> None:
        del self.rows[0]
        self.first += 1


class Model:
    """The store. Each method is a script, and returns what the script is to answer.

    Attributes:
        channels: By name.
        frames: What was published, in order: topic and text.
        swept: The names that a sweep looks at.
    """

    def __init__(self) -> None:
        self.durable = False
        self.inbox = Keys().inbox
        self.clear()

    def clear(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.generation = ""
        self.batches: dict[str, tuple[int, AppendReply]] = {}
        self.frames: list[tuple[str, str]] = []
        self.swept: set[str] = set()
        self.restarted = False

    def lineage(self, fresh: str) -> str:
        if not self.generation or (self.restarted and not self.durable):
            self.generation = fresh
        self.restarted = False
        return self.generation

    def tell(self, channel: Channel, frame: str) -> None:
        to = channel.reader if channel.own else channel.log.keys.topic
        if to:
            self.frames.append((to, f"{frame} {channel.log.keys.name}"))

    def tell_owner(self, channel: Channel, frame: str, name: str) -> None:
        """Tell the owner of an own channel, unless its worker has the reader, too."""
        inbox = self.inbox(channel.owner)
        if channel.own and channel.owner and inbox != channel.reader:
            self.frames.append((inbox, f"{frame} {name}"))

    def open(
        self, log: Log, fresh: str, owner: str = "", fence: str = "", *, make: bool = True
    ) -> Opened | Gone | Refused:
        generation = self.lineage(fresh)
        name = log.keys.name
        channel = self.channels.get(name)
        if channel is None or channel.closed:
            if not make:
                return Gone()
            channel = Channel(log, fresh, generation, owner=owner, fence=fence)
            channel.left = "" if owner else None
            self.channels[name] = channel
        elif (channel.log.making, channel.log.kind) != (log.making, log.kind):
            return Refused("taken", f"{channel.log.kind} {channel.log.making}")
        elif (channel.log.max_age is None) != (log.max_age is None):
            channel.rows.clear()
            channel.first = channel.top + 1
            channel.begin(fresh)
        (self.swept.add if "r" in log.traits else self.swept.discard)(name)
        channel.log = log if log.guard else replace(log, guard=channel.log.guard)
        channel.hold()
        self.renew_if_lost(channel, generation, fresh)
        return Opened(channel.epoch, channel.top, channel.first, channel.owner, channel.fence)

    def renew_if_lost(self, channel: Channel, generation: str, fresh: str) -> None:
        if channel.generation != generation:
            channel.begin(fresh)
            channel.generation = generation

    def find(self, name: str) -> Record | None:
        channel = self.channels.get(name)
        if channel is None:
            return None
        log = channel.log
        return Record(
            *(log.kind, log.making, log.size, log.max_bytes, log.max_age),
            *(channel.closed, channel.owner, log.guard, log.traits),
        )

    def append(self, worker: str, number: int, groups: Sequence[Group], fresh: str) -> AppendReply:
        last, reply = self.batches.get(worker, (0, ()))
        if number < last:
            return Stale()
        if number > last:
            generation = self.lineage(fresh)
            reply = tuple(self.group(group, generation, fresh) for group in groups)
            self.batches[worker] = number, reply
        return reply

    def group(self, group: Group, generation: str, fresh: str) -> Outcome:
        channel = self.channels.get(group.log.keys.name)
        if channel is None:
            return Refused("gone")
        if channel.log.kind != group.log.kind:
            return Refused("unknown")
        if channel.log.making != group.log.making:
            return Refused("ended")
        if channel.closed:
            return Refused(channel.closed)
        if group.fence and group.fence != channel.fence:
            return Refused("fenced")
        return self.store(channel, group, generation, fresh)

    def store(self, channel: Channel, group: Group, generation: str, fresh: str) -> Outcome:
        if group.log.kind == "K" and len(channel.state) != channel.keys:
            channel.state.clear()
            channel.keys = 0
            channel.begin(fresh)
            channel.rows.clear()
            channel.first = channel.top + 1
        channel.hold()
        self.renew_if_lost(channel, generation, fresh)
        if any(item.id for item in group.items):
            self.forget_ids(channel, generation)
        start, placed, new = channel.top, list[Position | None](), list[Row]()
        for item in group.items:
            place = channel.positions.get(item.id) if item.id else None
            if place is None and self.change(channel, group.log, item):
                row = Row(item.data)
                if not self.make_room(channel, group.log, row):
                    return self.overflow(channel, start)
                channel.rows.append(row)
                channel.top += 1
                new.append(row)
                place = Position(channel.epoch, channel.top)
                if item.id:
                    channel.ids[item.id], channel.positions[item.id] = False, place
            placed.append(place)
        self.publish(channel, start, new)
        return Stored(channel.epoch, channel.top, tuple(placed))

    def forget_ids(self, channel: Channel, generation: str) -> None:
        if channel.ids_generation != generation:
            channel.ids.clear()
            channel.positions.clear()
            channel.ids_generation = generation
        for id_ in [id_ for id_, old in channel.ids.items() if old]:
            del channel.ids[id_]
            channel.positions.pop(id_, None)

    def change(self, channel: Channel, log: Log, item: Item) -> bool:
        """Change the state, unless it would be too large."""
        if log.kind != "K":
            return True
        state = {**channel.state, **dict(item.changed)}
        for key in item.deleted:
            state.pop(key, None)
        size, before = map(size_of, (state, channel.state))
        grown = len(state) > len(channel.state) and len(state) > log.most_keys
        if grown or (size > before and size > log.max_bytes):
            return False
        channel.state, channel.keys = state, len(state)
        return True

    def make_room(self, channel: Channel, log: Log, row: Row) -> bool:
        """Drop what has no room beside a message; not what was never sent to its one reader."""
        while channel.rows and (
            len(channel.rows) >= log.size or channel.bytes + channel.cost(row) > log.max_bytes
        ):
            if log.kind == "P" and channel.first > channel.sent:
                return False
            channel.drop()
        return True

    def overflow(self, channel: Channel, start: int) -> Refused:
        channel.rows.clear()
        channel.closed, channel.top, channel.first = "full", start, start + 1
        name = channel.log.keys.topic
        if channel.reader:
            self.frames.append((channel.reader, f"c{channel.epoch} full {name}"))
        self.tell_owner(channel, f"c{channel.epoch} full", name)
        return Refused("full")

    def publish(self, channel: Channel, start: int, new: list[Row]) -> None:
        own = channel.own
        to = channel.reader if own else channel.log.keys.topic
        if not new or not to:
            return
        name = channel.log.keys.topic if own else ""
        extra = TIME * (channel.log.max_age is not None)
        data = "".join(f"{len(row.data) + extra}:{row.data.decode()}" for row in new)
        self.frames.append((to, f"m{channel.epoch} {start + 1} {name}\n{data}"))

    def follow(self, name: str, start: Start, most: int, max_bytes: int, fresh: str) -> Page | Gone:
        generation = self.lineage(fresh)
        channel = self.channels.get(name)
        if channel is None or channel.own != name.startswith("~"):
            return Gone()
        return self.page(channel, generation, fresh, start, (most, max_bytes))

    def page(
        self,
        channel: Channel,
        generation: str,
        fresh: str,
        start: Start,
        bounds: tuple[int, int],
    ) -> Page:
        channel.hold()
        self.renew_if_lost(channel, generation, fresh)
        log = channel.log
        head = (
            *(channel.epoch, channel.top, channel.first, channel.closed, channel.owner),
            *(log.guard, log.max_age is not None, log.making, channel.began),
        )
        after = self.place(channel, start)
        if log.kind == "K" and (after is None or not isinstance(start, Position)):
            return Page(*head, state=True)
        if after is None and log.kind == "N":
            after = channel.first - 1
        if after is None:
            return Page(*head)
        return Page(*head, after, tuple(self.run(channel, after, *bounds)))

    def place(self, channel: Channel, start: Start) -> int | None:
        match start:
            case Now():
                return channel.top
            case Last(count):
                return max(channel.top - count, channel.first - 1)
            case Position() if start == NEXT_INCARNATION and channel.own:
                return self.place(channel, First())
            case First():
                after = channel.acknowledged
                return after if after >= channel.first - 1 else None
            case Position(epoch, offset):
                if epoch != channel.epoch or offset > channel.top or offset < channel.first - 1:
                    return None
                return offset

    def run(self, channel: Channel, after: int, most: int, max_bytes: int) -> list[Message]:
        found = list[Message]()
        for number, row in enumerate(channel.rows[after + 1 - channel.first :][:most]):
            max_bytes -= channel.cost(row)
            if found and max_bytes < 0:
                break
            found.append(Message(after + 1 + number, row.data))
        return found

    def tops(self, names: Sequence[str], fresh: str) -> Tops:
        generation = self.lineage(fresh)
        return Tops(generation, tuple(map(self.standing, names)))

    def standing(self, name: str) -> Standing | None:
        channel = self.channels.get(name)
        if channel is None:
            return None
        return Standing(
            *(channel.epoch, channel.top, channel.generation, channel.closed, channel.owner),
            channel.log.making,
        )

    def own(
        self, log: Log, worker: str, fence: str, fresh: str, instead_of: str, keep: bool
    ) -> Owned | Gone | Ended | Refused:
        channel = self.channels.get(log.keys.name)
        if channel is None or channel.log.kind != log.kind:
            return Gone()
        if channel.log.making != log.making:
            return Ended("ended")
        if channel.closed:
            return Ended(channel.closed)
        if channel.owner not in ("", worker, instead_of):
            return Refused("taken", channel.owner)
        if channel.owner == worker and number_of(channel.fence) > number_of(fence):
            return Refused("stale")
        generation = self.lineage(fresh)
        channel.hold()
        if channel.fence != fence:
            lost = channel.fence or channel.left in ("", "lost")
            channel.answered = "lost" if lost else channel.left or "first"
            if lost and not keep:
                channel.begin(fresh)
                self.tell(channel, f"e{fresh} {channel.top}")
        if channel.generation != generation:
            if channel.epoch != fresh:
                self.tell(channel, f"e{fresh} {channel.top}")
            channel.begin(fresh)
            channel.generation = generation
        self.give(channel, worker, fence)
        newest = Message(channel.top, channel.rows[-1].data) if channel.rows else None
        return Owned(channel.epoch, channel.top, channel.first, channel.answered, newest)

    def give(self, channel: Channel, worker: str, fence: str) -> None:
        channel.owner, channel.fence, channel.left = worker, fence, ""
        wish, channel.wish = channel.wish, None
        if wish is not None and wish.epoch == channel.epoch:
            frame = f"w{wish.offset} {channel.log.keys.name}"
            self.frames.append((self.inbox(worker), frame))

    def free(self, name: str, fence: str, clean: bool) -> bool:
        channel = self.channels.get(name)
        if channel is None or channel.fence != fence:
            return False
        channel.owner = channel.fence = ""
        channel.left = "clean" if clean else "lost"
        if not channel.closed:
            self.tell_free(channel, clean)
        return True

    def tell_free(self, channel: Channel, clean: bool) -> None:
        self.tell(channel, f"f{clean:d}")

    def inherit(self, name: str, dead: str) -> bool:
        channel = self.channels.get(name)
        if channel is None or channel.owner != dead or channel.closed:
            return False
        channel.owner = channel.fence = ""
        channel.left = "lost"
        if "s" in channel.log.traits:
            channel.closed = "failed"
            self.swept.discard(name)
            self.tell(channel, f"c{channel.epoch} failed")
        else:
            self.tell_free(channel, False)
        return True

    def renew(self, log: Log, fence: str, fresh: str) -> Renewed | Gone | Ended | Refused:
        channel = self.channels.get(log.keys.name)
        refused = self.refuse(channel, log, fence)
        if channel is None or refused is not None:
            return refused or Gone()
        if channel.epoch != fresh:
            channel.begin(fresh)
            channel.generation = self.lineage(fresh)
            self.tell(channel, f"e{fresh} {channel.top}")
        return Renewed(fresh, channel.top)

    def end(self, log: Log, reason: str, fence: str) -> Gone | Ended | Refused:
        channel = self.channels.get(log.keys.name)
        refused = self.refuse(channel, log, fence)
        if channel is None or refused is not None:
            return refused or Gone()
        self.swept.discard(log.keys.name)
        self.tell(channel, f"c{channel.epoch} {reason}")
        self.tell_owner(channel, f"c{channel.epoch} {reason}", log.keys.name)
        channel.closed, channel.owner = reason, ""
        return Ended(reason)

    def refuse(
        self, channel: Channel | None, log: Log, fence: str
    ) -> Gone | Ended | Refused | None:
        if channel is None:
            return Gone()
        if channel.log.making != log.making:
            return Ended("ended")
        if channel.closed:
            return Ended(channel.closed)
        return Refused("fenced") if fence and fence != channel.fence else None

    def unused(self, name: str, fence: str, in_use: bool) -> bool:
        channel = self.channels.get(name)
        if channel is None:
            self.swept.discard(name)
        if channel is None or channel.fence != fence or "r" not in channel.log.traits:
            return False
        if channel.closed:
            return channel.closed == "unused"
        if in_use:
            return False
        channel.closed, channel.owner = "unused", ""
        self.swept.discard(name)
        channel.rows.clear()  # they linger for no time here
        self.tell(channel, f"c{channel.epoch} unused")
        return True

    def want(self, name: str, upto: Position, inbox: Callable[[str], str]) -> None:
        channel = self.channels.get(name)
        if channel is None or channel.closed or upto.epoch not in ("", channel.epoch):
            return
        if channel.owner:
            self.frames.append((inbox(channel.owner), f"w{upto.offset} {name}"))
        else:
            channel.wish = Position(channel.epoch, upto.offset)


def size_of(state: dict[str, bytes]) -> int:
    return sum(len(key) + len(value) for key, value in state.items())


def number_of(fence: str) -> int:
    return int(fence.rpartition(":")[2] or 0)
