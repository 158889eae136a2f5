"""The heartbeat of a worker, by which the other workers know that the worker is alive.

Owns the id of the worker, which is new each time the worker joins the others. Must not know which
channels a worker owns.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from asgi_comet._runtime.clock import Clock
from asgi_comet.brokers.base import Host
from asgi_comet.brokers.redis.calls import Living, fresh
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.mixture import Mixture
from asgi_comet.brokers.redis.probing import Inbox
from asgi_comet.brokers.redis.replies import Beat
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.serving import Beginning
from asgi_comet.brokers.redis.timing import RedisTime
from asgi_comet.errors import BrokerUnavailable

__all__ = ["Heartbeat"]

STILL = 0.7  # lives without a heartbeat, after which a worker delivers nothing


class Heartbeat:
    """Joins a worker to the others, and tells the others that the worker is alive.

    Args:
        scripts: The scripts.
        inbox: Takes the frames for this worker only.
        host: The worker.
        mixture: Warns if the workers declare different names for too long.
        clock: The clock.

    Attributes:
        members: Returns how many members of families the worker owns.
        worker: The id of the worker; `""` until the worker has joined.
        number: The number that the worker had last; `None` until the worker has joined.
        mixed: Whether the workers declare different names: a deployment is under way.
        calm: Whether unused channels may be ended: no heartbeats were missing lately.
        elsewhere: How many members of families the other workers own.
        census: The workers whose heartbeats lasted at the last one of this worker.
        losses: At how many heartbeats of this worker others were no longer alive.
        time: Tells the time of Redis; asked at each heartbeat.
        on_beat: Called after each heartbeat.
        departed: Whether the worker has left the others, because the server stops.
    """

    def __init__(
        self,
        scripts: Scripts,
        inbox: Inbox,
        host: Host,
        mixture: Mixture,
        clock: Clock,
    ) -> None:
        self.members: Callable[[], int] = int
        self.worker: str = ""
        self.number: int | None = None
        self.calm: bool = False
        self.mixed: bool = False
        self.elsewhere: int = 0
        self.census: Living = Living()
        self.losses: int = 0
        self.time: RedisTime = RedisTime()
        self.on_beat: Callable[[], None] = _ignore
        self.departed: bool = False
        self._scripts = scripts
        self._inbox = inbox
        self._host = host
        self._mixture = mixture
        self._clock = clock
        self._sent = -math.inf  # when the last answered heartbeat was sent

    @property
    def fresh(self) -> bool:
        """Whether the other workers surely take this one for alive; they wait for it."""
        return self._clock.now() - self._sent <= STILL * self._host.heartbeat

    @property
    def living(self) -> frozenset[str]:
        """The ids of these workers."""
        return self.census.workers

    async def begin(self, beginning: Beginning) -> None:
        """Send a heartbeat on a new connection, before all other calls that name the worker.

        If Redis has lost its data, the worker joins again under its id. If the other workers have
        taken the worker for dead, the worker joins under another id, and owns no channel any more.
        """
        connection = beginning.connection
        self.time.forget()
        joins = not self.worker
        if joins:
            self.number = None
            self._join()
        while (beat := await self._send(connection, joins=joins)).status != "alive":
            if not (beginning.renewed and beat.status == "missing"):
                self._join()
            joins = True
        connection.subscribe([self._inbox.topic])

    async def beat(self, connection: Connection) -> Beat:
        """Send a heartbeat; end the connection if the other workers do not know the worker."""
        beat = await self._send(connection, joins=False)
        if beat.status != "alive":
            connection.close("the other workers do not know this one")
            raise BrokerUnavailable("the other workers do not know this one")
        return beat

    async def _send(self, connection: Connection, *, joins: bool) -> Beat:
        members, sent = self.members(), self._clock.now()
        connection.send(self.time.ask())
        beat = await connection.send(
            self._scripts.beat(
                self.worker,
                joins=joins,
                life=int(self._host.heartbeat * 1000),
                members=members,
                digest=self._host.digest,
                number=self.number or 0,
            )
        )
        self.calm, self.mixed = beat.calm, beat.mixed
        self._mixture.look(mixed=beat.mixed)
        self.elsewhere = max(beat.members - members, 0)
        if beat.status == "alive":
            self.losses += not self.living <= beat.living
            self._sent, self.census = sent, Living(beat.living, beat.now)
            self.number = beat.number
            self.on_beat()
        return beat

    def _join(self) -> None:
        self.worker = fresh() + fresh()
        self._inbox.topic = self._scripts.keys.inbox(self.worker)

    def depart(self) -> str:
        """Stop the heartbeats, and return the id of the worker."""
        self.departed = True
        worker, self.worker = self.worker, ""
        return worker


def _ignore() -> None:
    """Do nothing."""
