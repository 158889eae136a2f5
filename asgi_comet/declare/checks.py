"""Checks of declarations: each tells what it expected and what came.

Must not know how a declared channel works.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from asgi_comet._runtime.functions import misfit
from asgi_comet.channels.feed import Authorize
from asgi_comet.channels.options import Options
from asgi_comet.core.aged import check_max_age
from asgi_comet.core.history import check_count
from asgi_comet.core.names import check_own_name
from asgi_comet.core.pattern import Pattern
from asgi_comet.declare.declared import DeclaredChannel
from asgi_comet.declare.parameters import AFTER, BY_NAME
from asgi_comet.errors import InvalidDeclaration

__all__ = ["check_continuing", "check_once", "check_options", "check_own"]


def check_once(name: str, function: object) -> None:
    """Check that a function is not declared already.

    Raises:
        InvalidDeclaration: The function is declared.
    """
    if isinstance(function, DeclaredChannel):
        known = ("~" if function._declaration.own else "") + function.name
        raise InvalidDeclaration(
            name,
            f"expected an async generator function, got one that is declared already, as {known!r}"
            "; for another name of it declare its attribute `function`",
        )


def check_options(pattern: Pattern, options: Options) -> None:
    """Check the options of a declared channel.

    Raises:
        InvalidDeclaration: An option is out of bounds, or does not fit the name.
    """
    try:
        check_count("size", options.size)
        check_max_age(options.max_age)
    except (TypeError, ValueError) as error:
        raise InvalidDeclaration(pattern.name, str(error)) from None
    linger = options.linger
    given: object = linger  # callers without a type checker give anything
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if linger is not None and not (is_number and 0 <= linger < math.inf):
        reason = f"expected linger to be a number of seconds, at least 0, got {linger!r}"
        raise InvalidDeclaration(pattern.name, reason)
    if options.authorize is not None:
        _check_authorize(pattern, options.authorize)


def _check_authorize(pattern: Pattern, authorize: Authorize) -> None:
    if not callable(authorize):
        raise InvalidDeclaration(
            pattern.name, f"expected authorize to be a function, got {type(authorize).__name__}"
        )
    problem = misfit(authorize, None, **dict.fromkeys(pattern.words))
    if problem is not None:
        raise InvalidDeclaration(
            pattern.name,
            f"expected authorize to take the connection, and {list(pattern.words)} by name, got "
            f"{problem}",
        )


def check_own(pattern: Pattern, options: Options) -> None:
    """Check the name and the options of a declared process channel.

    Raises:
        InvalidDeclaration: A process channel cannot have them.
    """
    check_own_name(pattern.name)
    if pattern.words:
        raise InvalidDeclaration(
            pattern.name,
            f"expected no words, got {list(pattern.words)}: each client process has one channel of "
            "that name, which no other client can ask for",
        )
    if options.authorize is not None:
        raise InvalidDeclaration(
            pattern.name,
            "expected no authorize: only its own client process reads a process channel",
        )
    if options.max_age is not None:
        raise InvalidDeclaration(
            pattern.name,
            "expected no max_age: a process channel drops no message that its client was never "
            "sent",
        )


def check_continuing(name: str, function: Callable[..., Any]) -> None:
    """Check that a source takes the message after which it goes on.

    Raises:
        InvalidDeclaration: The source does not.
    """
    after = inspect.signature(function).parameters.get(AFTER)
    if after is None or after.default is not None or after.kind not in BY_NAME:
        got = "no such parameter" if after is None else str(after)
        raise InvalidDeclaration(
            name, f"expected a source that continues to have a parameter {AFTER}=None, got {got}"
        )
