"""The checker's part for people: pages, users, rights and receipts. Pure, and offline.

I9 (a page closes for a reason), I10 one reader, I11 overflow, I13 rights, I14 receipts, and what
I15 says of tables.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tests.nemesis.history import Event
from tests.nemesis.known import (
    Browser,
    Channel,
    Connection,
    Place,
    Process,
    Publish,
    Violation,
    parse,
    show,
)
from tests.nemesis.names import NEVER_CONNECTED, PROCESS_TIMEOUT, process_of

STILL = 7.0  # seconds in which a worker that hears nothing may still deliver
ANNOUNCED = 15.0  # seconds until a lost store knows all pages that are connected
SLACK = 1.0  # seconds between what a client and a server take for the same time
LATE = 5.0  # seconds in which a login or a logout without an answer may still be made
SUCCESSION = 10.0  # seconds in which no answer but that to a login replaces a former cookie
UNKNOWN = "?"
UNTIL_ANSWERED = float("inf")
OVER = ("ChannelClosed", "ChannelFull", "ProcessClosed", "KeyError")
"""The errors of a publish on a channel of a page that is over, or of another worker."""


class PeopleChecker:
    """What the checker knows of pages. `Checker` has the rest, and calls `note_delivery`."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self._now = 0.0
        self._channels: dict[str, Channel] = {}
        self._publishes: dict[str, Publish] = {}
        self._stands: dict[tuple[str, str], list[Place]] = defaultdict(list)
        self._renewing: list[tuple[str, Iterable[str]]] = []
        self._losses: list[float] = []
        self._deaths: list[float] = []
        self._processes: dict[str, Process] = {}
        self._browsers: dict[str, Browser] = defaultdict(Browser)
        self._connections: dict[str, Connection] = {}
        self._refused: dict[str, float] = {}
        self._revoked: dict[str, float] = {}
        self._unsure: set[str] = set()  # users whose right an operator may have taken away
        self._deactivated: float | None = None
        self._acked: dict[tuple[str, str], int] = defaultdict(int)
        self._two: list[tuple[float, float, str]] = []
        self._over = False

    def say(self, invariant: str, text: str, at: float | None = None) -> None:
        self.violations.append(Violation(invariant, self._now if at is None else at, text))

    # Pages

    def take_page(self, event: Event) -> None:
        self._processes[event["process"]] = Process(self._now)
        for name, of in event["channels"].items():
            renewals = sum("*" in renews for _, renews in self._renewing)
            self._channels[name] = Channel(of["kind"], of["size"], renewals=renewals)

    def take_opened(self, event: Event) -> None:
        process = self._processes[event["process"]]
        process.browser, process.readers = event["browser"], event["readers"]

    def take_connect(self, event: Event) -> None:
        named = {name: event[name] for name in ("browser", "user", "process", "generation")}
        if self._browsers[event["browser"]].forgotten:
            named["user"] = UNKNOWN
        one = self._connections[event["client"]] = Connection(self._now, **named)
        self._processes[one.process].connections[event["client"]] = one

    def is_open(self, client: str, channel: str) -> bool:
        """Tell whether a channel is not of a page that a client has left."""
        process, one = process_of(channel), self._connections.get(client)
        return not process or one is None or one.process == process

    def take_answered(self, event: Event) -> None:
        self._answer(event["client"])

    def take_disconnect(self, event: Event) -> None:
        process = self._processes[event["process"]]
        one = process.connections.pop(event["client"], None)
        if one is not None and one.answered is not None:
            process.seen = self._now

    def take_closing(self, event: Event) -> None:
        if event["process"] in self._processes:
            self._processes[event["process"]].closing = True

    def take_gone(self, event: Event) -> None:
        self._end(event["process"], "is over for its client", event["how"] == "forbidden")

    def take_on_close(self, event: Event) -> None:
        process = self._processes[event["process"]]
        if event["run"] in process.called:
            self.say("I9", f"the callback of {event['process']} ran twice in {event['run']}")
        process.called.add(event["run"])
        self._end(event["process"], f"was closed in {event['run']}")

    def take_over(self, event: Event) -> None:
        """Judge no more why pages close: the workers stop."""
        self._over = True

    def _end(self, id_: str, how: str, forbidden: bool = False) -> None:
        process = self._processes[id_]
        if not process.over and not self._over and not self._may_end(process, forbidden):
            self.say("I9", f"the page {id_} of {process.browser} {how}, without reason")
        process.over = True

    def _may_end(self, process: Process, forbidden: bool) -> bool:
        if not process.browser:
            return True  # it could not be opened, or its answer was lost
        browser = self._browsers[process.browser]
        lost = any(at >= process.seen - ANNOUNCED for at in self._losses)
        if forbidden:
            return lost or browser.doubtful >= process.born - SUCCESSION
        moved = browser.changed >= process.seen - SLACK
        return process.closing or lost or moved or self._is_expired(process)

    def _is_expired(self, process: Process) -> bool:
        if any(one.answered is not None for one in process.connections.values()):
            return False
        never = process.seen == process.born
        limit = min(NEVER_CONNECTED, PROCESS_TIMEOUT) if never else PROCESS_TIMEOUT
        return self._now - process.seen >= limit - SLACK

    def _answer(self, client: str) -> Connection | None:
        """Take note that a connection of a client was answered."""
        one = self._connections.get(client)
        if one is not None:
            one.answered = self._now if one.answered is None else one.answered
            self._processes[one.process].seen = self._now
        return one

    # Users and rights

    def take_act(self, event: Event) -> None:
        browser, user = self._browsers[event["browser"]], event["user"]
        match event["name"]:
            case "login" | "logout":
                browser.acting = event["name"] == "logout" or browser.user not in ("", user)
                browser.changed = UNTIL_ANSWERED if browser.acting else browser.changed
                browser.user, browser.doubtful = UNKNOWN, self._now
            case "revoke":
                self._refused[user] = float("inf")
            case "grant":
                self._revoked.pop(user, None)

    def take_acted(self, event: Event) -> None:
        browser, user, done = self._browsers[event["browser"]], event["user"], event["done"]
        match event["name"]:
            case "login" | "logout":
                browser.changed = self._now if browser.acting else browser.changed
                if done:
                    browser.user, browser.forgotten = user, False
                    browser.moves.append((event["generation"], self._now))
                else:
                    browser.doubtful, browser.changed = self._now, self._now + LATE
            case "revoke" if done:
                self._revoked[user] = self._now
            case "revoke":
                self._unsure.add(user)  # a worker may hear of it at any time
            case "grant" if done:
                self._refused[user] = self._now

    def take_emptied(self, event: Event) -> None:
        """Take no browser's user for certain: the store has lost the logins."""
        del event
        for browser in self._browsers.values():
            browser.forgotten = True
        for one in self._connections.values():
            one.user = UNKNOWN

    def take_deactivated(self, event: Event) -> None:
        self._deactivated = self._now

    def take_activated(self, event: Event) -> None:
        self._deactivated = None

    def take_forbidden(self, event: Event) -> None:
        one = self._answer(event["client"])
        whom = f"{event['client']} on {event['channel']}"
        user = "" if one is None else one.user
        since = 0.0 if one is None else one.at
        if user not in (UNKNOWN, *self._unsure) and self._refused.get(user, 0.0) < since - SLACK:
            self.say("I9", f"{whom} was told `forbidden`, and {user or 'a visitor'} may read it")

    def note_delivery(self, event: Event) -> None:
        """Check the rights of a client that has received a message."""
        one = self._answer(event["client"])
        whom = f"{event['client']} got {event['id']} on {event['channel']}"
        sent = event["sent"]
        if self._deactivated is not None and sent > self._deactivated:
            self.say("I13", f"{whom}, published after `deactivate` had returned")
        if one is None:
            return
        moves = self._browsers[one.browser].moves
        ended = next((at for number, at in moves if number > one.generation), None)
        if ended is not None and sent > ended:
            self.say("I13", f"{whom}, published after `login` or `logout` had returned")
        revoked = self._revoked.get(one.user)
        guarded = self._channels[event["channel"]].kind == "guarded"
        if guarded and revoked is not None and sent > revoked:
            self.say("I13", f"{whom}, published after `revoke` of {one.user} had returned")
        if process_of(event["channel"]):
            self._check_reader(event["client"], one, sent, whom)

    def _check_reader(self, client: str, one: Connection, sent: float, whom: str) -> None:
        """Expect that no connection reads that is surely newer than this one."""
        for name, other in self._processes[one.process].connections.items():
            if name == client or other.answered is None or one.answered is None:
                continue
            if one.answered < other.at and sent > other.answered:
                self._two.append((other.answered, sent, f"{whom}, which {name} reads"))

    # Acknowledgements

    def take_ack(self, event: Event) -> None:
        epoch, offset = parse(event["position"])
        key = event["channel"], epoch
        self._acked[key] = max(offset, self._acked[key])

    def take_outcome(self, event: Event) -> None:
        publish = self._publishes[event["id"]]
        if not event["success"] or publish.position is None:
            return
        if process_of(publish.channel):
            self._expect_ack(event["id"], publish.channel)
            return
        epoch, offset = publish.position
        if self._channels[publish.channel].reached.get(epoch, -1) < offset:
            self.say("I14", f"{event['id']} was a success, and no client has it")

    def take_receipt(self, event: Event) -> None:
        for channel in event["acknowledged"]:
            self._expect_ack(event["id"], channel)

    def _expect_ack(self, id_: str, channel: str) -> None:
        places = self._stands.get((channel, id_), [])
        if not any(self._acked[channel, epoch] >= offset for epoch, offset in places):
            self.say("I14", f"{id_} counts as acknowledged on {channel}, and is not")

    # What else own channels may tell

    def is_acknowledged(self, channel: str, place: Place) -> bool:
        """Tell whether a client has acknowledged messages behind a place."""
        return self._acked[channel, place[0]] > place[1]

    def check_overflow(self, name: str) -> None:
        """Check that a page's channel that is full has as many messages that were never sent."""
        channel = self._channels[name]
        epoch, top = next(reversed(channel.known.items()), ("", 0))
        waiting = top - channel.reached.get(epoch, 0) + channel.waiting
        if not channel.over and waiting < channel.size:
            self.say("I11", f"{name} is full with at most {waiting} messages that were not sent")
        channel.over = True

    def check_own_closed(self, name: str, told: str, reason: str) -> None:
        process, kind = self._processes[process_of(name)], self._channels[name].kind
        lost = any(at >= process.seen - ANNOUNCED for at in self._losses)
        moved = kind == "declared" and any(at >= process.born for at in self._deaths)
        if not (process.over or process.closing or lost or moved or self._channels[name].over):
            self.say("I9", f"{told} ({reason}), and the page lives")

    def explains_failure(self, publish: Publish) -> bool:
        """Tell whether a failed publish is of a page that is over, or of another worker."""
        process = self._processes.get(process_of(publish.channel))
        if process is None or not publish.error.startswith(OVER):
            return False
        over = process.over or process.closing or self._channels[publish.channel].over
        return over or publish.error.startswith("KeyError")

    def take_must(self, event: Event) -> None:
        if not event["done"]:
            self.say("I16", f"expected `{event['what']}` to be done")

    def check_tables(self, tables: dict[str, dict[str, int]]) -> None:
        for worker, left in tables.items():
            for table, size in left.items():
                self.say("I15", f"{size} in the table `{table}` of {worker} are left")

    def check_final(self, event: Event) -> None:
        """Check that a page has what was stored on a channel of its own."""
        name, process = event["channel"], self._processes.get(process_of(event["channel"]))
        channel = self._channels.get(name)
        if process is None or channel is None or process.over or process.closing or channel.over:
            return
        if channel.kind != "own" or not channel.stored:
            return
        epoch, top = next(reversed(channel.stored.items()))
        at = parse(event["position"]) if "." in event["position"] else ("", -1)
        later = at[0] != epoch and at[0] in channel.epochs and channel.is_later(at[0], epoch)
        lost = later and channel.epochs[at[0]] != channel.epochs[epoch]
        if not (later or at[0] == epoch) or (at[1] < top and not lost):
            self.say("I4", f"{event['client']} on {name} ends at {show(at)}, not at {epoch}.{top}")
