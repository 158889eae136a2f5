"""The parts of a broker on Redis for one worker, and how they are joined.

Owns the order in which the parts start on a new connection, and which part takes a frame. Must not
know the form of commands and replies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Broker, Host
from asgi_comet.brokers.redis.address import Address
from asgi_comet.brokers.redis.appends import Append
from asgi_comet.brokers.redis.calls import fresh
from asgi_comet.brokers.redis.caretaker import Caretaker
from asgi_comet.brokers.redis.flusher import Flusher
from asgi_comet.brokers.redis.following import Following
from asgi_comet.brokers.redis.heartbeat import Heartbeat
from asgi_comet.brokers.redis.holding import Holding
from asgi_comet.brokers.redis.mixture import Mixture
from asgi_comet.brokers.redis.naming import Naming
from asgi_comet.brokers.redis.notices import Notices
from asgi_comet.brokers.redis.own import OwnChannels
from asgi_comet.brokers.redis.ownership import Ownership
from asgi_comet.brokers.redis.people import Parts, RedisPeople
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.probing import Inbox, Probe
from asgi_comet.brokers.redis.questions import Questions
from asgi_comet.brokers.redis.queueing import Limits
from asgi_comet.brokers.redis.reading import Reading
from asgi_comet.brokers.redis.replies import Refused
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Serving
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Assembly", "Given"]


@dataclass(frozen=True, slots=True)
class Given:
    """The figures of an operator, and the parts that last as long as the broker.

    Attributes:
        address: The address of Redis.
        scripts: The scripts of channels.
        limits: The bounds of the queue.
        history_lives: How many milliseconds messages stay after the newest one; `None` is as long
            as the channel.
        window_bytes: How many bytes of messages a worker keeps of all followed channels together.
        notices: The log lines.
        clock: The clock.
    """

    address: Address
    scripts: Scripts
    limits: Limits
    history_lives: int | None
    window_bytes: int
    notices: Notices
    clock: Clock


class Assembly:
    """The parts of a broker. Call in the loop's thread.

    Args:
        broker: The broker; tells whether the server stops.
        host: The worker.
        given: The figures, and the lasting parts.
        serving: The connection.
        inbox: Takes the frames for this worker.

    Attributes:
        flusher: Stores messages.
        holding: The channels that are opened again.
        following: The windows on channels of the site.
        reading: Reads messages that no window holds.
        heartbeat: The heartbeat.
        ownership: The sources that this worker reads.
        naming: Makes and finds channels.
        own: The own channels of client processes.
        caretaker: Ends what no worker uses.
        questions: The questions to all workers.
        people: The sharing of sessions and client processes.
    """

    def __init__(
        self, broker: Broker, host: Host, given: Given, serving: Serving, inbox: Inbox
    ) -> None:
        self._broker = broker
        self._host = host
        self._given = given
        self._serving = serving
        self._inbox = inbox
        self._keys = given.scripts.keys
        self._make_channels()
        self._make_owners()
        self._make_people()
        serving.on_frame = self._take_frame

    def _make_channels(self) -> None:
        host, serving, given = self._host, self._serving, self._given
        scripts, clock = given.scripts, given.clock
        self.flusher: Flusher = Flusher(
            scripts, fresh() + fresh(), clock, host.run_soon, self._refuse, given.limits
        )
        self.flusher.patience.on_lost = self._report_lost
        self.flusher.patience.trouble = lambda: serving.trouble
        self.holding: Holding = Holding(host, scripts, serving, self.flusher, clock)
        self.following: Following = Following(
            host, scripts, serving, self.holding, clock, given.window_bytes
        )
        self.reading: Reading = Reading(scripts, serving, self.holding, self.following)

    def _make_owners(self) -> None:
        host, serving, given = self._host, self._serving, self._given
        scripts, clock = given.scripts, given.clock
        mixture = Mixture(given.address, self._keys.prefix, clock.now)
        self.heartbeat: Heartbeat = Heartbeat(scripts, self._inbox, host, mixture, clock)
        send = partial(self.flusher.call, again=True)
        self.ownership: Ownership = Ownership(self._broker, self.heartbeat, send, scripts, clock)
        self.heartbeat.members = self.ownership.members
        self.following.on_moved = self.ownership.confirm
        self.naming: Naming = Naming(
            scripts, serving, self.flusher, self.holding, self.ownership, given.history_lives
        )
        self.caretaker: Caretaker = Caretaker(
            host, scripts, clock, self.heartbeat, self.ownership, self.following
        )
        self.questions: Questions = Questions(self._keys.questions, serving, self._inbox, host)

    def _make_people(self) -> None:
        host, serving, given = self._host, self._serving, self._given
        scripts, clock = given.scripts, given.clock
        timeout = int(host.limits.timeout * 1000)
        people = PeopleScripts(self._keys, scripts.durable, timeout, host.limits.of_session)
        self.own: OwnChannels = OwnChannels(host, scripts, people, serving, clock)
        self.own.join(self.following, self.holding, self.naming, self.ownership, self.heartbeat)
        self.own.take_from(self._inbox)
        parts = Parts(
            host=host,
            scripts=scripts,
            people=people,
            serving=serving,
            flusher=self.flusher,
            heartbeat=self.heartbeat,
            inbox=self._inbox,
            clock=clock,
        )
        self.people: RedisPeople = RedisPeople(parts, self.own)

    def plan(self, probe: Probe) -> None:
        """List the steps and tasks of each connection."""
        serving, queue, people = self._serving, self.flusher.run, self.people
        if self._broker.only_publishes:
            serving.before, serving.tasks, serving.after = [self.holding.announce], [queue], []
            return
        serving.before = [*people.first, self.heartbeat.begin, *people.before]
        serving.before.append(self.holding.announce)
        serving.tasks = [queue, self.holding.orphans.run, probe.run, self.following.watch]
        serving.tasks += [self.caretaker.run, self.caretaker.evict, *people.tasks]
        serving.tasks += [self.own.run, self.own.claims.readings.run]
        serving.after = [self.following.begin, self.ownership.begin, self.own.claims.begin]
        serving.after += [self.own.marks.resume, self.questions.begin, *people.after]

    def _refuse(self, appends: Sequence[Append], refused: Refused) -> None:
        if refused.why == "fenced":
            self.ownership.fenced(appends[0].log.keys.name, appends[0].fence)
        self.holding.refuse(appends, refused)

    def _report_lost(self, appends: Sequence[Append], error: BrokerUnavailable) -> None:
        counts = Counter(append.log.keys.shown for append in appends)
        for name, count in counts.items():
            self._given.notices.lost(name, count, error)
        if not self._broker.draining:
            self._tell_loss({append.log.keys.name for append in appends if append.patient})

    def _tell_loss(self, names: Iterable[str]) -> None:
        """Tell the readers of channels `full`: Redis may not have stored values of the sources."""
        for name in names:
            bid = self.ownership.bids.get(name)
            if bid is not None:
                self.ownership.renew(bid.window)

    def _take_frame(self, topic: bytes, frame: bytes) -> None:
        if not self._may_deliver(topic, frame):
            return
        if topic == self._keys.everyone.encode():
            self.people.control.take(frame)
        elif topic == self._inbox.topic.encode():
            self._inbox.take(frame)
        elif topic == self.questions.topic.encode():
            self.questions.take(frame)
        elif frame.startswith(b"f"):
            self.ownership.take(frame)
        else:
            self.following.take(topic, frame)

    def _may_deliver(self, topic: bytes, frame: bytes) -> bool:
        """End a connection whose frames come too late for what needs a right."""
        connection = self._serving.connection
        shared = topic in (self._inbox.topic.encode(), self._keys.everyone.encode())
        if not shared and not self.following.needs_right(topic):
            return True
        if self.heartbeat.fresh or connection is None or frame.startswith(b"p"):
            return True
        connection.close("this worker stood still for too long")
        return False
