"""HTML of a channel's values, for clients that ask for it.

Renders each value once for all clients. Must not know channels.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter

from asgi_comet.protocol.sse import Html

__all__ = ["HtmlTooLarge", "make_html"]


class HtmlTooLarge(ValueError):
    """The HTML of a value exceeds the limit of a message."""


class Renderer:
    """Renders values, and caches the latest results. Thread-safe.

    Args:
        render: Returns the HTML of a value given as JSON.
        most: How many bytes to cache at most, values and HTML together.
        limit: How many bytes the HTML of one value may have.
    """

    def __init__(self, render: Callable[[bytes], Any], most: int, limit: int) -> None:
        self._render = render
        self._most = most
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: dict[bytes, bytes] = {}  # the least recently used first
        self._bytes = 0

    def __call__(self, data: bytes) -> bytes:
        """Return the HTML of a value.

        Raises:
            TypeError: The result of `render` is not a string.
            HtmlTooLarge: The HTML is too large.
            Exception: `render` raised.
        """
        with self._lock:
            found = self._kept.pop(data, None)
            if found is not None:
                self._kept[data] = found
                return found
        made = self._render(data)
        if not isinstance(made, str):
            raise TypeError(f"expected HTML as a text (str), got {type(made).__name__}")
        html = made.encode()
        if len(html) > self._limit:
            raise HtmlTooLarge(f"expected at most {self._limit} bytes of HTML, got {len(html)}")
        self._keep(data, html)
        return html

    def _keep(self, data: bytes, html: bytes) -> None:
        with self._lock:
            if data in self._kept:  # another thread rendered the value at this moment
                return
            self._kept[data] = html
            self._bytes += len(data) + len(html)
            while self._bytes > self._most:
                oldest = next(iter(self._kept))
                self._bytes -= len(oldest) + len(self._kept.pop(oldest))


def make_html(type_: Any, render: Callable[[Any], str], *, most: int, limit: int) -> Html:
    """Return a function that renders values as HTML.

    Args:
        type_: The type of the values passed to `render`; `Any` passes the decoded JSON.
        render: Returns the HTML as a string.
        most: How many bytes of values and their HTML to cache at most.
        limit: How many bytes the HTML of one value may have.

    Returns:
        A function that raises the exceptions of `render`, `TypeError` for a result that is not a
        string, and `HtmlTooLarge`.
    """
    read = json.loads if type_ is Any else TypeAdapter(type_).validate_json
    return Renderer(lambda data: render(read(data)), most, limit)
