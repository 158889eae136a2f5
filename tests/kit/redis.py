"""A Redis of the tests' own: a process with a socket in a temporary directory, in memory only."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any, TypeAlias

from redis import Redis

from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.scripts import load
from tests.kit.programs import find_program

Client: TypeAlias = Any
"""A client of redis-py, whose types say that any command may be awaited."""


class RedisServer:
    """A redis-server on a unix socket.

    Args:
        folder: Where its socket and its data are; short, for a socket's path is bounded.
        options: Of redis-server, as `"--maxmemory", "10mb"`.
        port: Where it listens as well; 0 for nowhere.
    """

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.path = folder / "s"
        self.options = options
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"redis+unix://{self.path}"

    def start(self) -> None:
        """Start it, unless it runs; returns when it accepts connections."""
        if self.process is not None:
            return
        listen = ["--port", str(self.port), "--unixsocket", str(self.path)]
        quiet = ["--save", "", "--dir", str(self.folder), "--enable-debug-command", "local"]
        command = [find_program("redis-server")]
        if "--sentinel" in self.options:
            command += [*self.options, *listen]  # its configuration comes first
        else:
            command += [*listen, *quiet, *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        log = ""
        for line in self.process.stdout:
            log += line
            if "ready to accept connections at" in line or "Sentinel ID is" in line:
                return
        raise AssertionError(log)

    def send(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """Stop it, unless it is stopped."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()

    def client(self) -> Client:
        """Connect; for what a test looks at, or does, behind the broker's back."""
        return Redis(unix_socket_path=str(self.path), protocol=3, socket_timeout=20)


def milliseconds(client: Client) -> int:
    """Return the time of Redis."""
    seconds, micros = client.time()
    return int(seconds * 1000 + micros // 1000)


def run(client: Client, call: Call[Any], *, times: int = 1) -> Any:
    """Run a script; `times` of it in a row, which must all answer the same."""
    if call.script is not None:
        client.execute_command(*load(call.script).command)
    answers = [call.read(client.execute_command(*call.command)) for _ in range(times)]
    assert all(answer == answers[0] for answer in answers), answers
    return answers[0]
