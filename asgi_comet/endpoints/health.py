"""Health for supervisors: `PREFIX/health/live` and `PREFIX/health/ready`.

Owns docs/operating.md#health: the words, and which of them make a server unready. A state that
clients can cause never does, as otherwise clients could take a server out of service. The answers
have no figures and no names. Must not know who asks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from asgi_comet.errors import NotRunning
from asgi_comet.http.exchange import JSON, Exchange, answer
from asgi_comet.node.build import Node
from asgi_comet.observe.limits import LIMITS, used_ratios

__all__ = ["WORDS", "tell_live", "tell_ready"]

NEARLY = 0.95  # the share of a limit from which on the limit is told

NOT_STARTED = "not_started"
STOPPING = "stopping"
NEVER_ANSWERED = "broker_never_answered"
AWAY = "broker_away"
AWAY_TOO_LONG = "broker_away_too_long"
TASK_STOPPED = "task_stopped"

WORDS = (NOT_STARTED, STOPPING, NEVER_ANSWERED, AWAY, AWAY_TOO_LONG, TASK_STOPPED, *LIMITS)
"""The words that say why."""


@dataclass(frozen=True, slots=True)
class _Health:
    """The state of a worker.

    Attributes:
        status: `ok`, `degraded`, `starting` or `stopping`.
        why: The reasons, of `WORDS`.
        unready: Whether the worker is not to get requests.
        dead: Whether the worker is to be started again.
    """

    status: str = "ok"
    why: tuple[str, ...] = ()
    unready: bool = False
    dead: bool = False


async def tell_live(node: Node, _: None, exchange: Exchange) -> None:
    """Answer 503 if the process is to be started again."""
    health = _examine(node)
    await _tell(node, exchange, health, failed=health.dead)


async def tell_ready(node: Node, _: None, exchange: Exchange) -> None:
    """Answer 503 if the process is not to get requests."""
    health = _examine(node)
    await _tell(node, exchange, health, failed=health.unready)


async def _tell(node: Node, exchange: Exchange, health: _Health, *, failed: bool) -> None:
    body = json.dumps({"status": health.status, "why": health.why}).encode()
    await answer(node, exchange, JSON, body, status=503 if failed else 200)


def _examine(node: Node) -> _Health:
    if node.drain.begun:
        return _Health("stopping", (STOPPING,), unready=True)
    try:
        node.loop.check()
    except NotRunning:
        return _Health("starting", (NOT_STARTED,), unready=True)
    dead = bool(node.down)
    away = node.broker.away
    if away == math.inf:
        why = (NEVER_ANSWERED, *_find_faults(node))
        return _Health("starting", why, unready=True, dead=dead)
    late = away is not None and away >= node.settings.ready_without_broker
    broker = () if away is None else (AWAY_TOO_LONG if late else AWAY,)
    found = (*broker, *_find_faults(node))
    return _Health("degraded" if found else "ok", found, unready=late, dead=dead)


def _find_faults(node: Node) -> Iterator[str]:
    if node.down:
        yield TASK_STOPPED
    yield from (name for name, share in used_ratios(node).items() if share >= NEARLY)
