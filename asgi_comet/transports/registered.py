"""The state of a client process in the registration protocol, kept between two requests.

Owns the positions of the client, the offsets of the last answer, and the bound of that state. Must
not know how a request is held.
"""

from __future__ import annotations

from collections.abc import Iterable

from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.core.messages import Message
from asgi_comet.http.exchange import Refusal
from asgi_comet.identity.process import Client
from asgi_comet.identity.registered import Registered
from asgi_comet.node.build import Node
from asgi_comet.protocol.registration import encode_ended, encode_messages
from asgi_comet.transports.answers import Taken
from asgi_comet.transports.postponing import not_yet
from asgi_comet.transports.reading import Run

__all__ = ["TOO_MANY", "acknowledge", "claim", "keep", "merge", "repeat"]

TOO_MANY = "too many channels are registered, try again later"

PLACE = 512  # bytes charged for a channel
CHARACTER = 16  # bytes charged for a character of an identifier, percent-encoded and plain


def claim(node: Node, process: Client, identifiers: Iterable[str]) -> Registered:
    """Return what a client process keeps, once there is room for what it asks now.

    Args:
        node: The parts of the Comet.
        process: The client process.
        identifiers: The channels of the request.

    Raises:
        Refusal: 503, if the state of all client processes together would be too large.
    """
    kept = process.registered or Registered()
    size = PLACE * (len(kept.cursors) + len(kept.lost))
    size += sum(PLACE + CHARACTER * len(identifier) for identifier in identifiers)
    if not node.clients.charge(process, kept, size):
        raise Refusal(503, TOO_MANY, Retry_After="30")
    process.registered = kept
    return kept


def acknowledge(kept: Registered) -> None:
    """Acknowledge the last answer: the client has sent a new request."""
    for feed, offset in kept.pending.items():
        feed.acknowledge(offset)
    known = kept.cursors
    kept.cursors = known | {
        f: o for f, o in kept.pending.items() if f in known or f.name in kept.expected
    }
    kept.pending, kept.answer, kept.number = {}, None, None


def merge(node: Node, kept: Registered, hold: Listener) -> None:
    """Keep the cursors of this request, and of live channels that the request does not name.

    A client may leave a channel and return to it later, and is then told if that channel ended
    meanwhile.
    """
    named = {feed.name for feed in hold.cursors}
    others = {f: c for f, c in kept.cursors.items() if f not in hold.cursors}
    kept.lost |= {f.name: None for f in others if f.closed is not None and f.name not in named}
    merged = {f: c for f, c in others.items() if f.closed is None} | hold.cursors
    most = node.settings.max_channels_per_request
    kept.cursors = dict(list(merged.items())[max(len(merged) - most, 0) :])
    for name in list(kept.lost)[: max(len(kept.lost) - most, 0)]:
        del kept.lost[name]


def keep(kept: Registered, number: str | None, pairs: Iterable[Run | bytes], taken: Taken) -> None:
    """Keep an answer until the client's next request.

    Args:
        kept: The state of the client process.
        number: The number of the request.
        pairs: The content of the answer, in order.
        taken: The content of the answer, as read.
    """
    for feed in (*taken.gaps, *taken.ended):
        _end(kept, feed)
    kept.pending = {run.feed: run.upto for run in taken.runs}
    kept.answer = [
        (pair.feed, pair.after, pair.upto) if isinstance(pair, Run) else pair for pair in pairs
    ]
    kept.number = number


async def repeat(node: Node, kept: Registered) -> bytes:
    """Encode the last answer again, from the messages that are still held.

    A channel whose messages are gone is told as ended; a newest channel gives its newest message.
    """
    written: list[bytes] = []
    for told in kept.answer or ():
        pair = told if isinstance(told, bytes) else await _write_again(node, kept, *told)
        if pair not in written:  # the end of a channel is told once
            written.append(pair)
    return b"\n".join(written)


async def _write_again(node: Node, kept: Registered, feed: Feed, after: int, upto: int) -> bytes:
    run = await _read(node, feed, after, upto)
    if not run:
        _end(kept, feed)
        return encode_ended(feed.name)
    kept.pending[feed] = run[-1].offset
    feed.outcomes.send(after, run[-1].offset)
    written: bytes = encode_messages(feed.name, feed.history.epoch, run)
    return written


async def _read(node: Node, feed: Feed, after: int, upto: int) -> list[Message]:
    run = feed.read(after, upto)
    if node.broker.shared and feed.local:
        return run or []  # this worker does not know the channel by that epoch
    if run is None:
        with not_yet():
            recovered = await node.broker.recover(feed, after, node.settings.answer_bytes)
        run = [message for message in recovered or () if message.offset <= upto]
    return run


def _end(kept: Registered, feed: Feed) -> None:
    """Forget a channel whose end is told: a later request starts afresh."""
    kept.cursors.pop(feed, None)
    kept.pending.pop(feed, None)
    kept.expected.discard(feed.name)
