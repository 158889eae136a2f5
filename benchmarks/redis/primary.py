"""A redis-server of the benchmark's own."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis


@dataclass(frozen=True, slots=True)
class Primary:
    """A redis-server that runs.

    Attributes:
        path: Its unix socket.
        process: Its process.
    """

    path: Path
    process: int

    @property
    def url(self) -> str:
        """What a broker is given."""
        return f"unix://{self.path}"

    @property
    def cpu(self) -> float:
        """Seconds of user and system time it has used, as clock_getcpuclockid(3) tells."""
        return time.clock_gettime((~self.process << 3) | 2)

    def client(self) -> Any:
        """Connect; redis-py says that any command may be awaited, so this has no type."""
        return Redis(unix_socket_path=str(self.path), protocol=3)


@contextmanager
def run_primary() -> Iterator[Primary]:
    """Start a server with empty data, which keeps them in memory only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as redis:
            assert redis.stdout is not None
            while "ready to accept connections at" not in redis.stdout.readline():
                pass
            yield Primary(path, redis.pid)
            redis.kill()
