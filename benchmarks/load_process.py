"""A load in a process of its own: open files of one peer's clients need not be those of all.

Only one of them works at a time; the others wait for a command, asleep.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from .dialects import Dialect
from .load import Load
from .memory import Memory
from .samples import Block
from .servers import Served, raise_open_files

GRACE = 20.0  # seconds to close all connections


class LoadProcess:
    """A `Load` elsewhere: its methods, one at a time; what it raises is raised here."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, count: int) -> None:
        """Connect more clients."""
        self._call("open", count)

    def run(self, rounds: int, messages: int) -> Block:
        """Publish and read until all clients have everything, that many times."""
        block: Block = self._call("run", rounds, messages)
        return block

    def get_memory(self) -> Memory:
        """Ask for the server's memory."""
        memory: Memory = self._call("get_memory")
        return memory

    def control(self, path: str) -> Any:
        """Drive the server."""
        return self._call("control", path)

    def _call(self, method: str, *arguments: object) -> Any:
        self._connection.send((method, arguments))
        done, outcome = self._connection.recv()
        if not done:
            raise outcome
        return outcome


@contextmanager
def load_process(dialect: Dialect, served: Served) -> Iterator[LoadProcess]:
    """Start the process of a server's clients, of which there are none yet."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, dialect, served), daemon=True)
    process.start()
    there.close()
    try:
        yield LoadProcess(here)
    finally:
        here.close()
        process.join(GRACE)
        if process.is_alive():
            process.kill()
            process.join()


def serve(connection: Connection, dialect: Dialect, served: Served) -> None:
    """Run commands until the parent closes the pipe."""
    gc.disable()  # it would pause clients, and what they keep is no garbage
    raise_open_files()
    load = Load(dialect, served)
    try:
        while True:
            method, arguments = connection.recv()
            try:
                outcome = (True, getattr(load, method)(*arguments))
            except Exception as error:  # every error is passed to the parent
                outcome = (False, error)
            connection.send(outcome)
    except EOFError:
        load.close()
