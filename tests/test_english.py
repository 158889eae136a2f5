"""Docstrings and comments name the actor: the client, the server, the source, the publisher."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import asgi_comet

PACKAGE = Path(asgi_comet.__file__).parent

PRONOUNS = re.compile(r"\b(?:nobody|somebody|whoever|whatever)\b", re.IGNORECASE)
OPENINGS = re.compile(r"(?:Who|What|That) ")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Find the texts that document modules, classes, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text.strip()


def comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def problems(source: str) -> list[str]:
    documented, commented = list(docstrings(source)), list(comments(source))
    found = [(line, text) for line, text in documented if OPENINGS.match(text)]
    found += [(line, text) for line, text in [*documented, *commented] if PRONOUNS.search(text)]
    return [f"{line}: {text:.80}" for line, text in sorted(set(found))]


def files() -> list[str]:
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("name", files())
def test_the_actors_are_named(name: str) -> None:
    assert problems((PACKAGE / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        '"""What a client gets."""',
        'class A:\n    """Who a client is."""',
        'x = 1\n"""That is one."""',
        'def f():\n    """Wake the client, if somebody\n    waits."""',
        "x = 1  # Whatever comes",
    ],
)
def test_a_sentence_without_an_actor_is_found(source: str) -> None:
    assert len(problems(source)) == 1


@pytest.mark.parametrize(
    "source",
    ['"""Whatsoever: the server wakes what the client follows."""', 'x = "nobody"  # a user name'],
)
def test_other_texts_pass(source: str) -> None:
    assert problems(source) == []
