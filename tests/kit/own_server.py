"""A server in a process of its own, on a port where it is started again after it stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.kit.programs import ROOT
from tests.kit.serving import Address
from tests.kit.stage import TOKEN

# uvicorn says so after every WebSocket that was refused with an answer.
HARMLESS = "ASGI callable returned without completing handshake."


class Server:
    """`tests.kit.followed` on a port. While it is stopped, connections are refused."""

    def __init__(self, port: int, *arguments: str) -> None:
        self.address = Address("127.0.0.1", port)
        self.arguments = arguments
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return self.address.url

    def start(self) -> None:
        """Start it, unless it runs; returns when it accepts connections."""
        if self.process is not None:
            return
        command = ["uvicorn", "tests.kit.followed:app", "--port", str(self.address.port)]
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--no-access-log", *self.arguments],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        log = ""
        for line in process.stderr:
            log += line
            if "running on" in line:
                break
        else:
            pytest.fail(log)
        self.process = process
        self.log: list[str] = []
        self.reader = threading.Thread(target=self.log.extend, args=(process.stderr,))
        self.reader.start()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it, unless it is stopped; nothing went wrong in it."""
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        self.reader.join(20)  # until the log ends, with the process
        assert process.wait(20) in (0, -number)
        assert process.stderr is not None
        process.stderr.close()
        wrong = [line for line in self.log if "Traceback" in line or "ERROR" in line]
        assert all(HARMLESS in line for line in wrong), self.log

    def post(self, path: str, value: Any = None, **headers: str) -> Any:
        """Send JSON, and return what the answer holds."""
        kind = {"Content-Type": "application/json", **headers}
        answer = self.address.request("POST", path, json.dumps(value), kind)
        assert answer.status < 300, answer
        return json.loads(answer.body or b"null")

    def publish(self, name: str, value: Any) -> None:
        self.post(f"/publish/{name}", value)

    def operate(self, action: str) -> None:
        self.post(f"/comet/admin/{action}", Authorization=f"Bearer {TOKEN}")

    def wait_for_listeners(self, name: str, count: int) -> None:
        answer = self.address.request("GET", f"/listeners/{name}/{count}")
        assert answer.status == 204, answer
