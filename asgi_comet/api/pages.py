"""What a page is given: its client process and its channels, as JSON inside HTML.

Owns that nothing in it can end the element it stands in. Must not know requests.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["Markup", "render_script"]

# JSON may say any character as an escape; these could end a script, or begin a comment in it.
_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})


class Markup(str):
    """HTML that template engines insert as it is, as `markupsafe.Markup` does."""

    __slots__ = ()

    def __html__(self) -> str:
        """Return itself."""
        return self


def render_script(page: dict[str, Any]) -> Markup:
    """Render what `comet.js` finds in a page.

    Args:
        page: The client process, and references by the names that the page uses; for JSON.

    Returns:
        A `script` element of data, which no browser runs.
    """
    text = json.dumps(page, separators=(",", ":")).translate(_UNSAFE)
    return Markup(f'<script type="application/json" id="comet">{text}</script>')
