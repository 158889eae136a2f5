"""Writing to a connection from outside of its task: what the least possible servers share."""

from __future__ import annotations

from starlette.types import Message, Send


def step(send: Send, message: Message) -> None:
    """Run a server's `send` as far as it gets, which is to the end while the client reads.

    Raises:
        RuntimeError: It waits: the client does not read, and such a server has nothing for that.
    """
    running = send(message)
    try:
        running.send(None)  # type: ignore[attr-defined]  # uvicorn's are coroutines
    except StopIteration:
        return
    running.close()  # type: ignore[attr-defined]
    raise RuntimeError("expected a client that reads, got one whose connection is full")
