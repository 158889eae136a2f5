"""Clients that are slow on purpose: `python -m benchmarks.slow_http [--behind nginx]`.

Opens many connections that send their headers, or their body, a few bytes at a time, or read that
slowly, as `slowhttptest` does with -H, -B and -X; meanwhile a well-behaved client asks again and
again on a new connection. Prints how long that client waited, and how many slow ones were left.
`--behind nginx` puts `examples/nginx.conf` between, with Debian's figures around it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from .held import ask
from .http import make_head, make_tail
from .nginx import SEARCHED
from .servers import ROOT, raise_open_files, server
from .visitors import HOST, JSON

APP = "benchmarks.faults_server:app"
EVERY = 5.0  # seconds between two pieces of a slow client
PAUSE = 0.05  # seconds between two questions of the well-behaved client
LIMIT = 10.0  # seconds after which it gives up
PIPELINED = 3  # requests of a slow reader
WINDOW = 1024  # bytes that the system takes for a slow reader
MODES = ("header", "body", "read")

# Debian's nginx.conf, but for the files, which are in a folder of ours.
AROUND = """
daemon off;
pid pid;
{user}
worker_processes auto;
error_log error.log;
events {{ worker_connections {connections}; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  {config}
}}
"""


@dataclass
class Found:
    """The times of the well-behaved client, in seconds, and how the slow ones ended."""

    waited: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    open: int = 0
    most: int = 0  # open at the same time


@contextmanager
def nginx(port: int, connections: int) -> Iterator[int]:
    """Run nginx in front of a server, and give its port."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind((HOST, 0))
        own: int = probe.getsockname()[1]
        probe.close()
        config = (ROOT / "examples" / "nginx.conf").read_text()
        config = config.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        config = config.replace("listen 80;", f"listen {HOST}:{own};")
        user = "user root;" if os.geteuid() == 0 else ""
        text = AROUND.format(user=user, connections=connections, config=config)
        Path(folder, "nginx.conf").write_text(text)
        command = shutil.which("nginx", path=SEARCHED)
        assert command is not None, "nginx is not installed"
        process = subprocess.Popen([command, "-p", folder, "-e", "stderr", "-c", "nginx.conf"])
        try:
            while True:
                with socket.socket() as knock:
                    if knock.connect_ex((HOST, own)) == 0:
                        break
                time.sleep(0.05)
            yield own
        finally:
            process.terminate()
            process.wait()
            for line in sorted(set(Path(folder, "error.log").read_text().splitlines()))[:3]:
                print(f"nginx: {line}")


async def be_slow(mode: str, port: int, found: Found, until: float) -> None:
    """Be one slow client until the time is up, or the server has had enough."""
    connection = socket.socket()
    if mode == "read":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_connect(connection, (HOST, port))
        await loop.sock_sendall(connection, BEGINNING[mode])
        found.open += 1
        found.most = max(found.most, found.open)
        try:
            found.ended[await drip(mode, connection, until)] += 1
        finally:
            found.open -= 1
    except OSError as error:
        found.ended[type(error).__name__] += 1
    finally:
        connection.close()


async def drip(mode: str, connection: socket.socket, until: float) -> str:
    """Send or read a few bytes now and then; return how it ended."""
    loop = asyncio.get_running_loop()
    while time.monotonic() < until:
        await asyncio.sleep(EVERY)
        if mode == "read":
            if not await loop.sock_recv(connection, 32):
                return "closed"
            continue
        try:
            told = connection.recv(1024, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return told[9:12].decode() or "closed"
        except BlockingIOError:
            await loop.sock_sendall(connection, b"X-a: b\r\n" if mode == "header" else b" ")
    return "open until the end"


BEGINNING = {
    "header": make_head("GET", "/comet/events?channel=sse"),
    "body": make_head("POST", "/comet/poll", JSON, "Content-Length: 60000") + b"\r\n{",
    "read": (make_head("GET", "/comet/comet.js") + make_tail()) * PIPELINED,
}


async def behave(port: int, found: Found, until: float) -> None:
    """Ask again and again, each time on a new connection."""
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            async with asyncio.timeout(LIMIT):
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(make_head("GET", "/", "Connection: close") + make_tail())
                head = await reader.read()
                writer.close()
            if not head.startswith(b"HTTP/1.1 200"):
                found.failed[head[9:12].decode() or "closed"] += 1
        except (OSError, TimeoutError) as error:
            found.failed[type(error).__name__] += 1
        found.waited.append(time.monotonic() - began)
        await asyncio.sleep(PAUSE)


async def attack(mode: str, port: int, count: int, seconds: float) -> Found:
    """Return what was found."""
    found = Found()
    until = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(behave(port, found, until))
        for number in range(count):
            group.create_task(be_slow(mode, port, found, until))
            if number % 50 == 0:
                await asyncio.sleep(0.05)
    return found


def report(mode: str, found: Found, grown: float) -> bool:
    """Print the figures; tell whether 99 of 100 questions were answered within a second."""
    waited = sorted(found.waited)
    late = waited[int(len(waited) * 0.99)]
    print(
        f"slow {mode}: {found.most} at once; {len(waited)} questions: median "
        f"{waited[len(waited) // 2] * 1e3:.0f} ms, p99 {late * 1e3:.0f} ms, longest "
        f"{waited[-1] * 1e3:.0f} ms, failed {dict(found.failed) or 'none'}; slow ones ended "
        f"{dict(found.ended)}; memory +{grown / 2**20:.1f} MiB",
        flush=True,
    )
    return late < 1 and not found.failed


def main() -> None:
    """Run all modes, and exit with 1 if the well-behaved client waited too long."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_http")
    parser.add_argument("--behind", choices=["nginx"], help="put a proxy between")
    parser.add_argument("--worker-connections", type=int, default=768, help="of nginx")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of each mode")
    parser.add_argument("--mode", choices=MODES, action="append", help="by default all")
    arguments = parser.parse_args()
    count = raise_open_files(arguments.connections)
    good = True
    for mode in arguments.mode or MODES:
        with ExitStack() as stack:
            own = stack.enter_context(server(APP, {"KEEP_ALIVE": "5"}))
            port = own
            if arguments.behind:
                port = stack.enter_context(nginx(own, arguments.worker_connections))
            before = ask(own, "GET", "/memory")
            found = uvloop.run(attack(mode, port, count, arguments.seconds))
            good = report(mode, found, ask(own, "GET", "/memory") - before) and good
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
