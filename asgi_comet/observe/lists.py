"""The lists of this worker that the dashboard shows page by page: channels, tabs, messages.

Owns the rows, and how far a search goes. A page costs what it shows, and a step for each row before
it. Must not know who asks, nor other workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeVar

from asgi_comet._runtime.counters import CREATED
from asgi_comet.channels.feed import Feed
from asgi_comet.declare.declared import Declaration
from asgi_comet.identity.process import Client
from asgi_comet.node.build import Node
from asgi_comet.observe.journal import Journal
from asgi_comet.observe.overview import count_created, living, slowest

__all__ = ["SCAN", "list_channels", "list_messages", "list_tabs"]

SCAN = 20_000  # rows that one search looks at
MESSAGES = 50  # in one answer, at most
TEXT_LIMIT = 2000  # bytes of a message that are shown

Answer = dict[str, Any]
T = TypeVar("T")


def list_channels(node: Node, journal: Journal, asked: Answer) -> Answer:
    """Return a page of the channels of one declaration, or of those that are not declared.

    Args:
        node: The parts of the Comet.
        journal: Names the worker.
        asked: `of`: the declaration; `ids`: whether the identifiers of channels without a name are
            shown, with which a client can read them; `faults`: whether to tell the tracebacks of
            sources, which may hold parts of messages; otherwise as `_page`.
    """
    find = asked["find"]
    faults = asked.get("faults", False)  # an older worker does not say
    declared = node.channels.reserved.labelled(asked["of"])
    if isinstance(declared, Declaration):
        return _page(
            journal,
            asked,
            total=len(living(node, declared)),
            pick=lambda start, stop: list(islice(living(node, declared), start, stop)),
            matches=lambda member: find in member.feed.name,
            show=lambda one: _channel(one.feed, one.state, one.fault if faults else ""),
        )
    created, ids = node.runtime.counters.created, asked.get("ids", False)

    def name(feed: Feed) -> str:
        return feed.name if ids or not feed.reclaim else f"(unnamed) {_shorten(feed.name)}"

    def pick(start: int, stop: int) -> list[Feed]:
        feeds = node.channels.site.directory.feeds() if asked["of"] == CREATED else []
        return [one for one in feeds if one.counters is created and one.closed is None][start:stop]

    return _page(
        journal,
        asked,
        total=count_created(node),
        pick=pick,
        matches=lambda feed: find in name(feed),
        show=lambda feed: _channel(feed, "reads" if feed.sourced else "none", name=name(feed)),
    )


def list_tabs(node: Node, journal: Journal, asked: Answer) -> Answer:
    """Return a page of the client processes, user by user, those of visitors last.

    Args:
        node: The parts of the Comet.
        journal: Names the worker.
        asked: As `_page`.
    """
    find = asked["find"].casefold()
    return _page(
        journal,
        asked,
        total=len(node.clients),
        pick=node.clients.page,
        matches=lambda tab: find in _user(tab).casefold(),
        show=lambda tab: _tab(node, tab),
    )


def list_messages(node: Node, journal: Journal, asked: Answer) -> Answer | None:
    """Return messages of a site channel that this worker has.

    Args:
        node: The parts of the Comet.
        journal: Names the worker.
        asked: `name`: the channel; `epoch` and `after`: the position from which to go on. With
            another epoch, the newest messages are returned.

    Returns:
        The messages, the oldest first; `None` if this worker does not have the channel.
    """
    feed = node.channels.find(asked["name"])
    if feed is None or not (feed.local or feed.live):
        return None
    top = feed.top
    same = asked["epoch"] == feed.epoch and asked["after"] <= top
    after = max(asked["after"] if same else 0, feed.first - 1, top - MESSAGES)
    messages = feed.read(after, top) or []
    first = top - len(messages) + 1
    return {
        "worker": journal.worker,
        **_channel(feed, ""),
        "epoch": feed.epoch,
        "after": top,
        "messages": [
            {"offset": first + n, "text": one.data[:TEXT_LIMIT].decode(errors="replace")}
            | {"size": len(one.data)}
            for n, one in enumerate(messages)
        ],
    }


def _page(
    journal: Journal,
    asked: Answer,
    *,
    total: int,
    pick: Callable[[int, int], list[T]],
    matches: Callable[[T], bool],
    show: Callable[[T], Answer],
) -> Answer:
    """Return a page of a list.

    Args:
        journal: Names the worker.
        asked: `find`: a text to search for, or `""`; `slices`: the first row and the count of rows,
            for each worker that is asked for rows and not only for its total; by `""` for all.
        total: How many rows there are.
        pick: Returns the rows from one to before another.
        matches: Tells whether a search finds a row.
        show: Returns a row with a JSON form.
    """
    slices = asked["slices"]
    start, count = slices.get(journal.worker) or slices.get("", (0, 0))
    if asked["find"]:
        found = [one for one in pick(0, SCAN) if matches(one)]
        total, rows = len(found), found[start : start + count]
    else:
        rows = pick(start, start + count) if count else []
    return {"worker": journal.worker, "total": total, "rows": [show(one) for one in rows]}


def _channel(feed: Feed, state: str, fault: str = "", name: str | None = None) -> Answer:
    return {
        "name": name or feed.name,
        "kind": feed.kind.value,
        "listeners": len(feed.listeners),
        "held": len(feed.history),
        "bytes": feed.held_bytes,
        "top": feed.top,
        "behind": slowest(feed),
        "source": state,
        "fault": fault,
    }


def _tab(node: Node, tab: Client) -> Answer:
    now = node.clock.now()
    feeds = [(feed, at) for one in tuple(tab.listeners) for feed, at in one.cursors.items()]
    return {
        "user": _user(tab),
        "browser": _shorten(tab.session.id),
        "tab": tab.id,
        "transport": sorted({one.counters.name for one in tuple(tab.listeners)}),
        "age": now - tab.opened,
        "away": tab.inactive_for(),
        "channels": len(feeds),
        "behind": max((feed.top - at for feed, at in feeds), default=0),
    }


def _shorten(secret: str) -> str:
    """Return a digest, which does not give a secret away: the id of a session, or of a channel."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def _user(tab: Client) -> str:
    user = tab.session.user
    return "" if user is None else str(user)
