"""The warning about a server that lets in more than a client may say."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_comet import SITE, Comet
from tests.kit.measuring import MEASURED
from tests.kit.servers import HYPERCORN, LIMIT, open_websocket, running
from tests.kit.serving import serve
from tests.kit.stage import KEY, application
from tests.kit.streams import Ws

LOGGER = "asgi_comet.transports.limits"
NARROW = {"ws_max_size": 65536, "ws_per_message_deflate": False}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({}, True),
        (NARROW, False),
        (NARROW | {"ws_max_size": 65537}, True),
        (NARROW | {"ws_per_message_deflate": True}, True),
    ],
)
def test_uvicorn_is_found_wide_open_once(
    comet: Comet,
    caplog: pytest.LogCaptureFixture,
    ws: str,
    options: dict[str, Any],
    warned: bool,
) -> None:
    with serve(application(comet), ws=ws, **options) as address:
        for _ in range(2):
            with Ws(address) as socket:
                socket.say(subscribe={"nobody": "now"})
                socket.next()
    told = warnings_of(caplog)
    assert len(told) == warned
    assert all("--ws-max-size 65536 --ws-per-message-deflate false" in line for line in told)


def test_where_a_middleware_wraps_the_server_nothing_is_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    comet = Comet(KEY)
    comet.create(scope=SITE, name="a")
    inner = application(comet)

    async def wrapping(scope, receive, send):  # type: ignore[no-untyped-def]  # plain ASGI
        async def pass_on(message):  # type: ignore[no-untyped-def]
            await send(message)

        await inner(scope, receive, pass_on)

    with serve(wrapping) as address, Ws(address) as socket:
        socket.say(subscribe={"a": "now"})
        socket.next()
    assert warnings_of(caplog) == []


def test_hypercorn_is_found_wide_open() -> None:
    with running(HYPERCORN[0], **MEASURED) as server:
        socket = open_websocket(server)
        server.wait_for(
            "hypercorn has no option that bounds what it keeps of an unfinished WebSocket"
        )
        socket.close()
        server.stop(LIMIT)
