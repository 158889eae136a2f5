"""The own channels of client processes in this worker: the parts, and the frames in the inbox.

Owns to which part a frame goes, and the requests to sources that are read on demand, which are
repeated until the source has answered. Must not know windows, nor how a connection is made.
"""

from __future__ import annotations

from functools import partial
from typing import NoReturn

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.logs import Log as Window
from asgi_comet.brokers.redis.appends import Append
from asgi_comet.brokers.redis.claims import Claims
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.following import Following
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.holding import Holding
from asgi_comet.brokers.redis.keys import ChannelKeys
from asgi_comet.brokers.redis.marks import Marks
from asgi_comet.brokers.redis.naming import Naming
from asgi_comet.brokers.redis.ownership import Bid, Ownership
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.probing import Inbox
from asgi_comet.brokers.redis.readings import Readings
from asgi_comet.brokers.redis.records import keys_of
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Serving
from asgi_comet.brokers.redis.windows import OwnWindows
from asgi_comet.position import Position

__all__ = ["OwnChannels"]

REPEAT = 5.0  # seconds between two requests to a source


class OwnChannels:
    """The own channels of client processes. Call in the loop's thread.

    Args:
        host: The worker.
        scripts: The scripts of channels.
        people: The scripts of client processes.
        serving: The connection.
        clock: The clock.

    Attributes:
        marks: What readers were sent, and have.
    """

    def __init__(
        self, host: Host, scripts: Scripts, people: PeopleScripts, serving: Serving, clock: Clock
    ) -> None:
        self.marks: Marks = Marks(people, host.run_soon)
        self._host = host
        self._scripts = scripts
        self._people = people
        self._serving = serving
        self._clock = clock
        self._wanted: dict[str, Position] = {}  # up to where a reader asks, by channel
        self.claims: Claims

    def join(
        self,
        following: Following,
        holding: Holding,
        naming: Naming,
        ownership: Ownership,
        heartbeat: Heartbeat,
    ) -> None:
        """Join the other parts of the broker."""
        self._following, self._holding, self._ownership = following, holding, ownership
        following.on_own = lambda replica: self.marks.look(replica.log)
        self._windows = OwnWindows(self._host, following, holding, naming, self.marks, ownership)
        readings = Readings(self._host, self._windows, self._clock)
        self.claims = Claims(
            readings, self._people, self._scripts.find, self._serving, self._windows, heartbeat
        )
        following.on_left = readings.forget

    def take_from(self, inbox: Inbox) -> None:
        """Take the frames about own channels from the inbox of the worker."""
        inbox.on[b"m"] = self._take_messages
        inbox.on[b"t"] = self._take_told
        inbox.on[b"c"] = self._take_end
        inbox.on[b"e"] = self._take_epoch
        inbox.on[b"r"] = self.claims.take_replaced
        inbox.on[b"w"] = self._take_wish
        inbox.on[b"k"] = self._take_question
        inbox.on[b"f"] = self._ownership.take

    def _take_messages(self, frame: bytes) -> None:
        _, _, name = frame[: frame.index(b"\n")].split(b" ", 2)
        self._following.take_own(name, frame)

    def _take_told(self, frame: bytes) -> None:
        """Take a message to the channels of a notifier as one frame for each."""
        name, _, rest = frame[1:].partition(b"\n")
        end = rest.index(b":") + 1 + int(rest[: rest.index(b":")])
        row = rest[:end]
        for place in rest[end + 1 :].split(b"\n"):
            process, epoch, offset = place.split(b" ")
            full = b"~%s~%s" % (process, name)
            self._following.take_own(full, b"m%s %s %s\n%s" % (epoch, offset, full, row))

    def _take_end(self, frame: bytes) -> None:
        _, reason, name = frame.split(b" ", 2)
        if not self._following.take_own(name, frame):
            bid = self._ownership.bids.get(name.decode())
            if bid is not None:
                self._holding.close(bid.window, reason.decode())
                self._host.ended(bid.window, reason.decode())

    def _take_epoch(self, frame: bytes) -> None:
        _, _, name = frame.split(b" ", 2)
        if not self._following.take_own(name, frame):
            self.claims.take_made(self._scripts.keys.named(name.decode()))

    def _take_question(self, frame: bytes) -> None:
        replica = self._following.find(frame[1:].decode())
        if replica is not None:
            self.marks.report(replica.log)

    # Sources that are read on demand

    def _take_wish(self, frame: bytes) -> None:
        offset, _, name = frame[1:].partition(b" ")
        bid = self._ownership.bids.get(name.decode())
        # Redis knows the owner before the owner has the reply that the channel is open.
        window = self._holding.opening(name.decode()) if bid is None else bid.window
        if window is not None:
            self._host.wanted(window, int(offset))

    def watch(self, append: Append, window: Window, bid: Bid) -> None:
        """Add a value of a source to the window of this worker, once the value is stored."""
        if bid.log.kind == "U":
            append.on_stored = partial(self._windows.offer, window, bid.log, append.item)

    def want(self, window: Window, offset: int) -> None:
        """Ask the owner of a channel, which may be this worker, for messages up to an offset."""
        keys = keys_of(self._scripts.keys, window)
        replica = self._following.find(keys.name)
        # A window that has still to be filled does not know the epoch.
        upto = Position("" if replica is None or replica.empty else window.epoch, offset)
        if keys.process and replica is not None:
            self._wanted[keys.name] = upto
        self._send(keys, upto)

    def _send(self, keys: ChannelKeys, upto: Position) -> None:
        if self._serving.connection is not None:
            self._serving.connection.send(self._scripts.want(keys, upto))

    async def run(self, connection: Connection) -> NoReturn:
        """Repeat requests that may be lost: the owner may have been without a connection."""
        del connection
        while True:
            await self._clock.sleep_until(self._clock.now() + REPEAT)
            for name, upto in list(self._wanted.items()):
                replica = self._following.find(name)
                if replica is None or not _is_behind(replica.log, upto):
                    del self._wanted[name]
                else:
                    self._send(replica.keys, upto)

    # The end of this worker

    async def end_sources(self) -> None:
        """End the channels whose sources only this worker can read: the server stops."""
        for bid in list(self._ownership.bids.values()):
            if bid.held and bid.once and bid.log.keys.process:
                await self._holding.end(bid.window, "failed")
                self._ownership.ended(bid.window)


def _is_behind(window: Window, upto: Position) -> bool:
    """Return whether a window lacks messages, in the epoch in which they were asked for."""
    return upto.epoch in ("", window.epoch) and window.top < upto.offset
