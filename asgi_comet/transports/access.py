"""Who may use the endpoints of a client process, and whose a connection is.

Owns the answers to a token that is not one, is of a closed process, or of another session; and that
the application is asked whose a session is when it connects.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from starlette.requests import HTTPConnection

from asgi_comet.channels.feed import Listener
from asgi_comet.errors import TooManyProcesses
from asgi_comet.http.advice import advise
from asgi_comet.http.exchange import Exchange, Refusal
from asgi_comet.identity.process import Caller, ClientProcess, Session
from asgi_comet.identity.users import Moved
from asgi_comet.node.build import Hub

__all__ = [
    "Find",
    "NotYet",
    "ProcessGone",
    "admits",
    "check_caller",
    "default_process",
    "enter",
    "leave",
    "own_process",
    "process_of",
    "read_sessions",
    "recognise",
    "too_many",
]

_logger = logging.getLogger(__name__)

Find = Callable[[], Awaitable[ClientProcess | None]]
"""Finds whose endpoint a request came to; `None` is the site's. Raises as `process_of` does."""


class ProcessGone(Exception):
    """The client process of an endpoint has closed."""


class NotYet(Exception):
    """Who it is cannot be told right now: the client is to come back in a moment."""


class Succeeded(NotYet):
    """A request came with the cookie that its session had before a login.

    Attributes:
        process: The client process it is about.
    """

    def __init__(self, process: ClientProcess) -> None:
        super().__init__(_ANOTHER)
        self.process = process


_ANOTHER = "the session has another cookie by now"


async def process_of(hub: Hub, exchange: Exchange, token: str) -> ClientProcess:
    """Return the client process that a token in a URL names, if a connection may be of it.

    The application is asked whose its session is.

    Raises:
        Refusal: As `own_process`.
        ProcessGone: As `own_process`; also if its user has left.
        NotYet: As `own_process`; or the application could not say whose it is.
    """
    connection = HTTPConnection(exchange.scope)
    with _not_yet():
        try:
            process = own_process(hub, exchange, token)
        except Succeeded as error:
            process = error.process
            await hub.users.check_heir(process.session, connection)
            _renew(hub, exchange, process.session)
        else:
            if hub.users.identify is not None:
                session = process.session
                if await hub.users.identify_session(session, connection, process):
                    _renew(hub, exchange, session)
    if process.closed:
        raise ProcessGone
    return process


def own_process(hub: Hub, exchange: Exchange, token: str) -> ClientProcess:
    """Return the client process that a token in a URL names, if the request may use it.

    Raises:
        Refusal: 403 for a token that we did not sign, or without the cookie of its session.
        ProcessGone: It has closed. This is looked at before the cookie: after a restart of the
            server, a page without a valid cookie has to learn it, too.
        Succeeded: It came with the cookie of before a login, a moment after.

    Source: docs/wire.md#client-processes.
    """
    id_ = hub.visits.identity.unsign_process(token)
    if id_ is None:
        raise Refusal(403, "the URL names no client process of ours")
    process = hub.processes.find(id_)
    if process is None or process.closed:
        hub.siblings.recognise(hub.visits.identity.birth_of(token))
        # A process of another worker will be served from here once there is a broker for it.
        raise ProcessGone
    session, named = process.session, read_sessions(hub, exchange)
    id_ = session.id
    if id_ not in named:
        if any(hub.processes.heir(former) is session for former in named):
            raise Succeeded(process)
        raise Refusal(403, "the client process belongs to another session")
    exchange.caller = Caller(session, id_)
    return process


def read_sessions(hub: Hub, exchange: Exchange) -> tuple[str, ...]:
    """Read the sessions that the cookies of a request name, which it keeps: once is enough.

    There are several where another host planted one, which it can on plain http: the token of a
    client process tells which of them is meant.
    """
    exchange.sessions = named = hub.visits.sessions(exchange.scope)
    return named


async def recognise(hub: Hub, exchange: Exchange) -> Caller | None:
    """Return whose a connection to the site's endpoints is; `None` if it names no session.

    Raises:
        NotYet: The application could not say whose it is; or it came with the cookie of before a
            login, a moment after.
    """
    named = read_sessions(hub, exchange)
    if not named:
        return None
    with _not_yet():
        session, renewed = await hub.users.recognise(named[0], HTTPConnection(exchange.scope))
    if renewed:
        _renew(hub, exchange, session)
    else:
        exchange.caller = Caller.of(session)
    caller: Caller | None = exchange.caller
    return caller


def check_caller(exchange: Exchange) -> None:
    """Check, after a wait, that nobody has logged in meanwhile to whom a request does not belong.

    Raises:
        NotYet: Somebody has; the request came with the cookie of before.
    """
    if exchange.caller is not None and exchange.caller.moved:
        raise NotYet(_ANOTHER)


def _process_of(listener: Listener, session: Session) -> ClientProcess | None:
    return next((p for p in session.processes if listener in p.listeners), None)


def _renew(hub: Hub, exchange: Exchange, session: Session) -> None:
    """Let the answer name the session by its id of now, if that is still so when it begins."""
    exchange.caller = caller = Caller.of(session)

    def make() -> Sequence[tuple[bytes, bytes]]:
        return [] if caller.moved else [hub.visits.make_cookie(exchange.scope, caller.id)]

    exchange.renew = make


@contextmanager
def _not_yet() -> Iterator[None]:
    """Have a client come back when nobody can say right now whose it is."""
    try:
        yield
    except Moved:
        raise NotYet(_ANOTHER) from None
    except (Refusal, ProcessGone):
        raise
    except Exception as error:
        advice = advise(error)
        _logger.exception("the application could not say who a connection belongs to%s", advice)
        raise NotYet("try again in a moment") from None


async def admits(hub: Hub, exchange: Exchange, listener: Listener, name: str) -> bool:
    """Tell whether a connection may read a site channel, whether or not that lives.

    Raises:
        NotYet: The application could not say so.
    """
    guard = hub.guard.find(name)
    if guard is None:
        return True
    connection = HTTPConnection(exchange.scope)
    try:
        if listener.caller is None and hub.users.identify is not None:
            # For `revoke` alone: it has no cookie, so no session of ours.
            stranger = Session("", await hub.users.ask(connection))
            listener.caller = Caller.of(stranger)
        # What `authorize` can ask for.
        with hub.visits.begin(exchange.scope, exchange.sessions) as visit:
            if exchange.caller is not None:
                visit.take(exchange.caller, _process_of(listener, exchange.caller.session))
            return await guard.admits(connection)
    except Exception as error:
        advice = advise(error)
        _logger.exception(
            "the application could not say who may read channel %.200r%s", name, advice
        )
        raise NotYet("try again in a moment") from None


def default_process(hub: Hub, exchange: Exchange) -> ClientProcess | None:
    """Return the default client process of the session that a request is of, if it is of one.

    Raises:
        NotYet: Somebody has logged in meanwhile.
        Refusal: 429 or 503: there are too many.
    """
    if exchange.caller is None:
        return None
    check_caller(exchange)
    try:
        return hub.processes.default(exchange.caller.session)
    except TooManyProcesses as error:
        raise too_many(error) from None


def too_many(error: TooManyProcesses) -> Refusal:
    """Return the answer to a process too many."""
    return Refusal(429 if error.of_session else 503, str(error), Retry_After="30")


def enter(
    hub: Hub, exchange: Exchange, process: ClientProcess | None, listener: Listener, seconds: float
) -> None:
    """Count a connection in: to its process, and as held from now. `leave` it in any case.

    Args:
        hub: The rooms.
        exchange: The connection.
        process: Whose it is; `None` for nobody's.
        listener: The same, as it hears of messages.
        seconds: When it expires.

    Raises:
        NotYet: Somebody has logged in since it was looked at; then it was not counted.
    """
    check_caller(exchange)
    listener.caller = exchange.caller
    if process is not None:
        process.connect()
        process.listeners.add(listener)
    elif exchange.caller is not None:
        hub.processes.visit(listener, exchange.caller)
    hub.fanout.listeners.add(listener)
    hub.timers.start(listener, seconds)


def leave(hub: Hub, process: ClientProcess | None, listener: Listener) -> None:
    """Count a connection out, if it was counted in: nothing of it remains. Idempotent."""
    if listener not in hub.fanout.listeners:
        return
    hub.timers.stop(listener)
    hub.fanout.detach(listener)
    hub.processes.leave(listener)
    if process is not None:
        process.listeners.discard(listener)
        process.left_by(listener)
        process.disconnect()
