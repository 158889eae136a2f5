"""The names of keys and topics in Redis: a format that every version of this package shares.

Owns the partitions and their hash tags: all keys of one script are in one slot of a cluster.
Must not know the values of the keys.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from functools import cache
from itertools import count
from typing import NamedTuple

__all__ = ["FORMAT", "ChannelKeys", "Keys", "ProcessKeys", "SessionKeys"]

FORMAT = 1  # raised when an older version of this package cannot read the keys of a newer one
SLOTS = 16384  # of a cluster
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
MOST_PARTITIONS = 4096  # two characters of base64url name one

_PREFIX = re.compile(r"[^\s{}*?\[\]\\]{1,100}")  # Redis reads * ? [ ] and \ as patterns


@cache
def tag_of(partition: int, partitions: int) -> str:
    """Return the hash tag of a partition: the least number with a slot in its share of all."""
    return next(
        str(number)
        for number in count()
        if binascii.crc_hqx(b"%d" % number, 0) % SLOTS * partitions // SLOTS == partition
    )


class ChannelKeys(NamedTuple):
    """The keys of one channel.

    Attributes:
        name: The name in the scripts: that of a site channel; `~PROCESS~NAME` for another kind.
        meta: The record.
        log: The messages.
        ids: The ids of the messages, with their ages.
        positions: The positions of the messages with ids.
        state: The state of a keyed channel.
        topic: The topic of the frames.
        names: The live channels of the partition.
        root: The beginning of all keys of the partition.
        process: The record of the client process; `""` of a site channel.
        siblings: The names of the own channels of the client process; `""` of a site channel.
    """

    name: str
    meta: str
    log: str
    ids: str
    positions: str
    state: str
    topic: str
    names: str
    root: str
    process: str = ""
    siblings: str = ""

    @property
    def own_name(self) -> str:
        """The name of an own channel, without its client process."""
        return self.name.split("~", 2)[2]

    @property
    def owner(self) -> str:
        """The id of the client process of an own channel."""
        return self.name.split("~", 2)[1]

    @property
    def shown(self) -> str:
        """The name as clients write it."""
        return f"~{self.own_name}" if self.process else self.name

    def owned_by(self, worker: str) -> str:
        """Return the key of the channels that a worker owns, in this partition."""
        return f"{self.root}own:{worker}"


class SessionKeys(NamedTuple):
    """The keys of one session.

    Attributes:
        id: The id.
        session: The record.
        processes: The client processes of the session.
        heir: The id that has followed this id.
        root: The beginning of all keys of the partition.
    """

    id: str
    session: str
    processes: str
    heir: str
    root: str


class ProcessKeys(NamedTuple):
    """The keys of one client process.

    Attributes:
        id: The id.
        process: The record.
        channels: The names of the own channels.
        audiences: The notifiers and keys that the process listens on.
        registered: The state of the registration protocol.
        root: The beginning of all keys of the partition.
    """

    id: str
    process: str
    channels: str
    audiences: str
    registered: str
    root: str

    @property
    def deadlines(self) -> str:
        """The deadlines of the client processes of the partition."""
        return f"{self.root}exp"

    @property
    def closing(self) -> str:
        """The client processes of the partition that are being closed."""
        return f"{self.root}closing"

    def channel(self, name: str) -> ChannelKeys:
        """Return the keys of an own channel, whose frames go to the inbox of its reader.

        Args:
            name: The name without the `~` that clients write.
        """
        full = f"~{self.id}~{name}"
        return _channel(full, self.root, topic=full, process=self.process, siblings=self.channels)


class Keys:
    r"""The names of all keys below one prefix.

    Args:
        prefix: The beginning of all keys: 1 to 100 characters without white space, braces,
            brackets and any of `*?\`.
        partitions: Into how many parts the keys are divided, 1 to 4096. Another number is another
            database.

    Raises:
        TypeError: The prefix is no text, or the number is not whole.
        ValueError: The prefix or the number is not acceptable.
    """

    def __init__(self, prefix: str = "comet", partitions: int = 64) -> None:
        _check_prefix(prefix)
        _check_partitions(partitions)
        self.prefix: str = prefix
        self.partitions: int = partitions
        self._roots: dict[str, str] = {}  # by the first two characters of ids
        root = self._root(0)
        self.lineage: str = f"{root}lin"
        self.format: str = f"{root}format"
        self.workers: str = f"{root}workers"
        self.dead: str = f"{root}dead"
        self.calm: str = f"{root}calm"
        self.members: str = f"{root}members"
        self.numbers: str = f"{root}numbers"
        self.inboxes: str = f"{root}i:"
        self.questions: str = f"{root}q"
        self.control: str = f"{root}log"
        self.control_record: str = f"{root}logr"
        self.everyone: str = f"{root}all"
        self.lasting: str = f"{root}act"

    def entry(self, id_: str) -> str:
        """Return the key by which an entry of the control log is recognised for a while."""
        return f"{self._root(0)}li:{id_}"

    def user(self, user: bytes) -> str:
        """Return the key of the sessions of a user, given as JSON."""
        digest = hashlib.sha256(user).hexdigest()
        return f"{self._root(int(digest[:8], 16) % self.partitions)}u:{digest[:40]}"

    def listeners(self, notifier: str, key: str) -> str:
        """Return the key of the client processes that listen on a key of a notifier."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        partition = int(digest[:8], 16) % self.partitions
        return f"{self._root(partition)}n:{notifier}:{digest[:40]}"

    def inbox(self, worker: str) -> str:
        """Return the topic of the frames for one worker."""
        return f"{self.inboxes}{worker}"

    def batch(self, worker: str) -> str:
        """Return the key of the last numbered batch of a worker."""
        return f"{self._root(0)}b:{worker}"

    def owned_by(self, worker: str) -> list[str]:
        """Return the keys of the channels that a worker owns, of all partitions."""
        return [f"{self._root(number)}own:{worker}" for number in range(self.partitions)]

    def names(self, partition: int) -> str:
        """Return the key of the channels of a partition that end once unused."""
        return f"{self._root(partition)}names"

    def deadlines(self, partition: int) -> str:
        """Return the key of the deadlines of a partition's client processes."""
        return f"{self._root(partition)}exp"

    def closing(self, partition: int) -> str:
        """Return the key of a partition's client processes that are being closed."""
        return f"{self._root(partition)}closing"

    def site(self, name: str) -> ChannelKeys:
        """Return the keys of a site channel."""
        return _channel(name, self._root(binascii.crc32(name.encode()) % self.partitions))

    def named(self, name: str) -> ChannelKeys:
        """Return the keys of a channel by its name in the scripts.

        Raises:
            ValueError: The name begins with `~`, and no client process follows.
        """
        if not name.startswith("~"):
            return self.site(name)
        process, _, own = name[1:].partition("~")
        return self.process(process).channel(own)

    def session(self, id_: str) -> SessionKeys:
        """Return the keys of a session; see `partition_of`."""
        root = self._root_of(id_)
        return SessionKeys(id_, f"{root}s:{id_}", f"{root}sp:{id_}", f"{root}f:{id_}", root)

    def process(self, id_: str) -> ProcessKeys:
        """Return the keys of a client process; see `partition_of`."""
        root = self._root_of(id_)
        return ProcessKeys(
            id=id_,
            process=f"{root}p:{id_}",
            channels=f"{root}pc:{id_}",
            audiences=f"{root}pk:{id_}",
            registered=f"{root}reg:{id_}",
            root=root,
        )

    def partition_of(self, id_: str) -> int:
        """Return the partition of a session or a client process.

        The first two characters of the id are a number in base64url, 0 to 4095, which the client
        processes of a session and the next ids of the session inherit. The partition is that number
        modulo the number of partitions, so an id is valid with any number of partitions.

        Raises:
            ValueError: The id does not begin so.
        """
        high, low = (BASE64URL.find(one) for one in id_[:2].ljust(2))
        if high < 0 or low < 0:
            raise ValueError(f"expected an id that begins with its partition, got {id_!r:.80}")
        return (high * 64 + low) % self.partitions

    def _root_of(self, id_: str) -> str:
        root = self._roots.get(id_[:2])
        if root is None:
            root = self._roots[id_[:2]] = self._root(self.partition_of(id_))
        return root

    def _root(self, partition: int) -> str:
        return f"{self.prefix}:{{{tag_of(partition, self.partitions)}}}"


def _channel(
    name: str, root: str, *, topic: str = "", process: str = "", siblings: str = ""
) -> ChannelKeys:
    return ChannelKeys(
        name=name,
        meta=f"{root}c:{name}",
        log=f"{root}h:{name}",
        ids=f"{root}d:{name}",
        positions=f"{root}dp:{name}",
        state=f"{root}k:{name}",
        topic=topic or f"{root}t:{name}",
        names=f"{root}names",
        root=root,
        process=process,
        siblings=siblings,
    )


def _check_prefix(prefix: str) -> None:
    if not isinstance(prefix, str):
        raise TypeError(f"expected prefix to be a text, got {prefix!r:.80}")
    if _PREFIX.fullmatch(prefix) is None:
        raise ValueError(
            "expected prefix to be 1 to 100 characters without white space and without any of "
            f"{{}}[]*?\\, got {prefix!r:.120}"
        )


def _check_partitions(partitions: int) -> None:
    if isinstance(partitions, bool) or not isinstance(partitions, int):
        raise TypeError(f"expected partitions to be a whole number, got {partitions!r:.80}")
    if not 1 <= partitions <= MOST_PARTITIONS:
        raise ValueError(f"expected partitions to be 1 to {MOST_PARTITIONS}, got {partitions}")
