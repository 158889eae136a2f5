"""The scripts of people answer, store and publish what a model of them does, in random steps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from asgi_comet.brokers.redis.calls import Call, Group, Item, Log
from asgi_comet.brokers.redis.keys import Keys, ProcessKeys, SessionKeys
from asgi_comet.brokers.redis.people_calls import Mark, Reader
from asgi_comet.brokers.redis.people_replies import Missing
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.core.messages import NEXT_INCARNATION, First, Last, Now, Start
from asgi_comet.position import Position
from tests.kit.people_model import PeopleModel, Session
from tests.kit.redis import Client, RedisServer, run
from tests.kit.redis_frames import Frames

KEYS = Keys()
PARTITION = KEYS.partition_of("ab")
WORKERS = "UVW"
NAMES = ["a", "b c"]
TIMEOUT = 600_000
MOST = 4
ROOT = KEYS.process("ab").root

Step = Callable[[], Any]


class Walk:
    """Random steps, each taken in Redis and by the model."""

    def __init__(self, client: Client, seed: int) -> None:
        self.random = random.Random(seed)
        self.client = client
        self.frames = Frames(client)
        self.model = PeopleModel(KEYS, MOST)
        self.fresh = "n0"
        self.people = PeopleScripts(KEYS, most=MOST, timeout=TIMEOUT, fresh=lambda: self.fresh)
        self.scripts = Scripts(KEYS, fresh=lambda: self.fresh)
        self.sessions = [f"ab-s{number}" for number in range(3)]  # the ids that tabs know
        self.processes = ["ab-p0"]  # the last few
        self.numbers = Counter[str]()
        self.done: list[tuple[Call[Any], Step]] = []
        self.taken, self.outcomes = Counter[str](), Counter[str]()
        self.base = client.time()[0] * 1000 - 10_000
        self.choices: list[Step] = [
            *[self.open_process] * 6, *[self.enter] * 4, *[self.leave] * 4, *[self.claim] * 8,
            *[self.append] * 6, *[self.mark] * 3, *[self.close] * 2, *[self.move] * 2,
            *[self.again] * 4, *[self.end] * 2, *[self.open_channel] * 4, self.inherit,
            *[self.open_again] * 3, *[self.expire_ended] * 4, self.follow,
            self.visit, self.touch, self.late, self.finish, self.expire, self.expire,
            self.grow_old, self.forget_scripts, self.lose_log, self.new_process,
        ]  # fmt: skip

    def step(self, number: int) -> None:
        self.model.now, self.fresh = number, f"n{number}"
        choice = self.random.choice(self.choices)
        self.taken[choice.__name__] += 1
        choice()
        frames = [(topic, _without_time(frame)) for topic, frame in self.frames.read()]
        assert frames == self.model.logs.frames, choice.__name__
        self.model.logs.frames.clear()
        self.compare()
        self.set_times(number)

    def set_times(self, number: int) -> None:
        """Let each step last a millisecond."""
        for id_, one in self.model.processes.items():
            keys = KEYS.process(id_)
            if one.closed:
                continue
            if one.opened == number:
                processes = KEYS.session(one.session).processes
                self.client.zadd(processes, {id_: self.base + number})
            elif one.idle == number:
                self.client.zadd(keys.deadlines, {id_: self.base + number + TIMEOUT})

    # What Redis holds

    def compare(self) -> None:
        """Compare what Redis holds with what the model has, in one round trip."""
        model = self.model
        sessions = sorted({*self.sessions, *list(model.sessions)[-5:]})
        processes = self.processes[-10:]
        channels = [KEYS.process(one).channel(name).name for one in processes for name in NAMES]
        channels = [one for one in channels if one in model.logs.channels]
        with self.client.pipeline(transaction=False) as pipe:
            pipe.time().zrange(f"{ROOT}exp", 0, -1, withscores=True)
            pipe.zrange(f"{ROOT}closing", 0, -1).keys(f"{ROOT}*")
            for one in sessions:
                keys = KEYS.session(one)
                pipe.hgetall(keys.session).pttl(keys.session).zrange(keys.processes, 0, -1)
            for one in processes:
                process = KEYS.process(one)
                pipe.hgetall(process.process).pttl(process.process).hgetall(process.channels)
            for one in channels:
                log = model.logs.channels[one].log.keys
                pipe.hgetall(log.meta).lrange(log.log, 0, -1)
            held = iter(pipe.execute())
        self.compare_deadlines(next(held), next(held))
        assert texts(next(held)) == model.closing
        self.compare_keys({key.removeprefix(ROOT) for key in texts(next(held))})
        for one in sessions:
            self.compare_session(one, fields_of(next(held)), next(held), next(held))
        for one in processes:
            self.compare_process(one, fields_of(next(held)), next(held), next(held))
        for one in channels:
            self.compare_channel(one, fields_of(next(held)), next(held))

    def compare_deadlines(self, time: tuple[int, int], scores: Any) -> None:
        connected = time[0] * 1000 + time[1] // 1000 + TIMEOUT
        found = {
            id_.decode(): "late" if score == 1 else "connected" if score > connected else "idle"
            for id_, score in scores
        }
        assert found == {
            id_: "late" if one.late else "connected" if one.idle is None else "idle"
            for id_, one in self.model.processes.items()
            if not one.closed
        }

    def compare_keys(self, found: set[str]) -> None:
        model = self.model
        expected = {f"s:{id_}" for id_, one in model.sessions.items() if one != Session()}
        expected |= {f"p:{id_}" for id_ in model.processes}
        expected |= {f"sp:{one.session}" for one in model.processes.values() if not one.closed}
        assert {key for key in found if key.startswith(("s:", "p:", "sp:"))} == expected

    def compare_session(
        self, id_: str, fields: dict[str, str], life: int, members: list[bytes]
    ) -> None:
        session, processes = self.model.session(id_), self.model.of(id_)
        expected = {
            "u": (session.user or b"").decode(),
            "d": session.default,
            "n": str(session.defaults or ""),
            "w": "1" if session.kept else "",
        }
        assert fields == {key: value for key, value in expected.items() if value}
        assert [one.decode() for one in members] == processes
        assert not fields or (life == -1) == bool(processes)
        assert len(processes) <= MOST

    def compare_process(
        self, id_: str, fields: dict[str, str], life: int, names: dict[bytes, bytes]
    ) -> None:
        one = self.model.processes.get(id_)
        if one is None:
            assert (fields, names) == ({}, {})
            return
        assert {one for one in texts(list(names)) if one[0] == ":"} == {
            f":{name.split('~', 2)[2]}" for name in one.past
        }
        assert {key: value for key, value in fields_of(names).items() if key[0] != ":"} == {
            name.split("~", 2)[2]: size for name, size in one.named.items()
        }
        reader = str(one.reader) if one.reader else None
        assert (fields["s"], "x" in fields, fields.get("r")) == (one.session, one.closed, reader)
        assert {key[2:] for key in fields if key.startswith("k:")} == one.workers
        assert (life == -1) == (not one.closed)

    def compare_channel(self, name: str, fields: dict[str, str], rows: list[bytes]) -> None:
        channel = self.model.logs.channels[name]
        assert rows == [row.data for row in channel.rows]
        assert {key: fields.get(key, "") for key in "eslcro"} == {
            "e": channel.epoch, "s": str(channel.top), "l": channel.generation,
            "c": channel.closed, "r": channel.reader, "o": channel.owner,
        }  # fmt: skip
        assert int(fields.get("k", 0)) == channel.sent
        assert int(fields.get("a", 0)) == channel.acknowledged
        assert (int(fields.get("ja", 0)), int(fields.get("j", 0))) == channel.skipped
        if channel.rows:
            assert (int(fields["f"]), int(fields["b"])) == (channel.first, channel.bytes)

    # The steps

    def run(self, call: Call[Any], expected: Step, *, repeats: bool = True) -> None:
        """Run a script, sometimes twice, perhaps again much later."""
        if repeats:
            self.done.append((call, expected))
        self.run_again(call, expected)

    def run_again(self, call: Call[Any], expected: Step) -> None:
        wanted = expected()
        found = run(self.client, call, times=self.random.choice([1, 1, 2]))
        self.outcomes[type(found).__name__] += 1
        self.outcomes[getattr(found, "why", "")] += 1
        for page in getattr(found, "pages", ()):
            self.outcomes["past" if page == Missing(past=True) else type(page).__name__] += 1
        assert found == wanted

    def again(self) -> None:
        """Send an earlier call again, as it was."""
        if self.done:
            call, expected = self.random.choice(self.done[-50:])
            self.run_again(call, expected)

    def process(self) -> ProcessKeys:
        """Choose a process; mostly an open one."""
        known = self.model.processes
        open_ = [one for one in self.processes if one in known and not known[one].closed][-8:]
        if open_ and self.random.random() < 0.85:
            return KEYS.process(self.random.choice(open_))
        return KEYS.process(self.random.choice(self.processes[-8:]))

    def session_of(self, process: ProcessKeys) -> SessionKeys:
        """Choose the session of a process; sometimes another."""
        one = self.model.processes.get(process.id)
        if one is None or self.random.random() < 0.1:
            return self.session()
        return KEYS.session(one.session)

    def session(self) -> SessionKeys:
        return KEYS.session(self.random.choice(self.sessions))

    def worker(self) -> str:
        return self.random.choice(WORKERS)

    def visit(self) -> None:
        session, process = self.session(), self.process()
        call = self.people.visit(session, process)
        self.run(call, lambda: self.model.visit(session.id, process.id))

    def open_process(self) -> None:
        session = self.session()
        if self.random.random() < 0.8:
            self.processes.append(f"ab-p{self.model.now}")
        process = KEYS.process(self.processes[-1])
        default = self.random.random() < 0.3
        victims = ["", self.model.longest_idle(session.id), *self.model.of(session.id)[:1]]
        victim = self.random.choice(victims)
        instead_of = KEYS.process(victim) if victim else None
        call = self.people.open_process(session, process, default=default, instead_of=instead_of)
        model = self.model
        self.run(call, lambda: model.open_process(session.id, process.id, default, victim))

    def enter(self) -> None:
        process, worker = self.process(), self.worker()
        session = self.session_of(process)
        call = self.people.enter(session, process, worker)
        self.run(call, lambda: self.model.enter(session.id, process.id, worker))

    def leave(self) -> None:
        process, worker = self.process(), self.worker()
        call = self.people.leave(process, worker)
        self.run(call, lambda: self.model.leave(process.id, worker))

    def touch(self) -> None:
        some = self.random.sample(self.processes, min(2, len(self.processes)))
        self.run(self.people.touch(PARTITION, some), lambda: self.model.touch(some))

    def late(self) -> None:
        """Sweep, as one worker."""
        late = run(self.client, self.people.late(PARTITION))
        assert set(late) == self.model.late()
        for id_ in late:
            process = KEYS.process(id_)
            session = KEYS.session(self.model.processes[id_].session)
            call = self.people.close(session, process, if_late=True)
            self.run_close(call, session, process, if_late=True)

    def close(self) -> None:
        process = self.process()
        session, if_late = self.session_of(process), self.random.random() < 0.5
        call = self.people.close(session, process, if_late=if_late)
        self.run_close(call, session, process, if_late=if_late)

    def run_close(
        self, call: Call[Any], session: SessionKeys, process: ProcessKeys, *, if_late: bool
    ) -> None:
        self.run(call, lambda: self.model.close(session.id, process.id, if_late))

    def finish(self) -> None:
        for id_ in sorted(self.model.closing):
            process = KEYS.process(id_)
            channels = [process.channel(name) for name in NAMES]
            found = run(self.client, self.people.finish(process, channels))
            assert found == self.model.finish(id_, channels)

    def move(self) -> None:
        session, new = self.session(), KEYS.session(f"ab-s-{self.model.now}")
        known = self.model.of(session.id)
        self.random.shuffle(known)
        if self.random.random() < 0.3:
            known = known[1:]
        user, keep = self.random.choice([None, b"1", b'"ann"']), self.random.random() < 0.5
        keep = keep and user is not None
        processes = [KEYS.process(one) for one in known]
        call = self.people.move(session, new, processes, user=user, keep=keep)
        model = self.model
        # Repeated at once only: later, the new id may be used by others.
        expected: Step = lambda: model.move(session.id, new.id, known, user, keep)  # noqa: E731
        self.run(call, expected, repeats=False)
        move = model.moves.get(session.id)
        if move is not None and move.new == new.id and self.random.random() < 0.8:
            self.sessions[self.sessions.index(session.id)] = new.id

    def expire(self) -> None:
        process = self.process()
        one = self.model.processes.get(process.id)
        if one is not None and not one.closed:
            one.late = True
            self.client.zadd(process.deadlines, {process.id: 1})

    def grow_old(self) -> None:
        session = self.session()
        self.client.pexpire(session.heir, 580_000)
        self.model.grow_old(session.id)

    # Own channels

    def log(self) -> Log:
        """Choose a channel that there is, or another."""
        known = [one.log for one in self.model.logs.channels.values()][-6:]
        if known and self.random.random() < 0.8:
            return self.random.choice(known)
        kind, making = self.random.choice("PPPU"), self.random.choice(["made", "made", "other"])
        traits = self.random.choice(["", "s"])
        keys = self.process_with_names().channel(self.random.choice(NAMES))
        return Log(keys, kind, making, 4, 99, traits=traits)

    def open_channel(self, *, again: bool = False) -> None:
        log, owner = self.log(), self.random.choice(["", "", *WORKERS])
        fence = f"{owner}:1" if owner else ""
        call = self.scripts.open(log, self.fresh, owner=owner, fence=fence, again=again)
        fresh = self.fresh
        self.run(
            call, lambda: self.model.open(log, fresh, owner, again=again), repeats=False
        )  # fmt: skip

    def open_again(self) -> None:
        self.open_channel(again=True)

    def end(self) -> None:
        log, reason = self.log(), self.random.choice(["ended", "failed"])
        call = self.scripts.end(log, reason, 10**9)
        self.run(call, lambda: self.model.end(log, reason), repeats=False)

    def inherit(self) -> None:
        keys, dead = self.log().keys, self.worker()
        call = self.scripts.inherit(keys, dead, 10**9)
        assert run(self.client, call) == self.model.inherit(keys, dead)

    def expire_ended(self) -> None:
        ended = [
            one.log.keys for one in self.model.logs.channels.values()
            if one.closed not in ("", "full")
        ]  # fmt: skip
        for keys in ended[-4:]:
            self.client.delete(keys.meta, keys.log)
            self.model.expire_ended(keys.name)

    def follow(self) -> None:
        keys = self.log().keys
        start, most = self.start(keys.name), self.random.choice([0, 1, 256])
        call = self.scripts.follow(keys, start, most=most)
        fresh = self.fresh
        self.run(
            call, lambda: self.model.logs.follow(keys.name, start, most, 2**18, fresh),
            repeats=False,
        )  # fmt: skip

    def append(self) -> None:
        logs = [one.log for one in self.model.logs.channels.values()][-6:]
        if not logs:
            return
        self.numbers["batch"] += 1
        items = [Item(b"%d" % (10**size)) for size in range(self.random.randrange(1, 4))]
        groups, number, fresh = (
            [Group(self.random.choice(logs), items)],
            self.numbers["batch"],
            self.fresh,
        )
        call = self.scripts.append("W", number, groups)
        self.run(call, lambda: self.model.logs.append("W", number, groups, fresh))

    def process_with_names(self) -> ProcessKeys:
        """Choose a process; mostly one that has an own channel, or had one."""
        known = [
            id_ for id_, one in self.model.processes.items()
            if (one.past or one.named) and not one.closed
        ]  # fmt: skip
        if known and self.random.random() < 0.7:
            return KEYS.process(self.random.choice(known[-6:]))
        return self.process()

    def start(self, name: str) -> Start:
        channel = self.model.logs.channels.get(name)
        top = channel.top if channel else 0
        epoch = channel.epoch if channel and self.random.random() < 0.9 else "other"
        at = Position(epoch, max(0, top - self.random.choice([-1, 0, 0, 1, 1, 2, 4])))
        starts: list[Start] = [Now(), First(), Last(2), NEXT_INCARNATION, at, at, at]
        return self.random.choice(starts)

    def claim(self) -> None:
        process, worker = self.process_with_names(), self.worker()
        session, fresh, model = self.session_of(process), self.fresh, self.model
        self.numbers["reader"] += 1
        reader = Reader(worker, self.numbers["reader"], again=self.random.random() < 0.2)
        held = model.processes.get(process.id)
        if held is not None and held.reader is not None and self.random.random() < 0.3:
            former, now = held.reader.worker, self.random.choice([held.reader.worker, worker])
            reader = Reader(now, held.reader.number, again=True, formerly=former)
        names = self.random.sample(NAMES, self.random.choice([0, 1, 2, 2]))
        asked = [
            (keys, self.start(keys.name)) for name in names for keys in [process.channel(name)]
        ]
        most, size = self.random.choice([0, 1, 256]), self.random.choice([0, 3, 10**6])
        call = self.people.claim(session, process, reader, asked, most=most, max_bytes=size)
        bounds = most, size
        self.run(
            call, lambda: model.claim(session.id, process.id, reader, asked, bounds, fresh),
            repeats=False,
        )  # fmt: skip

    def mark(self) -> None:
        channels = list(self.model.logs.channels.values())[-6:]
        marks = []
        for channel in self.random.sample(channels, min(2, len(channels))):
            epoch = self.random.choice([channel.epoch, channel.epoch, "other"])
            sent, got = (
                self.random.choice([None, *range(max(0, channel.top - 3), channel.top + 2)])
                for _ in range(2)
            )
            after, upto = sorted(self.random.choices(range(channel.top + 2), k=2))
            skipped = (after, upto) if after < upto and self.random.random() < 0.3 else None
            marks.append(Mark(channel.log.keys, epoch, sent, got, skipped))
        if marks:
            self.run(self.people.mark(marks), lambda: self.model.mark(marks))

    # What happens to the store

    def lose_log(self) -> None:
        for channel in list(self.model.logs.channels.values())[-2:]:
            self.client.delete(channel.log.keys.log)
            channel.rows.clear()

    def new_process(self) -> None:
        """Let Redis have been started again with the same data."""
        if self.model.logs.generation:
            self.client.hset(KEYS.lineage, mapping={"id": "other", "run": "other"})
            self.model.logs.restarted = True

    def forget_scripts(self) -> None:
        self.client.script_flush()


def fields_of(reply: dict[bytes, bytes]) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in reply.items()}


def texts(reply: list[bytes]) -> set[str]:
    return {one.decode() for one in reply}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_scripts_of_people_do_what_the_model_does(
    redis: RedisServer, client: Client, seed: int
) -> None:
    walk = Walk(client, seed)
    for number in range(1, 1501):
        walk.step(number)
    for outcome in (
        *("Made", "Crowded", "Closed", "Moved", "Entered", "Claimed", "Replaced"),
        *("Unexpired", "Closing", "Changed", "Others", "Visited"),
        *("Opened", "Gone", "Ended", "taken", "closed", "OwnPage", "Missing", "past", "Page"),
    ):
        assert walk.outcomes[outcome] > 2, walk.outcomes
    assert min(walk.taken.values()) > 8


def _without_time(frame: str) -> str:
    return frame.partition(" ")[0] if frame.startswith("r") else frame
