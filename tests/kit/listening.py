"""Listeners that are no connections."""

from __future__ import annotations

from asgi_comet.channels.fanout import Fanout
from asgi_comet.channels.feed import Feed, Listener


class Ear(Listener):
    """A listener that counts how often it is roused."""

    def __init__(self) -> None:
        super().__init__()
        self.roused = 0

    def rouse(self) -> None:
        self.roused += 1

    def forbid(self, feed: Feed) -> None:
        raise AssertionError("nobody takes a right away here")


def attach(fanout: Fanout, ear: Ear, feed: Feed) -> None:
    fanout.listeners.add(ear)
    fanout.attach(ear, feed)


class Reader(Listener):
    """A connection that is open, and told nothing."""

    def rouse(self) -> None:
        pass

    def forbid(self, feed: Feed) -> None:
        pass
