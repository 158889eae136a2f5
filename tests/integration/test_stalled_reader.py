"""Readers that take nothing: what is kept for them is bounded, and nobody else waits for them.

The server's clock is turned by hand, so the ten seconds of `Settings.send_timeout` pass at once,
and not before everybody else has everything.
"""

from __future__ import annotations

import signal

import psutil
import pytest

from benchmarks.servers import raise_open_files
from tests.kit.crowd import EVENTS, SMALL, WEBSOCKET, Crowd, Reader, Way
from tests.kit.servers import (
    GRANIAN,
    HYPERCORN,
    NO_GRACE_ON_ASYNCIO,
    STOPPED,
    UVICORN,
    Kind,
    Running,
    Stream,
    running,
)
from tests.kit.workers import own_workers

pytestmark = own_workers("server programs whose memory it measures")

SIZE = 10 * 1024
COUNT = 1000
ROUND = 100  # messages at once
MIB = 1024 * 1024
KEPT = COUNT * SIZE + 24 * MIB  # the history, and what the others cost
GRACE = {
    "uvicorn": ("--timeout-graceful-shutdown", "1"),
    "hypercorn": ("--graceful-timeout", "1"),
    "granian": ("--workers-kill-timeout", "1"),
}
ENVIRON = {"MANUAL_CLOCK": "1", "COMET_HISTORY_BYTES": str(2 * COUNT * SIZE)}
TRIO = HYPERCORN[2]


def with_grace(kind: Kind) -> Kind:
    return Kind(kind.server, (*kind.options, *GRACE[kind.server]))


def ends(kind: Kind, way: Way) -> bool:
    """Tell whether the server stops although a reader stalls."""
    if kind is HYPERCORN[0] and NO_GRACE_ON_ASYNCIO:
        return False
    return kind not in HYPERCORN or way is not WEBSOCKET


def rss(server: Running) -> int:
    found: int = psutil.Process(server.get("/pid")).memory_info().rss
    return found


def publish_all(server: Running, crowd: Crowd, count: int = COUNT) -> None:
    """Publish more than a connection has room for; everybody else has it at once."""
    for number in range(0, count, ROUND):
        server.publish(ROUND, SIZE)
        crowd.read(number + ROUND)


def expire(server: Running, listeners: int, stalled: int) -> None:
    """Let the time pass that a reader has, and no more."""
    server.get("/advance?seconds=9.9")
    assert server.get("/listeners") == listeners
    server.get("/advance?seconds=0.3")
    server.until(listeners - stalled)


def follow(server: Running, last: str) -> Stream:
    """Come back as a browser does."""
    stream = Stream(server, Last_Event_ID=last)
    stream.head()
    assert stream.event()["event"] == ":open"
    return stream


# Every server that is not `TRIO`, and each family both ways. Uvicorn's `http` writes events and its
# `ws` messages, each with a flow control of its own; of the others it is the family's.
PAIRS = [
    *((kind, way) for kind in UVICORN for way in (EVENTS, WEBSOCKET)),
    (HYPERCORN[0], EVENTS),
    (HYPERCORN[1], WEBSOCKET),
    (GRANIAN[0], WEBSOCKET),
    (GRANIAN[1], EVENTS),
]


def name(value: Kind | Way) -> str:
    return value.id


@pytest.mark.parametrize(("kind", "way"), PAIRS, ids=name)
def test_what_is_kept_for_a_stalled_reader_is_bounded_and_forgotten(kind: Kind, way: Way) -> None:
    others, stalled = 2, 20
    with running(with_grace(kind), **ENVIRON) as server:
        readers = [Reader(server, way, SMALL) for _ in range(stalled)]
        crowd = Crowd(server, way, others)
        server.until(others + stalled)
        before = rss(server)
        publish_all(server, crowd)
        # Not queued: that would be 10 MiB for each, less the 2 to 4 MiB that the system takes.
        each = 2.5 * MIB if kind in GRANIAN else MIB + 64 * 1024
        assert rss(server) - before < KEPT + stalled * each
        expire(server, others + stalled, stalled)
        server.publish()
        crowd.read(COUNT + 1)
        if not (kind in GRANIAN and way is WEBSOCKET):  # it may leave it open for ever
            readers[0].read_to_the_end()
            assert 0 < readers[0].offset < COUNT
        if ends(kind, way):
            server.stop(within=1 + STOPPED)


@pytest.mark.parametrize("kind", [UVICORN[1], HYPERCORN[0]], ids=name)
def test_many_small_messages_of_several_channels_are_no_more_for_a_stalled_reader(
    kind: Kind,
) -> None:
    """What is around each of them is many times as long: 8 MiB in all, of which 256 KiB wait.

    Granian keeps up to 3 MiB of its own for each reader, which would hide a fault of ours.
    """
    small, stalled = 60_000, 20
    path = "/comet/events?channel=held0&channel=held1" + f"&position=last:{small}" * 2
    with running(with_grace(kind), **ENVIRON, COMET_HISTORY_SIZE=str(small)) as server:
        for channel in ("held0", "held1"):
            server.get(f"/publish?count={small}&channel={channel}")
        before = rss(server)
        readers = [Stream(server, path, buffer=SMALL) for _ in range(stalled)]
        server.until(stalled)
        other = Stream(server, path)  # the others wait by the time that it has all
        other.head()
        left = 1 + 2 * small
        while left > 0:
            left -= other.chunk().count(b"\nid: ")
        assert rss(server) - before < 4 * MIB + stalled * (MIB + 64 * 1024)
        expire(server, stalled + 1, stalled)
        for reader in readers:
            reader.leave()


@pytest.mark.parametrize("way", [EVENTS, WEBSOCKET], ids=name)
def test_hypercorn_on_trio_forgets_a_stalled_reader_as_well(way: Way) -> None:
    """Its `send` is shielded from being called off, so only the task waits on."""
    with running(TRIO, **ENVIRON) as server:
        reader = Reader(server, way, SMALL)
        crowd = Crowd(server, way, 2)
        server.until(3)
        publish_all(server, crowd)
        server.get("/advance?seconds=10.2")
        server.publish()
        crowd.read(COUNT + 1)
        server.until(2)
        reader.socket.close()
        server.publish()
        crowd.read(COUNT + 2)
        assert server.get("/listeners") == 2


def test_a_thousand_listeners_do_not_notice_the_one_that_stalls() -> None:
    count = 600  # a thousand times 6 MiB; the system takes 2 to 4 of them
    raise_open_files(3 * 1000)
    with running(with_grace(UVICORN[1]), **ENVIRON) as server:
        stalled = Stream(server, buffer=SMALL)
        crowd = Crowd(server, EVENTS, 999)
        server.until(1000)
        before = rss(server)
        publish_all(server, crowd, count)
        # For a moment each of the thousand may have an unfinished send.
        assert rss(server) - before < KEPT + 1000 * (256 + 64) * 1024
        expire(server, 1000, 1)
        crowd.leave()
        server.until(0)
        stalled.head()
        found = stalled.all_events()
        assert not stalled.ended
        last, seen = found[-1]["id"], len(found) - 1
        assert [event["event"] for event in found] == [":open"] + ["held0"] * seen
        assert last.endswith(f".{seen}")
        assert 0 < seen < count
        again = follow(server, last)
        offsets = [int(again.event()["id"].partition(".")[2]) for _ in range(count - seen)]
        assert offsets == list(range(seen + 1, count + 1))
        server.publish(COUNT)
        late = Stream(server, Last_Event_ID=last)  # the next it needs is not held any more
        late.head()
        assert [late.event()["event"] for _ in range(2)] == [":open", ":full"]


def test_a_stop_signal_does_not_wait_for_the_limit_of_a_stalled_reader() -> None:
    """Without `--timeout-graceful-shutdown`: that uvicorn itself waits for it is another matter."""
    with running(UVICORN[0]) as server:
        reader = Reader(server, EVENTS, SMALL)
        crowd = Crowd(server, EVENTS, 1)
        server.until(2)
        publish_all(server, crowd)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("returned without completing response", within=STOPPED)
        reader.socket.close()
        server.ended(within=STOPPED)
