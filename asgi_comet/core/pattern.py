"""Names with words, like `room:{room}`: matching, and the overlap of two patterns.

Pure. Must not know channels, functions or types: words are text.
"""

from __future__ import annotations

import re
from keyword import iskeyword

from asgi_comet.core.names import check_name
from asgi_comet.errors import InvalidDeclaration

__all__ = ["Pattern", "parse_pattern"]

_WORD = re.compile(r"\{([^{}]*)\}")
_BETWEEN = ":/"  # characters that words do not match
_SEPARATOR = re.compile(f"([{_BETWEEN}])")

_ANY = None  # any character of a word; a place in a pattern is this or one character
_Place = tuple[str | None, bool]  # the character, and whether it may repeat or be absent


class Pattern:
    """A name in which `{word}` stands for one or more characters other than `:` and `/`.

    Attributes:
        name: The pattern as written.
        words: The words, in order.

    Source: docs/semantics.md#families.
    """

    __slots__ = ("_parts", "_places", "_segments", "_separators", "name", "words")

    def __init__(self, name: str, parts: list[str]) -> None:
        self.name: str = name
        self.words: tuple[str, ...] = tuple(parts[1::2])
        self._parts = parts  # text and words alternate
        self._segments, self._separators = _split(parts)
        self._places = _places(parts)

    def match(self, name: str) -> dict[str, str] | None:
        """Return the words of a name; `None` if the name does not match.

        If several matches are possible, the first word is the longest, then the second, and so on.
        The time is linear in the length of any name, since clients choose names.
        """
        if not name.startswith(self._parts[0]):  # most names are of another family
            return None
        pieces = _SEPARATOR.split(name)
        if pieces[1::2] != self._separators:
            return None
        found: list[str] = []
        for texts, piece in zip(self._segments, pieces[0::2], strict=True):
            words = _read_segment(texts, piece)
            if words is None:
                return None
            found += words
        return dict(zip(self.words, found, strict=True))

    def fill(self, words: dict[str, str]) -> str:
        """Return the name with these words."""
        parts = list(self._parts)
        parts[1::2] = [words[word] for word in self.words]
        return "".join(parts)

    def overlaps(self, other: Pattern) -> bool:
        """Return whether any name matches both patterns."""
        mine, theirs = self._places, other._places
        seen: set[tuple[int, int]] = set()
        ahead = [(0, 0)]
        while ahead:
            pair = ahead.pop()
            if pair in seen:
                continue
            seen.add(pair)
            i, j = pair
            if i == len(mine) and j == len(theirs):
                return True
            if i < len(mine) and mine[i][1]:  # zero of these
                ahead.append((i + 1, j))
            if j < len(theirs) and theirs[j][1]:
                ahead.append((i, j + 1))
            if i < len(mine) and j < len(theirs) and _agree(mine[i][0], theirs[j][0]):
                ahead.append((i + (not mine[i][1]), j + (not theirs[j][1])))
        return False


def parse_pattern(name: str) -> Pattern:
    """Parse a name, with or without words.

    Raises:
        InvalidName: The name is not valid.
        InvalidDeclaration: A word is not valid.
    """
    parts = _WORD.split(check_name(name))
    words = parts[1::2]
    for word in words:
        if not word.isascii() or not word.isidentifier() or iskeyword(word):
            reason = f"expected words like {{room}}, a Python identifier each, got {{{word}}}"
            raise InvalidDeclaration(name, reason)
    if len(set(words)) < len(words):
        raise InvalidDeclaration(name, f"expected each word once, got {words}")
    if any("{" in text or "}" in text for text in parts[0::2]):
        raise InvalidDeclaration(name, "expected braces around words only, like {room}")
    if "" in parts[2:-1:2]:
        raise InvalidDeclaration(name, "expected something between two words, like {a}:{b}")
    return Pattern(name, parts)


def _split(parts: list[str]) -> tuple[list[list[str]], list[str]]:
    """Return the texts around the words of each segment, and the separators between segments."""
    segments: list[list[str]] = [[]]
    separators: list[str] = []
    for text in parts[0::2]:
        first, *rest = _SEPARATOR.split(text)
        segments[-1].append(first)
        separators += rest[0::2]
        segments += [[text] for text in rest[1::2]]
    return segments, separators


def _read_segment(texts: list[str], piece: str) -> list[str] | None:
    """Return the words between given texts in a segment of a name; `None` without a match.

    Each text is placed as far right as possible, which makes the words before it the longest.
    """
    first, last = texts[0], texts[-1]
    if len(texts) == 1:
        return [] if piece == first else None
    end = len(piece) - len(last)
    if not piece.startswith(first) or not piece.endswith(last):
        return None
    words: list[str] = []
    for text in texts[-2:0:-1]:
        # A word has at least one character. An end below 0 would count from the right.
        at = piece.rfind(text, len(first) + 1, max(end - 1, 0))
        if at < 0:
            return None
        words.append(piece[at + len(text) : end])
        end = at
    if end <= len(first):
        return None
    words.append(piece[len(first) : end])
    return words[::-1]


def _places(parts: list[str]) -> list[_Place]:
    places: list[_Place] = []
    for n, text in enumerate(parts):
        if n % 2:
            places += [(_ANY, False), (_ANY, True)]
        else:
            places += [(character, False) for character in text]
    return places


def _agree(one: str | None, other: str | None) -> bool:
    if one is _ANY or other is _ANY:
        return (one or other or "x") not in _BETWEEN
    return one == other
