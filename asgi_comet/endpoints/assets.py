"""Files for pages: the browser client with its types, the htmx extension, and the dashboard's.

Owns how the files are served: compressed once, with an `ETag` for each form.
Source: docs/wire.md#scripts.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from asgi_comet.http.exchange import Exchange, answer
from asgi_comet.node.build import Node

__all__ = ["ASSETS", "load_asset", "serve_asset"]

JAVASCRIPT = b"text/javascript; charset=utf-8"

ASSETS: dict[str, bytes] = {
    "comet.js": JAVASCRIPT,
    "comet.d.ts": b"application/typescript; charset=utf-8",
    "htmx.js": JAVASCRIPT,
    "admin.js": JAVASCRIPT,
    "admin.css": b"text/css; charset=utf-8",
}
"""The content type of each file, by its name below PREFIX."""


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of a file: plain or compressed."""

    body: bytes
    etag: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


async def serve_asset(node: Node, _: None, exchange: Exchange) -> None:
    """Serve the file of `ASSETS` named by the path."""
    name = exchange.path.strip("/")
    plain, compressed = load_asset(name)
    form = compressed if _takes_gzip(exchange.headers.get(b"accept-encoding", b"")) else plain
    # The file is public, so any page may load it; pages of allowed origins may read it.
    cors = node.origins.cors(exchange.headers)
    exchange.cors = [field for field in cors if field[0] != b"vary"]
    known = [tag.strip() for tag in exchange.headers.get(b"if-none-match", b"").split(b",")]
    same = form.etag in known or b"W/" + form.etag in known
    await answer(
        node,
        exchange,
        ASSETS[name],
        b"" if same else form.body,
        status=304 if same else 200,
        headers=[
            (b"etag", form.etag),
            (b"cache-control", b"no-cache"),
            (b"vary", b"Accept-Encoding, Origin"),
            *form.headers,
        ],
    )


@cache
def load_asset(name: str) -> tuple[_Form, _Form]:
    """Return a file plain and compressed; read and compressed once per interpreter."""
    body = files("asgi_comet").joinpath("static", name).read_bytes()
    digest = hashlib.sha256(body).hexdigest()[:16].encode()
    small = gzip.compress(body, 9, mtime=0)
    return (
        _Form(body, b'"' + digest + b'"'),
        _Form(small, b'"' + digest + b'-gzip"', ((b"content-encoding", b"gzip"),)),
    )


def _takes_gzip(accepted: bytes) -> bool:
    """Return whether a client accepts gzip, by its `Accept-Encoding`."""
    for entry in accepted.lower().split(b","):
        coding, _, weight = entry.partition(b";")
        if coding.strip() in (b"gzip", b"x-gzip", b"*"):
            return not weight or weight.strip().removeprefix(b"q=").strip(b"0.") != b""
    return False
