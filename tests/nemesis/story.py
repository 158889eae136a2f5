"""Histories that tests tell, event by event."""

from __future__ import annotations

from typing import Any

from tests.nemesis.checker import check
from tests.nemesis.history import Event

CHANNELS = {
    "site": {"kind": "site", "size": 3},
    "last": {"kind": "newest", "size": 1},
    "room:a": {"kind": "member", "size": 3},
    "tick": {"kind": "source", "size": 3},
}


class Story:
    """A history that a test tells, an event each tenth of a second."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.now = 100.0
        self.tell("setup", channels={k: v for k, v in CHANNELS.items() if k != "tick"})

    def tell(self, event: str, *, wait: float = 0.1, **fields: Any) -> None:
        self.now += wait
        self.events.append({"at": self.now, "event": event, **fields})

    def stored(self, number: int, position: str, channel: str = "site", run: str = "r") -> None:
        self.call(number, channel, run)
        self.tell("ok", id=f"p:{number}", position=position)

    def call(self, number: int, channel: str = "site", run: str = "r") -> None:
        self.tell("call", channel=channel, id=f"p:{number}", run=run)

    def begin(self, position: str, client: str = "c", channel: str = "site") -> None:
        self.tell("begin", client=client, channel=channel)
        self.tell("there", client=client, channel=channel, position=position)

    def recv(
        self, number: int, position: str, client: str = "c", channel: str = "site", **more: Any
    ) -> None:
        fields = {"position": position, "id": f"p:{number}", "sent": self.now - 0.05, **more}
        self.tell("recv", client=client, channel=channel, **fields)

    def full(self, position: str | None, client: str = "c", channel: str = "site") -> None:
        self.tell("full", client=client, channel=channel, position=position)

    def fault(self, name: str = "f", lasts: float = 0.1, **fields: Any) -> None:
        self.tell("fault", name=name, phase="begin", **fields)
        self.tell("fault", wait=lasts, name=name, phase="end")

    def value(self, number: int, offset: int, fence: str = "w:1", **more: Any) -> None:
        """Have a reader receive a value of a declared source."""
        fields = {"position": f"e.{offset}", "id": f"tick/{fence}:{number}", "fence": fence, **more}
        self.tell("recv", client="c", channel="tick", **{"sent": self.now, **fields})

    @property
    def found(self) -> list[str]:
        return [violation.invariant for violation in check(self.events)]


def following() -> Story:
    """Begin a story in which a client has two of the stored messages."""
    story = Story()
    story.begin("e.0")
    for number in (1, 2):
        story.stored(number, f"e.{number}")
        story.recv(number, f"e.{number}")
    return story


def reading_a_source() -> Story:
    story = Story()
    story.events[0]["channels"] = CHANNELS
    story.begin("e.0", channel="tick")
    story.value(1, 1)
    story.value(2, 2)
    return story
