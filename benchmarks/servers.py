"""Servers in processes of their own, and room for their connections: what all benchmarks share."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SPARE = 200  # open files that are no connections
MOST = 50_000  # connections that any benchmark wants


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs.

    Attributes:
        port: Where, on this machine.
        worker: The process that does the work, if that is not one in Python with `control`.
    """

    port: int
    worker: int | None = None


def raise_open_files(count: int = MOST) -> int:
    """Raise the limit of open files, and return how many connections of `count` it allows.

    Clients started afterwards have it too.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(count, soft - SPARE)


@contextmanager
def server(
    app: str, environ: Mapping[str, str], *, grace: float = 20.0, root: Path = ROOT
) -> Iterator[int]:
    """Run an application under uvicorn in a process of its own, and give its port.

    Args:
        app: `module:name`.
        grace: Seconds it has in the end to stop by itself; some hold their requests for ever.
        root: The tree whose package and benchmarks it imports.
        environ: Environment variables besides this process' own.
    """
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(4096)
        port = listening.getsockname()[1]
        descriptor = listening.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.serve", app, str(descriptor)],
            cwd=root,
            env={**inherited, **environ},
            pass_fds=[descriptor],
        )
        try:
            yield port
        finally:
            process.terminate()
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
