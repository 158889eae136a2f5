"""Answers and errors of httpx, in the words of the protocol.

Must not know whether requests are sent by a thread or by a task.
"""

from __future__ import annotations

import logging

import anyio
import httpx

from asgi_comet.client.target import Target
from asgi_comet.errors import BadRequest
from asgi_comet.log_events import event
from asgi_comet.protocol.events import decode_object
from asgi_comet.protocol.steps import Lost, Pause, Reply, check_reply

__all__ = ["JSON", "LOST", "log_pause", "read_process", "read_reply", "tell_lost"]

JSON = {"Content-Type": "application/json"}

_logger = logging.getLogger("asgi_comet.client")

LOST = (httpx.TransportError, httpx.StreamError, anyio.BrokenResourceError, OSError, EOFError)
"""The errors of a connection that is lost."""


def read_reply(response: httpx.Response) -> Reply:
    """Return the reply that a response is; its body must have been read unless it is a stream.

    Raises:
        BadRequest: It is a stream of something else than events.
    """
    headers = response.headers
    asked = headers.get("Retry-After", "")
    retry_after = float(asked) if asked.isdecimal() else 0.0  # it may be a date
    streams = response.status_code == 200 and not response.is_stream_consumed
    kind = headers.get("Content-Type", "no content type")
    if streams and not kind.startswith("text/event-stream"):
        raise BadRequest(f"expected an event stream from {response.url.path}, got {kind}")
    body = b"" if streams else response.content
    return Reply(response.status_code, body, retry_after, headers.get("Location", ""))


def tell_lost(error: Exception) -> Lost:
    """Return the loss that an error means."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return Lost("the server was silent for too long")
    reason: BaseException = error
    while not str(reason) and (cause := reason.__cause__ or reason.__context__):
        reason = cause  # trio alone says why, two errors before that of httpx
    return Lost(f"{type(reason).__name__}: {reason}".removesuffix(": "))


def read_process(reply: Reply) -> str:
    """Return the token of the client process that was opened.

    Raises:
        Lost: It may be opened later.
        Refused: It would be refused again.
        BadRequest: The server does not speak `comet.v1`.
    """
    check_reply(reply)
    opened = decode_object(reply.body, '{"process": "…"}')
    if not isinstance(opened.get("process"), str):
        raise BadRequest(f"expected the token of a client process, got {opened!r:.80}")
    return str(opened["process"])


def log_pause(target: Target, pause: Pause) -> None:
    """Log why a client waits; a warning for the first try that fails."""
    level = logging.WARNING if pause.tries == 1 else logging.INFO
    _logger.log(
        level,
        "%s: %s; next try in %.1f s",
        target.shown,
        pause.why,
        pause.seconds,
        extra=event(
            "connection.lost",
            server=target.shown,
            reason=pause.why,
            seconds=pause.seconds,
            count=pause.tries,
        ),
    )
