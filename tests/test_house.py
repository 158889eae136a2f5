"""The rules of the tests themselves: helpers are in `tests/kit`, internals behind one door."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.kit.programs import ROOT

FOLDERS = ("tests", "benchmarks", "examples")

# Private names of other packages, by file.
ALLOWED = {
    "benchmarks/faults_server.py": {"_lru_cache_wrapper"},  # functools
    "benchmarks/websocket_litestar.py": {"_channels"},  # litestar, to count its listeners
    "tests/nemesis/application.py": {"_exit"},  # os: documented as the end of a process at once
    "tests/public_api.py": {"_is_protocol"},  # typing
}

OWN = {"self", "cls"}

Find = Callable[[ast.AST], Iterator[str]]


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "node_modules" not in path.parts:
                yield path


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.endswith("__")


def imported_tests(tree: ast.AST) -> Iterator[str]:
    """Find the `test_` modules that a module imports, or imports from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # A name in a package may be a module.
            names = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if any(p.startswith("test_") for p in name.split(".")))


def private_names(tree: ast.AST) -> Iterator[str]:
    """Find the private names that a module imports, touches, or has a function touch."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=owner)) if owner in OWN:
                pass
            case ast.Attribute(attr=name) if is_private(name):
                yield name
            case ast.ImportFrom(module=module, names=names) if module != "asgi_comet.testing":
                yield from (alias.name for alias in names if is_private(alias.name))
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=args):
                if called in ("getattr", "hasattr", "setattr", "delattr"):
                    yield from touched(args)


def touched(args: list[ast.expr]) -> Iterator[str]:
    for arg in args[:2]:
        if isinstance(arg, ast.Constant) and isinstance(arg.value, str):
            name = arg.value.rpartition(".")[2]
            if is_private(name):
                yield name


def in_files(find: Find) -> dict[str, list[str]]:
    found = {}
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        names = [one for one in find(parsed(path)) if one not in allowed(name)]
        if names:
            found[name] = names
    return found


def allowed(file: str) -> set[str]:
    return ALLOWED.get(file, set())


def test_no_file_imports_from_a_test_file() -> None:
    assert in_files(imported_tests) == {}, "move what several files need to tests/kit"


def test_no_file_touches_a_private_name() -> None:
    assert in_files(private_names) == {}, "use public behaviour, or asgi_comet/testing/_inspect*.py"


@pytest.mark.parametrize(
    "line",
    [
        "from tests.test_channels import make",
        "from .test_channels import make",
        "from tests import test_channels",
        "import tests.test_channels",
        "def inner(): from tests.transports.test_poll import process_of",
    ],
)
def test_an_import_from_a_test_file_is_found(line: str) -> None:
    assert len(list(imported_tests(ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "comet._node",
        "comet._node.timers",
        "self.comet._node",
        "comet.node.__timers",
        "comet._node = None",
        "from asgi_comet.identity.users import _end_connections",
        "getattr(comet, '_node')",
        "monkeypatch.setattr(comet, '_node', None)",
        "monkeypatch.setattr('asgi_comet.declare.restarting._choose_pause', None)",
    ],
)
def test_a_private_name_is_found(line: str) -> None:
    assert len(list(private_names(ast.parse(line)))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "self._own",
        "cls._own",
        "comet.__class__",
        "from asgi_comet._runtime.timers import Timers",
        "from asgi_comet.testing import _inspect",
        "monkeypatch.setattr(queue, 'WAITING', 10)",
        "from tests.kit.serving import serve",
        "from asgi_comet.testing import wait_for_listeners",
    ],
)
def test_what_is_public_or_ones_own_may_be_used(line: str) -> None:
    tree = ast.parse(line)
    assert [*private_names(tree), *imported_tests(tree)] == []
