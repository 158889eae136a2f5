"""The server is killed or stopped, and started again: every client is told, and goes on."""

from __future__ import annotations

import signal

import pytest
from playwright.sync_api import BrowserContext

from tests.kit.followers import SSE, WEBSOCKET, Follow
from tests.kit.own_server import Server

CLIENTS = [pytest.param(follow, id=follow.__name__) for follow in (*SSE, *WEBSOCKET)]


def item(text: str) -> str:
    """A fragment of HTML, which any client can show and htmx can insert."""
    return f"<li>{text}</li>"


@pytest.mark.browser
@pytest.mark.parametrize("follow", CLIENTS)
def test_a_client_goes_on_after_each_restart(
    server: Server, context: BrowserContext, follow: Follow
) -> None:
    with (
        follow(context, server.url, ["news", "gauge"]) as both,
        follow(context, server.url, ["gauge"]) as newest,
    ):
        both.begun()
        newest.begun()

        def check(when: str) -> None:
            for n in range(3):
                server.publish("news", item(f"{when} {n}"))
                assert both.next() == f"news {item(f'{when} {n}')}"
            server.publish("gauge", item(when))
            assert both.next() == newest.next() == f"gauge {item(when)}"

        check("before")
        for number in (signal.SIGKILL, signal.SIGTERM):
            server.stop(number)
            server.start()
            assert both.next() == ":full news"
            check(f"after {number.name}")
