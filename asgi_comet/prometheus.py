"""The figures for the application's own registry of `prometheus_client`.

Needs the extra: `pip install 'asgi_comet[metrics]'`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_comet.observe.exposition import FiguresCollector
from asgi_comet.observe.figures import read

if TYPE_CHECKING:
    from asgi_comet.comet import Comet

__all__ = ["CometCollector"]


class CometCollector(FiguresCollector):
    """Gives a registry the figures of this worker: `REGISTRY.register(CometCollector(comet))`.

    A registry may collect in any thread, with or without a running server.

    Args:
        comet: The `Comet`.
    """

    def __init__(self, comet: Comet) -> None:
        node = comet._node
        super().__init__(lambda: [read(node)], shared=node.broker.shared)
