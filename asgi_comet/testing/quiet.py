"""Whether anything can still happen in the loop of a test.

Owns what is private of asyncio's loop, and what trio tells of itself. Must not know applications.
Nothing can happen any more if every task waits, no worker thread runs, and neither a timer nor a
socket can wake a task.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from types import CodeType
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

__all__ = ["NotQuiet", "Watch", "make_watch"]

TURNS = 10  # turns of the loop in a row without a task that can run: calls of the loop come between
BUSY = 20_000  # turns after which a task that always can run is in the way
THREADS = 5.0  # seconds that worker threads may take
NAP = 0.001  # seconds between two looks at a worker thread
IN_THREAD = ("run_sync_in_worker_thread", "to_thread_run_sync")  # of anyio on asyncio, of trio
CHAIN = (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await"))


class NotQuiet(Exception):
    """Something can still happen that the test kit does not control; the text says what."""


class Watch(ABC):
    """Sees what goes on in the current loop.

    Attributes:
        settling: How many tasks wait in `settle`.
        starting: How many of those do so in order to send a request.
        acting: How many requests the tasks of the test are sending.
    """

    settling: int = 0
    starting: int = 0
    acting: int = 0

    @asynccontextmanager
    async def act(self) -> AsyncGenerator[None]:
        """Enter once every task waits; the context is a request of the test.

        Raises:
            NotQuiet: As `settle`.
        """
        self.acting += 1
        try:
            self.starting += 1
            try:
                await self._settle(beside=lambda: self.settling)
            finally:
                self.starting -= 1
            yield
        finally:
            self.acting -= 1

    async def settle(self) -> None:
        """Return once every task waits, and no worker thread runs.

        Several tasks of a test may wait for it at once.

        Raises:
            NotQuiet: A task never waits, or a thread takes longer than 5 s.
        """
        await self._settle(beside=lambda: self.settling - self.starting)

    async def _settle(self, *, beside: Callable[[], int]) -> None:
        """Settle, `beside` so many tasks that may do the same, this one included."""
        self.settling += 1
        try:
            await self._wait(beside)
        finally:
            self.settling -= 1

    async def _wait(self, beside: Callable[[], int]) -> None:
        quiet = turns = 0
        until = anyio.current_time() + THREADS
        while quiet < TURNS:
            await checkpoint()
            turns += 1
            quiet = 0 if len(self.runs()) >= beside() else quiet + 1
            if quiet == TURNS and (threads := self.in_threads()):
                quiet, turns = 0, 0
                if anyio.current_time() > until:
                    raise NotQuiet(f"a worker thread still runs after {THREADS:g} s: {threads[0]}")
                await anyio.sleep(NAP)
            elif turns > BUSY:
                raise NotQuiet(f"a task never waits, one of: {'; '.join(self.runs())}")

    async def prove(self) -> None:
        """Return once nothing can happen any more by itself.

        Raises:
            NotQuiet: Something can; the text names the task.
        """
        await self.settle()
        pending = self.pending()
        if self.acting:
            raise NotQuiet("another task of the test sends a request")
        if pending:
            raise NotQuiet(
                "nothing proves that nothing more comes, because the test kit does not control "
                + "; ".join(pending)
            )

    def in_threads(self) -> list[str]:
        """Return the tasks that wait for a worker thread."""
        waiting = [_name(task) for task in self.others() if self.waits_for_thread(task)]
        if not waiting and anyio.to_thread.current_default_thread_limiter().borrowed_tokens:
            return ["a function whose task has been cancelled"]
        return waiting or self.in_executor()

    def tasks(self) -> dict[object, str]:
        """Return all tasks but the current one, with what to call them."""
        return {task: _name(task) for task in self.others()}

    @abstractmethod
    def runs(self) -> list[str]:
        """Return the tasks that can run now, but for the current one; also those that settle."""

    @abstractmethod
    def pending(self) -> list[str]:
        """Return the timers and sockets that may wake a task."""

    @abstractmethod
    def others(self) -> Iterator[Any]:
        """Return all tasks but the current one."""

    def in_executor(self) -> list[str]:
        """Return the functions in threads of the loop, for which a task need not wait."""
        return []

    @abstractmethod
    def waits_for_thread(self, task: Any) -> bool:
        """Return whether a task waits for a worker thread."""


def make_watch() -> Watch:
    """Return what watches the running loop.

    Raises:
        TypeError: It is a loop that does not tell what waits.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return _Trio()
    if not isinstance(loop, asyncio.SelectorEventLoop):
        raise TypeError(
            f"expected the test to run in asyncio's own event loop or in trio, got "
            f"{type(loop).__module__}.{type(loop).__qualname__}, which does not tell what waits"
        )
    return _Asyncio(loop)


class _Asyncio(Watch):
    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._timers = {id(handle): handle for handle in loop._scheduled}  # held: ids are reused
        self._files = set(loop._selector.get_map())

    def runs(self) -> list[str]:
        return [_name(task) for task in self.others() if not _waits(task)]

    def pending(self) -> list[str]:
        timers = [
            f"the timer of {_called(handle) if owner is None else _name(owner)}"
            for handle in self._loop._scheduled
            if not handle.cancelled() and id(handle) not in self._timers
            if math.isfinite(handle.when())  # `anyio.sleep_forever` waits for infinity
            if (owner := self._owner(handle)) is not asyncio.current_task()
        ]
        files = self._loop._selector.get_map()
        sockets = [
            f"the socket that {_called(handle)} waits for"
            for number, key in files.items()
            if number not in self._files
            for handle in key.data
            if handle is not None
        ]
        return timers + sockets

    def others(self) -> Iterator[Any]:
        current = asyncio.current_task()
        return (task for task in asyncio.all_tasks(self._loop) if task is not current)

    def waits_for_thread(self, task: Any) -> bool:
        callbacks = getattr(_waited(task), "_callbacks", None) or ()
        return _is_in_thread(task.get_coro()) or any(
            "_chain_future" in getattr(c[0], "__qualname__", "") for c in callbacks
        )

    def in_executor(self) -> list[str]:
        executor = self._loop._default_executor
        if executor is None:
            return []
        # Python 3.11 counts too many as idle once more functions than threads were under way.
        idle = executor._idle_semaphore._value
        busy = len(executor._threads) - idle + executor._work_queue.qsize()
        return ["a function that run_in_executor was given"] if busy > 0 else []

    def _owner(self, handle: Any) -> asyncio.Task[Any] | None:
        """Return the task that a timer wakes or limits, if that can be told."""
        told = {id(argument) for argument in handle._args or () if argument is not None}
        current = asyncio.current_task()
        calls = [call for call, _ in getattr(current, "_callbacks", None) or ()]
        # `wait_for` of Python 3.11, in another task, waits for this one with that time limit.
        limits = {id(argument) for call in calls for argument in getattr(call, "args", ())}
        by = getattr(handle._callback, "__self__", None)
        limited = (getattr(by, "_task", None), getattr(by, "_host_task", None))
        tasks = asyncio.all_tasks(self._loop)
        woken = (one for one in tasks if id(_waited(one)) in told or one in limited)
        return current if told & limits else next(woken, None)


def _waited(task: asyncio.Task[Any]) -> Any:
    return getattr(task, "_fut_waiter", None)


def _waits(task: asyncio.Task[Any]) -> bool:
    waited = _waited(task)
    return waited is not None and not waited.done()


def _called(handle: Any) -> str:
    callback = handle._callback
    return str(getattr(callback, "__qualname__", callback))


class _Trio(Watch):
    def __init__(self) -> None:
        import trio  # noqa: PLC0415 - only where trio runs, so it is there

        self._trio = trio
        self._sockets = max(1, self._count_sockets())  # trio itself waits at one
        self._limit = trio.current_effective_deadline()  # of the whole test

    def runs(self) -> list[str]:
        found = self._trio.lowlevel.current_statistics()
        running = [_name(task) for task in self.others() if task._next_send_fn is not None]
        return running + ["a call from a thread"] * found.run_sync_soon_queue_size

    def pending(self) -> list[str]:
        timers = [f"the timer of {_name(task)}" for task in self.others() if self._is_limited(task)]
        more = self._count_sockets() - self._sockets
        return timers + ["a socket that some task waits for"] * more

    def others(self) -> Iterator[Any]:
        lowlevel = self._trio.lowlevel
        current = lowlevel.current_task()
        waiting = [lowlevel.current_root_task()]
        while waiting:
            task = waiting.pop()
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
            if task is not current:
                yield task

    def waits_for_thread(self, task: Any) -> bool:
        return _is_in_thread(task.coro)

    def _is_limited(self, task: Any) -> bool:
        deadline = task._cancel_status.effective_deadline()
        return math.isfinite(deadline) and deadline != self._limit

    def _count_sockets(self) -> int:
        io = self._trio.lowlevel.current_statistics().io_statistics
        return sum(getattr(io, of, 0) for of in ("tasks_waiting_read", "tasks_waiting_write"))


def _is_in_thread(coroutine: Any) -> bool:
    return any(code.co_name in IN_THREAD for code, _ in _frames(coroutine))


def _name(task: Any) -> str:
    """Return what to call a task: its name, and the place in which it waits."""
    coroutine = task.get_coro() if isinstance(task, asyncio.Task) else task.coro
    name = task.get_name() if isinstance(task, asyncio.Task) else task.name
    places = [
        f"{code.co_qualname if hasattr(code, 'co_qualname') else code.co_name} "
        f"({code.co_filename.rpartition('/')[2]}:{line})"
        for code, line in _frames(coroutine)
        if not any(part in code.co_filename for part in ("/asyncio/", "/anyio/", "/trio/"))
    ]
    return f"{name!r} in {places[-1]}" if places else repr(name)


def _frames(coroutine: Any) -> Iterator[tuple[CodeType, int]]:
    """Yield the calls in which a coroutine waits, the innermost last."""
    while coroutine is not None:
        inner = None
        for frame_of, inner_of in CHAIN:
            if (frame := getattr(coroutine, frame_of, None)) is not None:
                yield frame.f_code, frame.f_lineno
            inner = inner or getattr(coroutine, inner_of, None)
        coroutine = inner or next(filter(inspect.isasyncgen, _steps(coroutine)), None)


def _steps(coroutine: Any) -> list[Any]:
    """Return what a step of an async generator refers to: the generator, which it does not tell."""
    return gc.get_referents(coroutine) if "async_generator_" in type(coroutine).__name__ else []
