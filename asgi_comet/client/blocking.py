"""The client for threads.

Must not know connections (`blocking_line.py`), nor what follows a lost one
(`protocol/following.py`).
"""

from __future__ import annotations

import builtins
from collections.abc import Generator, Mapping, Sequence
from ssl import SSLContext
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

from asgi_comet.client.blocking_line import Connection, Line
from asgi_comet.client.message import Message
from asgi_comet.client.positions import Positions
from asgi_comet.client.target import make_target
from asgi_comet.client.wanted import TRANSPORTS, OnFull, Transport, Wanted, check_transports
from asgi_comet.errors import CometError, ProcessClosed
from asgi_comet.position import Position
from asgi_comet.protocol.following import Following

__all__ = ["Client", "Messages"]

T = TypeVar("T")


class Client:
    """Follows channels, in a thread.

    It uses a WebSocket, else server-sent events, else polls, and comes back by itself after a lost
    connection, from the position where it was. Leave it with `with`, or `close`.

    Args:
        url: Where the server's endpoints are, like `https://example.org/comet`, or the URL of a
            client process.
        headers: Sent with every request.
        cookies: The cookies to begin with; those that the server sets are kept.
        token: Sent as a bearer token, to this URL only: redirects are not followed.
        ssl: How to check the server's certificate; by default by the authorities that are trusted
            usually.
        insecure: Whether to send the token over http also to other hosts than this one.
        transports: Which transports to try, in this order.

    Raises:
        ValueError: The URL is none of http or https, the token would be sent in clear, or a header
            or a cookie has characters that none may have.
    """

    def __init__(  # noqa: PLR0913 - independent options of one client, each by name
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        token: str | None = None,
        ssl: SSLContext | None = None,
        insecure: bool = False,
        transports: Sequence[Transport] = TRANSPORTS,
    ) -> None:
        self._transports = check_transports(transports)
        self._line = Line(
            make_target(
                url,
                headers=headers,
                cookies=cookies,
                token=token,
                ssl_context=ssl,
                insecure=insecure,
            )
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the client process, if this client has opened one, and all connections."""
        self._line.close()

    def process(self) -> str:
        """Return the token of this client's process, for the header `Comet-Process`.

        It is opened at the first call.

        Raises:
            Refused: The server opens none for this client.
            ConnectionError: The server cannot be reached.
        """
        return self._line.process()

    @overload
    def channel(
        self,
        name: str,
        *,
        start: str | Position = "now",
        type: builtins.type[T],
        on_full: OnFull = "raise",
    ) -> Messages[T]: ...

    @overload
    def channel(
        self,
        name: str,
        *,
        start: str | Position = "now",
        type: Any = None,
        on_full: OnFull = "raise",
    ) -> Messages[Any]: ...

    def channel(
        self,
        name: str,
        *,
        start: str | Position = "now",
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        on_full: OnFull = "raise",
    ) -> Messages[Any]:
        """Follow one channel: `for message in comet.channel("news")`.

        Args:
            name: The name. One that begins with `~` is of this client's own process.
            start: `now`, `first`, `last:10`, or the position after which messages come.
            type: The type of the values, anything pydantic knows; by default they are as JSON has
                them.
            on_full: What to do if messages were missed: `raise` raises `ChannelFull`, with the
                position to go on from; `resume` goes on from there.
        """
        return self.follow({name: start}, type=type, on_full=on_full)

    @overload
    def follow(
        self,
        starts: Mapping[str, str | Position],
        *,
        type: builtins.type[T],
        on_full: OnFull = "raise",
        save: Positions | None = None,
    ) -> Messages[T]: ...

    @overload
    def follow(
        self,
        starts: Mapping[str, str | Position],
        *,
        type: Any = None,
        on_full: OnFull = "raise",
        save: Positions | None = None,
    ) -> Messages[Any]: ...

    def follow(
        self,
        starts: Mapping[str, str | Position],
        *,
        type: Any = None,  # noqa: A002 - the word users know from pydantic
        on_full: OnFull = "raise",
        save: Positions | None = None,
    ) -> Messages[Any]:
        """Follow channels over one connection.

        Args:
            starts: Where to start, by the name of the channel: `now`, `first`, `last:10`, or the
                position after which messages come.
            type: The type of the values of all channels.
            on_full: What to do if messages of a channel were missed, see `channel`.
            save: Keeps positions, which are loaded at the beginning, and saved after the body of
                the loop has dealt with a message.
        """
        wanted = Wanted(starts, type_=type, on_full=on_full, save=save, transports=self._transports)
        return Messages(self._line, wanted)


class Messages(Generic[T]):
    """Messages of channels, for `for`.

    A loop ends when all channels have ended, and raises the errors of `Following.take` and
    `Following.go_on`. After an error, and after `break`, another loop goes on with the channels
    that are left; a message whose body did not end comes again.
    """

    def __init__(self, line: Line, wanted: Wanted) -> None:
        self._line = line
        self._wanted = wanted

    @property
    def positions(self) -> dict[str, str]:
        """How far the program has dealt with messages, by the name of the channel."""
        return dict(self._wanted.positions)

    @property
    def closed(self) -> dict[str, str]:
        """Why channels have ended, by their names: a reason of `ChannelClosed`, or `full`."""
        return dict(self._wanted.closed)

    def __iter__(self) -> Generator[Message[T]]:
        wanted = self._wanted
        following = wanted.begin()
        connection = Connection(self._line)
        try:
            result: object = None
            while (step := following.go_on(result)) is not None:
                result = connection.run(step)
                for event in iter(following.take, None):
                    self._save(following)
                    yield wanted.decode(event)
                self._save(following)
        except CometError as error:
            self._save(following)
            if isinstance(error, ProcessClosed):
                self._line.forget()
            raise
        finally:
            connection.close()

    def _save(self, following: Following) -> None:
        if self._wanted.note(following) is not None:
            raise TypeError("expected `save` to be no coroutine function, which AsyncClient awaits")
