"""The door to internals for our own tests. Private; it changes without notice.

Owns the only accesses to private attributes from outside of the objects that have them: what a test
cannot see through public behaviour, such as tables that must be empty again, and the steps between
which a test lets another thread come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import anyio

from asgi_comet._runtime.timers import Timers
from asgi_comet.brokers import unserved
from asgi_comet.channels.channels import Channel
from asgi_comet.channels.chunks import Place
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.channels.outcomes import Outcomes
from asgi_comet.comet import Comet
from asgi_comet.core.runs import Rendered
from asgi_comet.declare import restarting
from asgi_comet.declare.declarations import Declarations
from asgi_comet.declare.declared import DeclaredChannel
from asgi_comet.declare.restarting import Restarting, Silent
from asgi_comet.identity import users
from asgi_comet.identity.process import ClientProcess, Session
from asgi_comet.identity.tokens import Identity
from asgi_comet.node.build import Hub
from asgi_comet.notify.notifier import Notifier
from asgi_comet.notify.queue import Line, Queue
from asgi_comet.notify.receipts import Subscription
from asgi_comet.testing.clock import ManualClock
from asgi_comet.workers.siblings import Policy

# Of `tables`: caches, which are bounded and not emptied, and channels that are counted anyway.
STAYING = {"known sessions", "known processes", "lasting"}


class Seam(NamedTuple):
    """A private function that a test calls or replaces: `monkeypatch.setattr(*SEAM, other)`.

    Attributes:
        owner: The class or module that has it.
        name: Its name there.
    """

    owner: Any
    name: str

    @property
    def function(self) -> Callable[..., Any]:
        """The function as it is now; that of a class takes the object first."""
        found: Callable[..., Any] = getattr(self.owner, self.name)
        return found


CHOOSE_PAUSE = Seam(restarting, "_choose_pause")
END_CONNECTIONS = Seam(users, "_end_connections")
FORGET_SUBSCRIPTION = Seam(Notifier, "_forget")
HAND_OUT_ALL = Seam(Queue, "_drain")
HAND_OUT_JOB = Seam(Queue, "_hand_out")
NEXT_JOB = Seam(Line, "take")
RUN_MEMBER = Seam(Declarations, "_run")
START_SITE = Seam(Declarations, "_start_site")
WARN_AT_EXIT = Seam(unserved, "_warn")


def inside(comet: Comet) -> Hub:
    """Return the rooms of a `Comet`."""
    return comet._hub


# Tables


def tables(comet: Comet) -> dict[str, int]:
    """Return the size of every table of a `Comet` that grows with clients or channels."""
    hub = comet._hub
    processes, channels, identity = hub.processes, hub.channels, hub.visits.identity
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
        "lasting": len(channels._lasting),
        "sources": len(channels._sources),
        "expected": len(channels.site.directory._expected),
        "members": len(hub.declarations._shares),
        "listeners": len(hub.fanout.listeners),
        "marked": len(hub.fanout._marked),
        "ending": len(hub.fanout._ending),
        "timers": sum(map(len, list(hub.timers._buckets.values()))),  # from any thread
        "jobs": len(hub.background),
        "bodies": len(hub.drain.reading),
        **_notifier_tables(comet),
    }


def left(comet: Comet) -> dict[str, int]:
    """Return those of `tables` that are not empty once every client has left, but should be."""
    return {name: size for name, size in tables(comet).items() if size and name not in STAYING}


def tables_of(notifier: Notifier[Any]) -> dict[str, int]:
    """Return the size of every table of a notifier."""
    queue = notifier._queue
    return {
        "keys": len(notifier._keys),
        "subscriptions": len(notifier._subscriptions),
        "notifications": len(queue._line),
        "notification bytes": queue._line._bytes,
        "for the loop": len(queue._in_loop.waiting),
        "for threads": len(queue._in_threads.waiting),
    }


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


def point_at(channel: Channel[Any], feed: Feed) -> None:
    """Let a channel hold an incarnation, as if it had not been used since."""
    channel._newest = feed


def encoded(feed: Feed) -> Mapping[Place, Rendered]:
    """Return what a feed keeps encoded."""
    return feed.chunks.kept


def encoded_bytes(feed: Feed) -> int:
    """Return the bytes that a feed keeps encoded, as far as it knows."""
    return feed.chunks.size


def awaited(feed: Feed) -> int:
    """Return how many outcomes of messages of a feed are awaited."""
    return len(feed.outcomes._awaited)


def answers_sent(outcomes: Outcomes) -> int:
    """Return how many answers are remembered that clients may acknowledge."""
    return len(outcomes._sent)


def expected(directory: Directory) -> Mapping[str, set[Listener]]:
    """Return who waits for channels that do not exist yet, by name."""
    return directory._expected


def past_names(directory: Directory) -> list[str]:
    """Return the remembered names of channels that are gone, the oldest first."""
    return list(directory._past)


def members(comet: Comet, declared: DeclaredChannel[Any, Any]) -> list[Restarting | Silent]:
    """Return the live members of a declaration."""
    return list(comet._hub.declarations._live.get(declared, ()))


# Clients


class Known(NamedTuple):
    """Signed texts that were verified before, with what they mean.

    Attributes:
        sessions: Cookie values.
        processes: Tokens of client processes.
    """

    sessions: dict[str, tuple[str, float]]
    processes: dict[str, tuple[str, str]]


def known(identity: Identity) -> Known:
    """Return the tables of an identity themselves."""
    return Known(identity._known_sessions, identity._known_processes)


def replace_known_processes(identity: Identity, table: dict[str, tuple[str, str]]) -> None:
    """Give an identity another table of verified tokens."""
    identity._known_processes = table


def belongs_to(process: ClientProcess, comet: Comet) -> bool:
    """Tell whether a client process was opened at a `Comet`, open or not."""
    mine = comet._hub.processes._household  # pragma: no cover - reached where one was left over
    return process._household is mine  # pragma: no cover


def logins(comet: Comet) -> list[Session]:
    """Return the sessions that were logged in by hand, and are remembered without a process."""
    return list(comet._hub.processes._kept)


def inactivity_waits(process: ClientProcess) -> int:
    """Return how many wait for a client process to be inactive."""
    return len(process._waiting)


# Notifiers


def notifiers(comet: Comet) -> dict[str, Notifier[Any]]:
    """Return the notifiers of a `Comet` by name."""
    found = {name: getattr(f, "__self__", None) for name, f in list(comet._hub.notifiers.items())}
    return {name: one for name, one in found.items() if isinstance(one, Notifier)}


def queue_of(notifier: Notifier[Any]) -> Queue:
    """Return the queue that hands out the notifications of a notifier."""
    return notifier._queue


def is_handing_out(queue: Queue) -> bool:
    """Tell whether a task hands out notifications."""
    return queue._line.taken


def subscriptions(notifier: Notifier[Any]) -> dict[ClientProcess, Subscription]:
    """Return the subscriptions of a notifier by client process."""
    return dict(notifier._subscriptions)


# Time, and the lifespan


def sleepers(clock: ManualClock) -> list[anyio.Event]:
    """Return what is set for each task that sleeps until a moment of a clock."""
    return list(clock._sleepers)


def buckets(timers: Timers) -> tuple[set[int], list[int]]:
    """Return the numbers of the buckets of timers: those that there are, and their heap."""
    return set(timers._buckets), list(timers._order)


def patience_of(comet: Comet) -> float:
    """Return the seconds that a `Comet` will still wait for sources to close."""
    return comet._lifespan._patience


def policy_of(comet: Comet) -> Policy | None:
    """Return what a `Comet` does about other workers."""
    return comet._hub.siblings._policy
