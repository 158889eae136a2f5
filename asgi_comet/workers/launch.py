"""The launch of a lifespan by a server: certain facts about sibling workers.

Owns the internals of the supported servers: which of their modules are on the call stack of a
lifespan, and how the number of workers is set. The stack is the same on every system, and
distinguishes a server's worker from a test, a script, or a program that embeds a server. A server
with changed modules is treated as one without workers, which breaks nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import dataclass
from types import FrameType

__all__ = ["Launch"]

SERVERS = frozenset({"granian", "gunicorn", "hypercorn", "uvicorn"})

WORKERS = frozenset(
    {
        "granian.server.mp",
        "gunicorn.arbiter",
        "hypercorn.asyncio.run",
        "hypercorn.trio.run",
        "uvicorn._subprocess",
    }
)
"""Modules on the stack of a process that a server's supervisor has started."""

NO_SUPERVISOR = "hypercorn.run"  # on the stack if hypercorn serves in its first process
UVICORN = "uvicorn.supervisors.multiprocess"  # on the stack only with two or more workers


@dataclass(frozen=True, slots=True)
class Launch:
    """The facts about the server that started a lifespan.

    Attributes:
        serves: A server started the lifespan, in the main thread of its process.
        supervised: The process is a worker that a server's supervisor started.
        told: The server was told to start more than one worker.
        endless: The supervisor restarts failed workers without end.
    """

    serves: bool
    supervised: bool
    told: bool
    endless: bool

    @classmethod
    def read(cls) -> Launch:
        """Collect the facts. Call in the lifespan's own task."""
        modules = _modules_on_stack()
        main = threading.current_thread() is threading.main_thread()
        serves = main and any(name.partition(".")[0] in SERVERS for name in modules)
        return cls(
            serves=serves,
            supervised=not WORKERS.isdisjoint(modules) and NO_SUPERVISOR not in modules,
            told=serves and (UVICORN in modules or _count_workers() > 1),
            endless=UVICORN in modules and not hasattr(sys.modules[UVICORN], "STARTUP_FAILURE"),
        )

    def stop_supervisor(self) -> None:
        """Stop a supervisor that would restart this worker without end; newer ones stop alone."""
        parent = multiprocessing.parent_process()
        if self.endless and parent is not None and parent.is_alive():
            os.kill(os.getppid(), signal.SIGTERM)


def _modules_on_stack() -> set[str]:
    frame: FrameType | None = sys._getframe()
    modules = set()
    while frame is not None:
        modules.add(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return modules


def _count_workers() -> int:
    """Return the number of workers on the command line, else in WEB_CONCURRENCY, else 0.

    A worker has the arguments of its supervisor, whether it was forked or spawned.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    default = os.environ.get("WEB_CONCURRENCY", "")
    parser.add_argument("-w", "--workers", nargs="?", default=default, const=default)
    number: str = parser.parse_known_args(sys.argv[1:])[0].workers
    return int(number) if number.isdecimal() else 0
