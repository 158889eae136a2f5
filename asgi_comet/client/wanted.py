"""The channels that a program follows, from one loop to the next.

Owns start positions and what is saved of them. Must not know connections.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from asgi_comet.client.message import Message, make_decode
from asgi_comet.client.positions import Positions
from asgi_comet.core.messages import parse_start
from asgi_comet.core.names import check_asked
from asgi_comet.position import Position
from asgi_comet.protocol.events import Event
from asgi_comet.protocol.following import Following

__all__ = ["TRANSPORTS", "OnFull", "Transport", "Wanted", "check_transports"]

OnFull = Literal["raise", "resume"]
Transport = Literal["websocket", "sse", "poll"]

TRANSPORTS: tuple[Transport, ...] = ("websocket", "sse", "poll")


def check_transports(transports: Sequence[Transport]) -> tuple[Transport, ...]:
    """Check the transports that a client may use.

    Raises:
        ValueError: There is none, or one is unknown.
    """
    if not transports or isinstance(transports, str) or set(transports) - set(TRANSPORTS):
        raise ValueError(f"expected some of {', '.join(TRANSPORTS)}, got {transports!r:.80}")
    return tuple(transports)


class Wanted:
    """The channels that a program follows.

    Args:
        starts: Start positions by the name of the channel.
        type_: The type of the values, anything pydantic knows.
        on_full: What to do if messages were missed.
        save: Keeps the positions.
        transports: The transports to try.
    """

    def __init__(
        self,
        starts: Mapping[str, str | Position],
        *,
        type_: Any,
        on_full: OnFull,
        save: Positions | None,
        transports: Sequence[Transport],
    ) -> None:
        if not starts:
            raise ValueError('expected channels to follow, like {"news": "now"}, got none')
        if on_full not in {"raise", "resume"}:
            raise ValueError(f"expected on_full to be 'raise' or 'resume', got {on_full!r:.40}")
        self.starts: dict[str, str] = {check_asked(name): str(at) for name, at in starts.items()}
        for start in self.starts.values():
            parse_start(start)
        self.decode: Callable[[Event], Message[Any]] = make_decode(type_)
        self.positions: dict[str, str] = {n: at for n, at in self.starts.items() if "." in at}
        self.closed: dict[str, str] = {}
        self._on_full = on_full
        self._save = save
        self._transports = transports
        self._begun = False

    def begin(self) -> Following:
        """Return how to follow the channels that are left, from where the program is."""
        if not self._begun and self._save is not None:
            saved = self._save.load()
            if not isinstance(saved, Mapping):
                raise TypeError(f"expected load() to return positions by names, got {saved!r:.80}")
            self.positions = {name: at for name, at in saved.items() if name in self.starts}
            self.starts.update(self.positions)
        self._begun = True
        following = Following(
            self.starts,
            resume=self._on_full == "resume",
            transports=self._transports,
            clock=time.monotonic,
        )
        # The same dictionary, so that the next loop need not wait for the end of this one: an
        # event loop ends a generator that was left by `break` some turns later.
        self.starts = following.starts
        return following

    def note(self, following: Following) -> Awaitable[None] | None:
        """Record and save how far the program is, if that has changed."""
        self.closed.update(following.closed)
        if not following.moved:
            return None
        following.moved = False
        self.positions.update(following.positions)
        return None if self._save is None else self._save.save(self.positions)
