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

APPEND = _read("common", "append")
OPEN = _read("common", "open")
OWN = _read("common", "own")
RENEW = _read("common", "renew", flags=_ALWAYS)
FOLLOW = _read("common", "page", "follow", flags=_ALWAYS)
LINEAGE = _read("common", "lineage", flags=_ALWAYS)
TOPS = _read("common", "tops", flags=_ALWAYS)
END = _read("common", "end", flags=_ALWAYS)
UNUSED = _read("common", "unused", flags=_ALWAYS)
KEEP = _read("keep", flags=_ALWAYS)
FREE = _read("free", flags=_ALWAYS)
WANT = _read("want", flags=_ALWAYS)
INHERIT = _read("common", "inherit", flags=_ALWAYS)
SWEEP = _read("common", "sweep", flags=_ALWAYS)
BEAT = _read("common", "beat", flags=_ALWAYS)
INHERITED = _read("inherited", flags=_ALWAYS)
DEPART = _read("depart", flags=_ALWAYS)
