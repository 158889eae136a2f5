"""What the scripts of sessions and client processes do, in Python.

Written from the design and not from the Lua. Time is the number of the step; a deadline is over, or
a former id old, when told so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from asgi_comet.brokers.redis.calls import Log
from asgi_comet.brokers.redis.keys import ChannelKeys, Keys
from asgi_comet.brokers.redis.people_calls import Mark, Reader
from asgi_comet.brokers.redis.people_replies import (
    Changed,
    Claimed,
    Closed,
    Closing,
    Crowded,
    Entered,
    Made,
    Missing,
    Moved,
    Others,
    OwnPage,
    Replaced,
    Unexpired,
    Visited,
)
from asgi_comet.brokers.redis.replies import Ended, Gone, Opened, Refused
from asgi_comet.core.messages import NEXT_INCARNATION, Start
from asgi_comet.position import Position
from tests.kit.redis_model import Model


@dataclass
class Process:
    session: str
    opened: int
    idle: int | None  # since when; `None` if connected
    late: bool = False
    closed: bool = False
    workers: set[str] = field(default_factory=set)
    reader: Reader | None = None
    past: set[str] = field(default_factory=set)  # full names of own channels that have ended
    named: dict[str, str] = field(default_factory=dict)  # kind and size, by full name
    user: bytes | None = None  # of the session that its closing left without a process
    kept: bool = False


@dataclass
class Session:
    user: bytes | None = None
    default: str = ""
    defaults: int = 0
    kept: bool = False


@dataclass(frozen=True)
class Move:
    new: str
    reply: Changed
    old: bool = False


class PeopleModel:
    """The store. Each method is a script, and returns what the script is to answer.

    Attributes:
        now: The step.
        logs: The own channels.
    """

    def __init__(self, keys: Keys, most: int) -> None:
        self.keys = keys
        self.most = most
        self.now = 0
        self.logs = Model()
        self.sessions: dict[str, Session] = {}
        self.processes: dict[str, Process] = {}
        self.closing: set[str] = set()
        self.moves: dict[str, Move] = {}

    def session(self, id_: str) -> Session:
        return self.sessions.get(id_, Session())

    def of(self, session: str) -> list[str]:
        """Return the open client processes of a session, the oldest first."""
        found = [
            id_ for id_, one in self.processes.items() if one.session == session and not one.closed
        ]
        return sorted(found, key=lambda id_: self.processes[id_].opened)

    def heir(self, session: str) -> str:
        move = self.moves.get(session)
        return move.new if move is not None and not move.old else ""

    def visit(self, session: str, process: str) -> Visited:
        found, one = self.processes.get(process), self.session(session)
        return Visited(
            *(self.heir(session), one.user, one.default, one.defaults, one.kept),
            found.session if found else "",
            found is not None and found.closed,
            tuple(self.of(session)),
            self.moves[session].new if session in self.moves else "",
        )

    def open_process(
        self, session: str, process: str, default: bool, instead_of: str
    ) -> Made | Crowded | Closed | Moved:
        found = self.processes.get(process)
        if found is not None:
            return self.refuse(process, session) or Made(process)
        if heir := self.heir(session):
            return Moved(heir)
        if default and (made := self.session(session).default):
            return Made(made)
        if len(self.of(session)) >= self.most:
            longest = self.longest_idle(session)
            if not longest or longest != instead_of:
                return Crowded(longest)
            self.begin_closing(longest)
        self.processes[process] = Process(session, self.now, self.now)
        if default:
            one = self.sessions.setdefault(session, Session())
            one.default, one.defaults = process, one.defaults + 1
        return Made(process)

    def longest_idle(self, session: str) -> str:
        idle = {
            one: since for one in self.of(session) if (since := self.idle_since(one)) is not None
        }
        return min(idle, key=lambda one: (idle[one], self.processes[one].opened), default="")

    def idle_since(self, process: str) -> int | None:
        found = self.processes[process]
        return found.opened if found.late else found.idle

    def refuse(self, process: str, session: str) -> Closed | Moved | None:
        found = self.processes.get(process)
        if found is None or found.closed:
            return Closed()
        return None if found.session == session else Moved(found.session)

    def enter(self, session: str, process: str, worker: str) -> Entered | Closed | Moved:
        refused = self.refuse(process, session)
        if refused is None:
            self.connect(process, worker)
        return refused or Entered()

    def connect(self, process: str, worker: str) -> None:
        found = self.processes[process]
        found.workers.add(worker)
        found.idle, found.late = None, False

    def leave(self, process: str, worker: str) -> bool:
        found = self.processes.get(process)
        if found is None or found.closed:
            return False
        if worker in found.workers:
            found.workers.remove(worker)
            if not found.workers:
                found.idle, found.late = self.now, False
        return True

    def touch(self, processes: Sequence[str]) -> tuple[str, ...]:
        gone = [one for one in processes if one not in self.processes or self.is_closed(one)]
        for one in set(processes) - set(gone):
            self.processes[one].idle, self.processes[one].late = None, False
        return tuple(gone)

    def is_closed(self, process: str) -> bool:
        return self.processes[process].closed

    def late(self) -> set[str]:
        return {id_ for id_, one in self.processes.items() if one.late and not one.closed}

    def close(
        self, session: str, process: str, if_late: bool
    ) -> Closing | Unexpired | Closed | Moved:
        found = self.processes.get(process)
        if found is None or (found.closed and process not in self.closing):
            return Closed()
        if not found.closed:
            if found.session != session:
                return Moved(found.session)
            if if_late and not found.late:
                return Unexpired()
            self.begin_closing(process)
        channels = {name.split("~", 2)[2]: size for name, size in found.named.items()}
        return Closing(
            frozenset(found.workers),
            channels,
            frozenset(),
            found.session,
            found.user,
            found.kept,
        )

    def begin_closing(self, process: str) -> None:
        found = self.processes[process]
        found.closed = True
        self.closing.add(process)
        session = self.sessions.get(found.session)
        if session is None:
            return
        if session.default == process:
            session.default = ""
        if not self.of(found.session):
            found.user, found.kept = session.user, session.kept and session.user is not None
            if not session.kept:
                self.retire(found.session)

    def retire(self, session: str) -> None:
        """Forget a session, but for the number of its default processes."""
        defaults = self.sessions.pop(session, Session()).defaults
        if defaults:
            self.sessions[session] = Session(defaults=defaults)

    def finish(self, process: str, channels: Sequence[ChannelKeys]) -> bool:
        for one in channels:
            self.logs.channels.pop(one.name, None)
        known = process in self.closing
        self.closing.discard(process)
        if process in self.processes:
            self.processes[process].past.clear()
            self.processes[process].named.clear()
        return known

    def move(
        self, session: str, new: str, processes: Sequence[str], user: bytes | None, keep: bool
    ) -> Changed | Others | Moved:
        done = self.moves.get(session)
        if done is not None and done.new == new:
            return done.reply
        if done is not None and not done.old:
            return Moved(done.new)
        mine = self.of(session)
        if sorted(processes) != sorted(mine):
            return Others(tuple(mine))
        before = self.session(session)
        closes = before.user is not None and before.user != user
        if closes:
            for one in mine:
                self.begin_closing(one)
                self.processes[one].user, self.processes[one].kept = before.user, False
        self.sessions[new] = Session(user, "" if closes else before.default, 0, keep)
        for one in [] if closes else mine:
            self.processes[one].session = new
        if not keep and not self.of(new):
            del self.sessions[new]
        self.retire(session)
        reply = Changed(tuple(mine), closes)
        self.moves[session] = Move(new, reply)
        return reply

    def grow_old(self, session: str) -> None:
        """Let the id have been replaced more than ten seconds ago."""
        if session in self.moves:
            self.moves[session] = replace(self.moves[session], old=True)

    def claim(
        self,
        session: str,
        process: str,
        reader: Reader,
        channels: Sequence[tuple[ChannelKeys, Start]],
        bounds: tuple[int, int],
        fresh: str,
    ) -> Claimed | Replaced | Closed | Moved:
        refused = self.refuse(process, session)
        if refused is not None:
            return refused
        found = self.processes[process]
        before = found.reader
        if before is not None and str(before) not in (str(reader), reader.former):
            if reader.again:
                return Replaced()
            if before.worker != reader.worker:
                self.logs.frames.append((self.keys.inbox(before.worker), f"r{before}"))
        found.reader = reader
        self.connect(process, reader.worker)
        generation = self.logs.lineage(fresh)
        most, left = bounds
        pages = list[OwnPage | Missing]()
        read = False
        for keys, start in channels:
            channel = self.logs.channels.get(keys.name)
            if channel is None:
                pages.append(Missing(self.is_past(found, keys.name, start)))
                continue
            page = self.logs.page(channel, generation, fresh, start, (most, 10**9))
            run = page.run
            while run and sum(len(one.data) for one in run) > left and (read or len(run) > 1):
                run = run[:-1]
            left, read = left - sum(len(one.data) for one in run), read or bool(run)
            channel.reader = self.keys.inbox(reader.worker)
            acknowledged = isinstance(start, Position) and start != NEXT_INCARNATION
            if page.after is not None and acknowledged and not reader.again:
                self.acknowledge(keys, page.after)
            page = replace(page, run=run, first=channel.first)
            record = self.logs.find(keys.name)
            assert record is not None
            pages.append(OwnPage(page, record, channel.progress))
        return Claimed(tuple(pages))

    def is_past(self, process: Process, name: str, start: Start) -> bool:
        """Return whether a channel of a name has ended; a relative start forgets that."""
        if not isinstance(start, Position):
            process.past.discard(name)
        return name in process.past

    def open(self, log: Log, fresh: str, owner: str, *, again: bool) -> Opened | Gone | Refused:
        id_ = log.keys.name.split("~", 2)[1]
        process = self.processes.get(id_)
        if process is None or process.closed:
            return Refused("closed", "lost" if process is None else "")
        name = log.keys.name
        before = self.logs.channels.get(name)
        makes = before is None or bool(before.closed)
        if again and makes and (before is not None or name in process.past):
            self.logs.lineage(fresh)
            return Gone()
        fence = f"{owner}:1" if owner else ""
        opened = self.logs.open(log, fresh, owner, fence)
        if makes:
            process.past.discard(name)
            process.named[name] = f"{log.kind},{log.size}"
            if process.reader is not None:
                channel = self.logs.channels[name]
                channel.reader = self.keys.inbox(process.reader.worker)
                self.logs.tell(channel, f"e{fresh} 0")
        return opened

    def end(self, log: Log, reason: str) -> Gone | Ended | Refused:
        live = self.is_live(log.keys.name)
        ended = self.logs.end(log, reason, "")
        self.pass_by(log.keys, live)
        return ended

    def inherit(self, keys: ChannelKeys, dead: str) -> bool:
        live = self.is_live(keys.name)
        inherited = self.logs.inherit(keys.name, dead)
        self.pass_by(keys, live)
        return inherited

    def is_live(self, name: str) -> bool:
        channel = self.logs.channels.get(name)
        return channel is not None and not channel.closed

    def pass_by(self, keys: ChannelKeys, was_live: bool) -> None:
        """Remember the name of a channel that has ended now, while its process is open."""
        process = self.processes.get(keys.name.split("~", 2)[1])
        if not was_live or self.is_live(keys.name) or process is None or process.closed:
            return
        process.named.pop(keys.name)
        process.past.add(keys.name)

    def expire_ended(self, name: str) -> None:
        """Let the linger time of an ended channel be over."""
        del self.logs.channels[name]

    def acknowledge(self, keys: ChannelKeys, offset: int) -> None:
        channel = self.logs.channels[keys.name]
        while channel.rows and channel.first <= offset:
            channel.drop()
        channel.sent = max(channel.sent, offset)
        channel.acknowledged = max(channel.acknowledged, offset)

    def mark(self, marks: Sequence[Mark]) -> tuple[bool, ...]:
        return tuple(map(self.mark_one, marks))

    def mark_one(self, mark: Mark) -> bool:
        channel = self.logs.channels.get(mark.keys.name)
        if channel is None or channel.epoch != mark.epoch:
            return False
        after, upto = mark.skipped or (0, 0)
        if max(mark.sent or 0, mark.acknowledged or 0, upto) > channel.top:
            return False
        channel.hold()
        channel.sent = max(channel.sent, mark.sent or 0)
        if upto > channel.skipped[1]:
            if channel.acknowledged < upto:
                after = max(after, channel.acknowledged)
            before, last = channel.skipped
            channel.skipped = (min(after, before) if last else after), upto
        if mark.acknowledged is not None:
            self.acknowledge(mark.keys, mark.acknowledged)
        return True
