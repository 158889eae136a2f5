"""`import asgi_comet` loads no server: a public name is imported when it is first used."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import asgi_comet

SOURCE = Path(asgi_comet.__file__)
PACKAGE = SOURCE.parent
LIBRARIES = {"anyio", "itsdangerous", "pydantic", "starlette"}


def modules_after(code: str) -> set[str]:
    """The modules that a new interpreter has loaded after running some lines."""
    code += "\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, check=True
    )
    return set(json.loads(done.stdout))


def of_package(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith("asgi_comet.")}


def table() -> dict[str, str]:
    found: dict[str, str] = vars(asgi_comet)["_MODULES"]
    return found


def type_checking_block() -> ast.If:
    (block,) = (
        node
        for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return block


LAZY = {"asgi_comet._runtime", "asgi_comet._runtime.lazy"}  # what resolves the names


def test_importing_the_package_loads_no_library_and_no_module_of_ours() -> None:
    loaded = modules_after("import asgi_comet; asgi_comet.__version__; dir(asgi_comet)")
    assert "asgi_comet" in loaded
    assert of_package(loaded) == LAZY
    assert loaded & LIBRARIES == set()


@pytest.mark.parametrize(
    "module",
    [
        "asgi_comet.errors",
        *(f"asgi_comet.protocol.{path.stem}" for path in (PACKAGE / "protocol").glob("[!_]*.py")),
    ],
)
def test_a_client_can_import_what_it_shares_with_the_server(module: str) -> None:
    loaded = modules_after(f"import {module}")
    assert module in loaded
    assert loaded & LIBRARIES == set()


def test_an_error_is_imported_from_the_package_without_the_server() -> None:
    loaded = modules_after("from asgi_comet import ChannelClosed, CometError")
    assert of_package(loaded) == {"asgi_comet.errors", "asgi_comet.position", *LAZY}
    assert loaded & LIBRARIES == set()


@pytest.mark.parametrize("name", asgi_comet.__all__)
def test_a_public_name_is_the_object_of_its_module(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(vars(asgi_comet), name, raising=False)
    value = getattr(asgi_comet, name)
    assert value is vars(importlib.import_module(table()[name]))[name]
    assert vars(asgi_comet)[name] is value  # so `__getattr__` is called once for each name


UNIONS = {"Credential"}  # a union of types has no module


@pytest.mark.parametrize(
    "name", [name for name in asgi_comet.__all__ if name[0].isupper() and name not in UNIONS]
)
def test_the_table_names_the_module_that_defines_the_class(name: str) -> None:
    assert getattr(asgi_comet, name).__module__ == table()[name]


def test_the_table_and_the_imports_for_type_checkers_agree() -> None:
    imported: dict[str, str] = {}
    for node in type_checking_block().body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname is None
            imported[alias.name] = str(node.module)
    assert imported == table()
    assert list(table()) == asgi_comet.__all__


def test_type_checkers_do_not_see_getattr() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    (hidden,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "not TYPE_CHECKING"
    )
    assert "__getattr__" in ast.unparse(hidden)
    tree.body.remove(hidden)
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert "__getattr__" not in bound


def test_an_unknown_name_is_refused_as_by_any_module() -> None:
    with pytest.raises(AttributeError) as refused:
        getattr(asgi_comet, "Comets")  # noqa: B009  # mypy would refuse asgi_comet.Comets
    with pytest.raises(AttributeError) as usual:
        getattr(ast, "Comets")  # noqa: B009
    assert str(refused.value) == str(usual.value).replace("'ast'", "'asgi_comet'")
    assert (refused.value.name, refused.value.obj) == ("Comets", asgi_comet)
    with pytest.raises(ImportError, match="cannot import name 'Comets' from 'asgi_comet'"):
        exec("from asgi_comet import Comets")


def test_a_module_of_the_package_is_still_found_by_from() -> None:
    loaded = modules_after("from asgi_comet import errors; errors.CometError")
    assert of_package(loaded) == {"asgi_comet.errors", "asgi_comet.position", *LAZY}


def test_dir_lists_the_public_names_before_they_are_used() -> None:
    listed = dir(asgi_comet)
    assert set(listed) >= {*asgi_comet.__all__, "__all__", "__doc__", "__version__"}
    assert listed == sorted(set(listed))
    assert set(modules_after("import asgi_comet; assert 'Comet' in dir(asgi_comet)")) >= {
        "asgi_comet"
    }


def test_a_star_imports_every_public_name() -> None:
    found: dict[str, object] = {}
    exec("from asgi_comet import *", found)
    del found["__builtins__"]
    assert found == {name: getattr(asgi_comet, name) for name in asgi_comet.__all__}
