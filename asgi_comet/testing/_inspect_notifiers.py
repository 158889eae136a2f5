"""Access to internals of notifiers for the package's own tests, as `_inspect`. Private.

Owns the only accesses to private attributes of the parts of notifiers from outside their objects.
"""

from __future__ import annotations

from typing import Any

from asgi_comet.brokers.logs import Stored
from asgi_comet.comet import Comet
from asgi_comet.identity.process import Client
from asgi_comet.notify.notifier import Notifier
from asgi_comet.notify.receipts import Notification, Subscription
from asgi_comet.notify.shared import SharedSubscriptions
from asgi_comet.notify.shared_receipts import SharedNotification
from asgi_comet.notify.subscriptions import LocalQueue, Subscriptions


def notifiers(comet: Comet) -> dict[str, Notifier[Any]]:
    """Return the notifiers of a `Comet` by name."""
    found = {name: getattr(f, "__self__", None) for name, f in list(comet._node.notifiers.items())}
    return {name: one for name, one in found.items() if isinstance(one, Notifier)}


def record(notification: Notification, subscription: Subscription, stored: Stored | None) -> None:
    """Record what was published to a subscription, as what hands out does."""
    notification._record(subscription, stored)


def acknowledged_by(notification: Notification) -> set[str]:
    """Return the client processes that were seen to acknowledge, with a shared broker."""
    assert isinstance(notification, SharedNotification)  # noqa: S101 - as the caller knows
    return notification._acknowledged


def queue_of(notifier: Notifier[Any]) -> LocalQueue:
    """Return the queue of a notifier."""
    return _here(notifier).queue


def is_handing_out(queue: LocalQueue) -> bool:
    """Return whether a task is distributing notifications."""
    return queue._line.taken


def subscriptions(notifier: Notifier[Any]) -> dict[Client, Subscription]:
    """Return the subscriptions of a notifier by client process."""
    return dict(_here(notifier).processes)


def forget_subscription(notifier: Notifier[Any], subscription: Subscription) -> None:
    """Remove a subscription, as a thread does that has seen the end of its channel."""
    _here(notifier).forget(subscription)


def _here(notifier: Notifier[Any]) -> Subscriptions:
    """Return the subscriptions of a notifier that knows this worker only."""
    found = notifier._subscriptions
    assert isinstance(found, Subscriptions)  # noqa: S101 - as the caller knows
    return found


def tables_of(notifier: Notifier[Any]) -> dict[str, int]:
    """Return the size of every table of a notifier."""
    queue = notifier._subscriptions.queue
    return {
        "keys": len(notifier),
        "subscriptions": len(notifier._subscriptions.processes),
        "notifications": len(queue._line),
        "notification bytes": queue._line._bytes,
        "for the loop": len(queue._in_loop.waiting),
        "for threads": len(queue._in_threads.waiting),
    }


def shared_tables_of(notifier: Notifier[Any]) -> dict[str, int]:
    """Return the size of every table of a notifier that is empty without a notification."""
    shared = notifier._subscriptions
    assert isinstance(shared, SharedSubscriptions)  # noqa: S101 - as the caller knows
    queue = shared.queue
    return {
        "outboxes": len(queue.outboxes),
        "prepared": len(queue._prepared),
        "notifications": len(queue._line),
        "for the loop": len(queue._in_loop.waiting),
        "for threads": len(queue._in_threads.waiting),
        "changes": sum(not one.done for one in shared._changes),
    }
