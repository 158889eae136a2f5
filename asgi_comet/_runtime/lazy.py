"""Names of a package whose modules are imported when the name is first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["resolver"]


def resolver(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return the `__getattr__` of a package.

    Args:
        package: The name of the package.
        modules: The module of each name.
    """

    def resolve(name: str) -> object:
        found = sys.modules[package]
        if name not in modules:
            text = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(text, name=name, obj=found)
        value: object = getattr(import_module(modules[name]), name)
        setattr(found, name, value)  # for the next time
        return value

    return resolve
