"""Clients that vanish without a packet: `python -m benchmarks.half_open [--retries N] [SERVER …]`.

Tells for each server and transport after how many seconds the listener is gone. Needs Linux and
root: servers and clients run in network namespaces of their own, joined by a pair of virtual
cables; the clients' address is removed, so that packets to the clients are dropped silently.
The slowest cases take a quarter of an hour, all servers at the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from .faults_server import TRANSPORTS
from .frames import encode_text, shake_hands
from .held import ask
from .http import connect, make_head, make_tail, read_head
from .servers import ROOT

HERE, THERE = "10.99.0.1", "10.99.0.2"
FIRST_PORT = 8000  # unused in our own network namespace
APP = "benchmarks.faults_server:app"
MODULE = "benchmarks.half_open"
APART = ["/usr/bin/unshare", "--net", sys.executable, "-m", MODULE]  # in a namespace of its own
START = 60.0  # seconds that a server may take to start

SERVERS = {
    "uvicorn websockets-sansio": "uvicorn --host 0.0.0.0 --port {port} --http h11",
    "uvicorn websockets": "uvicorn --host 0.0.0.0 --port {port} --ws websockets",
    "uvicorn wsproto": "uvicorn --host 0.0.0.0 --port {port} --ws wsproto --http httptools",
    "hypercorn asyncio": "hypercorn --workers 0 --bind 0.0.0.0:{port}",
    "hypercorn asyncio, pings": (
        "hypercorn --workers 0 --bind 0.0.0.0:{port} --websocket-ping-interval 20"
    ),
    "granian": "granian --interface asgi --host 0.0.0.0 --port {port}",
}


def run(*command: str) -> str:
    """Run a command that must succeed, and return what it says."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# The clients, in a namespace of their own


def play_clients(ports: list[int]) -> None:
    """Connect once per port and transport when told to, say so, and stay until the end of input."""
    print("there", flush=True)
    sys.stdin.readline()
    kept = [open_client(port, transport) for port in ports for transport in TRANSPORTS]
    print(f"open {len(kept)}", flush=True)
    sys.stdin.read()


def open_client(port: int, transport: str) -> socket.socket:
    """Connect, and begin to listen."""
    if transport == "poll":
        epoch = ask_position(port)
        body = f'{{"channels": {{"poll": "{epoch}"}}}}'
        kept = reach(port)
        head = make_head("POST", "/comet/poll", "Content-Type: application/json")
        kept.sendall(head + make_tail(body))
        return kept
    kept = reach(port)
    if transport == "sse":
        kept.sendall(make_head("GET", "/comet/events?channel=sse") + make_tail())
        read_head(kept)
    else:
        shake_hands(kept, "/comet/socket")
        kept.sendall(encode_text('{"subscribe": {"websocket": "now"}}'))
    return kept


def reach(port: int) -> socket.socket:
    """Connect to a server across the cable."""
    return socket.create_connection((HERE, port), START)


def ask_position(port: int) -> str:
    """Return where the channel of the poll is."""
    with contextlib.closing(reach(port)) as connection:
        head = make_head("POST", "/comet/poll", "Content-Type: application/json")
        connection.sendall(head + make_tail('{"channels": {"poll": "now"}}', "Connection: close"))
        raw = b""
        while piece := connection.recv(4096):
            raw += piece
    return raw.partition(b'"position":"')[2].partition(b'"')[0].decode()


# The servers, and the cable


def measure(names: list[str], retries: int | None, seconds: float, log: Path) -> None:
    """Cut the clients off, and print when each of them is gone."""
    run("ip", "link", "set", "lo", "up")
    if retries is not None:
        run("sysctl", "-w", f"net.ipv4.tcp_retries2={retries}")
    ports = {name: FIRST_PORT + number for number, name in enumerate(names)}
    with ExitStack() as stack:
        output = stack.enter_context(log.open("w"))
        for name, port in ports.items():
            command = [sys.executable, "-m", *SERVERS[name].format(port=port).split(), APP]
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
            )
            stack.callback(process.wait)
            stack.callback(os.killpg, process.pid, signal.SIGKILL)  # with granian's worker
        for port in ports.values():
            wait_until_up(port)
        clients = stack.enter_context(join_clients(list(ports.values())))
        for name, port in ports.items():
            while min(ask(port, "GET", "/listeners").values()) < 1:
                time.sleep(0.1)
            print(f"{name}: open", file=sys.stderr)
        cut_off(clients.pid)
        watch(ports, seconds)


@contextlib.contextmanager
def join_clients(ports: list[int]) -> Iterator[subprocess.Popen[str]]:
    """Start the clients' process, and lay the cable."""
    process = subprocess.Popen(
        [*APART, "--clients", *map(str, ports)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "there\n"
        lay_cable(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("open")
        yield process
    finally:
        process.kill()
        process.communicate()


def lay_cable(pid: int) -> None:
    """Join this namespace with that of the clients."""
    run("ip", "link", "add", "here", "type", "veth", "peer", "name", "there")
    run("ip", "link", "set", "there", "netns", str(pid))
    run("ip", "addr", "add", f"{HERE}/24", "dev", "here")
    run("ip", "link", "set", "here", "up")
    enter = ["nsenter", "--net", "--target", str(pid)]
    run(*enter, "ip", "addr", "add", f"{THERE}/24", "dev", "there")
    run(*enter, "ip", "link", "set", "there", "up")


def cut_off(pid: int) -> None:
    """Take the clients' address away; the servers go on to send to their network card."""
    enter = ["nsenter", "--net", "--target", str(pid)]
    words = run(*enter, "ip", "-o", "link", "show", "there").split()
    card = words[words.index("link/ether") + 1]
    run("ip", "neigh", "replace", THERE, "lladdr", card, "nud", "permanent", "dev", "here")
    run(*enter, "ip", "addr", "del", f"{THERE}/24", "dev", "there")


def wait_until_up(port: int) -> None:
    """Return once a server answers."""
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), contextlib.closing(connect(port)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"expected a server on port {port}")


def watch(ports: dict[str, int], seconds: float) -> None:
    """Print each client that is gone, until all are or the time is up."""
    began = time.monotonic()
    left = {(name, transport) for name in ports for transport in TRANSPORTS}
    while left and time.monotonic() - began < seconds:
        for name in {name for name, _ in left}:
            told = ask(ports[name], "GET", "/listeners")
            passed = time.monotonic() - began
            for transport in TRANSPORTS:
                if told[transport] == 0 and (name, transport) in left:
                    left.discard((name, transport))
                    print(f"| {name} | {transport} | {passed:.0f} s |", flush=True)
        time.sleep(0.5)
    for name, transport in sorted(left):
        print(f"| {name} | {transport} | not within {seconds:.0f} s |")


def main() -> None:
    """Enter a namespace, or play the part that the arguments say."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}")
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=", ".join(SERVERS))
    parser.add_argument(
        "--retries", type=int, help="net.ipv4.tcp_retries2; by default the system's"
    )
    parser.add_argument("--seconds", type=float, default=1200.0, help="give up after that long")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), help="what the servers say")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--clients", type=int, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.clients:
        play_clients(arguments.clients)
    elif arguments.inside:
        names = arguments.servers or list(SERVERS)
        measure(names, arguments.retries, arguments.seconds, arguments.log)
    else:
        sys.exit(subprocess.call([*APART, "--inside", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
