"""Listen with the registration protocol: python -m examples.listen http://127.0.0.1:8000/ cpu."""

import sys
import time
from collections.abc import Iterator
from urllib.parse import quote, unquote

import httpx


def listen(client: httpx.Client, url: str, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name of a channel and a message, until all channels have ended."""
    headers = {"Content-Type": "application/x-ocsigen-comet"}
    while names:
        body = "registration=" + quote("\n".join(names))
        answer = client.post(url, content=body, headers=headers, timeout=60)
        if answer.status_code == 503:  # push is switched off
            time.sleep(int(answer.headers["Retry-After"]))
            continue
        for pair in answer.raise_for_status().text.splitlines():
            name, _, message = pair.partition(":")
            if message == "ENDED_CHANNEL":
                names = [other for other in names if other != unquote(name)]
            else:
                yield unquote(name), unquote(message)


if __name__ == "__main__":
    with httpx.Client() as client:
        for name, message in listen(client, sys.argv[1], sys.argv[2:]):
            print(name, message)
