"""What the lower half of the Redis broker costs: a frame received, a message stored.

    python -m benchmarks.redis_lower

Starts a redis-server of its own on a unix socket. Times are of the processor, in microseconds: of
this process, and of Redis.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import psutil
import uvloop

from asgi_comet._runtime.clock import MonotonicClock
from asgi_comet.brokers.logs import ChannelSpec
from asgi_comet.brokers.redis.address import parse_address
from asgi_comet.brokers.redis.broker import RedisBroker
from asgi_comet.brokers.redis.calls import Call, Item, Log
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.dialing import dial
from asgi_comet.brokers.redis.flusher import Flusher
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.replicas import Replica
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.testing.party import Party, Window

FRAMES = 200_000
MESSAGES = 30_000
DATA = b'{"text":"' + b"x" * 189 + b'"}'
SCRIPTS = Scripts(Keys())


def site(name: str) -> Log:
    """Make a channel of the benchmark."""
    return Log(SCRIPTS.keys.site(name), "S", "-", 1000, 2**23)


async def connect(path: Path, on_frame: Callable[[bytes, bytes], None]) -> Connection:
    """Connect to the server."""
    return Connection(await dial(parse_address(f"unix://{path}"), 5.0), on_frame, 30.0)


async def receive(path: Path) -> None:
    """Measure a frame: read, parsed, given to the callback."""
    count = 0

    def take(_: bytes, __: bytes) -> None:
        nonlocal count
        count += 1

    one, two = await connect(path, take), await connect(path, take)
    runs: list[Awaitable[None]] = [one.run(), two.run()]
    tasks = [asyncio.ensure_future(run) for run in runs]
    await one.subscribe(["t"])
    frame = b"mepoch 1 \n200:" + DATA
    publish = Call(
        ("EVAL", "for _ = 1, 500 do redis.call('PUBLISH', 't', ARGV[1]) end", 0, frame), bool
    )
    spent = 0.0
    for _ in range(FRAMES // 500):
        goal = count + 500
        asked = two.send(publish)
        await asyncio.sleep(0)
        begin = time.process_time()
        await asked
        while count < goal:
            await one.send(Call(("PING",), bytes))
        spent += time.process_time() - begin
    print(f"frame received            {spent / FRAMES * 1e6:6.2f} us")
    await stop(tasks, one, two)


async def take_in(path: Path) -> None:
    """Measure what becomes of a frame then: unpacked, and appended to a window."""
    party = Party(RedisBroker(f"unix://{path}"))
    connection = await connect(path, lambda *_: None)
    running: Awaitable[None] = connection.run()
    tasks = [asyncio.ensure_future(running)]
    log = site("window")
    await connection.send(SCRIPTS.open(log, "epoch"))
    window = Window(ChannelSpec(name="window", kind="site", size=1000, max_bytes=2**23))
    replica = Replica(window, log.keys, party, SCRIPTS, lambda *_: False)
    read = asyncio.Event()
    replica.catch_up(connection, lambda _: read.set())
    await read.wait()
    for each in (1, 64):
        rows = b"".join(b"%d:%s" % (len(DATA), DATA) for _ in range(each))
        begin = window.top + 1
        frames = [b"mepoch %d \n%s" % (begin + n * each, rows) for n in range(MESSAGES // each)]
        spent = time.process_time()
        for frame in frames:
            replica.take(connection, frame)
        spent = time.process_time() - spent
        assert window.top == begin - 1 + len(frames) * each
        print(
            f"taken in, {each:2} in a frame   {spent / len(frames) / each * 1e6:6.2f} us a message"
        )
    await stop(tasks, connection)


async def stop(tasks: Sequence[asyncio.Future[None]], *connections: Connection) -> None:
    """Close connections, and wait for what ran on them."""
    for connection in connections:
        connection.close("measured")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def store(path: Path, server: psutil.Process, channels: int, each: int) -> None:
    """Measure messages stored: so many channels, so many messages to each in a turn."""
    connection = await connect(path, lambda *_: None)
    loop = asyncio.get_running_loop()
    flusher = Flusher(SCRIPTS, f"W{channels}.{each}", MonotonicClock(), loop.call_soon_threadsafe)
    runs: list[Awaitable[None]] = [connection.run(), flusher.run(connection)]
    tasks = [asyncio.ensure_future(one) for one in runs]
    logs = [site(f"{channels}.{number}") for number in range(channels)]
    for log in logs:
        await flusher.call(SCRIPTS.open(log, "e"))
    item = Item(DATA)
    theirs = sum(server.cpu_times()[:2])
    begin, ours = time.perf_counter(), time.process_time()
    for _ in range(MESSAGES // (channels * each)):
        for log in logs:
            for _ in range(each):
                last = flusher.append(log, item)
        await last()
    await flusher.drained()
    total = time.perf_counter() - begin
    ours, theirs = time.process_time() - ours, sum(server.cpu_times()[:2]) - theirs
    print(
        f"stored, {channels:3} x {each:3}         {ours / MESSAGES * 1e6:6.2f} us here "
        f"{theirs / MESSAGES * 1e6:6.2f} us in Redis {MESSAGES / total:9,.0f} messages/s"
    )
    await stop(tasks, connection)


async def measure(path: Path, process: int) -> None:
    """Measure all there is."""
    server = psutil.Process(process)
    await receive(path)
    await take_in(path)
    for channels, each in ((64, 1), (8, 8), (1, 64), (1, 1)):
        await store(path, server, channels, each)


def main() -> None:
    """Start a server, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s"
        command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as redis:
            assert redis.stdout is not None
            while "ready to accept connections at" not in redis.stdout.readline():
                pass
            uvloop.run(measure(path, redis.pid))
            redis.kill()


if __name__ == "__main__":
    main()
