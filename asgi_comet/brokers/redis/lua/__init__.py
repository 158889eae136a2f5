"""The texts of the scripts, from the files beside this one.

Owns which parts make up a script, and whether the script runs when Redis is full.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources

__all__ = ["Script"]


@dataclass(frozen=True)
class Script:
    """A script in Redis.

    Attributes:
        source: The text, which is sent to Redis once.
        sha: The hash, by which workers call the script.
    """

    source: bytes
    sha: str


def _read(*names: str, flags: str = "") -> Script:
    folder = resources.files(__name__)
    parts = [folder.joinpath(f"{name}.lua").read_bytes() for name in names]
    source = b"".join([f"#!lua{flags}\n".encode(), *parts])
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


# A full Redis refuses a script without this flag before running any of it.
_ALWAYS = " flags=allow-oom"
_READS = " flags=no-writes"

APPEND = _read("common", "append")
VOID = _read("void", flags=_ALWAYS)
OPEN = _read("common", "past", "open")
OWN = _read("common", "own")
RENEW = _read("common", "renew", flags=_ALWAYS)
FOLLOW = _read("common", "page", "follow", flags=_ALWAYS)
LINEAGE = _read("common", "lineage", flags=_ALWAYS)
TOPS = _read("common", "tops", flags=_ALWAYS)
END = _read("common", "past", "end", flags=_ALWAYS)
UNUSED = _read("common", "unused", flags=_ALWAYS)
KEEP = _read("keep", flags=_ALWAYS)
FREE = _read("common", "free", flags=_ALWAYS)
WANT = _read("want", flags=_ALWAYS)
INHERIT = _read("common", "past", "inherit", flags=_ALWAYS)
SWEEP = _read("common", "sweep", flags=_ALWAYS)
BEAT = _read("common", "beat", flags=_ALWAYS)
INHERITED = _read("inherited", flags=_ALWAYS)
DEPART = _read("depart", flags=_ALWAYS)

VISIT = _read("common", "people", "visit", flags=_READS)
OPEN_PROCESS = _read("common", "people", "open_process")
ENTER = _read("common", "people", "enter", flags=_ALWAYS)
LEAVE = _read("common", "people", "leave", flags=_ALWAYS)
STOCK = _read("common", "people", "stock", flags=_ALWAYS)
STOCK_SESSION = _read("common", "people", "stock_session", flags=_ALWAYS)
STOCK_CHANNEL = _read("stock_channel", flags=_ALWAYS)
BURY = _read("common", "people", "bury", flags=_ALWAYS)
TOUCH = _read("common", "people", "touch", flags=_ALWAYS)
LATE = _read("common", "late", flags=_READS)
CLOSE = _read("common", "people", "close", flags=_ALWAYS)
FINISH = _read("common", "people", "finish", flags=_ALWAYS)
PROLONG = _read("common", "prolong", flags=_ALWAYS)
MOVE = _read("common", "people", "move", flags=_ALWAYS)
CLAIM = _read("common", "people", "page", "acknowledge", "claim", flags=_ALWAYS)
HOLD = _read("common", "people", "hold", flags=_ALWAYS)
ANNOUNCE = _read("common", "people", "announce", flags=_ALWAYS)
INDEX = _read("common", "index", flags=_ALWAYS)
UNINDEX = _read("common", "unindex", flags=_ALWAYS)
TELL_ALL = _read("common", "control", "tell_all", flags=_ALWAYS)
HEAR = _read("common", "control", "hear", flags=_ALWAYS)
MARK = _read("common", "acknowledge", "mark", flags=_ALWAYS)
SAVE = _read("save", flags=_ALWAYS)
IDLE = _read("common", "people", "idle", flags=_READS)

LISTEN = _read("audience", "listen")
UNLISTEN = _read("audience", "unlisten", flags=_ALWAYS)
ATTENDED = _read("common", "attended", flags=_ALWAYS)
ATTENDING = _read("attending", flags=_READS)
TELL = _read("common", "audience", "tell")
PROGRESS = _read("progress", flags=_ALWAYS)
