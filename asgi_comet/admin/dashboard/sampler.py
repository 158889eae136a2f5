"""The sampler: asks all workers each second, and publishes what the dashboard shows.

Owns when a sample is taken: only while a dashboard is open at this worker. Must not know requests,
nor how a figure is counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from asgi_comet._runtime.counters import ACKNOWLEDGED
from asgi_comet.admin.dashboard.asking import ask
from asgi_comet.admin.dashboard.house import make_channel
from asgi_comet.admin.dashboard.rates import Delays, Rates
from asgi_comet.admin.tokens import Role
from asgi_comet.channels.channels import Channel, Options
from asgi_comet.node.build import Node
from asgi_comet.observe.overview import get_limits

__all__ = ["Sampler"]

EVERY = 1.0  # seconds
EVERY_AT_LAST = 0.1  # seconds, while the server stops
HELD = 600  # seconds of samples that are held for a page that is loaded again
EVENTS = 1000  # held for the same
MINUTE = 60  # samples of which the time to acknowledgement is told
WORKERS = 256  # of which the last event is remembered

Answer = dict[str, Any]
Answers = Sequence[Answer]


class Sampler:
    """Publishes samples while a connection follows one of the channels.

    Args:
        node: The parts of the Comet.
        house: The parts that carry the channels of the dashboard.
        now: The time, in seconds since 1970.
    """

    def __init__(self, node: Node, house: Node, now: Callable[[], float] = time.time) -> None:
        self._node = node
        self._house = house
        self._now = now
        self._overview = self._make("look", "overview", HELD, HELD)
        self._workers = self._make("look", "workers", 1)
        self._channels = self._make("look", "channels", 1)
        self._people = self._make("operate", "people", 1)
        self._events = self._make("operate", "events", EVENTS)
        self._known: dict[str, int] = {}  # the number of the last event, by worker
        self._rates = Rates()
        self._channel_rates = Rates()  # since the channels were last looked at
        self._delays = Delays(ACKNOWLEDGED, MINUTE)
        self._looked = anyio.Event()
        self._hurried = anyio.Event()

    def _make(self, role: Role, name: str, size: int, max_age: float | None = None) -> Channel[Any]:
        options = Options(name=name, size=size, max_age=max_age)
        return make_channel(self._house, role, options, self._look)

    def _look(self, listeners: int) -> None:
        if listeners:
            self._looked.set()

    def hurry(self) -> None:
        """Take a sample now: the server begins to stop."""
        self._hurried.set()

    async def run(self) -> None:
        """Take samples until cancelled, and end the connections once no other is left at a stop."""
        node, house, due = self._node, self._house, -math.inf
        while True:
            self._looked = anyio.Event()
            if not house.fanout.listeners:
                self._rates, self._delays = Rates(), Delays(ACKNOWLEDGED, MINUTE)
                await self._looked.wait()
            # A timer is up to 0.1 s late, which the next one makes up for.
            due = due + EVERY if node.clock.now() < due + 2 * EVERY else node.clock.now()
            await self._sample()
            self._hurried = anyio.Event()
            stopping = node.drain.begun
            if stopping and not node.fanout.listeners:
                house.drain.begin()
            pause = EVERY_AT_LAST if stopping else due + EVERY - node.clock.now()
            await node.timers.wait(self._hurried, max(pause, EVERY_AT_LAST))

    async def _sample(self) -> None:
        answers = await ask(self._node, "overview", self._known)
        self._rates.begin(self._node.clock.now())
        self._tell_events(answers)
        self._overview.publish(self._sum(answers))
        if self._workers.listeners:
            self._workers.publish(self._list_workers(answers))
        if self._people.listeners:
            self._people.publish({key: _total(answers, key) for key in ("tabs", "users")})
        if self._channels.listeners:
            self._channels.publish(self._add_rows(await ask(self._node, "channels")))

    def _tell_events(self, answers: Answers) -> None:
        events = [one | {"worker": a["name"]} for a in answers for one in a["events"]]
        for event in sorted(events, key=lambda one: float(one["at"])):
            self._events.publish(event)
        for answer in answers:
            if answer["events"]:
                self._known.pop(answer["worker"], None)
                self._known[answer["worker"]] = answer["events"][-1]["number"]
        while len(self._known) > WORKERS:
            del self._known[next(iter(self._known))]

    def _sum(self, answers: Answers) -> Answer:
        """Return the figures of all workers together."""
        people = self._node.broker.people
        risen = [
            [self._rates.rise((one["worker"], n), c) for n, c in enumerate(one["acknowledged"])]
            for one in answers
        ]
        self._delays.add([sum(column) for column in zip(*risen, strict=True)])
        return {
            "at": self._now(),
            "active": all(one["active"] for one in answers),
            "timeout": answers[0]["timeout"],
            "stopping": sum(one["stopping"] for one in answers),
            "workers": len(answers),
            "listeners": _total(answers, "listeners"),
            "tabs": _total(answers, "tabs") if people is None else people.count,
            "users": _total(answers, "users"),
            "channels": max(one["channels"] for one in answers),
            "members": max(one["members"] for one in answers),
            "published": self._rate(answers, "published"),
            "delivered": self._rate(answers, "delivered"),
            "gaps": _total(answers, "gaps"),
            "stalled": _total(answers, "stalled"),
            "p50": self._delays.quantile(0.5),
            "p99": self._delays.quantile(0.99),
        }

    def _rate(self, answers: Answers, what: str) -> float | None:
        rises = (self._rates.rise((one["worker"], what), one[what]) for one in answers)
        return self._rates.rate(sum(rises))

    def _list_workers(self, answers: Answers) -> Answer:
        shown = ("worker", "name", "stopping", "active", "listeners", "tabs", "channels", "open")
        rows = [{key: one[key] for key in shown} for one in answers]
        return {
            "workers": sorted(rows, key=lambda row: str(row["name"])),
            "alive": max(self._node.broker.workers, len(rows)),
            "trouble": self._node.broker.trouble,
            "limits": get_limits(self._node),
        }

    def _add_rows(self, answers: Answers) -> list[Answer]:
        """Return the rows of the declarations, each added up over all workers."""
        rates = self._channel_rates
        rates.begin(self._node.clock.now())
        rows: dict[str, Answer] = {}
        for answer in answers:
            for one in answer["rows"]:
                row = rows.setdefault(one["name"], one | dict.fromkeys(ZEROS, 0))
                row["risen"] += rates.rise((answer["worker"], one["name"]), one["published"])
                # Workers share a channel of the site; one of a tab is in few of them.
                tabs = row["live"] if one["name"].startswith("~") else 0
                row["live"] = max(row["live"], tabs + one["live"])
                for key in ADDED:
                    row[key] += one[key]
        return [row | {"rate": rates.rate(row.pop("risen"))} for row in rows.values()]


ADDED = ("published", "gaps", "restarts", "refused")
ZEROS = (*ADDED, "live", "risen")


def _total(answers: Answers, key: str) -> int:
    return sum(one[key] for one in answers)
