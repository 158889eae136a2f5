"""The lines of Python that the pages show, read from the files of this folder at start-up.

A page therefore shows what runs. If a statement is renamed, the application does not start.
"""

import ast
import keyword
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

from markupsafe import Markup

HERE = Path(__file__).parent

KINDS = re.compile(
    rf"""(?P<comment>\#.*)
    | (?P<string>"{{3}}[\s\S]*?"{{3}} | f?"[^"\n]*")
    | (?P<decorator>^@[\w.]+)
    | (?P<keyword>\b(?:{"|".join(keyword.kwlist)})\b)
    | (?P<number>\b\d[\d_.]*\b)""",
    re.VERBOSE | re.MULTILINE,
)


@dataclass(frozen=True)
class Excerpt:
    """One statement of a module.

    Attributes:
        file: The name of the module's file.
        code: The statement as it is written, as HTML.
    """

    file: str
    code: Markup


def excerpt(file: str, beginning: str) -> Excerpt:
    """Return the statement of a file that has a line, not indented, which begins in this way.

    Raises:
        ValueError: There is no such statement, or more than one.
    """
    text = (HERE / file).read_text(encoding="utf-8")
    found = [code for code in statements(text) if f"\n{beginning}" in f"\n{code}"]
    if len(found) != 1:
        raise ValueError(f"expected one {beginning!r} in {file}, found {len(found)}")
    return Excerpt(file, highlight(found[0]))


def statements(text: str) -> list[str]:
    """Return the statements of a module, with their decorators."""
    lines = text.splitlines()
    found = []
    for node in ast.parse(text).body:
        parts: list[ast.stmt | ast.expr] = [node, *getattr(node, "decorator_list", [])]
        first = min(part.lineno for part in parts)
        found.append("\n".join(lines[first - 1 : node.end_lineno]))
    return found


def highlight(code: str) -> Markup:
    """Return code as HTML in which keywords, texts and the like have a class."""

    def mark(found: re.Match[str]) -> str:
        return f'<span class="{found.lastgroup}">{found[0]}</span>'

    return Markup(KINDS.sub(mark, escape(code, quote=False)))  # noqa: S704 - escaped, and ours


EXCERPTS = {
    "pulse": [excerpt("pulse.py", "async def pulse")],
    "cut": [excerpt("pulse.py", "async def cut")],
    "job": [excerpt("tabs.py", "async def start_job")],
    "lateness": [excerpt("machine.py", "async def lateness")],
    "figures": [excerpt("machine.py", "channels:"), excerpt("machine.py", "def publish(")],
    "wall": [excerpt("wall.py", "posts ="), excerpt("wall.py", "async def write_on_wall")],
    "operate": [excerpt("push.py", "comet ="), excerpt("main.py", "app.add_middleware(Comet")],
    "user": [excerpt("people.py", "async def login")],
    "topics": [excerpt("notifications.py", "async def follow")],
    "room": [excerpt("notifications.py", "async def room")],
    "notes": [
        excerpt("notifications.py", "messages ="),
        excerpt("notifications.py", "async def write"),
    ],
}
"""The excerpts of each card."""
