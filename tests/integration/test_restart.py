"""The server is killed and started again: nobody is left in silence."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kit.programs import ROOT
from tests.kit.serving import Address, Tab, bound_socket, poll
from tests.kit.workers import own_workers

pytestmark = own_workers("a server program that loses its memory when it is killed")


class Restartable:
    """The application in a process of its own, on a socket that outlives it."""

    def __init__(self) -> None:
        self.listening = bound_socket()
        self.address = Address(*self.listening.getsockname())
        self.start()

    def start(self) -> None:
        app = "tests.kit.application:app"
        number = str(self.listening.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", app, "--fd", number, "--log-level", "warning"],
            cwd=ROOT,
            pass_fds=[self.listening.fileno()],
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


@pytest.fixture
def server() -> Iterator[Restartable]:
    server = Restartable()
    with contextlib.closing(server.listening):
        yield server
        server.kill()


def test_an_old_position_is_full_an_old_process_closed_and_the_session_goes_on(
    server: Restartable,
) -> None:
    tab = Tab(server.address)
    old = poll(server.address, {"held0": "now"})[0]["position"]
    server.kill()
    server.start()
    (full,) = poll(server.address, {"held0": old})
    assert full["error"] == "full"
    assert full["position"] != old
    assert poll(server.address, {"held0": full["position"]}, idle=True) == []
    gone = tab.post(f"{tab.url}/poll", {"channels": {"held0": old}})
    assert (gone.status, gone.body) == (410, b'{"events":[{"error":"process-closed"}]}')
    again = Tab(server.address, tab.jar)  # with the cookie of before
    assert again.url != tab.url
    assert again.poll({"~inbox": "now"}) == [{"channel": "~inbox", "position": "new.0"}]
