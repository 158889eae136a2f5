"""The measured peers, by subject: the name, the server and the dialect of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from . import poll_dialects as poll
from .dialects import Dialect
from .load_process import LoadProcess, load_process
from .nginx import find_nginx, nginx
from .servers import Served, server
from .sse_dialects import EventStream, OurEvents
from .websocket_dialects import Frames, OurFrames, SocketIOFrames

BASE = "bare"
NCHAN = "nchan"

OURS = "benchmarks.ours:app"
OURS_IN_FASTAPI = "benchmarks.ours_fastapi:app"


@dataclass(frozen=True)
class Peer:
    """One that is measured.

    Attributes:
        label: Its name in tables.
        app: The server's application, or `NCHAN`.
        dialect: How its clients speak.
    """

    label: str
    app: str
    dialect: Dialect


SUBJECTS: dict[str, dict[str, Peer]] = {
    "poll": {
        BASE: Peer("bare ASGI", "benchmarks.poll_bare:app", poll.Bare()),
        "ours": Peer("asgi_comet, JSON poll", OURS, poll.Ours()),
        "registration": Peer("asgi_comet, registration", OURS, poll.Registration()),
        "socketio": Peer("python-socketio", "benchmarks.poll_socketio:app", poll.SocketIO()),
    },
    "sse": {
        BASE: Peer("bare ASGI, stepping", "benchmarks.sse_bare:app", OurEvents()),
        "ours": Peer("asgi_comet", OURS, OurEvents()),
        "ours-fastapi": Peer("asgi_comet in FastAPI", OURS_IN_FASTAPI, OurEvents()),
        NCHAN: Peer("nginx with nchan", NCHAN, EventStream("/events")),
        "sse-starlette": Peer(
            "sse-starlette", "benchmarks.sse_starlette_queues:app", EventStream("/events")
        ),
        "fastapi": Peer("FastAPI's own", "benchmarks.sse_fastapi:app", EventStream("/events")),
    },
    "websocket": {
        BASE: Peer("bare ASGI, stepping", "benchmarks.websocket_bare:app", OurFrames()),
        "ours": Peer("asgi_comet", OURS, OurFrames()),
        "ours-fastapi": Peer("asgi_comet in FastAPI", OURS_IN_FASTAPI, OurFrames()),
        NCHAN: Peer("nginx with nchan", NCHAN, Frames("/socket")),
        "litestar": Peer(
            "Litestar channels", "benchmarks.websocket_litestar:app", Frames("/ticker")
        ),
        "socketio": Peer("python-socketio", "benchmarks.websocket_socketio:app", SocketIOFrames()),
    },
}
"""By the names on the command line."""


def get_peers(subject: str) -> dict[str, Peer]:
    """Return who can be measured on this machine."""
    installed = find_nginx() is not None
    return {n: p for n, p in SUBJECTS[subject].items() if n != NCHAN or installed}


@contextmanager
def served(peer: Peer) -> Iterator[Served]:
    """Start a peer's server."""
    with nginx() if peer.app == NCHAN else server(peer.app, {}, grace=1) as found:
        yield found if isinstance(found, Served) else Served(found)


@contextmanager
def loaded(peer: Peer, clients: int) -> Iterator[LoadProcess]:
    """Start a peer's server and its clients."""
    with ExitStack() as stack:
        load = stack.enter_context(load_process(peer.dialect, stack.enter_context(served(peer))))
        load.open(clients)
        yield load
