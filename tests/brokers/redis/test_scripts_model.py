"""The scripts answer, store and publish what a model of them does, over thousands of steps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from asgi_comet.brokers.redis.calls import IMPORTED, Call, Group, Item, Log
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.core.messages import First, Last, Now, Start
from asgi_comet.position import Position
from tests.kit.redis import Client, RedisServer, run
from tests.kit.redis_frames import Frames
from tests.kit.redis_model import Channel, Model

KEYS = Keys()
NAMES = ["a", "b c", "d", "élan"]
WORKERS = ["V", "W"]
LONG = 10**9  # ms


class Walk:
    """Random steps, each taken in Redis and by the model."""

    def __init__(self, client: Client, seed: int) -> None:
        self.random = random.Random(seed)
        self.client = client
        self.model = Model()
        self.frames = Frames(client)
        self.fresh = "n0"
        self.scripts = Scripts(KEYS, fresh=lambda: self.fresh)
        self.numbers = Counter[str]()
        self.sent: list[tuple[str, int, list[Group], Call[Any], str]] = []
        self.taken = Counter[str]()
        self.outcomes = Counter[str]()
        self.listening: set[str] = set()
        self.listener = client.pubsub()
        self.choices: list[Callable[[], None]] = [
            *[self.append] * 12,
            *[self.open] * 4,
            *[self.follow] * 5,
            *[self.own] * 3,
            *[self.send_again] * 2,
            self.find, self.tops, self.free, self.renew, self.end, self.unused, self.want,
            self.inherit, self.keep,
            self.lose_key, self.grow_old, self.new_process, self.flush, self.mark, self.listen,
            self.forget_scripts, self.late_batch,
        ]  # fmt: skip

    def step(self, number: int) -> None:
        self.fresh = f"n{number}"
        choice = self.random.choice(self.choices)
        self.taken[choice.__name__] += 1
        choice()
        assert self.frames.read() == self.model.frames, choice.__name__
        self.model.frames.clear()
        for name in NAMES:
            self.compare(name)
        kept = {name for name in NAMES if self.client.zscore(KEYS.site(name).names, name)}
        assert kept == self.model.swept

    def compare(self, name: str) -> None:
        """Compare what Redis holds of a channel with what the model has."""
        channel = self.model.channels.get(name)
        keys = KEYS.site(name)
        with self.client.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.meta).lrange(keys.log, 0, -1).zrange(keys.ids, 0, -1)
            pipe.hgetall(keys.positions).hgetall(keys.state)
            meta, rows, ids, positions, state = pipe.execute()
        meta = {key.decode(): value.decode() for key, value in meta.items()}
        if channel is None:
            assert meta == {}
            return
        aged = channel.log.max_age is not None
        assert {key: meta.get(key, "") for key in "eslcox"} == {
            "e": channel.epoch, "s": str(channel.top), "l": channel.generation,
            "c": channel.closed, "o": channel.owner, "x": channel.fence,
        }  # fmt: skip
        assert [row.partition(b" ")[2] if aged else row for row in rows] == [
            row.data for row in channel.rows
        ]
        if channel.rows:
            assert (int(meta["f"]), int(meta["b"])) == (channel.first, channel.bytes)
        assert {id_.decode() for id_ in ids} == set(channel.ids)
        assert {key.decode(): value.decode() for key, value in positions.items()} == {
            id_: str(position) for id_, position in channel.positions.items()
        }
        assert {key.decode(): value for key, value in state.items()} == channel.state

    # The steps

    def run(self, call: Call[Any], expected: Any) -> None:
        """Run a script, sometimes twice: it recognises its own retry."""
        found = run(self.client, call, times=self.random.choice([1, 1, 1, 2]))
        self.outcomes[f"{type(found).__name__} {getattr(found, 'why', '')}"] += 1
        assert found == expected

    def log(self) -> Log:
        """Choose a channel as it is, or with something changed."""
        found = self.model.channels.get(self.random.choice(NAMES))
        if found is not None and self.random.random() < 0.9:
            return found.log
        return self.other_log()

    def other_log(self) -> Log:
        kind = self.random.choice("SSSNKP")
        return Log(
            KEYS.site(self.random.choice(NAMES)),
            kind,
            self.random.choice([IMPORTED, IMPORTED, "made1", "made2"]),
            size=1 if kind == "N" else self.random.choice([1, 3, 10]),
            max_bytes=self.random.choice([30, 60, 1000]),
            max_age=self.random.choice([None, None, LONG]),
            guard=self.random.choice(["", "members"]),
            lives=self.random.choice([None, LONG]),
            history_lives=self.random.choice([None, LONG]),
            most_keys=3,
            traits=self.random.choice(["", "s", "r", "r", "sr"]),
        )

    def name(self) -> str:
        return self.random.choice(NAMES)

    def fence(self) -> str:
        worker = self.random.choice(WORKERS)
        return f"{worker}:{self.random.choice([self.numbers['fence'], self.random.randrange(9)])}"

    def open(self) -> None:
        log, owner = self.other_log(), self.random.choice(["", "", "V"])
        found = self.model.channels.get(log.keys.name)
        if found is not None and self.random.random() < 0.5:
            log = replace(log, kind=found.log.kind, making=found.log.making)
        fence = f"{owner}:1" if owner else ""
        make = self.random.random() < 0.9
        call = self.scripts.open(log, self.fresh, owner=owner, fence=fence, make=make)
        self.run(call, self.model.open(log, self.fresh, owner, fence, make=make))

    def item(self, kind: str) -> Item:
        data = b"%d" % self.random.choice(
            [self.random.randrange(100), 10 ** self.random.randrange(40)]
        )
        id_ = self.random.choice(["", "", "", "x", "y", "z"])
        if kind != "K":
            return Item(data, id_)
        keys = [self.random.choice("pqrs") for _ in range(self.random.randrange(3))]
        gone = [self.random.choice("pqrst") for _ in range(self.random.randrange(2))]
        return Item(data, id_, [(key, data) for key in dict.fromkeys(keys)], gone)

    def append(self) -> None:
        worker = self.random.choice(WORKERS)
        self.numbers[worker] += self.random.choice([1, 1, 1, 5])
        groups = []
        for _ in range(self.random.randrange(1, 6)):
            log = self.log()
            items = [self.item(log.kind) for _ in range(self.random.randrange(1, 6))]
            found = self.model.channels.get(log.keys.name)
            fences = ["", "", found.fence if found else "", self.fence()]
            groups.append(Group(log, items, self.random.choice(fences)))
        call = self.scripts.append(worker, self.numbers[worker], groups)
        self.sent.append((worker, self.numbers[worker], groups, call, self.fresh))
        self.run_append(*self.sent[-1])

    def run_append(
        self, worker: str, number: int, groups: list[Group], call: Call[Any], fresh: str
    ) -> None:
        expected = self.model.append(worker, number, groups, fresh)
        for outcome in expected if isinstance(expected, tuple) else [expected]:
            self.outcomes[f"append {type(outcome).__name__} {getattr(outcome, 'why', '')}"] += 1
        self.run(call, expected)

    def send_again(self) -> None:
        """Send the last batch of some worker again, as it was."""
        if self.sent:
            self.run_append(*self.sent[-1])

    def late_batch(self) -> None:
        """Let bytes of a dead connection arrive: any batch there ever was."""
        if self.sent:
            self.run_append(*self.random.choice(self.sent))

    def start(self, channel: Channel | None) -> Start:
        epoch = channel.epoch if channel and self.random.random() < 0.8 else "other"
        top = channel.top if channel else 0
        offset = max(0, top + self.random.choice([-20, -5, -3, -2, -1, 0, 0, 1]))
        position = Position(epoch, offset)
        starts: list[Start] = [
            Now(),
            First(),
            Last(self.random.randrange(5)),
            position,
            position,
            position,
        ]
        return self.random.choice(starts)

    def follow(self) -> None:
        name = self.name()
        start = self.start(self.model.channels.get(name))
        most, size = self.random.choice([0, 1, 2, 256]), self.random.choice([0, 25, 10**6])
        for_client = self.random.random() < 0.5
        call = self.scripts.follow(
            KEYS.site(name), start, most=most, max_bytes=size, for_client=for_client
        )
        self.run(call, self.model.follow(name, start, most, size, self.fresh))

    def find(self) -> None:
        name = self.name()
        self.run(self.scripts.find(KEYS.site(name)), self.model.find(name))

    def tops(self) -> None:
        call = self.scripts.tops([KEYS.site(name) for name in NAMES])
        self.run(call, self.model.tops(NAMES, self.fresh))

    def own(self) -> None:
        log, worker, instead_of = self.log(), *self.random.sample([*WORKERS, ""], 2)
        if not worker:
            return
        self.numbers["fence"] += 1
        fence = self.random.choice([f"{worker}:{self.numbers['fence']}", f"{worker}:1"])
        keep = self.random.random() < 0.3
        call = self.scripts.own(log, worker, fence, self.fresh, instead_of=instead_of, keep=keep)
        expected = self.model.own(log, worker, fence, self.fresh, instead_of, keep)
        self.run(call, expected)

    def chosen_fence(self, name: str) -> str:
        channel = self.model.channels.get(name)
        return channel.fence if channel and self.random.random() < 0.7 else self.fence()

    def free(self) -> None:
        name = self.name()
        fence, clean = self.chosen_fence(name) or "V:0", self.random.random() < 0.5
        call = self.scripts.free(KEYS.site(name), fence[0], fence, clean=clean)
        assert run(self.client, call) == self.model.free(name, fence, clean)

    def keep(self) -> None:
        log = self.log()
        channel = self.model.channels.get(log.keys.name)
        kept = run(self.client, self.scripts.keep(log))
        assert kept == (channel is not None and not channel.closed)

    def inherit(self) -> None:
        name, dead = self.name(), self.random.choice(WORKERS)
        call = self.scripts.inherit(KEYS.site(name), dead, LONG)
        assert run(self.client, call) == self.model.inherit(name, dead)

    def renew(self) -> None:
        log = self.log()
        fence = self.random.choice(["", self.chosen_fence(log.keys.name)])
        call = self.scripts.renew(log, self.fresh, fence=fence)
        self.run(call, self.model.renew(log, fence, self.fresh))

    def end(self) -> None:
        log = self.log()
        fence = self.random.choice(["", self.chosen_fence(log.keys.name)])
        reason = self.random.choice(["ended", "failed"])
        call = self.scripts.end(log, reason, LONG, owner=fence[:1], fence=fence)
        self.run(call, self.model.end(log, reason, fence))

    def unused(self) -> None:
        name = self.name()
        fence = self.chosen_fence(name)
        recently = self.random.random() < 0.3
        call = self.scripts.unused(
            KEYS.site(name), LONG if recently else 0, owner=fence[:1], fence=fence
        )
        self.run(call, self.model.unused(name, fence, recently or name in self.listening))

    def want(self) -> None:
        name = self.name()
        known = self.model.channels.get(name)
        present = "" if known is None else known.epoch
        epoch = ("another", "", present)[self.taken["want"] % 3]
        run(self.client, self.scripts.want(KEYS.site(name), Position(epoch, 7)))
        self.model.want(name, Position(epoch, 7), KEYS.inbox)

    def listen(self) -> None:
        """Subscribe to a channel, or not any more."""
        name = self.name()
        topic = KEYS.site(name).topic
        if name in self.listening:
            self.listening.remove(name)
            self.listener.unsubscribe(topic)
        else:
            self.listening.add(name)
            self.listener.subscribe(topic)
        while self.listener.get_message(timeout=20) is None:
            pass

    # What happens to the store

    def lose_key(self) -> None:
        name = self.name()
        keys, channel = KEYS.site(name), self.model.channels.get(name)
        lost = self.random.choice(
            [keys.meta, keys.log, keys.log, keys.ids, keys.positions, keys.state, KEYS.lineage]
        )
        self.client.delete(lost)
        if lost == KEYS.lineage:
            self.model.generation = ""
        elif channel is not None:
            self.lose(channel, lost)

    def lose(self, channel: Channel, lost: str) -> None:
        keys = channel.log.keys
        for key, part in (
            (keys.log, channel.rows),
            (keys.ids, channel.ids),
            (keys.positions, channel.positions),
            (keys.state, channel.state),
        ):
            if lost == key:
                part.clear()
        if lost == keys.meta:  # the next record of the name does away with the rest
            del self.model.channels[keys.name]

    def grow_old(self) -> None:
        """Let the first messages and all ids of a channel be of long ago."""
        channel = self.model.channels.get(self.name())
        if channel is None:
            return
        keys = channel.log.keys
        if channel.log.max_age is not None:
            for number, row in enumerate(channel.rows[: self.random.randrange(4)]):
                row.old = True
                self.client.lset(keys.log, number, b"%013d %s" % (0, row.data))
        for id_ in channel.ids:
            channel.ids[id_] = True
            self.client.zadd(keys.ids, {id_: 0})

    def new_process(self) -> None:
        """Let Redis have been started again with the same data."""
        if self.model.generation:
            self.client.hset(KEYS.lineage, mapping={"id": "other", "run": "other"})
            self.model.restarted = True

    def flush(self) -> None:
        if self.random.random() < 0.2:
            self.client.flushall()
            self.model.clear()

    def forget_scripts(self) -> None:
        self.client.script_flush()

    def mark(self) -> None:
        """Let the reader of a tab's channel come, or be sent something."""
        channel = self.model.channels.get(self.name())
        if channel is None or channel.log.kind != "P":
            return
        channel.reader = KEYS.inbox("V")
        channel.sent = self.random.choice([channel.top, channel.sent])
        meta = channel.log.keys.meta
        self.client.hset(meta, mapping={"r": channel.reader, "k": channel.sent})


@pytest.mark.parametrize(("seed", "durable"), [(1, False), (3, True)])
def test_the_scripts_do_what_the_model_does(
    redis: RedisServer, client: Client, seed: int, durable: bool
) -> None:
    walk = Walk(client, seed)
    walk.model.durable = durable
    walk.scripts = replace(walk.scripts, durable=durable)
    for number in range(1, 2501):
        walk.step(number)
    for outcome in ("full", "fenced", "ended", "failed", "unused", "gone", "unknown"):
        assert walk.outcomes[f"append Refused {outcome}"] > 5, walk.outcomes
    assert walk.outcomes["append Stale "] > 20
    assert min(walk.taken.values()) > 20
