"""Processes that are forked from this one, as the pool of a task queue makes them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.context import ForkProcess


def fork(function: Callable[..., object], *arguments: object) -> ForkProcess:
    """Run a function in a forked process; an exception is its failure."""
    child = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    child.start()
    return child


def wait(child: ForkProcess) -> int | None:
    """Return the exit code of a forked process; 0 if its function has returned."""
    child.join(60)
    return child.exitcode
