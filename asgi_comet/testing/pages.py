"""The values for the browser client that `comet.script()` has put into a page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

__all__ = ["read_page"]


def read_page(html: str) -> dict[str, Any]:
    """Return the values for the browser client; none if the page has no such element."""
    script = _Script()
    script.feed(html)
    script.close()
    found: dict[str, Any] = json.loads(script.text) if script.text else {}
    return found


class _Script(HTMLParser):
    """Finds what `comet.script()` has put into a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script" and ("id", "comet") in attrs

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.text += data
