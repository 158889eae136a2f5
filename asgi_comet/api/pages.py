"""The data that a page gets: its client process and its channels, as JSON inside HTML.

Owns the escaping: no value can end the element around the data. Must not know requests.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["Markup", "render_script"]

# JSON can escape every character; these could end a script, or begin a comment in the script.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})


class Markup(str):
    """HTML that template engines insert unchanged, as `markupsafe.Markup` does."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return the HTML."""
        return self


def render_script(page: dict[str, Any]) -> Markup:
    """Render the data that `comet.js` reads from a page.

    Args:
        page: The client process, and references by the names that the page uses; a JSON object.

    Returns:
        A `script` element of data, which browsers do not run.
    """
    text = json.dumps(page, separators=(",", ":")).translate(_UNSAFE)
    return Markup(f'<script type="application/json" id="comet">{text}</script>')
