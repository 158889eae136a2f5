"""Serve an application for a benchmark: `python -m benchmarks.serve APP DESCRIPTOR`.

APP is `module:name`, DESCRIPTOR the number of a listening TCP socket that the parent opened.
uvicorn's own `--fd` takes the socket for one of the Unix domain, without `TCP_NODELAY`, so it would
measure an unusual configuration.
"""

from __future__ import annotations

import os
import socket
import sys

import uvicorn


def main() -> None:
    """Serve until terminated."""
    listening = socket.socket(fileno=int(sys.argv[2]))
    config = uvicorn.Config(
        sys.argv[1],
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",  # what uvicorn itself chooses where websockets is installed
        ws_ping_interval=None,  # none of the others sends pings while it is measured
        log_level="warning",
        access_log=False,
        backlog=int(os.environ.get("BACKLOG", "4096")),
        # Seconds: who publishes is silent while all read a burst.
        timeout_keep_alive=int(os.environ.get("KEEP_ALIVE", "600")),
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
