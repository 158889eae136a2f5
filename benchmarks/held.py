"""Hold many requests, write once, and see all of them answered: `python -m benchmarks.held [N]`.

The server runs in a process of its own. Prints for each round how many requests were held and
answered, the server's memory before, while and after, the longest stretch in which its loop did not
turn, and its CPU time per answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from .servers import raise_open_files, server

REQUEST = (
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ocsigen-comet\r\n"
    b"Content-Length: 17\r\n\r\nregistration=held"
)
AT_ONCE = 500  # connections opened at a time: fewer than the server's backlog


@dataclass(frozen=True)
class Round:
    """The results of one round; memory in bytes, blocks of Python's allocator, times in seconds."""

    held: int
    answered: int
    left: int
    memory_before: int
    memory_held: int
    memory_after: int
    blocks_before: int
    blocks_after: int
    stretch: float
    cpu_per_answer: float


def ask(port: int, method: str, path: str) -> Any:
    """Ask the server for something in JSON."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


async def hold(port: int, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open that many connections and send a registration on each."""
    connections = []
    for start in range(0, count, AT_ONCE):
        opening = (
            asyncio.open_connection("127.0.0.1", port, limit=4096)
            for _ in range(min(AT_ONCE, count - start))
        )
        for reader, writer in await asyncio.gather(*opening):
            writer.write(REQUEST)
            connections.append((reader, writer))
    return connections


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer and return its body."""
    headers = await reader.readuntil(b"\r\n\r\n")
    length = int(headers.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return await reader.readexactly(length)


async def measure(port: int, count: int) -> Round:
    """Hold `count` requests, write once, read every answer, and close."""
    before = await asyncio.to_thread(ask, port, "GET", "/figures")
    connections = await hold(port, count)
    held = await asyncio.to_thread(ask, port, "GET", "/figures")
    while held["listeners"] < count:  # the server still reads requests: ask it again
        held = await asyncio.to_thread(ask, port, "GET", "/figures")
    outcome = await asyncio.to_thread(ask, port, "POST", "/write")
    assert outcome == "success", outcome
    bodies = await asyncio.gather(*(read_answer(reader) for reader, _ in connections))
    written = await asyncio.to_thread(ask, port, "GET", "/figures")
    for _, writer in connections:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in connections))
    after = await asyncio.to_thread(ask, port, "GET", "/figures")
    return Round(
        held=held["listeners"],
        answered=bodies.count(b"held:" + b"x" * 200),
        left=after["listeners"],
        memory_before=before["memory"],
        memory_held=held["memory"],
        memory_after=after["memory"],
        blocks_before=before["blocks"],
        blocks_after=after["blocks"],
        stretch=written["stretch"],
        cpu_per_answer=(written["cpu"] - held["cpu"]) / count,
    )


def run(count: int, rounds: int, **environ: str) -> list[Round]:
    """Run rounds against one server, with as many connections as open files permit."""
    count = raise_open_files(count)
    with server("benchmarks.held_server:app", environ) as port:
        return [asyncio.run(measure(port, count)) for _ in range(rounds)]


def main() -> None:
    """Print a line for each of three rounds."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for number, found in enumerate(run(count, 3), 1):
        mib = [m / 2**20 for m in (found.memory_before, found.memory_held, found.memory_after)]
        print(
            f"round {number}: {found.held} held, {found.answered} answered, {found.left} left; "
            f"memory {mib[0]:.1f} -> {mib[1]:.1f} -> {mib[2]:.1f} MiB, "
            f"live blocks {found.blocks_before} -> {found.blocks_after}; "
            f"longest stretch {found.stretch * 1e3:.1f} ms; "
            f"{found.cpu_per_answer * 1e6:.0f} µs of CPU per answer"
        )


if __name__ == "__main__":
    main()
