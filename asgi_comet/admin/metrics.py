"""`GET PREFIX/admin/metrics`: the figures, for Prometheus.

Owns the query `workers=all`. Must not know who may ask, nor the form of the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs

from anyio import to_thread

from asgi_comet.http.exchange import Exchange, Refusal, answer
from asgi_comet.node.build import Node
from asgi_comet.observe.cluster import read_all
from asgi_comet.observe.figures import Figures, read

__all__ = ["serve_metrics"]


async def serve_metrics(node: Node, _: object, exchange: Exchange) -> None:
    """Answer with the figures of this worker, or of all workers.

    Raises:
        Refusal: 400 for another query; 501 if the extra `metrics` is not installed.
    """
    asked = parse_qs(exchange.scope["query_string"].decode("latin-1")).get("workers")
    if asked not in (None, ["all"]):
        raise Refusal(400, "expected workers=all, or no workers")
    every = await read_all(node) if asked else []
    accept = exchange.headers.get(b"accept", b"").decode("latin-1")
    try:  # in a thread: the text of eight workers takes 70 ms
        kind, text = await to_thread.run_sync(_write, node, every, accept)
    except ImportError as error:
        raise Refusal(501, str(error)) from None
    await answer(node, exchange, kind.encode(), text.encode())


def _write(node: Node, every: Sequence[Figures], accept: str) -> tuple[str, str]:
    from asgi_comet.observe.exposition import write  # noqa: PLC0415 - needs an extra

    return write(every or [read(node)], shared=node.broker.shared, accept=accept)
