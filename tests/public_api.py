"""The public API as text: each public name with its signature, or with its type.

    python -m tests.public_api > tests/public_api.txt

writes the list that `test_public_api.py` compares. The text is the same on every version of Python:
annotations are printed as they are written.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_overloads

PACKAGES = [
    "asgi_comet",
    "asgi_comet.testing",
    "asgi_comet.client",
    "asgi_comet.brokers",
    "asgi_comet.prometheus",
]
"""The packages that users import; one that is not written yet, or exports no name, is left out."""

MADE_BY_US = {
    *("Activation", "Channel", "Channels", "ClientProcess", "DeclaredChannel", "Delivery"),
    *("ExternalChannel", "Notification", "Notifier", "Receipt", "Session", "View"),
}
"""Classes that the application does not construct: their constructors may change."""

USED_BY_SYNTAX = {
    *("__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__", "__bool__", "__call__"),
    *("__contains__", "__enter__", "__exit__", "__getitem__", "__html__", "__iter__", "__len__"),
}
"""Special methods that belong to the API of a class that has them."""

FILE = Path(__file__).with_suffix(".txt")
COMMAND = f"python -m tests.{Path(__file__).stem} > tests/{FILE.name}"
WIDTH = 100

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Written:
    """An annotation that prints as it is written in the source."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def describe_api() -> str:
    return "\n".join(line for name in PACKAGES for line in describe_package(name)) + "\n"


def compare(written: str, now: str) -> str:
    """The difference between two lists, and how to accept it; empty if there is none."""
    lines = difflib.unified_diff(
        written.splitlines(), now.splitlines(), FILE.name, "the package", lineterm=""
    )
    found = "\n".join(lines)
    return f"{found}\n\nThe public API has changed. To accept that:\n    {COMMAND}" if found else ""


def exported(package: str) -> list[str]:
    names: list[str] = getattr(import_module(package), "__all__", []) if find_spec(package) else []
    return names


def describe_package(package: str) -> Iterator[str]:
    if exported(package):
        yield from (f"# {package}", "")
    for name in exported(package):
        value = getattr(import_module(package), name)
        if inspect.isclass(value):
            yield from describe_class(value, constructor=name not in MADE_BY_US)
        elif inspect.isroutine(value):
            yield from describe_function(name, value)
        else:
            yield f"{name}: {type_of_constant(name, value)}"
        yield ""


def type_of_constant(name: str, value: object) -> str:
    """The annotation of a constant in the module that defines it, else its class."""
    for key, module in sys.modules.items():
        if key.startswith("asgi_comet.") and vars(module).get(name) is value:
            annotation = vars(module).get("__annotations__", {}).get(name)
            if annotation is not None:
                return str(annotation)
    return type(value).__name__


def describe_class(class_: type, *, constructor: bool = True) -> Iterator[str]:
    yield f"class {class_.__name__}{public_bases(class_)}"
    if not constructor:
        yield "    # made by the package"
    elif has_constructor(class_):
        for signature in signatures_of_constructor(class_):
            yield from indent(function_lines("", class_.__name__, signature))
    members: dict[str, list[str]] = {}
    for base in reversed(own_bases(class_)):
        members |= members_of(base)
    for _, lines in sorted(members.items()):
        yield from indent(lines)


def members_of(class_: type) -> dict[str, list[str]]:
    members = {name: [text] for name, text in attributes(class_).items()}
    for name, member in vars(class_).items():
        if is_method(name, member):
            members[name] = list(describe_member(name, member))
        elif is_public(name):
            members.setdefault(name, [f"{name}: {type(member).__name__}"])
    return members


def own_bases(class_: type) -> list[type]:
    """The class and its bases, without those of Python and of libraries."""
    home = class_.__module__.partition(".")[0]
    return [base for base in class_.__mro__ if base.__module__.partition(".")[0] == home]


def public_bases(class_: type) -> str:
    """The bases as written, without private ones of ours: their members are listed here."""
    public = {name for package in PACKAGES for name in exported(package)}
    bases = [
        ast.unparse(written)
        for written, base in zip(definition(class_).bases, class_.__bases__, strict=False)
        if base not in own_bases(class_) or base.__name__ in public
    ]
    return f"({', '.join(bases)})" if bases else ""


def has_constructor(class_: type) -> bool:
    """Whether one is written, by us or by `dataclass`; that of an enumeration is Python's."""
    return not hasattr(class_, "__members__") and any(
        {"__init__", "__new__"} & vars(base).keys()
        for base in own_bases(class_)
        if not getattr(base, "_is_protocol", False)
    )


def signatures_of_constructor(class_: Any) -> list[inspect.Signature]:
    overloads = get_overloads(class_.__init__)
    if not overloads:
        signature = inspect.signature(class_)
        return [signature.replace(return_annotation=inspect.Signature.empty)]
    found = []
    for overload in overloads:
        signature = inspect.signature(overload)
        _, *others = signature.parameters.values()
        found.append(
            signature.replace(parameters=others, return_annotation=inspect.Signature.empty)
        )
    return found


def is_method(name: str, member: object) -> bool:
    kinds = (property, staticmethod, classmethod)
    return is_public(name) and (isinstance(member, kinds) or inspect.isfunction(member))


def is_public(name: str) -> bool:
    return not name.startswith("_") or name in USED_BY_SYNTAX


def describe_member(name: str, member: Any) -> Iterator[str]:
    match member:
        case property():
            annotation = written(inspect.signature(cast(Any, member.fget)).return_annotation)
            setter = ", settable" if member.fset is not None else ""
            yield f"{name}: {annotation}  (property{setter})"
        case staticmethod() | classmethod():
            yield f"@{type(member).__name__}"
            yield from describe_function(name, member.__func__)
        case _:
            yield from describe_function(name, member)


def describe_function(name: str, function: Callable[..., Any]) -> Iterator[str]:
    prefix = "async def " if inspect.iscoroutinefunction(function) else "def "
    overloads = get_overloads(function)
    for one in overloads or [function]:
        if overloads:
            yield "@overload"
        yield from function_lines(prefix, name, inspect.signature(one))


def function_lines(prefix: str, name: str, signature: inspect.Signature) -> list[str]:
    """A signature in one line, or with a line for each parameter if that is too long."""
    given = signature.parameters.values()
    parameters = [each.replace(annotation=written(each.annotation)) for each in given]
    result = written(signature.return_annotation)
    end = "" if result is inspect.Signature.empty else f" -> {result}"
    short = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    line = f"{prefix}{name}{short}{end}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{prefix}{name}(", *(f"    {part}," for part in parts(short)), f"){end}"]


def parts(signature: inspect.Signature) -> Iterator[str]:
    """The parameters, with the `/` and `*` between them."""
    previous = None
    for parameter in signature.parameters.values():
        kind = parameter.kind
        if previous is parameter.POSITIONAL_ONLY and kind is not previous:
            yield "/"
        if kind is parameter.KEYWORD_ONLY and previous not in {kind, parameter.VAR_POSITIONAL}:
            yield "*"
        yield str(parameter)
        previous = kind
    if previous is inspect.Parameter.POSITIONAL_ONLY:
        yield "/"


def written(annotation: Any) -> Any:
    """An annotation that prints without quotes, whether it is a string or a type."""
    if annotation is inspect.Parameter.empty:
        return annotation
    if not isinstance(annotation, str):
        annotation = inspect.formatannotation(annotation)
    return Written(annotation)


def definition(class_: type) -> ast.ClassDef:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(class_))).body
    assert isinstance(node, ast.ClassDef)
    return node


def attributes(class_: type) -> dict[str, str]:
    """The public attributes of a class and of its instances: those that its source assigns."""
    found: dict[str, str] = {}
    for node in definition(class_).body:
        arguments = {a.arg: a.annotation for a in ast.walk(node) if isinstance(a, ast.arg)}
        for statement in ast.walk(node) if isinstance(node, FUNCTIONS) else [node]:
            for target, annotation in assigned(statement, arguments):
                name = target.removeprefix("self.")
                of_class = statement is node
                if name.isidentifier() and is_public(name) and (target == name) == of_class:
                    text = annotation or value_in_class(class_, name)
                    if ":" not in found.get(name, ""):  # the first annotation counts
                        found[name] = name + text
    return found


def assigned(
    statement: ast.AST, arguments: dict[str, ast.expr | None]
) -> Iterator[tuple[str, str]]:
    """What a statement assigns to, with its annotation, or with that of the argument it assigns."""
    match statement:
        case ast.AnnAssign():
            yield ast.unparse(statement.target), f": {ast.unparse(statement.annotation)}"
        case ast.Assign(targets=targets, value=value):
            argument = arguments.get(value.id) if isinstance(value, ast.Name) else None
            for target in targets:
                for each in getattr(target, "elts", [target]):
                    yield ast.unparse(each), f": {ast.unparse(argument)}" if argument else ""


def value_in_class(class_: type, name: str) -> str:
    """What stands for the annotation that a name has not: the value of a member, else the type."""
    match vars(class_).get(name):
        case None:
            return ""
        case Enum() as member:
            return f" = {member.value!r}"
        case value:
            return "" if inspect.isdatadescriptor(value) else f": {type(value).__name__}"


def indent(lines: list[str]) -> Iterator[str]:
    return (f"    {line}" for line in lines)


if __name__ == "__main__":
    print(describe_api(), end="")
