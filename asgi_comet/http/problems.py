"""Answers for an endpoint that needs a client process and has none.

Owns the status of each such error. `CometMiddleware` gives these answers by itself if added by
`app.add_middleware` and the application does not handle the errors. If the middleware wraps a whole
application, the application answers 500 before the middleware gets the error, so pass the handlers
to the application:
`FastAPI(exception_handlers=exception_handlers)`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from asgi_comet._runtime.seldom import Seldom
from asgi_comet.errors import (
    BrokerUnavailable,
    NoClientProcess,
    ProcessClosed,
    TooManyProcesses,
    Unconfirmed,
)
from asgi_comet.log_events import event

__all__ = ["HANDLED", "exception_handlers", "make_response"]

HANDLED = (BrokerUnavailable, NoClientProcess, ProcessClosed, TooManyProcesses, Unconfirmed)

RETRY_AFTER = "30"  # seconds
SOON = "1"  # seconds until the broker may be there again

_seldom = Seldom(logging.getLogger(__name__), pause=60.0)


def make_response(error: Exception) -> JSONResponse:
    """Return the answer to a request whose endpoint raised one of `HANDLED`.

    Returns:
        `{"detail": "..."}`, FastAPI's format of errors: 403 without a client process, 410 for a
        closed one, 429 for too many in the session, 503 for too many on the server, while the
        broker is not available, or if a change may not be known to all workers. Where the broker is
        and why it is not available is for the log alone.
    """
    headers, text = None, str(error)
    match error:
        case ProcessClosed():
            status = 410
        case BrokerUnavailable() | Unconfirmed():
            _seldom.warning(
                "a request was answered 503: %s",
                error,
                extra=event("request.postponed", reason=str(error)),
            )
            status, headers = 503, {"Retry-After": SOON}
            text = f"{text.removesuffix(f': {error.reason}')}; try again in a moment"
        case TooManyProcesses():
            status = 429 if error.of_session else 503
            headers = {"Retry-After": RETRY_AFTER}
        case _:
            status = 403
    return JSONResponse({"detail": text}, status, headers)


async def _handle(request: Request, error: Exception) -> Response:
    del request
    return make_response(error)


exception_handlers: dict[
    int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]
] = dict.fromkeys(HANDLED, _handle)
"""For `FastAPI(exception_handlers=…)` or `Starlette(exception_handlers=…)`."""
