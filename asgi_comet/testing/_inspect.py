"""Access to internals for the package's own tests. Private; changes without notice.

Owns the only accesses to private attributes from outside their objects: state that a test cannot
see through public behaviour, such as tables that must be empty again, and the steps between which a
test runs another thread.
"""

from __future__ import annotations

import queue
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import anyio

from asgi_comet._runtime.timers import Timers
from asgi_comet.app import CometApp
from asgi_comet.brokers import unserved
from asgi_comet.channels.channels import Channel
from asgi_comet.channels.chunks import Place
from asgi_comet.channels.delivery import Delivery
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.channels.outcomes import Outcome, Outcomes
from asgi_comet.comet import Comet
from asgi_comet.core.runs import Chunk
from asgi_comet.declare import restarting
from asgi_comet.declare.declarations import Declarations
from asgi_comet.declare.declared import Declaration, DeclaredChannel
from asgi_comet.declare.restarting import Restarting, Silent
from asgi_comet.identity import users
from asgi_comet.identity.copies import Copies
from asgi_comet.identity.process import Client, ClientProcess, Session
from asgi_comet.identity.process import client_of as _client_of
from asgi_comet.identity.tokens import Identity
from asgi_comet.lifespan import Lifespan
from asgi_comet.middleware import CometMiddleware
from asgi_comet.node.build import Node
from asgi_comet.notify.errands import SharedQueue
from asgi_comet.notify.queue import Line, Queue
from asgi_comet.notify.subscriptions import LocalQueue
from asgi_comet.publishing.link import Link
from asgi_comet.publishing.outlet import forget
from asgi_comet.testing._inspect_notifiers import notifiers, tables_of
from asgi_comet.testing.clock import ManualClock
from asgi_comet.testing.joined import JoinedBroker
from asgi_comet.workers.siblings import Policy

ANSWERED = 20.0  # seconds until a question to all workers has failed

# Entries of `tables` that may remain: bounded caches, and channels that are counted elsewhere.
STAYING = {"known sessions", "known processes"}


class Seam(NamedTuple):
    """A private function that a test calls or replaces: `monkeypatch.setattr(*SEAM, other)`.

    Attributes:
        owner: The class or module of the function.
        name: The name of the function.
    """

    owner: Any
    name: str

    @property
    def function(self) -> Callable[..., Any]:
        """The current function; a method takes the object as first argument."""
        found: Callable[..., Any] = getattr(self.owner, self.name)
        return found


CHOOSE_PAUSE = Seam(restarting, "_choose_pause")
END_CONNECTIONS = Seam(users, "_end_connections")
HAND_OUT_ALL = Seam(Queue, "_drain")
HAND_OUT_JOB = Seam(LocalQueue, "_hand_out")
NEXT_JOB = Seam(Line, "take")
RUN_MEMBER = Seam(Declarations, "_run")
START_SITE = Seam(Declarations, "_start_site")
WAIT_FOR_STORE = Seam(SharedQueue, "_pause")
WARN_AT_EXIT = Seam(unserved, "_warn")


def inside(comet: Comet) -> Node:
    """Return the parts of a `Comet`."""
    return comet._node


def app_of(comet: Comet) -> CometApp:
    """Return the application that serves what is below PREFIX."""
    return comet._app


def comet_of(app: CometApp | CometMiddleware) -> Comet:
    """Return the `Comet` that an application serves."""
    found = app.of() if isinstance(app, CometApp) else app._comet
    assert isinstance(found, Comet)  # noqa: S101 - as long as it serves
    return found


def lifespan_of(comet: Comet) -> Lifespan:
    """Return the running time of a `Comet`."""
    return comet._lifespan


# Tables


def tables(comet: Comet) -> dict[str, int]:
    """Return the size of every table of a `Comet` that grows with clients or channels."""
    node = comet._node
    processes, channels, identity = node.clients, node.channels, node.requests.identity
    return {
        "sessions": processes.known,
        "processes": len(processes),
        "users": len(processes._users),
        "logins": len(processes._kept),
        "former ids": len(processes._former),
        "registered bytes": processes._registered,
        "known sessions": len(identity._known_sessions),
        "known processes": len(identity._known_processes),
        "channels": len(channels),
        "sources": len(channels._sources),
        "expected": len(channels.site.directory._expected),
        "members": len(node.declarations.shares),
        "listeners": len(node.fanout.listeners),
        "marked": len(node.fanout._marked),
        "ending": len(node.fanout._ending),
        "timers": sum(map(len, list(node.timers._buckets.values()))),  # from any thread
        "jobs": len(node.background),
        "bodies": len(node.drain.reading),
        "readers": sum(len(feed.listeners) for feed in channels.site.directory.feeds()),
        **_shared_tables(comet),
        **_notifier_tables(comet),
    }


def _shared_tables(comet: Comet) -> dict[str, int]:
    copies = comet._node.clients
    if not isinstance(copies, Copies):
        return {}
    return {
        "used copies": len(copies._used),
        "announcements": len(copies._near.announcer),
        "present": len(copies._near.presence),
    }


def left(comet: Comet) -> dict[str, int]:
    """Return the `tables` that should be empty once every client has left, but are not."""
    return {name: size for name, size in tables(comet).items() if size and name not in STAYING}


def _notifier_tables(comet: Comet) -> dict[str, int]:
    found: dict[str, int] = {}
    for notifier in notifiers(comet).values():
        for name, size in tables_of(notifier).items():
            found[name] = found.get(name, 0) + size
    return found


# Channels


def feed_of(channel: Channel[Any]) -> Feed:
    """Return the state of the current incarnation of a channel."""
    return channel._feed


def count_everywhere(channel: Channel[Any]) -> int:
    """Return the listeners of a channel in all workers; in another thread than the loop's."""
    found: queue.SimpleQueue[int] = queue.SimpleQueue()

    async def ask() -> None:
        found.put(await channel.count())

    channel._registry._runtime.background.start(ask)
    return found.get(timeout=ANSWERED)


def point_at(channel: Channel[Any], feed: Feed) -> None:
    """Set the incarnation that a channel holds, as if the channel had not been used since."""
    channel._newest = feed


def encoded(feed: Feed) -> Mapping[Place, Chunk]:
    """Return the cached encoded runs of a feed."""
    return feed.chunks.kept


def encoded_bytes(feed: Feed) -> int:
    """Return the size of the cached encoded runs of a feed, in bytes."""
    return feed.chunks.size


def awaited(feed: Feed) -> int:
    """Return how many outcomes of messages of a feed are awaited."""
    return len(feed.outcomes._awaited)


def answers_sent(outcomes: Outcomes) -> int:
    """Return how many sent answers clients may still acknowledge."""
    return len(outcomes._sent)


def expected(directory: Directory) -> Mapping[str, set[Listener]]:
    """Return the listeners that wait for channels that do not exist yet, by name."""
    return directory._expected


def past_names(directory: Directory) -> list[str]:
    """Return the remembered names of forgotten channels, the oldest first."""
    return list(directory._past)


def members(comet: Comet, declared: DeclaredChannel[Any, Any]) -> list[Restarting | Silent]:
    """Return the live members of a declaration."""
    return list(comet._node.declarations.live.get(declared._declaration, ()))


def live_feeds(comet: Comet, declared: DeclaredChannel[Any, Any]) -> list[Feed]:
    """Return the feeds of the live members of a declaration."""
    return comet._node.declarations.members(declared._declaration)


def waiting_sources(comet: Comet) -> int:
    """Return how many sources are to be read once the application runs."""
    return len(comet._node.declarations._waiting)


def declaration_of(declared: DeclaredChannel[Any, Any]) -> Declaration:
    """Return how a channel was declared."""
    return declared._declaration


# Publishing


def pretend_fork(comet: Comet) -> None:
    """Have a process take itself for a fork of the one that it was until now."""
    outlet = comet._publishing._outlet
    for link in filter(None, [outlet._link]):
        link.stop()
    forget(weakref.ref(outlet))


def link_of(comet: Comet) -> Link:
    """Return the connection of a process that publishes."""
    (link,) = filter(None, [comet.publishing()._outlet._link])
    return link


class Told(NamedTuple):
    """An outcome that the application was told.

    Attributes:
        name: The channel.
        outcome: The outcome.
        early: Whether that was before the deadline.
        lacking: How many connections lacked the message when the application began to wait.
    """

    name: str
    outcome: Outcome
    early: bool
    lacking: int


class WatchedDelivery(Delivery):
    """A delivery of which it is noted what the application is told.

    Args:
        inner: The delivery.
        note: Called with each outcome.
        stops: Returns whether the server stops, which settles all outcomes.
    """

    __slots__ = ("_note", "_stops")

    def __init__(
        self, inner: Delivery, note: Callable[[Told], None], stops: Callable[[], bool]
    ) -> None:
        super().__init__(inner._runtime, inner._feed, inner._offset, 0.0)
        self._deadline = inner._deadline
        self._note = note
        self._stops = stops

    async def _outcome(self) -> Outcome:
        feed, offset = self._feed, self._offset
        cursors = [listener.cursors[feed] for listener in feed.listeners]
        lacking = sum(isinstance(offset, int) and cursor < offset for cursor in cursors)
        outcome = await super()._outcome()
        early = self._runtime.clock.now() < self._deadline and not self._stops()
        self._note(Told(feed.name, outcome, early, lacking))
        return outcome


# Clients


class Known(NamedTuple):
    """The caches of verified signed texts, with their contents.

    Attributes:
        sessions: Cookie values.
        processes: Tokens of client processes.
    """

    sessions: dict[str, tuple[str, float]]
    processes: dict[str, tuple[str, str]]


def known(identity: Identity) -> Known:
    """Return the caches of an identity, not copies."""
    return Known(identity._known_sessions, identity._known_processes)


def replace_known_processes(identity: Identity, table: dict[str, tuple[str, str]]) -> None:
    """Replace the cache of verified tokens of an identity."""
    identity._known_processes = table


def belongs_to(process: ClientProcess, comet: Comet) -> bool:
    """Return whether a client process, open or closed, was opened by a `Comet`."""
    mine = comet._node.clients._household  # pragma: no cover - reached if a process is left over
    return process._household is mine  # pragma: no cover


def logins(comet: Comet) -> list[Session]:
    """Return the sessions logged in by the application that are kept without a process."""
    return list(comet._node.clients._kept)


def client_of(process: ClientProcess) -> Client:
    """Return a client process as the package uses it."""
    return _client_of(process)


def is_closed(comet: Comet, token: str) -> bool:
    """Return whether the client process of a token has closed."""
    id_, broker = process_of(comet, token), comet._node.broker
    if isinstance(broker, JoinedBroker):
        return id_ not in broker.store.town.processes
    found = comet._node.clients.find(id_)
    return found is None or found.closed


def process_of(comet: Comet, token: str) -> str:
    """Return the id of the client process of a token."""
    return comet._node.requests.identity.unsign_process(token) or ""


def expire(comet: Comet) -> None:
    """Expire at once what is due, in the loop's thread."""
    comet._node.timers.expire(sys.maxsize)


def owner_of(feed: Feed) -> str:
    """Return the client process that a channel belongs to; empty for one of the site."""
    return (isinstance(feed.directory, Directory) and feed.directory.owner) or ""


def inactivity_waits(process: ClientProcess) -> int:
    """Return how many wait for a client process to be inactive."""
    return len(client_of(process)._watch or ())


# Time, and the lifespan


def sleepers(clock: ManualClock) -> list[anyio.Event]:
    """Return the events of the tasks that sleep on a clock."""
    return list(clock._sleepers)


def buckets(timers: Timers) -> tuple[set[int], list[int]]:
    """Return the numbers of the buckets of timers, as a set and as the heap."""
    return set(timers._buckets), list(timers._order)


def patience_of(comet: Comet) -> float:
    """Return the seconds that a `Comet` will still wait for sources to close."""
    return comet._lifespan._patience


def policy_of(comet: Comet) -> Policy | None:
    """Return the policy of a `Comet` for other workers."""
    return comet._node.siblings._policy
