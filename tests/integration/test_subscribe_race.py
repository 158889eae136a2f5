"""Publishing in a tight loop while somebody subscribes: no gap, no duplicate."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from asgi_comet import SITE, Comet, Settings
from asgi_comet.testing._inspect import feed_of
from tests.kit.serving import Address
from tests.kit.workers import Workers

TRIALS = 4_000
CLIENTS = 4  # at once: one alone mostly waits for the next message

MakeServer = Callable[..., tuple[Comet, Address]]


class KeptAlive:
    """One connection with many polls, so that 4,000 trials take seconds."""

    def __init__(self, address: Address) -> None:
        self._socket = address.connect()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")

    def poll(self, start: str) -> list[dict[str, object]]:
        body = json.dumps({"channels": {"ticker": start}}).encode()
        self._socket.sendall(
            b"POST /comet/poll HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        length = 0
        while (line := self._stream.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        found: list[dict[str, object]] = json.loads(self._stream.read(length))["events"]
        return found

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


@pytest.mark.slow
def test_thousands_of_subscriptions_while_publishing_show_no_gap_and_no_duplicate(
    workers: Workers, make_server: MakeServer
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=100_000))
    channel = comet.create(scope=SITE, name="ticker")
    stop = threading.Event()

    def publish() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            channel.publish(n)
            assert workers.count > 1 or feed_of(channel).history.top == n
            if n % 20 == 0:
                stop.wait(0.001)  # lets the server's thread have the interpreter, too

    def subscribe(trials: int) -> None:
        client = KeptAlive(server)
        try:
            for trial in range(trials):  # each has two seams: after `now`, and after a resumed poll
                where, *more = client.poll("now")
                first = int(str(where["position"]).partition(".")[2])
                seen: list[object] = [event["data"] for event in more]  # written meanwhile
                position = str([where, *more][-1]["position"])
                for _ in range(2):
                    for event in client.poll(position):
                        position = str(event["position"])
                        seen.append(event["data"])
                assert "data" not in where
                assert seen == list(range(first + 1, first + 1 + len(seen))), trial
                assert seen
        finally:
            client.close()

    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(subscribe, [TRIALS // CLIENTS] * CLIENTS))  # raises what one has raised
    finally:
        stop.set()
        publisher.join()
