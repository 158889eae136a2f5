"""How a benchmark's client drives the server it measures: the same small application for all peers.

Knows nothing of how a peer holds and answers. It costs every peer two requests or so per round.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from starlette.types import Receive, Scope, Send

from .memory import read_memory, settle

PREFIX = "/control"
SIZE = 200  # bytes of one message

_profile = cProfile.Profile(time.thread_time)  # not of other programs


def make_text(number: int) -> str:
    """Return the message with that number: `SIZE` bytes."""
    return f"{number:08d}".ljust(SIZE, "x")


class Control:
    """Publishes, and tells how many clients are held, and how much CPU time and memory were used.

    Below `PREFIX`: `state`, `publish/FIRST/COUNT`, `memory`, `profile/start`, `profile/stop`.

    Args:
        held: Returns how many requests are held, or listeners connected.
        publish: Publishes texts, all in one turn of the loop if the peer can.
    """

    def __init__(
        self, held: Callable[[], int], publish: Callable[[list[str]], Awaitable[None]]
    ) -> None:
        self._held = held
        self._publish = publish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; `cpu` in the answer is user and system time in seconds."""
        assert scope["type"] == "http"  # a server that asks for a lifespan goes on without
        told: dict[str, object] = {"held": self._held(), "cpu": time.process_time()}
        match scope["path"].removeprefix(PREFIX).strip("/").split("/"):
            case ["publish", first, count]:
                await self._publish([make_text(int(first) + n) for n in range(int(count))])
            case ["memory"]:
                settle()
                told.update(asdict(read_memory()))
            case ["profile", "start"]:
                _profile.enable()
            case ["profile", "stop"]:
                _profile.disable()
                told["functions"] = functions(_profile)
        body = json.dumps(told).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def functions(profile: cProfile.Profile) -> list[tuple[str, int, float, float]]:
    """Return each function as its name, calls, own time and time with callees, in seconds."""
    found = []
    for (path, line, name), (_, calls, own, total, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]  # typeshed does not know it
        place = "/".join(path.split("/")[-2:])
        found.append((f"{place}:{line} {name}" if line else name, calls, own, total))
    return sorted(found, key=lambda f: -f[2])
