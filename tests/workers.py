"""The tests that the run with several workers leaves out, with the reasons, in CONTRIBUTING.md.

Owns how the marks become two tables: `python -m tests.workers` writes them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["CONTRIBUTING", "TESTS", "rows", "shown"]

TESTS = Path(__file__).parent
CONTRIBUTING = TESTS.parent / "CONTRIBUTING.md"
HEADS = {"one_worker": "| test | because |", "own_workers": "| file | starts |"}


def rows(mark: str) -> list[str]:
    """Return the rows of a table: the tests, or files, that have a mark, and what it says."""
    found = []
    for file in sorted([*TESTS.glob("contract/*.py"), *TESTS.glob("integration/*.py")]):
        for name, reason in _marks(ast.parse(file.read_text("utf-8")), mark):
            place = f"{file.parent.name}/{file.name}" + (f"::{name}" if name else "")
            found.append(f"| `{place}` | {reason} |")
    return found


def _marks(module: ast.Module, mark: str) -> Iterator[tuple[str, str]]:
    texts = {
        node.targets[0].id: node.value.value
        for node in module.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name, places = node.name, node.decorator_list
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            name, places = "", [node.value]
        else:
            continue
        for call in (one for place in places for one in ast.walk(place)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == mark:
                (reason,) = call.args
                text = texts[reason.id] if isinstance(reason, ast.Name) else reason
                yield name, str(text.value if isinstance(text, ast.Constant) else text)


def shown(mark: str) -> list[str]:
    """Return the rows that CONTRIBUTING.md has."""
    text = CONTRIBUTING.read_text("utf-8")
    return _table(text, mark).splitlines()[2:]


def _table(text: str, mark: str) -> str:
    found = re.search(rf"^{re.escape(HEADS[mark])}\n(\|.*\n)+", text, re.MULTILINE)
    assert found is not None, f"CONTRIBUTING.md has no table {HEADS[mark]!r}"
    return found[0]


def _write() -> None:
    text = CONTRIBUTING.read_text("utf-8")
    for mark, head in HEADS.items():
        table = "\n".join([head, "|---|---|", *rows(mark)]) + "\n"
        text = text.replace(_table(text, mark), table)
    CONTRIBUTING.write_text(text, "utf-8")


if __name__ == "__main__":
    _write()
