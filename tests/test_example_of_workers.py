"""`examples/workers.sh`: Redis, four workers and nginx, as the documents start them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.kit.clients import SseClient
from tests.kit.programs import ROOT, find_program
from tests.kit.serving import Address, reserved_port


class Site:
    """What the script serves: nginx, and the port of the workers behind it."""

    def __init__(self, port: int, backend: int, folder: Path) -> None:
        for program in ("nginx", "redis-server"):
            find_program(program)
        self.address = Address("127.0.0.1", port)
        self.folder = folder
        self.log = ""
        self._process = subprocess.Popen(
            [ROOT / "examples" / "workers.sh"],
            env={**os.environ, "PORT": str(port), "BACKEND": str(backend), "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, words: str, count: int) -> None:
        """Return once the log has some words so many times."""
        while self.log.count(words) < count:
            self.read()

    def read(self) -> None:
        """Read a line of the log."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log
        self.log += line

    def stop(self) -> str:
        """Stop it as Ctrl+C does; return the log."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            rest, _ = self._process.communicate(timeout=30)
            self.log += rest
        return self.log

    def restart(self) -> int:
        """Have uvicorn replace all workers; post at each line of the log, and return how often."""
        (parent,) = re.findall(r"Started parent process \[(\d+)\]", self.log)
        os.kill(int(parent), signal.SIGHUP)
        before = self.log.count("\n")
        while self.log.count("Finished server process") < 4:
            self.read()
            self.post(str(self.log.count("\n") - before - 1))
        return self.log.count("\n") - before

    def post(self, text: str) -> None:
        answer = httpx.post(f"{self.address.url}/news", params={"text": text}, timeout=20)
        assert answer.status_code == 200, answer


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        port, backend = (stack.enter_context(reserved_port()) for _ in range(2))
        site = Site(port, backend, tmp_path)
        stack.callback(site.stop)
        site.wait("Application startup complete", 4)
        yield site


@pytest.mark.slow
def test_clients_of_four_workers_behind_nginx_get_every_message(site: Site) -> None:
    """Also while all workers are replaced, one after the other."""
    clients = [SseClient(None, site.address) for _ in range(6)]
    for client in clients:
        client.begin({"news": "now", "seconds": "now"})
        assert {client.next()["channel"], client.next()["channel"]} == {"news", "seconds"}
    before = counting_worker(clients[0])
    sent = site.restart()
    heard = [take(client, sent) for client in clients]
    assert [int(text.partition(",")[0]) for text in heard[0]] == list(range(sent))
    assert all(one == heard[0] for one in heard)
    assert len({text.rpartition(" ")[2] for text in heard[0]}) > 1  # of several workers
    for client in clients:
        while counting_worker(client) == before:  # its source was handed over
            pass
        client.cut()
    log = site.stop()
    assert "Traceback" not in log
    assert log.count("Finished server process") == 8
    assert list(site.folder.iterdir()) == []


def take(client: SseClient, count: int) -> list[str]:
    """Read so many news."""
    found: list[str] = []
    while len(found) < count:
        event = client.next()
        assert "error" not in event, event
        if event["channel"] == "news":
            found.append(event["data"])
    return found


def counting_worker(client: SseClient) -> str:
    """Read which worker counts."""
    while (event := client.next())["channel"] != "seconds":
        pass
    (worker,) = re.findall(r"in worker (\d+)$", event["data"])
    return str(worker)


def test_the_settings_of_the_documents_are_those_that_the_example_starts_redis_with() -> None:
    lines = (ROOT / "examples" / "redis.conf").read_text().splitlines()
    settings = "\n".join(line for line in lines if line and not line.startswith("#"))
    assert f"```text\n{settings}\n```" in (ROOT / "docs" / "workers.md").read_text()
