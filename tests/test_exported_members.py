from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import asgi_comet

ROOT = Path(__file__).parent.parent


def modules() -> list[str]:
    return [m.name for m in pkgutil.walk_packages(asgi_comet.__path__, "asgi_comet.")]


def test_all_is_sorted() -> None:
    # ruff's order: constants, then classes, then the others
    assert asgi_comet.__all__ == sorted(asgi_comet.__all__, key=lambda n: (not n.isupper(), n))


def test_every_module_says_what_it_owns_and_what_it_exports() -> None:
    for name in modules():
        module = importlib.import_module(name)
        assert module.__doc__, name
        for exported in getattr(module, "__all__", []):
            assert hasattr(module, exported), f"{name}.{exported}"


def test_the_package_is_typed_and_its_version_is_that_of_the_changelog() -> None:
    assert (ROOT / "asgi_comet" / "py.typed").exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert asgi_comet.__version__.count(".") == 2


def public_docstrings() -> Iterator[tuple[str, str]]:
    for name in asgi_comet.__all__:
        value = getattr(asgi_comet, name)
        yield name, inspect.getdoc(value) or ""
        for member in dir(value) if inspect.isclass(value) else ():
            if not member.startswith("_"):
                documented = inspect.getattr_static(value, member)
                yield f"{name}.{member}", inspect.getdoc(documented) or ""


def test_public_docstrings_name_no_file_that_users_do_not_have() -> None:
    found = dict(public_docstrings())
    assert "Ocsigen_comet.Channels.write" in found["Delivery"]
    assert [name for name, text in found.items() if re.search(r"\w\.md\b|\bseeds/", text)] == []
