"""Follow channels from a program: through restarts and broken networks, nothing lost silently.

python -m examples.follow http://127.0.0.1:8000/comet lateness
"""

import sys

from anyio import run

from asgi_comet.client import AsyncClient


async def main(url: str, names: list[str]) -> None:
    async with AsyncClient(url) as comet:
        async for message in comet.follow(dict.fromkeys(names, "last:10")):
            print(message.channel, message.data)


if __name__ == "__main__":
    run(main, sys.argv[1], sys.argv[2:])
