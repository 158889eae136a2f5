"""The frames that scripts publish, read behind the back of any broker."""

from __future__ import annotations

import re
from typing import Any

from tests.kit.redis import Client


class Frames:
    """What is published below the prefix, in order."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.subscription = client.pubsub(ignore_subscribe_messages=True)
        self.subscription.psubscribe("comet:*", "end")

    def read(self) -> list[tuple[str, str]]:
        """Return what was published since the last time."""
        self.client.publish("end", "")
        found: list[tuple[str, str]] = []
        while True:
            frame: Any = self.subscription.get_message(timeout=20)
            if frame is None or frame["type"] != "pmessage":
                continue
            if frame["channel"] == b"end":
                return found
            text = re.sub(r":\d{13} ", ":", frame["data"].decode())  # without times
            found.append((frame["channel"].decode(), text))
