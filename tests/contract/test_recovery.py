"""The recovery table: what a client is told for each place it can come from, and nothing else.

One row for each state of a channel and each start. The table is that of Centrifuge's
`brokerRecoverTests` (empty stream, from a position, limited, already gone, not there yet, the top,
an expired stream), extended by the relative starts, by re-creation and by our kinds of channel.
On-demand channels are in `test_transports`.

Message n of a channel has the value n.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio
import pytest

from asgi_comet import SITE, Channel, ChannelFull, Comet, Settings
from asgi_comet.testing import ManualClock, wait_for_listeners
from asgi_comet.testing._inspect import feed_of
from tests.kit.clients import CLIENTS, Client, Event
from tests.kit.loop import in_loop
from tests.kit.processes import process_of
from tests.kit.serving import Address, Tab
from tests.kit.stage import application
from tests.kit.streams import Sse
from tests.kit.workers import Workers

SIZE = 3  # messages that a channel holds
numbers = itertools.count()  # for names

POSITIONED = [name for name, client in CLIENTS.items() if client.positioned]


@dataclass
class Stage:
    """The channel under test, in the state that a row asks for.

    Attributes:
        workers: Serve it.
        comet: That of the worker that makes it, and publishes.
        make: Makes an incarnation of the channel.
        tab: Whose channel it is, if it is a process channel.
        clock: Turned by hand.
        settle: Returns once the server has done all there is to do.
        name: What clients call it.
        channel: Its latest incarnation.
        top: The offset of its last message.
        epochs: Of each incarnation, under the name that the rows use.
    """

    workers: Workers
    comet: Comet
    make: Callable[[], Channel[Any]]
    tab: Tab
    clock: ManualClock
    settle: Callable[[], None]
    name: str
    channel: Channel[Any] | None = None
    top: int = 0
    epochs: dict[str, str] = field(default_factory=lambda: {"other": "other", "new": "new"})

    def create(self) -> None:
        self.channel = self.make()
        self.top = 0
        self.epochs["e"] = feed_of(self.channel).history.epoch

    def publish(self, *values: int) -> None:
        assert self.channel is not None
        self.workers.store(self.comet, self.channel, *values)
        self.top += len(values)

    def close(self) -> None:
        assert self.channel is not None
        self.workers.close(self.comet, self.channel)

    def start(self, row: str) -> str:
        """Return the start of a row as the client sends it."""
        epoch, dot, offset = row.partition(".")
        return f"{self.epochs[epoch]}.{offset}" if dot else row

    def told(self, row: int | str) -> Event:
        """Return the event that a row means by one of its words."""
        if isinstance(row, int):
            return {"channel": self.name, "position": self.start(f"e.{row}"), "data": row}
        match row.split():
            case ["at", position]:
                return {"channel": self.name, "position": self.start(position)}
            case ["full", position]:
                return {"channel": self.name, "error": "full", "position": self.start(position)}
            case ["full"]:
                return {"channel": self.name, "error": "full"}
            case ["closed", reason]:
                return {"channel": self.name, "error": "closed", "reason": reason}
        raise ValueError(row)


# The states


def absent(stage: Stage) -> None:
    """There never was a channel of that name."""


def empty(stage: Stage) -> None:
    """Nothing was published."""
    stage.create()


def three(stage: Stage) -> None:
    """As many messages as it holds."""
    stage.create()
    stage.publish(1, 2, 3)


def trimmed(stage: Stage) -> None:
    """Two more."""
    three(stage)
    stage.publish(4, 5)


def acknowledged(stage: Stage) -> None:
    """Five messages, of which the client has acknowledged two."""
    three(stage)
    ack = {stage.name: stage.start("e.2")}
    assert stage.tab.post(f"{stage.tab.url}/ack", ack).status == 204
    stage.workers.wait_until_sent(stage.name, 2)
    stage.publish(4, 5)


def displaced(stage: Stage) -> None:
    """Five messages: two of the three that were sent were never acknowledged, and had to go."""
    three(stage)
    tab = stage.tab
    with Sse.open(tab.address, {stage.name: stage.start("e.0")}, tab.url, Cookie=tab.cookie) as sse:
        assert [event.value for event in sse.take(4)[1:]] == [1, 2, 3]
    stage.workers.wait_until_sent(stage.name, 3)
    stage.publish(4, 5)


def overflowed(stage: Stage) -> None:
    """One message more than it holds, and none was sent."""
    three(stage)
    with pytest.raises(ChannelFull):
        stage.publish(4)


def ended(stage: Stage) -> None:
    """It has ended; what it holds can still be read."""
    three(stage)
    stage.close()


def gone(stage: Stage) -> None:
    """It has ended, and what it held has expired."""
    ended(stage)
    stage.settle()
    stage.clock.advance(Settings().linger + 1)
    stage.workers.expire(stage.name.removeprefix("~"))
    stage.settle()


def created_again(stage: Stage) -> None:
    """It was deleted, and there is another one of its name with one message."""
    ended(stage)
    stage.epochs["old"] = stage.epochs["e"]
    stage.create()
    stage.publish(1)


# The table: kind, state, start, and what is told

State = Callable[[Stage], None]
Row = tuple[str, State, str, list[int | str]]

SITE_ROWS: list[Row] = [
    ("site", empty, "e.0", []),
    ("site", empty, "e.1", ["full e.0"]),
    ("site", empty, "other.0", ["full e.0"]),
    ("site", empty, "new.0", ["full e.0"]),
    ("site", empty, "now", ["at e.0"]),
    ("site", empty, "last:2", ["at e.0"]),
    ("site", empty, "first", ["at e.0"]),
    ("site", three, "e.3", []),
    ("site", three, "e.1", [2, 3]),
    ("site", three, "e.0", [1, 2, 3]),
    ("site", three, "e.4", ["full e.3"]),
    ("site", three, "other.3", ["full e.3"]),
    ("site", three, "now", ["at e.3"]),
    ("site", three, "last:0", ["at e.3"]),
    ("site", three, "last:2", ["at e.1", 2, 3]),
    ("site", three, "last:9", ["at e.0", 1, 2, 3]),
    ("site", three, "first", ["at e.0", 1, 2, 3]),
    ("site", trimmed, "e.5", []),
    ("site", trimmed, "e.4", [5]),
    ("site", trimmed, "e.2", [3, 4, 5]),
    ("site", trimmed, "e.1", ["full e.5"]),
    ("site", trimmed, "e.0", ["full e.5"]),
    ("site", trimmed, "e.6", ["full e.5"]),
    ("site", trimmed, "other.4", ["full e.5"]),
    ("site", trimmed, "now", ["at e.5"]),
    ("site", trimmed, "last:1", ["at e.4", 5]),
    ("site", trimmed, "last:9", ["at e.2", 3, 4, 5]),
    ("site", trimmed, "first", ["full e.5"]),
    ("site", ended, "e.3", ["closed ended"]),
    ("site", ended, "e.1", [2, 3, "closed ended"]),
    ("site", ended, "e.4", ["full e.3", "closed ended"]),
    ("site", ended, "other.1", ["full e.3", "closed ended"]),
    ("site", ended, "now", ["at e.3", "closed ended"]),
    ("site", ended, "last:1", ["at e.2", 3, "closed ended"]),
    ("site", ended, "first", ["at e.0", 1, 2, 3, "closed ended"]),
    ("site", gone, "e.1", ["closed unknown"]),
    ("site", gone, "e.3", ["closed unknown"]),
    ("site", gone, "now", ["closed unknown"]),
    ("site", gone, "last:2", ["closed unknown"]),
    ("site", gone, "first", ["closed unknown"]),
    ("site", absent, "other.1", ["closed unknown"]),
    ("site", absent, "new.0", ["closed unknown"]),
    ("site", absent, "now", ["closed unknown"]),
    ("site", created_again, "old.3", ["full e.1"]),
    ("site", created_again, "old.1", ["full e.1"]),
    ("site", created_again, "old.0", ["full e.1"]),
    ("site", created_again, "e.1", []),
    ("site", created_again, "e.0", [1]),
    ("site", created_again, "now", ["at e.1"]),
    ("site", created_again, "last:2", ["at e.0", 1]),
    ("site", created_again, "first", ["at e.0", 1]),
]

# Where a newest channel differs: it is never full, and knows one message.
NEWEST_ROWS: list[Row] = [
    ("newest", empty, "e.0", []),
    ("newest", empty, "e.1", []),
    ("newest", empty, "other.0", []),
    ("newest", empty, "now", ["at e.0"]),
    ("newest", empty, "first", ["at e.0"]),
    ("newest", three, "e.3", []),
    ("newest", three, "e.2", [3]),
    ("newest", three, "e.0", [3]),
    ("newest", three, "e.4", []),
    ("newest", three, "other.3", [3]),
    ("newest", three, "other.9", [3]),
    ("newest", three, "now", ["at e.3"]),
    ("newest", three, "last:2", ["at e.2", 3]),
    ("newest", three, "first", ["at e.2", 3]),
    ("newest", ended, "e.3", ["closed ended"]),
    ("newest", ended, "e.1", [3, "closed ended"]),
    ("newest", ended, "other.1", [3, "closed ended"]),
    ("newest", gone, "e.1", ["closed unknown"]),
    ("newest", created_again, "old.3", [1]),
    ("newest", created_again, "old.1", [1]),
    ("newest", created_again, "e.1", []),
]

# Where a process channel differs: it begins before it exists, and drops what is acknowledged.
PROCESS_ROWS: list[Row] = [
    ("process", absent, "new.0", []),
    ("process", absent, "now", ["at new.0"]),
    ("process", absent, "last:2", ["at new.0"]),
    ("process", absent, "first", ["at new.0"]),
    ("process", absent, "other.1", ["closed unknown"]),
    ("process", empty, "e.0", []),
    ("process", empty, "new.0", []),
    ("process", empty, "e.1", ["full e.0"]),
    ("process", empty, "other.0", ["full e.0"]),
    ("process", three, "e.3", []),
    ("process", three, "e.1", [2, 3]),
    ("process", three, "new.0", [1, 2, 3]),
    ("process", three, "e.4", ["full e.3"]),
    ("process", three, "other.3", ["full e.3"]),
    ("process", three, "now", ["at e.3"]),
    ("process", three, "last:2", ["at e.1", 2, 3]),
    ("process", three, "first", ["at e.0", 1, 2, 3]),
    ("process", acknowledged, "e.5", []),
    ("process", acknowledged, "e.2", [3, 4, 5]),
    ("process", acknowledged, "e.1", ["full e.5"]),
    ("process", acknowledged, "new.0", ["full e.5"]),
    ("process", acknowledged, "last:9", ["at e.2", 3, 4, 5]),
    ("process", acknowledged, "first", ["at e.2", 3, 4, 5]),
    ("process", displaced, "e.2", [3, 4, 5]),
    ("process", displaced, "e.1", ["full e.5"]),
    ("process", displaced, "new.0", ["full e.5"]),
    ("process", displaced, "last:9", ["at e.2", 3, 4, 5]),
    ("process", displaced, "first", ["full e.5"]),
    ("process", overflowed, "e.3", ["full"]),
    ("process", overflowed, "e.1", ["full"]),
    ("process", overflowed, "other.1", ["full"]),
    ("process", overflowed, "now", ["full"]),
    ("process", overflowed, "first", ["full"]),
    ("process", ended, "e.3", ["closed ended"]),
    ("process", ended, "e.1", [2, 3, "closed ended"]),
    ("process", ended, "other.1", ["full e.3", "closed ended"]),
    ("process", gone, "e.1", ["closed ended"]),
    ("process", gone, "new.0", ["closed ended"]),
    ("process", gone, "now", ["at new.0"]),
    ("process", created_again, "old.3", ["full e.1"]),
    ("process", created_again, "e.1", []),
    ("process", created_again, "new.0", [1]),
    ("process", created_again, "first", ["at e.0", 1]),
]

TABLE = SITE_ROWS + NEWEST_ROWS + PROCESS_ROWS

# Where several workers differ: a position beyond the newest message is one that Redis has lost, and
# `new.0` is before the first message that was not acknowledged, also where an older one was.
SEVERAL: dict[tuple[str, State, str], list[int | str]] = {
    ("newest", three, "e.4"): [3],
    ("process", acknowledged, "new.0"): [3, 4, 5],
}


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def comet(workers: Workers, request: pytest.FixtureRequest, clock: ManualClock) -> Comet:
    """The parameter, if there is one, is the size of an answer in bytes."""
    answer_bytes = getattr(request, "param", Settings().answer_bytes)
    return workers.make(clock=clock, settings=Settings(jitter=0, answer_bytes=answer_bytes))


@pytest.fixture(scope="module")
def server(workers: Workers, comet: Comet) -> Iterator[Address]:
    """One server for all rows: each has names of its own."""
    with workers.serve(application, comet) as address:
        yield address


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, workers: Workers, comet: Comet, tab: Tab, clock: ManualClock
) -> Stage:
    """The channel in its state; the parameter is the kind and the state of the row."""
    kind, state = request.param
    process = process_of(comet, tab)
    name = f"c{next(numbers)}"
    makes: dict[str, Callable[[], Channel[Any]]] = {
        "site": lambda: comet.create(scope=SITE, name=name, size=SIZE),
        "process": lambda: comet.create(scope=process, name=name, size=SIZE),
        "newest": lambda: comet.create_newest(name=name),
    }
    settle = partial(wait_until_idle, workers.of(comet))
    shown = f"~{name}" if kind == "process" else name
    found = Stage(workers, comet, makes[kind], tab, clock, settle, shown)
    state(found)
    return found


@pytest.fixture
def told(request: pytest.FixtureRequest, workers: Workers) -> list[int | str]:
    """What the client is told; the parameter is the row."""
    kind, state, start, told = request.param
    found: list[int | str] = told
    return found if workers.count == 1 else SEVERAL.get((kind, state, start), found)


def tell_loop(loops: Future[asyncio.AbstractEventLoop]) -> None:
    loops.set_result(asyncio.get_running_loop())


def wait_until_idle(comets: list[Comet]) -> None:
    for comet in comets:
        loops: Future[asyncio.AbstractEventLoop] = Future()
        in_loop(comet, partial(tell_loop, loops))
        idle = asyncio.run_coroutine_threadsafe(anyio.wait_all_tasks_blocked(), loops.result(20))
        idle.result(20)


def rows(table: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("stage", "start", "told"),
        [
            pytest.param(row[:2], row[2], row, id=f"{row[0]}-{row[1].__name__}-{row[2]}")
            for row in table
        ],
        indirect=["stage", "told"],
    )


@pytest.mark.parametrize("transport", POSITIONED)
@rows(TABLE)
def test_a_client_is_told_exactly_what_the_table_says(
    comet: Comet, client: Client, stage: Stage, start: str, told: list[int | str]
) -> None:
    fence = comet.create(scope=SITE)
    client.begin({stage.name: stage.start(start), fence.id: str(feed_of(fence).history.position)})
    assert [client.next() for _ in told] == [stage.told(one) for one in told]
    if not told:
        wait_for_listeners(fence, 1)
    if stage.name in client.positions:
        come_back(client, fence)
        check_that_it_goes_on(client, stage)
    fence.publish("that was all")
    event = client.next()
    assert (event["channel"], event.get("data")) == (fence.id, "that was all")


@pytest.mark.parametrize("comet", [1], indirect=True)
@pytest.mark.parametrize("transport", POSITIONED)
@rows([row for row in TABLE if len(row[3]) > 1])
def test_a_client_is_told_the_same_in_answers_of_one_message(
    client: Client, stage: Stage, start: str, told: list[int | str]
) -> None:
    client.begin({stage.name: stage.start(start)})
    assert [client.next() for _ in told] == [stage.told(one) for one in told]


def come_back(client: Client, fence: Channel[Any]) -> None:
    """Lose the connection, and with it all that was not read."""
    client.cut()
    wait_for_listeners(fence, 0)
    client.resume()
    wait_for_listeners(fence, 1)


def check_that_it_goes_on(client: Client, stage: Stage) -> None:
    """The next message, or the first of a channel that is made now, is what comes next."""
    if stage.channel is None or feed_of(stage.channel).closed is not None:
        stage.create()
    assert stage.channel is not None
    offset = stage.top + 1
    stage.publish(offset)
    assert client.next() == stage.told(offset)
