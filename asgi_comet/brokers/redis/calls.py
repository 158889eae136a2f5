"""The values that scripts are called with: channels, messages, and the calls themselves.

Owns nothing. Must not know the scripts, nor connections.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from asgi_comet.brokers.redis.keys import ChannelKeys
from asgi_comet.brokers.redis.lua import Script
from asgi_comet.brokers.redis.replies import Reply

__all__ = ["IMPORTED", "Argument", "Call", "Group", "Item", "Living", "Log", "call_of", "fresh"]

T = TypeVar("T")
Argument = str | bytes | int

IMPORTED = "-"  # the making of a channel that every worker makes by the same line of code


class Call(NamedTuple, Generic[T]):
    """One command, and the function that reads the reply.

    Attributes:
        command: The command and its arguments.
        read: Converts the reply to a value.
        script: The script that the command calls; `None` for a plain command.
        channel: The channel whose messages and calls keep their order; `""` for none.
    """

    command: tuple[Argument, ...]
    read: Callable[[Reply], T]
    script: Script | None = None
    channel: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """The properties of a channel for the scripts.

    Attributes:
        keys: The keys of the channel.
        kind: `S` site, `N` newest, `K` keyed; of a client process `P`, or `U` if read on demand.
        making: The token of the channel's making: `IMPORTED`, or a random token.
        size: How many messages the log holds at most.
        max_bytes: How many bytes of messages the log holds at most, but at least one message.
        max_age: How many milliseconds a message is held; `None` for no bound.
        guard: The name of the function that authorises its readers, or `""`.
        lives: How many milliseconds the record lives without use; `None` for ever.
        history_lives: How many milliseconds the messages live without use; `None` as the record.
        most_keys: How many keys the state of a keyed channel may have.
        traits: `s` if only one worker can read the source; `r` if the channel ends once unused.
    """

    keys: ChannelKeys
    kind: str
    making: str
    size: int
    max_bytes: int
    max_age: int | None = None
    guard: str = ""
    lives: int | None = None
    history_lives: int | None = None
    most_keys: int = 0
    traits: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One message to append.

    Attributes:
        data: The value as JSON.
        id: A repeated id within ten minutes is the same message; `""` for none.
        changed: Values of a keyed channel's state, by key.
        deleted: Removed keys of that state.
    """

    data: bytes
    id: str = ""
    changed: Sequence[tuple[str, bytes]] = ()
    deleted: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Messages to one channel, in order.

    Attributes:
        log: The channel.
        items: The messages.
        fence: The fence of the worker that reads the source; `""` for other messages.
    """

    log: Log
    items: Sequence[Item]
    fence: str = ""


@dataclass(frozen=True, slots=True)
class Living:
    """The workers that were alive at a heartbeat.

    Attributes:
        workers: The workers.
        at: The time of Redis at the heartbeat, in milliseconds. A worker that was there before, and
            is not among these, is dead for good.
    """

    workers: frozenset[str] = frozenset()
    at: int = 0


def fresh() -> str:
    """Return an unused name: of an epoch, a generation, or a making."""
    return secrets.token_urlsafe(6)


def call_of(
    script: Script,
    keys: Sequence[str],
    arguments: Sequence[Argument],
    read: Callable[..., T],
    *,
    channel: str = "",
) -> Call[T]:
    """Return the call of a script; see `Call`."""
    return Call(("EVALSHA", script.sha, len(keys), *keys, *arguments), read, script, channel)
