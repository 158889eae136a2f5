"""Access: the client process and the session of a connection, and the channels it may read.

Owns the answers to a token that is not one, is of a closed process, or of another session; and that
the application is asked for the user of a session when a client connects.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection

from asgi_comet.channels.feed import Listener
from asgi_comet.errors import BrokerUnavailable, NotShared, TooManyProcesses
from asgi_comet.http.advice import advise
from asgi_comet.http.exchange import Exchange, Refusal
from asgi_comet.identity.guard import Guard
from asgi_comet.identity.process import Claim, Client, Session, Stale
from asgi_comet.log_events import event
from asgi_comet.node.build import Node
from asgi_comet.transports.postponing import TryAgain, not_yet, try_again

__all__ = [
    "ANOTHER",
    "OWN_CHANNELS",
    "Find",
    "ProcessGone",
    "Unshared",
    "admits",
    "arrive",
    "check_claim",
    "default_process",
    "enter",
    "find_guard",
    "leave",
    "own_process",
    "process_of",
    "read_sessions",
    "recognise",
    "require_people",
    "stop_reading",
    "too_many",
]

_logger = logging.getLogger(__name__)

Find = Callable[[], Awaitable[Client | None]]
"""Finds whose endpoint a request came to; `None` is the site's. Raises as `process_of` does."""


class ProcessGone(Exception):
    """The client process of an endpoint has closed."""


class Unshared(Refusal):
    """A request needs client processes, which the workers of the broker do not share."""

    def __init__(self, reason: str) -> None:
        super().__init__(501, reason)


ANOTHER = "the session has another cookie by now"


OWN_CHANNELS = "channels of a client process, whose names begin with '~'"


def require_people(node: Node, asked: str) -> None:
    """Check that client processes work with the broker.

    Args:
        node: The parts of the Comet.
        asked: What the client asks for.

    Raises:
        Unshared: They do not.
    """
    try:
        node.requests.require_people(asked)
    except NotShared as error:
        raise Unshared(str(error)) from None


async def process_of(node: Node, exchange: Exchange, token: str) -> Client:
    """Return the client process that a token in a URL names, if the request may use it.

    The application is asked for the user of its session.

    Raises:
        Refusal: As `own_process`.
        ProcessGone: As `own_process`; also if the user has left.
        TryAgain: The application could not tell; or a login has changed the session's cookie.
    """
    if node.clients.shared:
        await arrive(node, exchange, token)
    process = _find_process(node, token)
    await _recognise(node, exchange, _claim_to(node, exchange, process), process)
    if process.closed:
        raise ProcessGone
    return process


async def arrive(
    node: Node, exchange: Exchange, token: str | None = None, *, default: bool = False
) -> None:
    """Ask the other workers for what a request names; call it before anything else.

    Args:
        node: The parts of the Comet.
        exchange: The request.
        token: The token of a client process.
        default: Whether the default client process of the session may be needed.

    Raises:
        TryAgain: The broker cannot be reached.
    """
    process = None if token is None else node.requests.identity.unsign_process(token)
    sessions = read_sessions(node, exchange)
    with not_yet():
        await node.clients.arrive(sessions, process or "", default=default)


def own_process(node: Node, exchange: Exchange, token: str) -> Client:
    """The same without asking the application.

    With other workers, call `arrive` before.

    Raises:
        Refusal: 403 for a token that we did not sign, or without the cookie of its session.
        ProcessGone: It has closed. This is looked at before the cookie: after a restart of the
            server, a page without a valid cookie has to learn it, too.
        TryAgain: The request has the cookie of before a login, a moment after.

    Source: docs/wire.md#client-processes.
    """
    process = _find_process(node, token)
    exchange.claim = _claim_to(node, exchange, process)
    check_claim(exchange)
    return process


def _find_process(node: Node, token: str) -> Client:
    id_ = node.requests.identity.unsign_process(token)
    if id_ is None:
        raise Refusal(403, "the URL names no client process of ours")
    process = node.clients.find(id_)
    if process is None or process.closed:
        node.siblings.recognise(node.requests.identity.birth_of(token))
        raise ProcessGone
    return process


def _claim_to(node: Node, exchange: Exchange, process: Client) -> Claim:
    """Return the claim of a request to the session of a client process.

    Its cookies may name several sessions: on plain http another host can plant one.
    """
    session = process.session
    claims = [node.clients.claim(id_) for id_ in read_sessions(node, exchange)]
    found = [claim for claim in claims if claim.session is session]
    if not found:
        raise Refusal(403, "the client process belongs to another session")
    return next((claim for claim in found if not claim.stale), found[0])


def read_sessions(node: Node, exchange: Exchange) -> tuple[str, ...]:
    """Read the sessions that the cookies of a request name, and keep them for later."""
    if exchange.sessions is None:
        exchange.sessions = node.requests.read_sessions(exchange.scope)
    return exchange.sessions


async def recognise(node: Node, exchange: Exchange, *, default: bool = False) -> Claim | None:
    """Return the claim of a connection to the site's endpoints; `None` if it names no session.

    Args:
        node: The parts of the Comet.
        exchange: The request.
        default: Whether the default client process of the session may be needed.

    Raises:
        TryAgain: The application could not tell the user; or a login has changed the cookie.
    """
    named = read_sessions(node, exchange)
    if not named:
        return None
    if node.clients.shared:
        with not_yet():
            await node.clients.arrive(named[:1], default=default)
    claim = node.clients.claim(named[0])
    if node.users.identify is not None or claim.stale:
        return await _recognise(node, exchange, claim)
    exchange.claim = claim
    return claim


async def _recognise(
    node: Node, exchange: Exchange, claim: Claim, process: Client | None = None
) -> Claim:
    """Bring the claim of a request up to date with what the application says."""
    try:
        current = await node.users.recognise(claim, exchange.scope, process)
    except BrokerUnavailable as error:
        raise try_again(error) from None
    except Stale:
        raise TryAgain(ANOTHER) from None
    except Exception as error:
        advice = advise(error)
        _logger.exception(
            "the application could not say who a connection belongs to%s",
            advice,
            extra=event("identify.failed"),
        )
        raise TryAgain("try again in a moment") from None
    exchange.claim = current
    if current is not claim:  # the answer names the session by its new id, if that is so then
        requests, scope = node.requests, exchange.scope
        exchange.renew = lambda: [] if current.stale else [requests.make_cookie(scope, current.id)]
    return current


def check_claim(exchange: Exchange) -> None:
    """Check, after a wait, that the session of a request has not been given another id.

    Raises:
        TryAgain: It has, by a login or a logout; the request came with the cookie of before.
    """
    if exchange.claim is not None and exchange.claim.stale:
        raise TryAgain(ANOTHER)


def _process_of(listener: Listener, session: Session) -> Client | None:
    return next((p for p in session._clients if listener in p.listeners), None)


async def admits(
    node: Node, exchange: Exchange, listener: Listener, name: str, guard: Guard | None
) -> bool:
    """Return whether a connection may read a site channel by its rule, which `find_guard` returned.

    Raises:
        TryAgain: The application could not tell.
    """
    if guard is None:
        return True
    connection = HTTPConnection(exchange.scope)
    try:
        if listener.claim is None and node.users.identify is not None:
            # Only for `revoke`: the connection has no cookie, so no session of ours.
            stranger = Session("", await node.users.ask(exchange.scope))
            listener.claim = Claim.of(stranger)
        # `authorize` may ask for the current request.
        with node.requests.begin(exchange.scope, exchange.sessions) as request:
            if exchange.claim is not None:
                request.take(exchange.claim, _process_of(listener, exchange.claim.session))
            return await guard.admits(connection)
    except Exception as error:
        advice = advise(error)
        _logger.exception(
            "the application could not say who may read channel %.200r%s",
            name,
            advice,
            extra=event("authorize.failed", channel=name),
        )
        raise TryAgain("try again in a moment") from None


async def find_guard(node: Node, name: str) -> Guard | None:
    """Return the rule of a site channel, which need not be live; `None` is every client.

    A channel of other workers is adopted, because its rule comes with it.

    Raises:
        CometError: There are too many channels.
        TryAgain: The broker could not tell.
    """
    feed = node.channels.find(name)
    if (feed is None or feed.outlived) and not node.channels.reserved.taken(name):
        with not_yet():
            await node.channels.adopt(name)
    return node.guard.find(name)


async def default_process(node: Node, exchange: Exchange) -> Client | None:
    """Return the default client process of the session that a request is of, if it is of one.

    Call `recognise` with `default` before.

    Raises:
        TryAgain: A login or a logout has changed the session meanwhile.
        Refusal: 429 or 503: there are too many.
    """
    if exchange.claim is None:
        return None
    try:
        process, claim = node.clients.default(exchange.claim)
        pending = node.clients.pending(claim.session)
        if pending is not None:
            with not_yet():
                await pending.wait()
            check_claim(exchange)
        return process
    except Stale:
        raise TryAgain(ANOTHER) from None
    except TooManyProcesses as error:
        raise too_many(error) from None


def too_many(error: TooManyProcesses) -> Refusal:
    """Return the answer to a process too many."""
    refusal = Refusal(429 if error.of_session else 503, str(error), Retry_After="30")
    refusal.outcome = "limit"
    return refusal


def enter(
    node: Node, exchange: Exchange, process: Client | None, listener: Listener, seconds: float
) -> None:
    """Register a connection with its process, the fan-out and its timer. Pair with `leave`.

    Args:
        node: The parts of the Comet.
        exchange: The request.
        process: The client process of the connection, if any.
        listener: The listener of the connection.
        seconds: The time after which it expires.

    Raises:
        TryAgain: A login or a logout has changed the session meanwhile; nothing is registered.
    """
    check_claim(exchange)
    listener.claim = exchange.claim
    if process is not None:
        process.connect()
        process.listeners.add(listener)
    elif exchange.claim is not None:
        try:
            node.clients.connect(listener, exchange.claim)
        except Stale:
            raise TryAgain(ANOTHER) from None
    node.fanout.listeners.add(listener)
    listener.counters.open += 1
    listener.counters.connections["accepted"] += 1
    node.timers.start(listener, seconds)


def leave(node: Node, process: Client | None, listener: Listener) -> None:
    """Undo `enter`, if that has registered the connection. Idempotent."""
    if listener not in node.fanout.listeners:
        return
    node.timers.stop(listener)
    node.fanout.detach(listener)
    listener.counters.open -= 1
    listener.counters.disconnections[listener.ended_by(stopping=node.drain.begun)] += 1
    node.clients.disconnect(listener)
    if process is not None:
        process.listeners.discard(listener)
        stop_reading(node, process, listener)
        process.disconnect()


def stop_reading(node: Node, process: Client, listener: Listener) -> None:
    """Record that a connection no longer reads the channels of its process, if it did."""
    number = process.left_by(listener)
    people = node.broker.people if number else None
    if people is not None:
        people.unclaim(process.id, number)
