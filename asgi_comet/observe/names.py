"""The names of the figures, with their types and labels: the list that others rely on.

Owns docs/watching.md#all-figures. Must not know where a value comes from, nor how it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from asgi_comet._runtime.counters import ACKNOWLEDGED, REPLAYED, SECONDS

__all__ = ["FIGURES", "OF_BROKER", "WORKER", "Figure", "Type"]

Type = Literal["gauge", "counter", "histogram"]

WORKER = "worker"
"""The label of every figure of workers that share a broker."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        name: The name; that of a counter ends in `_total`.
        type: The type, as Prometheus names it.
        help: The meaning, in one sentence.
        labels: The names of the labels.
        bounds: The upper bounds of a histogram.
    """

    name: str
    type: Type
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


_CHANNEL, _TRANSPORT, _OUTCOME = "channel", "transport", "outcome"


def _gauge(name: str, text: str, *labels: str) -> Figure:
    return Figure(f"comet_{name}", "gauge", text, labels)


def _counter(name: str, text: str, *labels: str) -> Figure:
    return Figure(f"comet_{name}_total", "counter", text, labels)


def _histogram(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Figure:
    return Figure(f"comet_{name}", "histogram", text, labels, bounds)


OF_BROKER = (
    _gauge("workers", "Workers that this worker knows to be alive."),
    _gauge("broker_connected", "Whether the broker can be reached."),
    _counter("broker_reconnects", "Connections to the broker that followed another one."),
    _gauge("broker_lag_seconds", "How long a frame to this worker itself took at last."),
    _counter("broker_errors", "Connections to the broker that failed, or could not be made."),
)
"""The figures that only workers with a shared broker have."""

FIGURES = (
    _gauge("info", "Always 1.", "version", "python", "broker"),
    _gauge("active", "Whether clients are served."),
    _gauge("timeout_seconds", "How long a poll is held, before jitter."),
    _gauge("listeners", "Open connections.", _TRANSPORT),
    _gauge("processes", "Open client processes."),
    _gauge("sessions", "Sessions with a client process, a connection or a user."),
    _gauge("users", "Users of these sessions."),
    _gauge("channels", "Live channels.", "kind"),
    _gauge("family_members", "Live members of a family.", _CHANNEL),
    _gauge("history_messages", "Messages that channels hold.", _CHANNEL),
    _gauge("history_bytes", "Bytes of messages that channels hold.", _CHANNEL),
    _gauge("limit_used_ratio", "How much of a limit is used.", "limit"),
    _gauge("lag_messages", "How far the furthest open reader is behind.", _CHANNEL),
    _gauge("stalled_writes", "Writes that the server does not take now."),
    _gauge("loop_lag_seconds", "How late the event loop was at most, lately."),
    _counter("published", "Messages published.", _CHANNEL),
    _counter("published_bytes", "Bytes of messages published, as JSON.", _CHANNEL),
    _counter("delivered", "Messages handed to the server.", _TRANSPORT),
    _counter("delivered_bytes", "Bytes of messages handed to the server.", _TRANSPORT),
    _counter("connections", "Connections that clients have made.", _TRANSPORT, _OUTCOME),
    _counter("disconnections", "Connections that have ended.", _TRANSPORT, "reason"),
    _counter("resumes", "Clients that went on from a position.", _OUTCOME),
    _counter("gaps", "How often a client was told that it missed messages.", _CHANNEL, "reason"),
    _counter("source_restarts", "Sources that were started again after a failure.", _CHANNEL),
    _counter("authorisations", "Answers of `authorize`.", _CHANNEL, _OUTCOME),
    _counter("outcomes", "Outcomes of deliveries that the application has awaited.", _OUTCOME),
    _histogram(
        "delivery_seconds", "From publish to the last listener of a flush.", SECONDS, _TRANSPORT
    ),
    _histogram(
        "acknowledge_seconds", "From publish to the client's next position.", ACKNOWLEDGED,
        _TRANSPORT,
    ),
    _histogram("replayed_messages", "Messages that a resuming client had missed.", REPLAYED),
    _histogram(
        "authorise_seconds", "How long a function of the application took.", SECONDS, "function"
    ),
    *OF_BROKER,
)  # fmt: skip
"""All figures, in the order in which they are written."""
