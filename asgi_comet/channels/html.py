"""HTML of a channel's values, for clients that ask for it.

Owns that a value is rendered once, however many clients read it. Must not know channels.
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
    """The HTML of a value is larger than a message may be."""


class Renderer:
    """Renders values, and keeps what it rendered last. Thread-safe.

    Args:
        render: Makes the HTML of a value that is given as JSON.
        most: How many bytes may be kept, values and HTML together.
        limit: How many bytes the HTML of one value may have.
    """

    def __init__(self, render: Callable[[bytes], Any], most: int, limit: int) -> None:
        self._render = render
        self._most = most
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: dict[bytes, bytes] = {}  # the one that was read last comes last
        self._bytes = 0

    def __call__(self, data: bytes) -> bytes:
        """Return the HTML of a value.

        Raises:
            TypeError: It is no text.
            HtmlTooLarge: It is too large.
            Exception: What `render` raises.
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
            if data in self._kept:  # another thread has rendered it in this very moment
                return
            self._kept[data] = html
            self._bytes += len(data) + len(html)
            while self._bytes > self._most:
                oldest = next(iter(self._kept))
                self._bytes -= len(oldest) + len(self._kept.pop(oldest))


def make_html(type_: Any, render: Callable[[Any], str], *, most: int, limit: int) -> Html:
    """Return what makes the HTML of a value.

    Args:
        type_: The type of the values, which `render` gets; `Any` gives it what JSON has.
        render: Returns the HTML as text.
        most: How many bytes of values and their HTML may be kept.
        limit: How many bytes the HTML of one value may have.

    Returns:
        A function that raises what `render` raises, `TypeError` for a result that is no text, and
        `HtmlTooLarge`.
    """
    read = json.loads if type_ is Any else TypeAdapter(type_).validate_json
    return Renderer(lambda data: render(read(data)), most, limit)
