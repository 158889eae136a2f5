"""Clients that lose their server all at once: `python -m benchmarks.storm [--how stop] [--kept]`.

Half of them follow server-sent events as a browser's `EventSource` does: they come back after the
`retry` that the server sent. The other half have a WebSocket and come back as `comet.js` does. The
server is killed or stopped, and started again; meanwhile its port is closed, or kept open.
Prints when they first tried again, when all were back, and how long the server's loop stood still.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException

from .held import ask
from .returning import Found, play
from .servers import ROOT, raise_open_files
from .visitors import HOST

LOADS = 2  # processes that play clients
SETTLED = 2.0  # seconds until the last client knows that it is there
PATIENCE = 120.0  # seconds until all have to be there
APP = "benchmarks.faults_server:app"


@contextmanager
def listening(port: int, backlog: int) -> Iterator[socket.socket]:
    """Open a port; 0 is any."""
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen(backlog)
        yield found


@contextmanager
def serving(connections: socket.socket, backlog: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server on an open port."""
    number = connections.fileno()
    command = [sys.executable, "-m", "benchmarks.serve", APP, str(number)]
    environ = {**os.environ, "BACKLOG": str(backlog)}
    process = subprocess.Popen(command, cwd=ROOT, env=environ, pass_fds=[number])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, count: int) -> float:
    """Return how long it took until the server had that many listeners."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        with suppress(OSError, HTTPException):
            if sum(ask(port, "GET", "/listeners").values()) >= count:
                return time.monotonic() - began
        time.sleep(0.1)
    raise TimeoutError(f"expected {count} listeners within {PATIENCE:g} s")


def run(plan: argparse.Namespace) -> None:
    """Let the clients lose their server, and print how they come back."""
    count = raise_open_files(plan.connections)
    context = multiprocessing.get_context("spawn")
    lost = context.Event()
    found: multiprocessing.Queue[list[Found]] = context.Queue()
    with ExitStack() as stack:
        port_open = stack.enter_context(listening(0, plan.backlog))
        port: int = port_open.getsockname()[1]
        first = stack.enter_context(serving(port_open, plan.backlog))
        wait_for(port, 0)
        parts = [count // LOADS] * LOADS
        loads = [
            context.Process(target=play, args=(port, part, lost, found, plan.spread))
            for part in parts
        ]
        for load in loads:
            load.start()
            stack.callback(load.join)
            stack.callback(load.kill)
        wait_for(port, sum(parts))
        time.sleep(SETTLED)
        print(f"{sum(parts)} clients are there", file=sys.stderr)
        if not plan.kept:
            port_open.close()
        lost.set()
        first.send_signal(signal.SIGKILL if plan.how == "kill" else signal.SIGTERM)
        gone = time.monotonic()
        first.wait()
        time.sleep(plan.down)
        if not plan.kept:
            port_open = stack.enter_context(listening(port, plan.backlog))
        stack.enter_context(serving(port_open, plan.backlog))
        wait_for(port, 0)
        up = time.monotonic() - gone
        wait_for(port, sum(parts))
        lag = ask(port, "GET", "/lag")
        report([one for _ in loads for one in found.get(timeout=PATIENCE)], up, lag)


def report(found: list[Found], up: float, lag: dict[str, float]) -> None:
    """Print the figures: of each client its kind, its first retry and when it was back."""
    for kind in sorted({kind for kind, _, _ in found}):
        tries = Counter(int(first) for one, first, _ in found if one == kind)
        of_kind = sum(tries.values())
        spread = ", ".join(f"{n}-{n + 1} s {tries[n] / of_kind:.0%}" for n in sorted(tries))
        print(f"{kind}: first retries {spread}")
    all_tries = Counter(int(first) for _, first, _ in found)
    back = sorted(back for _, _, back in found)
    print(f"fullest second: {max(all_tries.values()) / len(found):.0%} of the first retries")
    print(
        f"the server answered again after {up:.1f} s; back after: median "
        f"{back[len(back) // 2]:.1f} s, all {back[-1]:.1f} s; loop stood still p99 "
        f"{lag['p99'] * 1e3:.0f} ms, longest {lag['max'] * 1e3:.0f} ms"
    )


def main() -> None:
    """Run with the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--how", choices=["kill", "stop"], default="kill", help="SIGKILL, SIGTERM")
    parser.add_argument("--down", type=float, default=1.0, help="seconds until it is started again")
    parser.add_argument(
        "--kept", action="store_true", help="the port stays open: the system lets clients wait"
    )
    parser.add_argument(
        "--spread",
        type=float,
        metavar="SECONDS",
        help="what if: all come back after 1 to so many seconds",
    )
    parser.add_argument(
        "--backlog",
        type=int,
        default=2048,
        help="connections that the system keeps for a server that does not accept them yet",
    )
    run(parser.parse_args())


if __name__ == "__main__":
    main()
