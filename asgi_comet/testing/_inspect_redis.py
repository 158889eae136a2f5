"""Access to internals of the broker on Redis for the package's own tests, as `_inspect`. Private.

Owns the only accesses to private attributes of the broker's parts from outside their objects.
"""

from __future__ import annotations

import time

from asgi_comet.brokers.base import Broker
from asgi_comet.brokers.redis.broker import RedisBroker  # needs the library of Redis
from asgi_comet.brokers.redis.flusher import Flusher


def redis_tables(broker: RedisBroker) -> dict[str, int]:
    """Return how much is in each table of a broker on Redis."""
    parts = broker._parts
    following, holding, flusher = parts.following, parts.holding, parts.flusher
    return {
        "followed": len(following._by_name),
        "topics": len(following._by_topic),
        "bytes": following._bytes,
        "held": len(holding._by_name),
        "windows": len(holding._by_window),
        "bids": len(parts.ownership.bids),
        "retired": len(parts.caretaker._retired),
        "evicted": len(parts.caretaker._evicted),
        "early": len(holding._early),
        "orphans": len(holding.orphans),
        "queued": flusher.queued,
        "waiting": flusher.waiting,
        "lost": len(broker._notices._lost),
        "copies": len(broker.people.presence),
        "notes": len(broker.people.presence._notes),
        "news": len(broker.people._news),
        "heard": len(broker.people.control.heard),
        "doubts": len(broker.people.presence._doubts),
        "confirmations": len(broker.people.control),
        "attending": len(broker.people.attending),
        "farewells": len(broker.people.farewells),
        "readers": len(parts.own.claims.readings),
        "idle": parts.own.claims.readings.idle,
        "asking": len(parts.own.claims._asking),
        "marks": len(parts.own.marks),
        "wanted": len(parts.own._wanted),
    }


def read_clock(broker: RedisBroker) -> float:
    """Return the time of Redis in milliseconds, at the least, as far as a worker knows."""
    return tell_time(broker, time.monotonic())[0] / 1000


def tell_time(broker: RedisBroker, at: float) -> tuple[float, float]:
    """Return between which times of Redis a moment was, in microseconds, as a worker knows."""
    return broker._parts.heartbeat.time.tell(at)


def flusher_of(broker: RedisBroker) -> Flusher:
    """Return the queue of a broker on Redis."""
    return broker._parts.flusher


def worker_of(broker: RedisBroker) -> str:
    """Return the id of the worker of a broker on Redis."""
    return broker._parts.heartbeat.worker


def attended(broker: RedisBroker, process: str) -> set[str]:
    """Return the keys of a client process, as a worker on Redis knows them."""
    return broker.people.attending._copies[process].members


def shorten_patience(broker: Broker, seconds: float) -> None:
    """Let messages of a running broker wait for less time."""
    broker.patience = seconds
    if isinstance(broker, RedisBroker):
        flusher_of(broker).patience.seconds = seconds


def lose_frames(broker: RedisBroker) -> None:
    """Have a broker on Redis hear of no frame any more."""
    broker._parts.following._by_topic.clear()
