"""A proxy that harms the connections through it, again and again: cuts, delays, swallows, resets.

One thread counts the beats; every so many of them a fault befalls all connections there are, each
in its turn. Bytes that were swallowed never come, so a connection is reset after it.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from tests.kit.faults import Proxy
from tests.kit.serving import Address
from tests.kit.streams import LINGER, reset

BEAT = 0.01  # seconds
BEATS = 20  # between two faults

FAULTS = ("cut", "delay", "reset", "swallow")


class Link:
    """A connection from a client and the one to the server; bytes pass both ways."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = client, server
        self._flowing = threading.Event()
        self._flowing.set()
        self._cutting = self._swallows = False
        self.broken = False
        self._left = 2
        self._lock = threading.Lock()
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    @property
    def over(self) -> bool:
        return self._left == 0

    def cut(self) -> None:
        """End it in the middle of what the server says next.

        A browser repeats a request by itself if the connection ends before the answer begins.
        """
        self._cutting = True

    def end(self) -> None:
        """End it politely."""
        self.broken = True
        self._flowing.set()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def delay(self) -> None:
        """Hold what comes, for a while."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let what was held come through."""
        self._flowing.set()

    def swallow(self) -> None:
        """Let nothing through from now on, and look alive."""
        self._swallows = True

    def reset(self) -> None:
        """End it with a reset, which the other sides read as an error."""
        self.broken = True
        self._flowing.set()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
                end.shutdown(socket.SHUT_RD)  # says nothing to the other side, but wakes our thread

    def heal(self) -> None:
        """End what a fault began; where bytes are missing, all ends."""
        self.flow()
        if self._cutting:
            self.end()
        if self._swallows:
            self.reset()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                self._flowing.wait()
                if self._cutting and one is self._ends[1]:
                    other.sendall(data[: len(data) // 2])
                    break
                if not self._swallows:
                    other.sendall(data)
        if not self.broken:
            self.end()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            for end in self._ends:
                end.close()


class FaultyProxy(Proxy):
    """Passes bytes on; while the faults last, every 200 ms another one befalls all connections.

    Args:
        upstream: The server.

    Attributes:
        befell: How many connections each fault has met.
    """

    def __init__(self, upstream: Address) -> None:
        super().__init__(upstream)
        self.befell: Counter[str] = Counter()
        self._links: list[Link] = []
        self._lock = threading.Lock()

    def enough(self) -> bool:
        """Tell whether each fault has met a connection twice."""
        return min(self.befell[fault] for fault in FAULTS) >= 2

    def accept(self, client: socket.socket) -> None:
        try:
            server = self.upstream.connect()
        except OSError:
            reset(client)
            return
        for end in (client, server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._links.append(Link(client, server))

    def closed(self) -> None:
        self._all(Link.reset)

    def _strike(self, fault: str) -> bool:
        """Have a fault befall all connections; tell whether there was any."""
        with self._lock:
            links = self._links = [link for link in self._links if not link.over]
        for link in links:
            link.heal()
        whole = [link for link in links if not link.broken]
        for link in whole:
            getattr(link, fault)()
        self.befell[fault] += len(whole)
        return bool(whole)

    def _all(self, act: Callable[[Link], object]) -> None:
        with self._lock:
            for link in self._links:
                act(link)

    def swallow(self) -> None:
        """Let nothing more through on the connections there are."""
        self._all(Link.swallow)

    @contextlib.contextmanager
    def faults(self, beat: Callable[[], object]) -> Iterator[None]:
        """Do harm while the context lasts.

        Args:
            beat: Called every 10 ms, in the thread that does the harm.
        """
        stop, wrong = threading.Event(), list[BaseException]()

        def run() -> None:
            try:
                coming = itertools.cycle(FAULTS)
                fault = next(coming)
                for count in itertools.count(1):
                    if stop.wait(BEAT):
                        return
                    beat()
                    if count % BEATS == BEATS // 2:
                        self._all(Link.flow)
                    if count % BEATS == 0 and self._strike(fault):
                        fault = next(coming)
            except BaseException as error:
                wrong.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)
            self._all(Link.heal)
            assert not wrong, wrong
