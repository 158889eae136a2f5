"""The log calls of a module, as its source has them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import asgi_comet

PACKAGE = Path(asgi_comet.__file__).parent
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}

# These log what they are given: their callers are found in their stead.
FORWARD = {"_runtime/seldom.py"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.Module


class LogCall(NamedTuple):
    """A call of a logger, or of what limits the rate of one.

    Attributes:
        place: The file and the line.
        event: The name of the event; empty if the call has no `extra=event("...")`.
        fields: The fields beside the name.
        levels: The levels that the record can have, in small letters.
    """

    place: str
    event: str
    fields: frozenset[str]
    levels: frozenset[str]


def find_log_calls(source: str, place: str = "") -> Iterator[LogCall]:
    """Find the calls of methods that are named as those of a logger, and get an argument.

    Without one it is something else, like `future.exception()`.
    """
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, Scope):
            for call in _own_calls(function):
                method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
                if method in METHODS and (call.args or call.keywords):
                    yield _read(function, call, method, place)


def package_log_calls() -> list[LogCall]:
    """Find the log calls of the package."""
    found: list[LogCall] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in FORWARD:
            found += find_log_calls(path.read_text(encoding="utf-8"), name)
    return found


def _own_calls(function: Scope) -> Iterator[ast.Call]:
    """Find the calls of a function, without those of the functions inside."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function):
            continue
        if isinstance(node, ast.Call):
            yield node
        waiting += ast.iter_child_nodes(node)


def _read(function: Scope, call: ast.Call, method: str, place: str) -> LogCall:
    extra = next((one.value for one in call.keywords if one.arg == "extra"), None)
    if isinstance(extra, ast.Name):
        extra = _assigned(function, extra.id)
    name, fields = "", frozenset[str]()
    match extra:
        case ast.Call(func=ast.Name(id="event"), args=[ast.Constant(value=str(name))]):
            fields = frozenset(str(one.arg) for one in extra.keywords)
    levels = {"error" if method == "exception" else method}
    if method == "log":  # the level is chosen in the function
        levels = set(_levels(function))
    return LogCall(f"{place}:{call.lineno}", name, fields, frozenset(levels))


def _levels(function: Scope) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id="logging"), attr=attr) if attr.lower() in METHODS:
                yield attr.lower()


def _assigned(function: Scope, variable: str) -> ast.expr | None:
    """Return what a function assigns to a variable."""
    for node in ast.walk(function):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name == variable:
                return value
            case ast.Assign(
                targets=[ast.Tuple(elts=[ast.Name(id=name), *_])],
                value=ast.Tuple(elts=[value, *_]),
            ) if name == variable:
                return value
    return None
