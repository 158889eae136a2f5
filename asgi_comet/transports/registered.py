"""What a client process has over the registration protocol, kept between two of its requests.

Owns the positions of the client, the last answer, of which only the offsets are kept, and the bound
of all that. Must not know how a request is held.
"""

from __future__ import annotations

from collections.abc import Iterable

from asgi_comet.channels.feed import Feed, Listener
from asgi_comet.core.messages import Message
from asgi_comet.http.exchange import Refusal
from asgi_comet.identity.process import ClientProcess, Registered
from asgi_comet.node.build import Hub
from asgi_comet.protocol.registration import encode_ended, encode_messages
from asgi_comet.transports.answers import Taken
from asgi_comet.transports.reading import Run

__all__ = ["acknowledge", "claim", "keep", "merge", "repeat"]

PLACE = 512  # bytes that are reckoned for a channel
CHARACTER = 16  # bytes that are reckoned for a character of its identifier: percent-encoded and not


def claim(hub: Hub, process: ClientProcess, identifiers: Iterable[str]) -> Registered:
    """Return what a client process keeps, once there is room for what it asks now.

    Args:
        hub: The rooms.
        process: Whose it is.
        identifiers: What it asks.

    Raises:
        Refusal: 503, if all client processes together would keep too much.
    """
    kept = process.registered or Registered()
    size = PLACE * (len(kept.cursors) + len(kept.lost))
    size += sum(PLACE + CHARACTER * len(identifier) for identifier in identifiers)
    if not hub.processes.charge(process, kept, size):
        raise Refusal(503, "too many channels are registered, try again later", Retry_After="30")
    process.registered = kept
    return kept


def acknowledge(kept: Registered) -> None:
    """The client came back with something new: it has the last answer."""
    for feed, offset in kept.pending.items():
        feed.acknowledge(offset)
    known = kept.cursors
    kept.cursors = known | {
        f: o for f, o in kept.pending.items() if f in known or f.name in kept.expected
    }
    kept.pending, kept.answer, kept.number = {}, None, None


def merge(hub: Hub, kept: Registered, hold: Listener) -> None:
    """Keep the cursors of this request, and those of live channels that it does not name.

    A client may turn to one channel and come back to another: that one of those has ended it is to
    be told then.
    """
    named = {feed.name for feed in hold.cursors}
    others = {f: c for f, c in kept.cursors.items() if f not in hold.cursors}
    kept.lost |= {f.name: None for f in others if f.closed is not None and f.name not in named}
    merged = {f: c for f, c in others.items() if f.closed is None} | hold.cursors
    most = hub.settings.max_channels_per_request
    kept.cursors = dict(list(merged.items())[max(len(merged) - most, 0) :])
    for name in list(kept.lost)[: max(len(kept.lost) - most, 0)]:
        del kept.lost[name]


def keep(kept: Registered, number: str | None, pairs: Iterable[Run | bytes], taken: Taken) -> None:
    """Remember an answer until the client comes back.

    Args:
        kept: What the client process has.
        number: The number of the request.
        pairs: What the answer says, in order.
        taken: The same, as it was read.
    """
    for feed in (*taken.gaps, *taken.over):
        _end(kept, feed)
    kept.pending = {run.feed: run.upto for run in taken.runs}
    kept.answer = [
        (pair.feed, pair.after, pair.upto) if isinstance(pair, Run) else pair for pair in pairs
    ]
    kept.number = number


async def repeat(hub: Hub, kept: Registered) -> bytes:
    """Write the last answer again, from what is still held.

    A channel whose messages are gone meanwhile is told as ended; of a newest channel there is the
    newest message.
    """
    written: list[bytes] = []
    for told in kept.answer or ():
        pair = told if isinstance(told, bytes) else await _write_again(hub, kept, *told)
        if pair not in written:  # that a channel has ended is told once
            written.append(pair)
    return b"\n".join(written)


async def _write_again(hub: Hub, kept: Registered, feed: Feed, after: int, upto: int) -> bytes:
    run = await _read(hub, feed, after, upto)
    if not run:
        _end(kept, feed)
        return encode_ended(feed.name)
    kept.pending[feed] = run[-1].offset
    feed.outcomes.send(after, run[-1].offset)
    written: bytes = encode_messages(feed.name, feed.history.epoch, run)
    return written


async def _read(hub: Hub, feed: Feed, after: int, upto: int) -> list[Message]:
    run = feed.read(after, upto)
    if run is None:
        recovered = await hub.broker.recover(feed, after, hub.settings.answer_bytes)
        run = [message for message in recovered or () if message.offset <= upto]
    return run


def _end(kept: Registered, feed: Feed) -> None:
    """The client is told that a channel is over: it begins anew if it asks for it again."""
    kept.cursors.pop(feed, None)
    kept.pending.pop(feed, None)
    kept.expected.discard(feed.name)
