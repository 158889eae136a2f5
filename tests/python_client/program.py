"""A program that follows `news`, keeps its positions in a file, and prints each value."""

from __future__ import annotations

import sys

from asgi_comet.client import Client, FilePositions


def main(url: str, name: str, path: str) -> None:
    with Client(url) as comet:
        for message in comet.follow({name: "first"}, type=int, save=FilePositions(path)):
            print(message.data, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
