"""The replies of the scripts, as values. Knows the form of replies, and no other part of Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, TypeAlias

from asgi_comet.core.messages import Message
from asgi_comet.position import Position

__all__ = [
    "AppendReply",
    "Beat",
    "Ended",
    "Gone",
    "Opened",
    "Outcome",
    "Owned",
    "Record",
    "Refused",
    "Renewed",
    "Reply",
    "Stale",
    "Standing",
    "Stored",
    "Tops",
]

Reply: TypeAlias = Any
"""A reply as the parser returns it: bytes, integers, and lists of them."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The messages of one group are stored.

    Attributes:
        epoch: The epoch of the log.
        top: The offset of the newest message.
        positions: The position of each message; `None` where the state would become too large.
    """

    epoch: str
    top: int
    positions: tuple[Position | None, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Redis has stored no message of a group.

    Attributes:
        why: `gone` (there is no record), `unknown` (the record has another kind), `ended`,
            `failed`, `full`, `unused` (the channel has ended), `fenced` (another worker reads
            the source), `taken` (the name, or the source), `closed` (the client process has), or
            `wrong` (another program uses a key).
        detail: For `wrong`, the key and the error of Redis; for `taken`, the other channel's kind
            and making, or the owner; for `closed`, `lost` if Redis does not know the process.
    """

    why: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Stale:
    """Redis never stores this batch.

    Attributes:
        void: Whether that is by `Scripts.void`; else Redis has stored a batch of a higher number.
    """

    void: bool = False


Outcome = Stored | Refused
AppendReply = tuple[Outcome, ...] | Stale


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such channel: no record, or a record of another kind."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The channel has ended.

    Attributes:
        reason: `ended`, `failed`, `full` or `unused`.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The channel is open.

    Attributes:
        epoch: The epoch.
        top: The offset of the newest message.
        first: The offset of the oldest message held, or of the next message.
        owner: The worker that reads its source, or `""`.
        fence: The fence of that worker.
    """

    epoch: str
    top: int
    first: int
    owner: str = ""
    fence: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    """The caller reads the source of the channel from now on.

    Attributes:
        epoch: The epoch of the next messages.
        top: The offset of the newest message.
        first: The offset of the oldest message held.
        left: How the former owner left: `first` (there was none), `clean` or `lost`.
        newest: The newest message, if a message is held.
    """

    epoch: str
    top: int
    first: int
    left: str
    newest: Message | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """The channel has a new epoch; its offsets go on."""

    epoch: str
    top: int


class Record(NamedTuple):
    """The properties of a channel that the workers agree on.

    Attributes:
        kind: `S`, `N`, `K`, `P` or `U`.
        making: The token of the channel's making; `-` if every worker makes the channel.
        size: How many messages the log holds.
        max_bytes: How many bytes of messages the log holds.
        max_age: How many milliseconds a message is held; `None` for no bound.
        closed: The reason of the end, or `""`.
        owner: The worker that reads its source, or `""`.
        guard: The name of the function that authorises its readers, or `""`.
        traits: `s` if only one worker has its source; `r` if it ends once unused.
    """

    kind: str
    making: str
    size: int
    max_bytes: int
    max_age: int | None
    closed: str
    owner: str
    guard: str
    traits: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a log.

    Attributes:
        epoch: The epoch.
        top: The offset of the newest message.
        generation: The generation of the data to which the epoch belongs.
        closed: The reason of the end, or `""`.
        owner: The worker that reads its source, or `""`.
        making: The token of the channel's making.
    """

    epoch: str
    top: int
    generation: str
    closed: str
    owner: str
    making: str


@dataclass(frozen=True, slots=True)
class Tops:
    """The states of several logs.

    Attributes:
        generation: The generation of the server's data now.
        logs: The states in the order of the question; `None` for a missing log.
    """

    generation: str
    logs: tuple[Standing | None, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """The reply to the heartbeat of a worker.

    Attributes:
        status: `alive`; or `missing` or `dead`, if the other workers take this worker for dead.
        calm: Whether unused channels may be ended: no heartbeats were missing lately.
        living: The workers whose heartbeats last.
        dead: The dead workers that the caller inherits, until the caller reports the end of that.
        members: How many members of families all workers own together.
        mixed: Whether the workers declare different names.
        now: The time of Redis, in milliseconds.
        number: The number of the worker, which no other living worker has.
    """

    status: str
    calm: bool = False
    living: frozenset[str] = frozenset()
    dead: tuple[str, ...] = ()
    members: int = 0
    mixed: bool = False
    now: int = field(default=0, compare=False)
    number: int = 0


def read_append(reply: Reply) -> AppendReply:
    """Read the outcome of each group of a batch."""
    return read_stale(reply) or tuple(_read_outcome(line) for line in reply.decode().split("\n"))


def read_stale(reply: Reply) -> Stale | None:
    """Read whether Redis never stores a batch."""
    return Stale(void=not reply) if reply in {b"stale", b""} else None


def _read_outcome(line: str) -> Outcome:
    status, _, rest = line.partition(" ")
    if status != "ok":
        return Refused(status, rest)
    epoch, top, *positions = rest.split(" ")
    return Stored(epoch, int(top), tuple(map(_read_position, positions)))


def _read_position(text: str) -> Position | None:
    epoch, _, offset = text.partition(".")
    return Position(epoch, int(offset)) if offset else None


def read_opened(reply: Reply) -> Opened | Gone | Refused:
    """Read the opened channel; `taken` names the kind and the making of a channel of the name."""
    if reply[0] == b"gone":
        return Gone()
    if reply[0] in (b"taken", b"closed"):
        return Refused(reply[0].decode(), b" ".join(reply[1:]).decode())
    _, epoch, top, first, owner, fence = reply
    return Opened(epoch.decode(), top, first, owner.decode(), fence.decode())


def read_owned(reply: Reply) -> Owned | Gone | Ended | Refused:
    """Read whether the caller owns a channel; `taken` names the owner, `stale` is a late call."""
    match reply:
        case [b"ok", epoch, top, first, left, aged, newest]:
            message = read_run(top, [newest], aged=bool(aged))[0] if newest else None
            return Owned(epoch.decode(), top, first, left.decode(), message)
        case [b"gone" | b"unknown"]:
            return Gone()
        case [b"ended", reason]:
            return Ended(reason.decode())
        case [why, *detail]:
            return Refused(why.decode(), b" ".join(detail).decode())
        case _:
            raise ValueError(f"expected the reply of `own`, got {reply!r:.80}")


def read_renewed(reply: Reply) -> Renewed | Gone | Ended | Refused:
    """Read the new epoch of a channel."""
    match reply:
        case [b"ok", epoch, top]:
            return Renewed(epoch.decode(), top)
        case _:
            return read_ended(reply)


def read_ended(reply: Reply) -> Gone | Ended | Refused:
    """Read why a channel has ended, or has not."""
    match reply:
        case [b"gone"]:
            return Gone()
        case [b"ended", reason]:
            return Ended(reason.decode())
        case [why]:
            return Refused(why.decode())
        case _:
            raise ValueError(f"expected what became of a channel, got {reply!r:.80}")


def read_run(first: int, rows: Sequence[bytes], *, aged: bool) -> tuple[Message, ...]:
    """Read messages in the form of logs and frames."""
    texts = [row.partition(b" ")[2] for row in rows] if aged else rows
    return tuple(map(Message, count(first), texts))


def read_record(reply: Reply) -> Record | None:
    """Read the fields of `Scripts.find`."""
    kind, making, size, max_bytes, age, closed, owner, guard, traits = (
        "" if value is None else value.decode() for value in reply
    )
    if not kind:
        return None
    max_age = int(age) if age else None
    return Record(kind, making, int(size), int(max_bytes), max_age, closed, owner, guard, traits)


def read_tops(reply: Reply) -> Tops:
    """Read the states of logs."""
    generation, *logs = reply
    return Tops(generation.decode(), tuple(map(_read_standing, logs)))


def _read_standing(reply: Reply) -> Standing | None:
    epoch, top, generation, closed, owner, making = (value.decode() for value in reply)
    return Standing(epoch, int(top), generation, closed, owner, making) if epoch else None


def read_beat(reply: Reply) -> Beat:
    """Read the reply to a heartbeat."""
    if len(reply) == 1:
        return Beat(reply[0].decode())
    status, calm, living, dead, members, mixed, *numbers = reply
    alive = frozenset(read_texts(living))
    return Beat(status.decode(), calm == 1, alive, read_texts(dead), members, mixed == 1, *numbers)


def read_texts(reply: Sequence[bytes]) -> tuple[str, ...]:
    """Read names."""
    return tuple(value.decode() for value in reply)


def read_counts(reply: Reply) -> tuple[int, ...]:
    """Read the numbers of a reply with a name before each number, or of a map."""
    counts = reply.values() if isinstance(reply, dict) else reply[1::2]
    return tuple(counts)
