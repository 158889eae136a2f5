"""The figures of one worker, in a form that JSON can write: so workers can tell each other.

Owns which value of the worker a figure is. Must not know how figures are written.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from asgi_comet._runtime.counters import CREATED, Counters, Histogram
from asgi_comet.node.build import Node
from asgi_comet.observe.limits import used_ratios
from asgi_comet.observe.walking import Held, walk

__all__ = ["Figures", "Row", "read"]

VERSION = version("asgi-comet")

Row = list[Any]
"""The values of the labels, then the value: a number; or the counts of a histogram, and the sum."""

Figures = dict[str, Any]
"""`number`: the number of the worker, or `None`. `rows`: the rows by the name of the figure."""


def read(node: Node) -> Figures:
    """Return the figures of this worker. Thread-safe."""
    condition, counters = node.broker.condition, node.runtime.counters
    activation = node.activation
    rows: dict[str, list[Row]] = {
        "comet_info": [[VERSION, platform.python_version(), type(node.broker).__name__, 1]],
        "comet_active": [[int(activation.active)]],
        "comet_timeout_seconds": [[activation.timeout]],
        "comet_processes": [[len(node.clients)]],
        "comet_sessions": [[node.clients.known]],
        "comet_users": [[node.clients.known_users]],
        "comet_limit_used_ratio": _rows(used_ratios(node)),
        "comet_stalled_writes": [[counters.stalled]],
        "comet_loop_lag_seconds": [[node.timers.lag]],
        "comet_resumes_total": _rows(counters.resumes),
        "comet_outcomes_total": _rows(counters.outcomes),
        "comet_replayed_messages": [_histogram(counters.replayed)],
        "comet_authorise_seconds": [[n, *_histogram(one)] for n, one in counters.asked.items()],
    }
    rows |= _of_transports(counters) | _of_channels(node)
    if node.broker.shared:
        rows |= {
            "comet_workers": [[node.broker.workers]],
            "comet_broker_connected": [[int(node.broker.connected)]],
            "comet_broker_reconnects_total": [[condition.reconnects]],
            "comet_broker_lag_seconds": [[condition.lag]],
            "comet_broker_errors_total": [[condition.errors]],
        }
    return {"number": condition.number, "rows": rows}


def _of_transports(counters: Counters) -> dict[str, list[Row]]:
    every = counters.transports.values()
    return {
        "comet_listeners": [[one.name, one.open] for one in every],
        "comet_delivered_total": [[one.name, one.delivered] for one in every],
        "comet_delivered_bytes_total": [[one.name, one.delivered_bytes] for one in every],
        "comet_connections_total": [
            [one.name, *row] for one in every for row in one.connections.items()
        ],
        "comet_disconnections_total": [
            [one.name, *row] for one in every for row in one.disconnections.items()
        ],
        "comet_delivery_seconds": [[one.name, *_histogram(one.delivery)] for one in every],
        "comet_acknowledge_seconds": [[one.name, *_histogram(one.acknowledge)] for one in every],
    }


def _of_channels(node: Node) -> dict[str, list[Row]]:
    """Return the figures by channel: the number of rows depends on declarations only."""
    reserved, walked = node.channels.reserved, walk(node)
    labels = [CREATED, *reserved.labels]
    held = {label: walked.held.get(label, Held()) for label in labels}
    every = [node.runtime.counters.of(label) for label in labels]
    return {
        "comet_channels": _rows(walked.kinds),
        "comet_family_members": [[label, held[label].live] for label in reserved.families],
        "comet_history_messages": [[label, one.messages] for label, one in held.items()],
        "comet_history_bytes": [[label, one.bytes] for label, one in held.items()],
        "comet_lag_messages": [[label, one.lag] for label, one in held.items()],
        "comet_published_total": [[one.label, one.published] for one in every],
        "comet_published_bytes_total": [[one.label, one.published_bytes] for one in every],
        "comet_gaps_total": [[one.label, *row] for one in every for row in one.gaps.items()],
        "comet_source_restarts_total": [[one.label, one.restarts] for one in every],
        "comet_authorisations_total": [
            [one.label, *row] for one in every for row in one.authorisations.items()
        ],
    }


def _rows(values: Mapping[str, float]) -> list[Row]:
    return [[label, value] for label, value in values.items()]


def _histogram(histogram: Histogram) -> Row:
    return [list(histogram.counts), histogram.total]
