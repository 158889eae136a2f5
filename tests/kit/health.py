"""The two endpoints of health, as a supervisor asks them."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.kit.serving import Address

OK: Any = (200, {"status": "ok", "why": []})
STOPPING: Any = (503, {"status": "stopping", "why": ["stopping"]})


def degraded(*why: str, status: int = 200) -> Any:
    return status, {"status": "degraded", "why": [*why]}


def starting(*why: str, status: int = 503) -> Any:
    return status, {"status": "starting", "why": [*why]}


def ask(server: Address, probe: str, prefix: str = "/comet", **headers: str) -> Any:
    """Return the status code and the body."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = server.request("GET", f"{prefix}/health/{probe}", headers=sent)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    return answer.status, json.loads(answer.body)


def until(server: Address, expected: Any) -> None:
    """Return once the server is as ready as expected."""
    deadline = time.monotonic() + 20
    while (found := ask(server, "ready")) != expected:
        assert time.monotonic() < deadline, found
