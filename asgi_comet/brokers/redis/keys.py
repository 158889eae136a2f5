"""The names of keys and topics in Redis: a format that every version of this package shares.

Owns the partitions and their hash tags: all keys of one script are in one slot of a cluster.
Must not know the values of the keys.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from functools import cache
from itertools import count

__all__ = ["FORMAT", "ChannelKeys", "Keys"]

FORMAT = 1  # raised when an older version of this package cannot read the keys of a newer one
SLOTS = 16384  # of a cluster
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


@dataclass(frozen=True, slots=True)
class ChannelKeys:
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

    def owned_by(self, worker: str) -> str:
        """Return the key of the channels that a worker owns, in this partition."""
        return f"{self.root}own:{worker}"


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
        root = self._root(0)
        self.lineage: str = f"{root}lin"
        self.format: str = f"{root}format"
        self.workers: str = f"{root}workers"
        self.dead: str = f"{root}dead"
        self.calm: str = f"{root}calm"
        self.members: str = f"{root}members"
        self.inboxes: str = f"{root}i:"

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

    def site(self, name: str) -> ChannelKeys:
        """Return the keys of a site channel."""
        return self._channel(name, binascii.crc32(name.encode()) % self.partitions)

    def _channel(self, name: str, partition: int) -> ChannelKeys:
        root = self._root(partition)
        return ChannelKeys(
            name=name,
            meta=f"{root}c:{name}",
            log=f"{root}h:{name}",
            ids=f"{root}d:{name}",
            positions=f"{root}dp:{name}",
            state=f"{root}k:{name}",
            topic=f"{root}t:{name}",
            names=f"{root}names",
            root=root,
        )

    def _root(self, partition: int) -> str:
        return f"{self.prefix}:{{{tag_of(partition, self.partitions)}}}"


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
