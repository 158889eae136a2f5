"""How much memory a process has, as its kernel tells."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass
from pathlib import Path

KIB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a process.

    Attributes:
        rss: What is resident, pages that it shares with others counted in full.
        pss: The same, of shared pages only its share.
    """

    rss: int
    pss: int


def read_memory(process: int | None = None) -> Memory:
    """Read the memory of a process; by default of this one.

    Source: proc(5), `smaps_rollup`.
    """
    name = "self" if process is None else str(process)
    lines = Path(f"/proc/{name}/smaps_rollup").read_text().splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) * KIB for line in lines[1:]}
    return Memory(rss=sizes["Rss:"], pss=sizes["Pss:"])


def settle() -> None:
    """Give back what this process does not use: garbage in cycles, and what the allocator kept."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
