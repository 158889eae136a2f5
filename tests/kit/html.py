"""HTML as browsers read it."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any


class Elements(HTMLParser):
    """Reads HTML as browsers do: the elements, with what stands in each."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.ended: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        tag, attributes, text = self.found.pop()
        self.found.append((tag, attributes, text + data))

    def handle_endtag(self, tag: str) -> None:
        self.ended.append(tag)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)


def read(html: str) -> Any:
    """What `comet.js` reads, of a page that has nothing else."""
    parser = Elements()
    parser.feed(html)
    parser.close()
    ((tag, attributes, text),) = parser.found
    assert (tag, parser.ended) == ("script", ["script"])
    assert attributes == {"type": "application/json", "id": "comet"}
    return json.loads(text)
