"""The worker processes and the loader processes of a run; none outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.kit.programs import ROOT
from tests.kit.serving import Address
from tests.nemesis.browsers import HOST

STARTED = 30.0  # seconds until a worker answers
STOPPED = 30.0  # seconds until a worker has ended after SIGTERM


class Worker:
    """One of the workers, which is started again and again on the same port.

    Args:
        number: Which one.
        port: Where it listens.
        folder: Where its journal and its log are.
        environment: What it is told beside its name and its journal.
        told: Called with the name of a run that has ended.
    """

    def __init__(
        self,
        number: int,
        port: int,
        folder: Path,
        environment: dict[str, str],
        told: Callable[[str], None],
    ) -> None:
        self.number = number
        self.port = port
        self.runs = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._folder = folder
        self._environment = environment
        self._told = told

    @property
    def run(self) -> str:
        return f"w{self.number}.{self.runs}"

    def start(self, *, quiet: bool = False) -> None:
        """Start it; `wait` returns once it serves."""
        self.runs += 1
        own = {
            "NEMESIS_RUN": self.run,
            "NEMESIS_JOURNAL": str(self._folder / f"{self.run}.jsonl"),
            "NEMESIS_QUIET": "1" if quiet else "",
        }
        server = ["uvicorn", "tests.nemesis.application:app", "--host", HOST]
        options = ["--port", str(self.port), "--log-level", "warning", "--timeout-keep-alive", "1"]
        with (self._folder / f"{self.run}.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *server, *options],
                cwd=ROOT,
                env={**os.environ, **self._environment, **own},
                stdin=subprocess.PIPE,  # the worker ends with this process
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Return once it serves."""
        deadline = time.monotonic() + STARTED
        while True:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/openapi.json") == 200:
                    return
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def ask(self, method: str, path: str) -> int:
        connection = HTTPConnection(HOST, self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request(method, path)
            return connection.getresponse().status

    def tables(self) -> dict[str, int]:
        """Return how much is in each table of the worker."""
        answer = Address(HOST, self.port).request("GET", "/tables")
        assert answer.status == 200, answer
        tables: dict[str, int] = json.loads(answer.body)
        if "redis held" in tables:  # also channels whose sources any worker may read
            tables["redis held"] -= tables["redis bids"]
        return tables

    def send(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        if self.process is None:
            return
        self.process.kill()
        self._gone()

    def stop(self) -> float:
        """Stop it gracefully; return how many seconds that took."""
        began = time.monotonic()
        self.send(signal.SIGTERM)
        assert self.process is not None
        try:
            self.process.wait(STOPPED)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._gone()
        return time.monotonic() - began

    def _gone(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.wait(STOPPED)
            assert process.stdin is not None
            process.stdin.close()
            self._told(self.run)

    def log(self) -> str:
        return (self._folder / f"{self.run}.log").read_text(errors="replace")


class LoaderProcess:
    """A process of clients and publishers, see `tests/nemesis/loader.py`."""

    def __init__(self, setup: dict[str, Any], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.nemesis.loader", json.dumps(setup)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def end(self, seconds: float) -> int:
        """Wait for its end, or else kill it; return how it ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(STOPPED)
        finally:
            assert self.process.stdin is not None
            with contextlib.suppress(OSError):
                self.process.stdin.close()
