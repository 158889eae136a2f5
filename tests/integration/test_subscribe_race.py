"""Publishing in a tight loop while somebody subscribes: no gap, no duplicate."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable

import pytest

from asgi_comet import SITE, Comet, Settings
from tests.serving import Address

TRIALS = 10_000

MakeServer = Callable[..., tuple[Comet, Address]]


class KeptAlive:
    """One connection with many polls, so that 10,000 of them take seconds."""

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
def test_ten_thousand_subscriptions_while_publishing_show_no_gap_and_no_duplicate(
    make_server: MakeServer,
) -> None:
    comet, server = make_server(settings=Settings(jitter=0, history_size=100_000))
    channel = comet.create(scope=SITE, name="ticker")
    stop = threading.Event()

    def publish() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            offset = channel.publish(n)._offset
            assert offset == n
            if n % 20 == 0:
                stop.wait(0.001)  # lets the server's thread have the interpreter, too

    publisher = threading.Thread(target=publish)
    publisher.start()
    client = KeptAlive(server)
    try:
        for trial in range(TRIALS):  # each has two seams: after `now`, and after a resumed poll
            (where,) = client.poll("now")
            position = str(where["position"])
            first = int(position.partition(".")[2])
            seen: list[object] = []
            for _ in range(2):
                for event in client.poll(position):
                    position = str(event["position"])
                    seen.append(event["data"])
            assert seen == list(range(first + 1, first + 1 + len(seen))), trial
            assert seen
    finally:
        stop.set()
        publisher.join()
        client.close()
