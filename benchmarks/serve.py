"""Serve an application for a benchmark: `python -m benchmarks.serve APP DESCRIPTOR`.

APP is `module:name`, DESCRIPTOR the number of a listening TCP socket that the parent opened.
uvicorn's own `--fd` takes the socket for one of the Unix domain, without `TCP_NODELAY`, so it would
measure what nobody runs.
"""

from __future__ import annotations

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
        log_level="warning",
        access_log=False,
        backlog=4096,
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
