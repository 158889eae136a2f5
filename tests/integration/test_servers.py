"""Every transport on every server that docs/servers.md names, each in a process of its own."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import psutil
import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.kit.servers import (
    EVERY,
    GRANIAN,
    HYPERCORN,
    NO_GRACE_ON_ASYNCIO,
    NOTICED,
    STOPPED,
    Kind,
    Running,
    Stream,
    frame_events,
    open_websocket,
    raw_connection,
    raw_request,
    raw_websocket,
    reset,
    running,
)
from tests.kit.serving import COMET, Address, Held, hold_registration, poll
from tests.kit.streams import Cut
from tests.kit.workers import own_workers

pytestmark = own_workers("each server program")

TRIO = HYPERCORN[2]
COUNT = 300
OPEN = 3  # connections of each transport at the stop signal

every_server = pytest.mark.parametrize("server", EVERY, ids=lambda kind: kind.id, indirect=True)


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    """One for all tests that leave it as they found it."""
    with running(request.param) as server:
        yield server


def position(address: Address) -> str:
    (there,) = poll(address, {"held0": "now"})
    found: str = there["position"]
    return found


def hold_poll(address: Address, after: str) -> Held:
    body = json.dumps({"channels": {"held0": after}})
    headers = {"Content-Type": "application/json"}
    return Held(lambda: address.request("POST", "/comet/poll", body, headers))


# What is published comes, in order


@every_server
def test_a_registration_is_held_until_a_message_comes(server: Running) -> None:
    for number in range(5):
        held = hold_registration(server.address, "registration=held0")
        server.until(1)
        server.publish(size=number + 1)
        assert held.answer().pairs == [b"held0:" + b"0".ljust(number + 1, b"x")]
        server.until(0)


@every_server
def test_a_poll_is_held_and_has_every_message_in_order(server: Running) -> None:
    after, seen = position(server.address), []
    for _ in range(5):
        held = hold_poll(server.address, after)
        server.until(1)
        server.publish(COUNT // 5)
        for event in json.loads(held.answer().body)["events"]:
            seen.append(event["data"])
            after = event["position"]
        server.until(0)
        while events := poll(server.address, {"held0": after}, idle=True):
            seen += [event["data"] for event in events]
            after = events[-1]["position"]
    assert seen == [str(number) for number in range(COUNT // 5)] * 5


@every_server
def test_a_stream_of_events_has_every_message_in_order_and_at_once(server: Running) -> None:
    stream = Stream(server)
    head = stream.head()
    assert head.startswith("http/1.1 200")
    assert "content-type: text/event-stream; charset=utf-8" in head
    assert stream.event()["event"] == ":open"
    server.publish()
    first = stream.event()  # comes while the stream stays open
    assert (first["event"], first["data"]) == ("held0", '"0"')
    server.publish(COUNT)
    found = [stream.event() for _ in range(COUNT)]
    assert [event["data"] for event in found] == [f'"{number}"' for number in range(COUNT)]
    epoch, _, offset = first["id"].partition(".")
    ids = [f"{epoch}.{int(offset) + 1 + number}" for number in range(COUNT)]
    assert [event["id"] for event in found] == ids
    stream.leave()
    server.until(0)


@every_server
def test_a_websocket_has_every_message_in_order_and_at_once(server: Running) -> None:
    with open_websocket(server) as opened:
        server.publish()
        (first,) = frame_events(opened)
        assert (first["channel"], first["data"]) == ("held0", "0")
        server.publish(COUNT)
        seen: list[str] = []
        while len(seen) < COUNT:
            seen += [event["data"] for event in frame_events(opened)]
        assert seen == [str(number) for number in range(COUNT)]
        opened.send(json.dumps({"unsubscribe": ["held0"]}))
        server.until(0)


# A client that leaves


def _registration(server: Running) -> socket.socket:
    return raw_request(server, COMET, "/", "registration=held0")


def _poll(server: Running) -> socket.socket:
    body = json.dumps({"channels": {"held0": position(server.address)}})
    return raw_request(server, "application/json", "/comet/poll", body)


def _events(server: Running) -> socket.socket:
    return Stream(server).socket


@every_server
@pytest.mark.parametrize("cut", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("connect", [_registration, _poll, _events, raw_websocket])
def test_a_client_that_leaves_is_noticed_while_nothing_is_published(
    server: Running, connect: Callable[[Running], socket.socket], cut: bool
) -> None:
    connections = [connect(server) for _ in range(OPEN)]
    server.until(OPEN)
    for connection in connections:
        if cut:
            reset(connection)
        connection.close()
    server.until(0, within=NOTICED)


class SecondHttp:
    """A stream of events over HTTP/2, on a connection of its own."""

    def __init__(self, server: Running) -> None:
        self.socket = raw_connection(server)
        self._http = H2Connection()
        self._http.initiate_connection()
        self._http.send_headers(
            1,
            [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", server.host),
                (":path", "/comet/events?channel=held0"),
            ],
            end_stream=True,
        )
        self._flush()

    def cancel(self) -> None:
        """End the stream; the connection stays."""
        self._http.reset_stream(1, ErrorCodes.CANCEL)
        self._flush()

    def _flush(self) -> None:
        self.socket.sendall(self._http.data_to_send())


def _cancel(stream: SecondHttp) -> None:
    stream.cancel()


def _close(stream: SecondHttp) -> None:
    stream.socket.close()


def _reset(stream: SecondHttp) -> None:
    reset(stream.socket)
    stream.socket.close()


@pytest.mark.parametrize("server", HYPERCORN, ids=lambda kind: kind.id, indirect=True)
@pytest.mark.parametrize("leave", [_cancel, _close, _reset])
def test_a_client_that_leaves_over_http_2_is_noticed_while_nothing_is_published(
    server: Running, leave: Callable[[SecondHttp], None]
) -> None:
    streams = [SecondHttp(server) for _ in range(OPEN)]
    server.until(OPEN)
    for stream in streams:
        leave(stream)
    server.until(0, within=NOTICED)


# A stop signal


class Guests:
    """Connections of every transport, and how each of them ends."""

    def __init__(self, server: Running) -> None:
        address, after = server.address, position(server.address)
        self.registrations = [hold_registration(address, "registration=held0") for _ in range(OPEN)]
        self.polls = [hold_poll(address, after) for _ in range(OPEN)]
        self.streams = [Stream(server) for _ in range(OPEN)]
        self.websockets = [open_websocket(server) for _ in range(OPEN)]
        for stream in self.streams:
            stream.head()
            stream.event()
        server.until(4 * OPEN)

    def check_answered(self, *codes: int | None) -> None:
        """As at their time-out, with HTTP's own end of a stream, and one of these close codes."""
        for held in self.registrations:
            assert (held.answer().status, held.answer().body) == (200, b"")
        for held in self.polls:
            assert (held.answer().status, held.answer().body) == (200, b'{"events":[]}')
        for stream in self.streams:
            while stream.chunk():
                pass
            assert stream.ended
        for opened in self.websockets:
            assert self.code(opened) in codes

    def check_cut(self) -> None:
        """Without a word."""
        for held in self.registrations + self.polls:
            with pytest.raises(OSError, match="without response"):
                held.answer()
        for stream in self.streams:
            with pytest.raises(Cut):
                stream.chunk()
        for opened in self.websockets:
            assert self.code(opened) is None

    @staticmethod
    def code(opened: ClientConnection) -> int | None:
        with pytest.raises(ConnectionClosed) as caught:
            opened.recv(timeout=20)
        return None if caught.value.rcvd is None else caught.value.rcvd.code


@pytest.mark.parametrize("kind", [k for k in EVERY if k is not TRIO], ids=lambda kind: kind.id)
def test_a_stop_signal_answers_everybody_and_ends_the_server(kind: Kind) -> None:
    with running(kind) as server:
        guests = Guests(server)
        log = server.stop(within=STOPPED)
        # Now and then granian ends before it has sent what it took: in 2 of 50 runs.
        guests.check_answered(1012, *([None] if kind in GRANIAN else []))
        assert "Traceback" not in log
        # uvicorn ends by the signal, as a program does that has not caught it.
        ended = -signal.SIGTERM if kind.server == "uvicorn" else 0
        assert server.process.returncode == ended


def test_hypercorn_on_trio_is_killed_by_sigterm() -> None:
    with running(TRIO) as server:
        guests = Guests(server)
        server.stop(within=STOPPED)
        guests.check_cut()
        assert server.process.returncode == -signal.SIGTERM


def test_hypercorn_on_trio_answers_everybody_at_sigint() -> None:
    with running(TRIO) as server:
        guests = Guests(server)
        worker = psutil.Process(server.process.pid)
        while worker.status() != psutil.STATUS_SLEEPING:
            pass  # until it waits: trio is not to interrupt a request that has just been answered
        server.process.send_signal(signal.SIGINT)
        guests.check_answered(1012)
        # Trio raises KeyboardInterrupt in whatever runs just then: nothing is said about the log.
        server.ended(within=STOPPED)


endless_on_asyncio = pytest.mark.xfail(
    NO_GRACE_ON_ASYNCIO, raises=subprocess.TimeoutExpired, reason="hypercorn waits for its clients"
)


@pytest.mark.parametrize("loop", [pytest.param("asyncio", marks=endless_on_asyncio), "uvloop"])
def test_a_worker_process_of_hypercorn_hears_no_signal(loop: str) -> None:
    """Nobody can tell a request that it is to end: after the grace it is cancelled."""
    options = ("--workers", "1", "--worker-class", loop, "--graceful-timeout", "1")
    with running(Kind("hypercorn", options)) as server:
        guests = Guests(server)
        server.stop(within=1 + STOPPED)
        assert {held.answer().status for held in guests.registrations + guests.polls} == {500}
        for stream in guests.streams:
            with pytest.raises(Cut):
                stream.chunk()
        assert {guests.code(opened) for opened in guests.websockets} == {1011}
        assert server.process.returncode == 0
