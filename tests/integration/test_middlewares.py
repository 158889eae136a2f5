"""Middlewares that people have around us, on uvicorn: nothing is kept back, and nobody overlooked.

`added` is around `CometMiddleware`, `mounted` around `app.mount("/comet", comet.app)`.
"""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.kit.crowd import SMALL
from tests.kit.servers import (
    NOTICED,
    STOPPED,
    UVICORN,
    Running,
    Stream,
    raw_request,
    raw_websocket,
    reset,
    running,
)
from tests.kit.serving import COMET, Answer, Held
from tests.kit.workers import own_workers
from tests.kit.wrapped import NAMES

pytestmark = own_workers("each server program with each middleware")

OPEN = 3

VARIANTS = [f"{name}.{how}" for name in NAMES for how in ("added", "mounted")]
COUNT, SIZE = 800, 10 * 1024  # more than a connection has room for
JSON = "application/json"


@pytest.fixture(scope="module", params=UVICORN, ids=lambda kind: kind.options[1])
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with running(request.param, "tests.kit.wrapped:app") as server:
        yield server


@pytest.fixture(scope="module")
def stalling() -> Iterator[Running]:
    """One where a reader has not ten seconds but half of one."""
    environ = {"COMET_SEND_TIMEOUT": "0.5", "COMET_HISTORY_BYTES": str(2 * COUNT * SIZE)}
    with running(UVICORN[1], "tests.kit.wrapped:app", **environ) as server:
        yield server


every_variant = pytest.mark.parametrize("variant", VARIANTS)


def post(server: Running, path: str, body: str, kind: str) -> Answer:
    headers = {"Content-Type": kind, "Accept-Encoding": "gzip"}
    answer = server.address.request("POST", path, body, headers)
    assert answer.status == 200, answer
    if answer.headers.get("content-encoding") == "gzip":
        answer.body = gzip.decompress(answer.body)
    return answer


def poll(server: Running, variant: str, start: str) -> Answer:
    body = json.dumps({"channels": {"held0": start}})
    return post(server, f"/{variant}/comet/poll", body, JSON)


def position(server: Running, variant: str) -> str:
    (there,) = json.loads(poll(server, variant, "now").body)["events"]
    found: str = there["position"]
    return found


def events(server: Running, variant: str) -> Stream:
    path = f"/{variant}/comet/events?channel=held0"
    return Stream(server, path, Accept_Encoding="gzip", Origin=f"http://{server.host}")


@every_variant
def test_events_come_one_by_one_while_the_stream_stays_open(server: Running, variant: str) -> None:
    stream = events(server, variant)
    head = stream.head()
    assert head.startswith("http/1.1 200")
    assert "content-encoding" not in head
    name = variant.partition(".")[0]
    assert ("x-pure: 1" in head) == (name in ("pure", "all"))
    assert ("x-http: 1" in head) == (name in ("http", "all"))
    assert ("access-control-allow-origin: " in head) == (name in ("cors", "all"))
    assert stream.event()["event"] == ":open"
    for number in range(5):
        server.publish(size=number + 1, channel=variant)
        assert stream.event()["data"] == '"' + "0".ljust(number + 1, "x") + '"'
    stream.leave()
    server.until(0, variant)


@every_variant
def test_a_poll_is_answered_with_what_is_published(server: Running, variant: str) -> None:
    after = position(server, variant)
    held = Held(lambda: poll(server, variant, after))
    server.until(1, variant)
    server.publish(3, channel=variant)
    answer = held.answer()
    (first, *_) = json.loads(answer.body)["events"]
    assert first["data"] == "0"
    packed = answer.headers.get("content-encoding") == "gzip"
    assert packed == (variant.partition(".")[0] in ("gzip", "all"))


@every_variant
def test_a_registration_is_answered_with_what_is_published(server: Running, variant: str) -> None:
    path = f"/{variant}/" if "added" in variant else f"/{variant}/comet/"
    held = Held(lambda: post(server, path, "registration=held0", COMET))
    server.until(1, variant)
    server.publish(channel=variant)
    assert held.answer().body == b"held0:0"


def _events(server: Running, variant: str) -> socket.socket:
    return events(server, variant).socket


def _poll(server: Running, variant: str) -> socket.socket:
    body = json.dumps({"channels": {"held0": position(server, variant)}})
    return raw_request(server, JSON, f"/{variant}/comet/poll", body)


def _registration(server: Running, variant: str) -> socket.socket:
    path = f"/{variant}/" if "added" in variant else f"/{variant}/comet/"
    return raw_request(server, COMET, path, "registration=held0")


def _websocket(server: Running, variant: str) -> socket.socket:
    return raw_websocket(server, path=f"/{variant}/comet/socket")


@every_variant
@pytest.mark.parametrize("cut", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("connect", [_events, _poll, _registration, _websocket])
def test_a_client_that_leaves_is_noticed_while_nothing_is_published(
    server: Running, variant: str, connect: Callable[[Running, str], socket.socket], cut: bool
) -> None:
    connections = [connect(server, variant) for _ in range(OPEN)]
    server.until(OPEN, variant)
    for connection in connections:
        if cut:
            reset(connection)
        connection.close()
    server.until(0, variant, within=NOTICED)


def test_a_stop_signal_ends_everything_in_order(server: Running) -> None:
    """The last one of its server."""
    streams = [events(server, variant) for variant in VARIANTS]
    for stream in streams:
        stream.head()
        stream.event()
    afters = [(variant, position(server, variant)) for variant in VARIANTS]
    held = [Held(lambda v=v, a=a: poll(server, v, a)) for v, a in afters]  # type: ignore[misc]
    for variant in VARIANTS:
        server.until(2, variant)
    log = server.stop(within=STOPPED)
    for stream in streams:
        while stream.chunk():
            pass
        assert stream.ended
    assert {one.answer().body for one in held} == {b'{"events":[]}'}
    assert "Traceback" not in log


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_that_stalls_is_forgotten_and_comes_back(stalling: Running, name: str) -> None:
    variant = f"{name}.added"
    stalled = Stream(stalling, f"/{variant}/comet/events?channel=held0", buffer=SMALL)
    stalling.until(1, variant)
    stalling.publish(COUNT, SIZE, variant)
    stalling.until(0, variant)
    stalled.head()
    found = stalled.all_events()
    # A `BaseHTTPMiddleware` writes the end of the body whatever we do.
    assert stalled.ended == (name in ("http", "all"))
    assert 0 < len(found) - 1 < COUNT
    again = Stream(
        stalling, f"/{variant}/comet/events?channel=held0", Last_Event_ID=found[-1]["id"]
    )
    again.head()
    assert again.event()["event"] == ":open"
    missing = [again.event()["data"][1:5].rstrip("x") for _ in range(len(found) - 1, COUNT)]
    assert missing == [str(number) for number in range(len(found) - 1, COUNT)]
    again.leave()
    stalling.until(0, variant)
