"""What the broker of several workers refuses over HTTP, for each broker that is shared."""

from __future__ import annotations

import json
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from asgi_comet import Comet
from asgi_comet.testing._inspect import inside
from tests.kit.serving import COMET, Address, Answer

JSON = "application/json"
SENTENCE = "expected a broker that shares client processes, users and notifiers for"


def cookie_of(comet: Comet) -> str:
    """The cookie of a session that another server of the same key has begun."""
    return f"comet={inside(comet).requests.identity.sign_session('s' * 24)}"


def token_of(comet: Comet) -> str:
    """The token of a client process that another server of the same key has opened."""
    return inside(comet).requests.identity.sign_process("p" * 24, "birth")


def requests_of_people(token: str) -> list[tuple[str, str, str | None, str]]:
    """Every request that needs a client process: method, path, body, content type."""
    own = json.dumps({"channels": {"~inbox": "now"}})
    return [
        ("POST", "/comet/open", None, JSON),
        ("POST", "/comet/poll", own, JSON),
        ("POST", "/comet/poll", json.dumps({"channels": {"news": "now", "~inbox": "now"}}), JSON),
        ("GET", "/comet/events?channel=~inbox", None, ""),
        ("POST", "/", "registration=~inbox", COMET),
        ("POST", "/", "registration=news%0A~inbox", COMET),
        ("POST", f"/comet/p/{token}/poll", own, JSON),
        ("POST", f"/comet/p/{token}/poll", json.dumps({"channels": {"news": "now"}}), JSON),
        ("POST", f"/comet/p/{token}/poll", "registration=news", COMET),
        ("GET", f"/comet/p/{token}/events?channel=news", None, ""),
        ("POST", f"/comet/p/{token}/ack", json.dumps({"~inbox": "new.0"}), JSON),
        ("POST", f"/comet/p/{token}/close", None, JSON),
    ]


def check_requests(comet: Comet, address: Address) -> None:
    """Ask all of it, with a cookie and without, and see that each is refused with the reason."""
    for cookie in ("", cookie_of(comet)):
        for method, path, body, kind in requests_of_people(token_of(comet)):
            headers = {"Cookie": cookie, **({"Content-Type": kind} if kind else {})}
            check(address.request(method, path, body, headers), as_json=kind == JSON)
        check_sockets(comet, address, cookie)


def check(answer: Answer, *, as_json: bool) -> None:
    assert answer.status == 501, answer
    text = answer.body.decode()
    assert SENTENCE in (json.loads(text)["error"] if as_json else text)
    assert "set-cookie" not in answer.headers


def check_sockets(comet: Comet, address: Address, cookie: str) -> None:
    where = address.url.replace("http", "ws", 1)
    headers = {"Cookie": cookie}
    own = json.dumps({"subscribe": {"~inbox": "now"}})
    for url, frame in [("socket", own), (f"p/{token_of(comet)}/socket", None)]:
        with connect(f"{where}/comet/{url}", additional_headers=headers) as socket:
            if frame is not None:
                socket.send(frame)
            assert SENTENCE in json.loads(socket.recv(timeout=20))["error"]
            code = code_of(socket)
        assert code == 4400


def code_of(socket: Any) -> int | None:
    try:
        socket.recv(timeout=20)
    except ConnectionClosed as error:
        return None if error.rcvd is None else int(error.rcvd.code)
    return None  # pragma: no cover - the server has not closed the connection
