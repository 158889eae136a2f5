"""The browser client as a file: `GET PREFIX/comet.js`."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from asgi_comet.hub import Hub

from .exchange import Exchange, answer, wrong_method

__all__ = ["client_script"]

JAVASCRIPT = b"text/javascript; charset=utf-8"


async def client_script(hub: Hub, exchange: Exchange) -> None:
    """Serve the client, also while deactivated.

    Raises:
        Refusal: 405 for a method that a file does not have.
    """
    if exchange.scope["method"] not in ("GET", "HEAD"):
        raise wrong_method(exchange, "GET")
    body, etag = _read()
    # Asked for by any page, for it holds no secret; read only by those of allowed origins.
    exchange.cors = hub.origins.cors(exchange.headers)
    known = [tag.strip() for tag in exchange.headers.get(b"if-none-match", b"").split(b",")]
    same = etag in known or b"W/" + etag in known
    await answer(
        hub,
        exchange,
        JAVASCRIPT,
        b"" if same else body,
        status=304 if same else 200,
        headers=[(b"etag", etag), (b"cache-control", b"no-cache")],
    )


@cache
def _read() -> tuple[bytes, bytes]:
    body = files("asgi_comet").joinpath("static", "comet.js").read_bytes()
    return body, b'"' + hashlib.sha256(body).hexdigest()[:16].encode() + b'"'
