"""The client processes that listen on keys of notifiers, on Redis.

Owns the order of the steps by which a client process listens, so that its end finds all its keys,
and that a question returns no client process whose entry in a set is out of date. Must not know the
form of commands and replies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

from asgi_comet.brokers.audience import Audience, Listening, Progress
from asgi_comet.brokers.redis.asking import Asking
from asgi_comet.brokers.redis.audience_scripts import SEPARATOR, AudienceScripts, Message, Told
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.flusher import Flusher
from asgi_comet.brokers.redis.tellings import MOST
from asgi_comet.errors import BrokerUnavailable, ChannelClosed, ProcessClosed
from asgi_comet.log_events import event
from asgi_comet.position import Position

__all__ = ["RedisAudience"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")


class RedisAudience(Audience):
    """The client processes by key, which workers share through one Redis.

    Args:
        scripts: The scripts.
        asking: Runs scripts.
        flusher: Runs scripts in order with the messages.
        generation: Returns the generation of the data.
    """

    def __init__(
        self,
        scripts: AudienceScripts,
        asking: Asking,
        flusher: Flusher,
        generation: Callable[[], str],
    ) -> None:
        self._scripts = scripts
        self._asking = asking
        self._flusher = flusher
        self._generation = generation

    async def listen(self, process: str, notifier: str, key: str) -> None:
        """Add a client process to those that listen on a key."""
        member = f"{notifier}{SEPARATOR}{key}"
        answer = await self._asking.ask(self._scripts.listen(process, member))
        if answer == "ended":
            raise ChannelClosed(f"~{notifier}", "ended")
        if answer == "closed":
            await self._asking.check()
            raise ProcessClosed(process)
        _, session = await self._ask_all(
            self._scripts.index(process, member), self._scripts.attending([process], member)
        )
        if session == ("",):  # closed meanwhile, maybe before its end could find the entry
            await self._asking.ask(self._scripts.unindex(member, [process], 0))
            await self.listen(process, notifier, key)

    async def unlisten(self, process: str, notifier: str, key: str) -> None:
        """Remove a client process from those that listen on a key."""
        member = f"{notifier}{SEPARATOR}{key}"
        await self._ask_all(
            self._scripts.unlisten(process, member),
            self._scripts.unindex(member, [process], 0),
            self._scripts.settle(process, member),
        )

    async def _ask_all(self, *calls: Call[Any]) -> list[Any]:
        return await self._asking.ask_all(calls)

    # Who listens

    async def listeners(self, notifier: str, key: str) -> AsyncIterator[Sequence[Listening]]:
        """Return all client processes that listen on a key, in parts."""
        member, known = f"{notifier}{SEPARATOR}{key}", set[str]()
        cursor, generation = "", self._generation()
        while cursor != "0":
            cursor, found = await self._asking.ask(self._scripts.scan(member, cursor or "0"))
            fresh = [one for one in dict.fromkeys(found) if one not in known]
            known.update(fresh)
            for part in _divide(fresh):
                if listening := await self._look_up(part, member):
                    yield listening
            if generation != self._generation():  # cursors of other data mean nothing
                cursor, generation = "", self._generation()

    async def _look_up(self, processes: Sequence[str], member: str) -> list[Listening]:
        """Return those of some client processes that listen, and remove others from the set."""
        sessions = await self._asking.ask(self._scripts.attending(processes, member))
        wrong = [p for p, session in zip(processes, sessions, strict=True) if not session]
        if wrong:
            await self._asking.ask(self._scripts.unindex(member, wrong))
        return await self._add_users(dict(zip(processes, sessions, strict=True)), member)

    async def _add_users(self, sessions: dict[str, str], member: str) -> list[Listening]:
        """Return client processes with the users of their sessions."""
        found: list[Listening] = []
        sessions = {process: session for process, session in sessions.items() if session}
        while sessions:
            ids = list(dict.fromkeys(sessions.values()))
            *users, now = await self._ask_all(
                *map(self._scripts.user, ids), self._scripts.attending(list(sessions), member)
            )
            of = dict(zip(ids, users, strict=True))
            after = dict(zip(sessions, now, strict=True))
            found += [Listening(p, s, of[s]) for p, s in sessions.items() if after[p] == s]
            sessions = {p: s for p, s in after.items() if s and s != sessions[p]}  # moved meanwhile
        return found

    # Messages

    async def tell(
        self, name: str, processes: Sequence[str], data: bytes
    ) -> Sequence[Position | None]:
        """Append one message to the own channels of many client processes."""
        parts = [Message(name[1:], part, data) for part in _divide(processes)]
        replies = await self._tell(parts)
        told: list[Told] = []
        for reply in replies:
            if isinstance(reply, BrokerUnavailable):
                raise _error_of(reply, replies)
            told += reply
        return [_position(name, one) for one in told]

    async def tell_each(
        self, name: str, messages: Sequence[tuple[str, bytes]]
    ) -> Sequence[Position | BrokerUnavailable | None]:
        """Append messages, each to the own channel of one client process."""
        replies = await self._tell([Message(name[1:], [one], data) for one, data in messages])
        return [
            reply if isinstance(reply, BrokerUnavailable) else _position(name, reply[0])
            for reply in replies
        ]

    async def overflow(self, name: str, process: str) -> None:
        """End the channel of a client process as full."""
        await self._flusher.tell(self._scripts, Message(name[1:], [process], None))

    async def _tell(
        self, messages: Sequence[Message]
    ) -> Sequence[tuple[Told, ...] | BrokerUnavailable]:
        """Hand messages to the queue at once, and return what became of them."""
        asked = [self._flusher.tell(self._scripts, one) for one in messages]
        return [await _outcome(one) for one in asked]

    async def progress(self, name: str, processes: Sequence[str]) -> Sequence[Progress | None]:
        """Return how far clients have read their channels of a name."""
        found: list[Progress | None] = []
        for part in _divide(processes):
            calls = [self._scripts.progress(process, name[1:]) for process in part]
            found += await self._asking.ask_all(calls)
        return found


async def _outcome(
    asked: asyncio.Future[tuple[Told, ...]],
) -> tuple[Told, ...] | BrokerUnavailable:
    try:
        return await asked
    except BrokerUnavailable as error:
        return error


def _position(name: str, told: Told) -> Position | None:
    if told == "wrong":
        _logger.error(
            "a key of channel %.200r of a client process is not ours",
            name,
            extra=event("key.foreign", channel=name),
        )
    return told if isinstance(told, Position) else None


def _error_of(error: BrokerUnavailable, replies: Sequence[object]) -> BrokerUnavailable:
    """Return the error of a message that some of the channels may have."""
    some = any(not isinstance(reply, BrokerUnavailable) for reply in replies)
    return BrokerUnavailable(error.reason, maybe_stored=True) if some else error


def _divide(every: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(every), MOST):
        yield every[begin : begin + MOST]
