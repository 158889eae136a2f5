"""Follow channels from a program: through restarts and broken networks, nothing lost silently.

python -m examples.follow http://127.0.0.1:8000/comet lateness
"""

import random
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
from anyio import run, sleep

PAUSE = 2.0  # seconds before another try, half more or less; the server may ask for longer
SILENCE = 60.0  # seconds; longer than the server holds a request
UNREACHABLE = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.TimeoutException)


async def follow(
    client: httpx.AsyncClient, url: str, positions: dict[str, str]
) -> AsyncIterator[dict[str, Any]]:
    """Yield messages, each once and in order, and what goes wrong, until all channels are over.

    It ends as well when another connection reads the channels of the same client process.

    Args:
        client: Keeps the session's cookie, if there is one.
        url: Where comet is mounted, or the URL of a client process.
        positions: Where to begin, by channel: `now`, `last:N` or a position. It moves along: what
            it holds after you have dealt with an event is where to go on, now or after a restart.

    Raises:
        httpx.HTTPStatusError: The server refuses: the client process is closed (410) or not yours
            (403), or the request is wrong.
    """
    while positions:
        pause = random.uniform(0.5, 1.5) * PAUSE  # noqa: S311 - spreads clients, keeps no secret
        try:
            answer = await client.post(f"{url}/poll", json={"channels": positions}, timeout=SILENCE)
        except UNREACHABLE:
            await sleep(pause)
            continue
        if answer.status_code in (429, 502, 503, 504):
            await sleep(max(pause, float(answer.headers.get("Retry-After", 0))))
            continue
        found = answer.raise_for_status().json()
        for event in found["events"]:
            if "position" in event:
                positions[event["channel"]] = event["position"]
            else:
                del positions[event["channel"]]
            if "data" in event or "error" in event:
                yield event
        if found.get("replaced"):
            return


async def main(url: str, names: list[str]) -> None:
    async with httpx.AsyncClient() as client:
        async for event in follow(client, url, dict.fromkeys(names, "last:10")):
            print(event["channel"], event.get("data", event.get("error")))


if __name__ == "__main__":
    run(main, sys.argv[1], sys.argv[2:])
