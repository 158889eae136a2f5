"""The server is killed or stopped, and started again: every client is told, and goes on."""

from __future__ import annotations

import signal

import pytest
from playwright.sync_api import BrowserContext

from tests.clients.followers import SSE, WEBSOCKET, Follow
from tests.clients.servers import Server

CLIENTS = [pytest.param(follow, id=follow.__name__) for follow in (*SSE, *WEBSOCKET)]


def item(text: str) -> str:
    """A fragment of HTML, which any client can show and htmx can insert."""
    return f"<li>{text}</li>"


@pytest.mark.browser
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
@pytest.mark.parametrize("follow", CLIENTS)
def test_a_client_goes_on_after_a_restart(
    server: Server, context: BrowserContext, follow: Follow, number: signal.Signals
) -> None:
    with (
        follow(context, server.url, ["news", "gauge"]) as both,
        follow(context, server.url, ["gauge"]) as newest,
    ):
        both.begun()
        newest.begun()
        for n in range(3):
            server.publish("news", item(f"before {n}"))
            assert both.next() == f"news {item(f'before {n}')}"
        server.publish("gauge", item("1"))
        assert both.next() == newest.next() == f"gauge {item('1')}"

        server.stop(number)
        server.start()
        assert both.next() == ":full news"
        for n in range(3):
            server.publish("news", item(f"after {n}"))
            assert both.next() == f"news {item(f'after {n}')}"
        server.publish("gauge", item("2"))
        assert both.next() == newest.next() == f"gauge {item('2')}"
