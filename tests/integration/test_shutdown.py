"""A stop signal with requests held, the server in a process of its own, as operators run it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from tests.kit.measuring import MEASURED
from tests.kit.programs import ROOT
from tests.kit.serving import COMET, Address, Held, bound_socket, hold_registration
from tests.kit.workers import own_workers

pytestmark = own_workers("server programs that are sent signals")

APP = "tests.kit.application:app"
HELD = 100

Starter = Callable[..., tuple["subprocess.Popen[str]", Address]]


@pytest.fixture
def start() -> Iterator[Starter]:
    with contextlib.ExitStack() as stack:

        def start(server: str, *options: str) -> tuple[subprocess.Popen[str], Address]:
            listening = stack.enter_context(bound_socket())
            number = str(listening.fileno())
            bind = ["--bind", f"fd://{number}"] if server == "hypercorn" else ["--fd", number]
            process = subprocess.Popen(
                [sys.executable, "-m", server, *bind, *options, APP],
                cwd=ROOT,
                pass_fds=[listening.fileno()],
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process, Address(*listening.getsockname())

        yield start


def hold(address: Address, count: int = HELD) -> list[Held]:
    """Have requests held, and return once the server counts them all."""
    held = [hold_registration(address, "registration=held0%0Aheld1") for _ in range(count)]
    while address.request("GET", "/listeners").body != str(count).encode():
        pass  # each look is a request of its own, answered by the server in question
    return held


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "options", [["--loop", "uvloop"], ["--loop", "asyncio", "--http", "h11"]], ids=["uvloop", "h11"]
)
def test_a_stop_signal_answers_held_requests_and_ends_uvicorn(
    start: Starter, number: signal.Signals, options: list[str]
) -> None:
    process, address = start("uvicorn", *options)
    held = hold(address)
    began = time.monotonic()
    process.send_signal(number)
    answers = [one.answer() for one in held]
    _, log = process.communicate(timeout=20)
    took = time.monotonic() - began
    assert {(a.status, a.body) for a in answers} == {(200, b"")}
    assert "Traceback" not in log
    assert "Finished server process" in log
    assert process.returncode in (0, -number)
    # Not a measure of speed: without the drain this takes as long as the longest poll, 20 s.
    assert took < 10


def test_whoever_waits_for_clients_does_not_hold_the_server_up(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in MEASURED.items():
        monkeypatch.setenv(name, value)
    process, address = start("uvicorn")
    assert address.request("GET", "/wait").status == 200
    assert address.request("GET", "/pid").status == 200
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=15)  # each of them waits longer
    assert "Traceback" not in log
    assert "Finished server process" in log


def test_a_body_that_is_still_coming_does_not_hold_the_server_up(start: Starter) -> None:
    process, address = start("uvicorn")
    assert address.request("GET", "/pid").status == 200
    with address.connect() as connection:
        connection.sendall(
            f"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {COMET}\r\n"
            "Content-Length: 18\r\n\r\nregist".encode()
        )
        assert address.request("GET", "/pid").status == 200  # by now the other one is being read
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        answer = connection.recv(4096)
    _, log = process.communicate(timeout=8)  # without the drain it takes the 10 s of a body
    assert b" 503 " in answer.split(b"\r\n")[0]
    assert b"connection: close" in answer.lower()
    assert time.monotonic() - began < 8
    assert "Traceback" not in log


def test_hypercorn_ends_too(start: Starter) -> None:
    process, address = start("hypercorn", "--workers", "0", "--graceful-timeout", "15")
    held = hold(address, 20)
    process.send_signal(signal.SIGTERM)
    answers = [one.answer() for one in held]
    _, log = process.communicate(timeout=10)
    assert {(a.status, a.body) for a in answers} == {(200, b"")}
    assert "Traceback" not in log


def test_uvicorn_with_workers_ends_too(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMET_SEVERAL_WORKERS", "warn")
    process, address = start("uvicorn", "--workers", "2")
    pids: set[bytes] = set()
    while len(pids) < 2:
        pids.add(address.request("GET", "/pid").body)
    held = [hold_registration(address, "registration=held0") for _ in range(20)]
    assert address.request("GET", "/pid").status == 200
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=10)
    for one in held:
        with contextlib.suppress(OSError):  # one that had not been accepted by then
            assert one.answer().status == 200
    assert "Traceback" not in log
