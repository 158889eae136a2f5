"""The exception tree. Every error states the expected and the actual value, and has the data.

.. code-block:: text

    CometError
    ├── NotRunning              a request, or a wait, without a running lifespan
    ├── SeveralWorkers          another worker serves the application, and there is no broker
    ├── NotShared               a call that needs one worker, with a broker of several
    ├── BrokerUnavailable       the broker cannot be reached, or its queue is full
    ├── MustAwait               a call that asks other workers, in the event loop
    ├── Unconfirmed             a change that some workers have not confirmed
    ├── InvalidDeclaration      a declared channel that cannot work            (also a TypeError)
    ├── InvalidName             a channel name outside the alphabet or length  (also a ValueError)
    ├── NonUniqueChannelName    a second live channel of the same name
    ├── TooManyVirtualChannels  more live channels than `max_virtual_channels`
    ├── TooManyFamilyChannels   more live members of families than the settings allow
    ├── MessageTooLarge         a message over `message_limit`                 (also a ValueError)
    ├── InvalidMessage          a value that does not fit the channel's type   (also a ValueError)
    ├── ChannelClosed           published on a channel that has ended; in a client: it has ended
    ├── ChannelFull             published on a process channel without a reader; in a client:
    │   │                       messages were missed
    │   └── NotifierFull        notified faster than notifications can be delivered
    ├── InvalidKey              a key that does not fit the notifier           (also a TypeError)
    ├── NoClientProcess         no current client process: outside a request, or an unknown one
    ├── ProcessClosed           an operation on a client process that has closed
    ├── TooManyProcesses        more client processes than a session, or the server, may have
    ├── Replaced                in a client: another connection reads its channels
    ├── Refused                 in a client: the server refuses a request
    ├── UnknownCommand          a line outside the command language            (also a ValueError)
    └── BadRequest              a body that violates the protocol              (also a ValueError)
"""

from __future__ import annotations

from asgi_comet.position import Position

__all__ = [
    "BadRequest",
    "BrokerUnavailable",
    "ChannelClosed",
    "ChannelFull",
    "CometError",
    "InvalidDeclaration",
    "InvalidKey",
    "InvalidMessage",
    "InvalidName",
    "MessageTooLarge",
    "MustAwait",
    "NoClientProcess",
    "NonUniqueChannelName",
    "NotRunning",
    "NotShared",
    "NotifierFull",
    "ProcessClosed",
    "Refused",
    "Replaced",
    "SeveralWorkers",
    "TooManyFamilyChannels",
    "TooManyProcesses",
    "TooManyVirtualChannels",
    "Unconfirmed",
    "UnknownCommand",
]


class CometError(Exception):
    """The root of every error that asgi_comet raises on purpose."""


_NOT_STARTED = (
    "this Comet is not running: expected its lifespan to have been started by the server. "
    "Add `app.add_middleware(CometMiddleware, comet=comet)`, or mount `comet.app` and pass "
    "`lifespan=comet.lifespan` to FastAPI or Starlette, and serve with lifespan support on "
    "(uvicorn: not `--lifespan off`; in tests: `with TestClient(app)`, "
    "or `async with comet.lifespan()`)"
)
_ONLY_PUBLISHES = (
    "this process only publishes: expected the lifespan of a server, got comet.publishing(), in "
    "which channels and notifiers publish, and `await delivery.stored()` waits for a message; do "
    "all else in the server: for example, have this program call an endpoint of the application"
)


class NotRunning(CometError):
    """The lifespan of this `Comet` is not running.

    Args:
        publishes: Whether the process is in `Comet.publishing` instead.
    """

    def __init__(self, *, publishes: bool = False) -> None:
        super().__init__(_ONLY_PUBLISHES if publishes else _NOT_STARTED)


WORKERS_ADVICE = (
    "each worker has its own memory, so a message that is published in one never reaches the "
    "clients of the other; run one worker (`--workers 1`, or WEB_CONCURRENCY=1), or set "
    'COMET_SEVERAL_WORKERS=warn (`Settings(several_workers="warn")`) to start all the same'
)


class SeveralWorkers(CometError):
    """Another worker serves this application, and there is no broker between the two.

    Attributes:
        process: The other worker's process identifier.
    """

    def __init__(self, process: int) -> None:
        super().__init__(
            f"expected one worker, but process {process} serves this application as well: "
            f"{WORKERS_ADVICE}"
        )
        self.process = process


class NotShared(CometError):
    """A call concerns client processes, users or notifiers, which the broker does not share.

    Attributes:
        called: The call.
    """

    def __init__(self, called: str) -> None:
        super().__init__(
            f"expected a broker that shares client processes, users and notifiers for {called}, "
            "got one that shares channels only: use another broker, or channels of the site only "
            "(scope=SITE)"
        )
        self.called = called


class InvalidName(CometError, ValueError):
    """A channel name is not acceptable.

    Attributes:
        name: The name.
    """

    def __init__(self, name: object, reason: str) -> None:
        if reason.startswith("expected "):  # complete by itself
            super().__init__(f"{reason}, for the name {name!r:.80}")
        else:
            super().__init__(
                "expected a channel name of 1 to 255 bytes of UTF-8 without control characters, "
                f"not starting with ':', '~' or '@', and neither 'open' nor 'error'; "
                f"got {name!r:.80}: {reason}"
            )
        self.name = name


class BrokerUnavailable(CometError):
    """The broker could not be reached in time, or too many messages wait to be stored.

    Attributes:
        reason: What is wrong.
        maybe_stored: Whether the broker may have stored the message nevertheless.
    """

    def __init__(self, reason: str, *, maybe_stored: bool = False) -> None:
        super().__init__(f"the broker is not available: {reason}")
        self.reason: str = reason
        self.maybe_stored: bool = maybe_stored


class MustAwait(CometError):
    """A call has to ask other workers, which blocks, and so cannot be made in the event loop.

    Attributes:
        instead: The line to write instead.
    """

    def __init__(self, called: str, instead: str) -> None:
        super().__init__(
            f"expected {called} in a worker thread, got the event loop, which must not wait for "
            f"other workers; write: {instead}"
        )
        self.instead: str = instead


class Unconfirmed(CometError):
    """A change was made, but some workers have not confirmed it.

    Attributes:
        reason: What is wrong.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"expected all workers to confirm the change: {reason}")
        self.reason: str = reason


class InvalidDeclaration(CometError, TypeError):
    """A declared channel cannot work as declared.

    Attributes:
        name: The declared name.
        reason: The expected and the actual value.
    """

    def __init__(self, name: object, reason: str) -> None:
        super().__init__(f"channel {name!r:.80} cannot be declared so: {reason}")
        self.name = name
        self.reason = reason


class NonUniqueChannelName(CometError):
    """A live channel already has this name.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str, reason: str = "") -> None:
        super().__init__(
            f"expected a name that no live channel has and none is declared for, got {name!r}, "
            f"which is taken{reason and ': '}{reason}"
        )
        self.name = name


class TooManyVirtualChannels(CometError):
    """There are `Settings.max_virtual_channels` live channels already.

    Attributes:
        limit: The maximal count of live channels.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"expected at most {limit} live channels (max_virtual_channels), got one more"
        )
        self.limit = limit


class TooManyFamilyChannels(CometError):
    """There are as many live members of families as the settings allow.

    Attributes:
        limit: The maximal count of live members.
        setting: The name of the setting: `max_family_channels` or
            `max_family_channels_per_session`.
    """

    def __init__(self, limit: int, setting: str = "max_family_channels") -> None:
        super().__init__(
            f"expected at most {limit} live members of families ({setting}), got one more"
        )
        self.limit = limit
        self.setting = setting


class MessageTooLarge(CometError, ValueError):
    """A message is larger than `Settings.message_limit`. Nothing was published.

    Attributes:
        name: The channel.
        limit: The maximal size of an encoded message, in bytes.
        size: The size of this message, in bytes.
    """

    def __init__(self, name: str, limit: int, size: int) -> None:
        super().__init__(
            f"expected a message of at most {limit} bytes as JSON on channel {name!r}, got {size}"
        )
        self.name = name
        self.limit = limit
        self.size = size


_ENDS = {
    "failed": "has failed on the server, whose log says why",
    "cancelled": "was cancelled",
    "unknown": "is not there: nothing of that name lives or is declared on the server",
    "forbidden": "may not be read by this client",
}


class ChannelClosed(CometError):
    """The channel has ended.

    On the server: nothing was published. In a client: no more messages come.

    Args:
        name: The channel.
        reason: Why.
        followed: Whether this is in a client.

    Attributes:
        name: The channel.
        reason: `ended` or `failed`; in a client also `cancelled`, `unknown` and `forbidden`.
    """

    def __init__(self, name: str, reason: str, *, followed: bool = False) -> None:
        super().__init__(
            f"no more messages of {name!r}: the channel {_ENDS.get(reason, 'has ended')}"
            if followed
            else f"expected a live channel, got {name!r}, which has {reason}; nothing was published"
        )
        self.name = name
        self.reason = reason


class ChannelFull(CometError):
    """Messages are lost, and this says so.

    On the server: a process channel overflowed, for a message that was never sent would be
    displaced. Nothing was published, the channel has ended, and its reader is told `full`.
    In a client: messages were missed, because the server does not hold them any longer.

    Args:
        name: The channel.
        position: Where to go on from.
        missed: Whether this is in a client.

    Attributes:
        name: The channel.
        position: In a client, where to go on from; `None` if no more messages come.
    """

    def __init__(
        self, name: str, position: Position | None = None, *, missed: bool = False
    ) -> None:
        super().__init__(_tell_missed(name, position) if missed else _tell_unread(name))
        self.name = name
        self.position: Position | None = position


def _tell_unread(name: str) -> str:
    return (
        f"expected channel {name!r} to be read, but as many messages as it may hold were "
        "never asked for: nothing was published, the channel is full, was emptied and ended"
    )


def _tell_missed(name: str, position: Position | None) -> str:
    then = "no more come" if position is None else f"go on from {position}"
    return f"messages of {name!r} were missed; {then}"


class NotifierFull(ChannelFull):
    """Too many notifications of a notifier wait to be delivered. This one was not accepted.

    Attributes:
        name: The notifier.
        limit: How many notifications may wait.
        max_bytes: How many bytes the waiting notifications may have.
    """

    def __init__(self, name: str, limit: int, max_bytes: int) -> None:
        CometError.__init__(
            self,
            f"expected at most {limit} notifications of {name!r}, or {max_bytes} bytes, to wait to "
            "be handed out, got one more: notify less often, or await some of them",
        )
        self.name = name
        self.limit = limit
        self.max_bytes = max_bytes


class InvalidKey(CometError, TypeError):
    """A key does not fit the notifier. Nothing was done.

    Attributes:
        name: The notifier.
        key: The key.
    """

    def __init__(self, name: str, expected: str, key: object) -> None:
        super().__init__(
            f"expected a key of notifier {name!r} to be {expected}, "
            f"got {type(key).__name__} {key!r:.80}"
        )
        self.name = name
        self.key = key


class InvalidMessage(CometError, ValueError):
    """A value does not fit the channel's type.

    On the server: nothing was published. In a client: such a value came.

    Attributes:
        name: The channel.
        problems: For each invalid field, the path and the expected value.
        position: In a client, the position of the message; who starts there skips the message.
    """

    def __init__(
        self, name: str, problems: list[tuple[str, str]], position: Position | None = None
    ) -> None:
        told = "; ".join(f"{path or 'the value'}: {expected}" for path, expected in problems)
        super().__init__(f"expected a value that fits channel {name!r}; {told}")
        self.name = name
        self.problems = problems
        self.position: Position | None = position


class NoClientProcess(CometError):
    """There is no current client process."""

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"{advice}expected a current client process, but {reason}")


class ProcessClosed(CometError):
    """The client process has closed.

    Attributes:
        process: The identifier of the client process; empty in a client.
    """

    def __init__(self, process: str = "") -> None:
        super().__init__(
            f"expected an open client process, got {process[:6]}…, which has closed"
            if process
            else "the client process of this client has closed, as it does when it is without a "
            "connection for too long or the server restarts: open another one"
        )
        self.process = process


class Replaced(CometError):
    """Another connection reads the channels of this client process now; only one may."""

    def __init__(self) -> None:
        super().__init__(
            "another connection reads the channels of this client process, and only one may: "
            "follow all of them with one call, or let each reader open a client process"
        )


class Refused(CometError):
    """The server refuses what a client asks for, and would refuse it again.

    Attributes:
        status: The HTTP status.
        said: What the server said.
    """

    def __init__(self, status: int, said: str = "") -> None:
        super().__init__(f"the server refuses with status {status}{said and ': '}{said:.300}")
        self.status: int = status
        self.said: str = said


class TooManyProcesses(CometError):
    """No further client process can be opened.

    Attributes:
        limit: The maximal count.
        of_session: Whether the limit is the session's, with all processes connected; otherwise it
            is the server's.
    """

    def __init__(self, limit: int, *, of_session: bool) -> None:
        whose = "connected in this session" if of_session else "on this server"
        super().__init__(f"expected at most {limit} client processes {whose}, got one more")
        self.limit = limit
        self.of_session = of_session


class UnknownCommand(CometError, ValueError):
    """A line is not a command. Nothing was done.

    Attributes:
        line: The line.
    """

    def __init__(self, line: str) -> None:
        super().__init__(
            "expected 'activate', 'deactivate' or 'set_timeout SECONDS [KILL]', each with or "
            f"without the prefix 'comet:'; got {line!r:.80}"
        )
        self.line = line


class BadRequest(CometError, ValueError):
    """The body of a request violates the protocol; the text is the answer to the client."""
