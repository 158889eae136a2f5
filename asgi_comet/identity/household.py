"""The parts that all client processes share, in one frozen value. Holds no logic."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from asgi_comet._runtime.runtime import Runtime
from asgi_comet.channels.directory import Directory
from asgi_comet.identity.goodbyes import Goodbyes
from asgi_comet.identity.presence import Presence

__all__ = ["Household"]

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Household(Generic[C]):
    """The parts that all client processes share.

    Attributes:
        runtime: The clock and the loop.
        presence: What keeps a process open.
        url: Returns the URL of a process' endpoints, as seen by the current request.
        birth: Returns the worker and the current time, as a text.
        close: Ends the channels of a process, and forgets the process.
        let_go: Ends channels in this worker, which has forgotten their process.
        tell: Tells the other workers that the application has closed a process.
        ask: Returns for how many seconds a process has had no connection in any worker, after
            bringing the process up to date; `None` if there is no other worker.
        goodbyes: Runs the callbacks of closed processes.
        lock: Guards the closing of a process.
    """

    runtime: Runtime
    presence: Presence
    url: Callable[[C], str]
    birth: Callable[[], str]
    close: Callable[[C], None]
    let_go: Callable[[Directory], None]
    tell: Callable[[C], None]
    ask: Callable[[C], Awaitable[float | None]]
    goodbyes: Goodbyes
    lock: threading.Lock = field(default_factory=threading.Lock)
