"""httpx-sse with the few lines that make it come back: python -m … URL."""

from __future__ import annotations

import sys
import threading

import httpx
from httpx_sse import ServerSentEvent, connect_sse


def tell(event: ServerSentEvent) -> None:
    """Print a line about an event."""
    match event.event:
        case ":open" | ":deactivated":
            print(event.event)
        case name if name.startswith(":"):
            print(name, event.json()["channel"])
        case name:
            print(name, event.json())


def follow(url: str) -> None:
    """Print what comes, until there is nothing to come."""
    pause, last_id = threading.Event(), ""
    milliseconds = 50
    with httpx.Client(timeout=30) as client:
        while True:
            headers = {"Last-Event-ID": last_id} if last_id else {}
            try:
                with connect_sse(client, "GET", url, headers=headers) as source:
                    if source.response.status_code == 204:
                        return
                    for event in source.iter_sse():
                        # It yields a lone `retry` as an event without an id, too.
                        last_id = event.id or last_id
                        milliseconds = event.retry or milliseconds
                        if event.data:
                            tell(event)
            except httpx.TransportError:
                pass  # the server is away
            pause.wait(milliseconds / 1000)


if __name__ == "__main__":
    follow(sys.argv[1])
