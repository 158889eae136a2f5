"""The next step of a client that follows channels, over any transport.

Owns positions, acknowledgements, pauses, and which transport is tried. Must not know sockets, tasks
or clocks: `Following.go_on` says what to do, and is told what came of it. The rules are those of
the browser client, docs/browser.md.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from asgi_comet.errors import ChannelClosed, ChannelFull, ProcessClosed, Refused, Replaced
from asgi_comet.position import Position
from asgi_comet.protocol.events import (
    NO_DATA,
    Event,
    decode_answer,
    encode_ack,
    encode_poll,
)
from asgi_comet.protocol.frames import CloseCode, decode_heard, encode_asked
from asgi_comet.protocol.sse import Decoder, encode_query, read_events
from asgi_comet.protocol.steps import (
    Close,
    Lost,
    OpenProcess,
    OpenSocket,
    OpenStream,
    Pause,
    Post,
    Read,
    Send,
    Step,
    Told,
    check_reply,
    is_final,
)

__all__ = ["FIRST_EVENT", "SILENCE", "TRANSPORTS", "Following"]

TRANSPORTS = ("websocket", "sse", "poll")

FIRST_EVENT = 4.0  # seconds until a connection must have brought something
SILENCE = 35.0  # seconds without a byte after which a connection counts as broken
LONGEST = 20.0  # seconds between two tries, at most
FIRST_CHOICE, NEXT_CHOICE = 60.0, 3600.0  # seconds in which the transport that worked comes first

CANARY = {":": "now"}  # no channel: the server answers at once
REASONS = frozenset({"ended", "cancelled", "failed", "forbidden", "full", "unknown"})
AWAY = {503: 10.0, 1013: 10.0, 1012: 1.0}  # seconds to wait, half more or less, by status or code


Steps = Generator[Step, Any, None]


class Following:
    """Follows channels through lost connections and restarts of the server.

    The shell runs the steps of `go_on`, one after the other, and takes all messages before the next
    one. So what was taken is dealt with, and is acknowledged by what follows.

    Args:
        starts: Start positions by the name of the channel; at least one.
        resume: Whether to go on after messages were missed; else `take` raises.
        transports: The transports to try, in this order.
        clock: The time in seconds.
        chance: Returns a random number from 0 to 1.

    Attributes:
        starts: Where to begin, by the name of the channel: of those that are left.
        positions: How far the messages are dealt with, by the name of the channel.
        moved: Whether a position has changed; the shell resets it once it has saved them.
        closed: Why channels have ended, by their names; `full` if messages were missed.
        transport: The transport that is used.
    """

    def __init__(
        self,
        starts: Mapping[str, str],
        *,
        resume: bool,
        transports: Sequence[str],
        clock: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.positions: dict[str, str] = {name: at for name, at in starts.items() if "." in at}
        self.moved: bool = False
        self.closed: dict[str, str] = {}
        self.transport: str = transports[0]
        self.starts: dict[str, str] = dict(starts)
        self._steps = self._run()
        self._resume = resume
        self._transports = list(transports)
        self._clock = clock
        self._chance = chance
        self._events: deque[Event] = deque()
        self._taken: Event | None = None
        self._again: dict[str, str] = {}  # where to go on with channels that were full
        self._acknowledged: dict[str, str] = {}
        self._heard = False  # whether this connection has brought anything
        self._failures = 0
        self._choice = ""  # the transport that has worked, and how long it comes first
        self._until = 0.0

    def go_on(self, result: Any = None) -> Step | None:
        """Return what to do next; `None` when no channel is left.

        Args:
            result: What came of the step before, or `Lost`.

        Raises:
            Replaced: Another connection reads the channels of the client process.
            ProcessClosed: The client process has closed.
            Refused: The server refuses, and would refuse again.
            BadRequest: The server does not speak `comet.v1`, or says what was wrong.
        """
        try:
            if isinstance(result, Lost):
                return self._steps.throw(result)
            return self._steps.send(result)
        except StopIteration:
            return None

    def take(self) -> Event | None:
        """Return the next message, or `None` when a step is due. The one before is dealt with.

        Raises:
            ChannelFull: Messages were missed. The channel is no longer followed, but others are.
            ChannelClosed: The channel has failed, or never was, or is forbidden. The same.
            ProcessClosed: The client process has closed.
        """
        if self._taken is not None:
            self._move(self._taken.channel, self._taken.position)
            self._taken = None
        while self._events:
            event = self._events.popleft()
            if event.error:
                self._fail(event)
            elif event.channel in self.starts:
                if event.data is not NO_DATA:
                    self._taken = event
                    return event
                self._move(event.channel, event.position)
        return None

    def _move(self, name: str, position: str) -> None:
        self.starts[name] = self.positions[name] = position
        self.moved = True

    def _fail(self, event: Event) -> None:
        name, position, error = event.channel, event.position, event.error
        if error == "process-closed":
            raise ProcessClosed
        if name not in self.starts:
            return
        if error == "full" and position and self._resume:
            self._again[name] = position
            self._move(name, position)
            return
        del self.starts[name]
        reason = event.reason if error == "closed" else error
        self.closed[name] = reason if reason in REASONS else "failed"
        if error == "full":
            raise ChannelFull(name, Position.parse(position) if position else None, missed=True)
        if reason != "ended":
            raise ChannelClosed(name, self.closed[name], followed=True)

    # What to do

    def _run(self) -> Steps:
        while self.starts:
            self._heard = False
            try:
                if any(name[0] == "~" for name in self.starts):
                    yield OpenProcess()
                yield from self._connect()
                yield Close()
            except Lost as lost:
                yield Close()
                yield self._wait(lost)

    def _wait(self, lost: Lost) -> Pause:
        seconds = self._chance() * min(LONGEST, 2**self._failures * 0.5)
        asked = lost.retry_after or AWAY.get(lost.code, 0.0) * (0.5 + self._chance())
        self._failures += 1
        return Pause(max(seconds, asked), str(lost), self._failures)

    def _connect(self) -> Steps:
        *others, last = self._choices()
        for self.transport in others:
            try:
                return (yield from self._follow())
            except Lost as lost:
                if self._heard or lost.code in AWAY:
                    raise
                yield Close()
        self.transport = last
        try:
            yield from self._follow()
        except Lost as lost:
            if is_final(lost.code):
                raise Refused(lost.code, str(lost)) from lost
            raise

    def _follow(self) -> Steps:
        match self.transport:
            case "websocket":
                yield from self._websocket()
            case "sse":
                yield from self._sse()
            case _:
                yield from self._poll()

    def _websocket(self) -> Steps:
        yield OpenSocket("socket?ack=1", FIRST_EVENT)
        yield Send(encode_asked(subscribe=CANARY))
        again: dict[str, str] = self._begin()
        acks: dict[str, str] = {}
        within = FIRST_EVENT
        while self.starts:
            if again or acks:
                yield Send(encode_asked(subscribe=again, ack=acks))
            try:
                frame = yield Read(within)
            except Lost as lost:
                self._check_code(lost.code)
                raise
            within = SILENCE
            yield from self._hear(decode_heard(frame))
            again, acks = self._resumed(), self._acks()

    def _sse(self) -> Steps:
        starts = self._begin()
        reply = yield OpenStream(f"events?ack=1&{encode_query(starts)}", FIRST_EVENT)
        check_reply(reply)
        decoder, names, within = Decoder(), list(starts), FIRST_EVENT
        while self.starts:
            piece = yield Read(within)
            if not piece:
                soon = CloseCode.RESTART if decoder.retry is not None else 0
                raise Lost("the server ended the stream", soon)
            events = [event for one in decoder.feed(piece) for event in read_events(one, names)]
            if events or self._heard:
                within = SILENCE
                yield from self._hear(events)
            if self._resumed():
                return
            yield from self._acknowledge(self._acks())

    def _acknowledge(self, acks: dict[str, str]) -> Steps:
        if acks:
            try:
                check_reply((yield Post("ack", encode_ack(acks), FIRST_EVENT)))
            except Lost:
                for name in acks:
                    self._acknowledged.pop(name, None)

    def _poll(self) -> Steps:
        within = FIRST_EVENT
        while self.starts:
            body = encode_poll(self._begin(), idle=not self._heard)
            reply = yield Post("poll?ack=1", body, within)
            check_reply(reply)
            answer = decode_answer(reply.body)
            if answer.replaced:
                raise Replaced
            within = SILENCE
            yield from self._hear(answer.events)

    # What came of it

    def _begin(self) -> dict[str, str]:
        self._acknowledged = {**self.starts}
        self._again.clear()
        return {**self.starts}

    def _resumed(self) -> dict[str, str]:
        again, self._again = self._again, {}
        return again

    def _acks(self) -> dict[str, str]:
        """Return what is dealt with since the last call, of the client process's own channels."""
        done, before = self.starts, self._acknowledged
        acks = {n: at for n, at in done.items() if n[0] == "~" and before.get(n) != at}
        before.update(acks)
        return acks

    def _hear(self, events: Sequence[Event]) -> Steps:
        """Have events taken."""
        for event in events:
            if event.error == "replaced":
                raise Replaced
            if event.error == "deactivated":
                raise Lost("the server is deactivated", CloseCode.TRY_AGAIN_LATER)
        self._events.extend(events)
        if not self._heard:
            self._heard, self._failures = True, 0
            self._remember()
        yield Told()

    def _check_code(self, code: int) -> None:
        """Raise what a code of the WebSocket means, if the client is not to come back."""
        if code == CloseCode.REPLACED:
            raise Replaced
        if code == CloseCode.PROCESS_CLOSED:
            raise ProcessClosed

    # Which transport

    def _choices(self) -> list[str]:
        if self._clock() < self._until:
            return self._transports[self._transports.index(self._choice) :]
        return self._transports

    def _remember(self) -> None:
        if self.transport == self._transports[0]:
            self._choice, self._until = "", 0.0
        elif self.transport != self._choices()[0]:
            again = self._choice == self.transport
            self._choice = self.transport
            self._until = self._clock() + (NEXT_CHOICE if again else FIRST_CHOICE)
