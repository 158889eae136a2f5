"""The figures of one worker, and of all workers together, for operators.

Owns docs/operating.md#the-admin-endpoint: the workers are asked once for each status, and for a
bounded time. Must not know who asks.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from asgi_comet.errors import BrokerUnavailable
from asgi_comet.node.build import Node

__all__ = ["ASKED", "count_here", "report"]

ASKED = 2.0  # seconds that the workers have for an answer

Figures = dict[str, Any]


def count_here(node: Node) -> Figures:
    """Return the figures of this worker.

    Returns:
        `active`: whether comet requests are served. `timeout`: how long a poll is held, in seconds
        before jitter. `channels`: live channels of all kinds. `listeners`: open connections, each
        counted once. `processes`: open client processes. `restarts`: how often sources of declared
        channels were restarted after a failure. `several_workers`: whether another worker without a
        broker is known. With a broker that workers share, `worker`: the machine and the process.
    """
    figures: Figures = {
        "active": node.activation.active,
        "timeout": node.activation.timeout,
        "channels": len(node.channels),
        "listeners": len(node.fanout.listeners),
        "processes": len(node.clients),
        "restarts": node.channels.restarts,
        "several_workers": node.siblings.found,
    }
    if node.broker.shared:
        figures["worker"] = f"{socket.gethostname()}:{os.getpid()}"
    return figures


async def report(node: Node) -> Figures:
    """Return the figures of this worker, and with a broker those of all workers.

    Returns:
        The figures of `count_here`; with a broker that workers share also `broker`: whether it can
        be reached; `workers`: the figures of each worker that has answered; `all`: the totals, or
        `None` if the workers cannot be asked.
    """
    here = count_here(node)
    if not node.broker.shared:
        return here
    try:
        answers = await node.broker.ask_all(json.dumps(["status", None]), ASKED)
    except BrokerUnavailable as error:
        return here | _tell_trouble(node.broker.trouble or error.reason)
    told = [json.loads(answer) for answer in answers]
    workers = sorted((one for one in told if one), key=lambda one: str(one["worker"]))
    if not workers:  # not even this one, which is asked through the broker, too
        return here | _tell_trouble(f"no answer from any worker within {ASKED:g} s")
    broker = {"connected": True, "trouble": ""}
    return here | {"broker": broker, "workers": workers, "all": _sum(node, workers)}


def _tell_trouble(trouble: str) -> Figures:
    return {"broker": {"connected": False, "trouble": trouble}, "workers": [], "all": None}


def _sum(node: Node, every: Sequence[Figures]) -> Figures:
    """Return the figures of all; a client process may have copies in several workers."""
    people = node.broker.people
    return {
        "workers": max(node.broker.workers, len(every)),
        "answered": len(every),
        "listeners": sum(one["listeners"] for one in every),
        "processes": 0 if people is None else people.count,
        "restarts": sum(one["restarts"] for one in every),
    }
