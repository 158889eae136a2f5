"""The checker: reads a history and names each violation of the promise. Pure, and offline.

The invariants are those of the design: I1 no silent gap, I2 each once, I3 one truth, I4 complete,
I5 stored is stored, I6 at most once, I7 failures, I8 order, I9 no cheap `full`, I12 one source,
I15 nothing left, I16 alive; the others are in `people_checker.py`.

A channel has epochs; the faults say which channels may get a new one (`renews`), and whether
the store may have lost messages (`loses`). Epochs between two losses make an age: within an age an
offset has one content, whatever the epoch. A reader may be told `full` once for each new epoch, or
because its position was trimmed. So a server that always says `full` does not pass.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from tests.nemesis.debts import Debts
from tests.nemesis.history import Event
from tests.nemesis.known import (
    NEW,
    TOLD,
    Calm,
    Channel,
    Place,
    Publish,
    Reader,
    Row,
    Violation,
    parse,
    show,
)
from tests.nemesis.names import process_of
from tests.nemesis.orders import Found, check_notes, check_order, check_source
from tests.nemesis.people_checker import STILL, PeopleChecker

WITHIN = 5.0  # seconds in which a message reaches its readers when there is no fault

LASTING = re.compile(r"[^:]*:\{\w+\}(lin|format|calm|names|act|log|logr|b:.*)")
"""The keys in Redis that stay, beside those of the channels that stay."""


class Checker(PeopleChecker):
    """Takes events in the order of time; `violations` are complete after `finish`."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = defaultdict(int)
        self._readers: dict[tuple[str, str], Reader] = {}
        self._died: set[str] = set()
        self._faults: list[tuple[float, float]] = []
        self._open: dict[str, list[float]] = defaultdict(list)
        self._calm = Calm([])
        self._late: list[tuple[float, float, str]] = []
        self._debts = Debts()
        self._tops: dict[str, tuple[str, str]] = {}
        self._within = WITHIN

    def take(self, event: Event) -> None:
        self._now = event["at"]
        kind = event["event"]
        self.counts[kind] += 1
        take: Callable[[Event], None] | None = getattr(self, f"take_{kind}", None)
        assert take is not None, f"expected an event of the history, got {kind!r}"
        take(event)

    def finish(self) -> list[Violation]:
        for began in [one for starts in self._open.values() for one in starts]:
            self._faults.append((began, self._now))
        self._calm = Calm(self._faults)
        self._check_lateness()
        self._check_publishes()
        self._check_two_readers()
        for name, channel in self._channels.items():
            if channel.kind == "source":
                self._say_all(check_source(name, channel, self._calm, self._within, self._now))
            elif channel.kind == "notes":
                self._say_all(check_notes(name, channel))
        for (client, name), by, epoch in self._debts.unpaid():
            self.say("I16", f"{client} on {name} was never told `full` of epoch {epoch}", by)
        return sorted(self.violations, key=lambda one: one.at)

    def take_setup(self, event: Event) -> None:
        self._within = event.get("within", WITHIN)
        for name, of in event["channels"].items():
            self._channels[name] = Channel(of["kind"], of["size"])

    def take_note(self, event: Event) -> None:
        """Leave out what is for people."""

    # Faults

    def take_fault(self, event: Event) -> None:
        if event["phase"] == "end":
            began = self._open[event["name"]].pop(0)
            self._renewing = [one for one in self._renewing if one[0] != event["name"]]
            self._faults.append((began, self._now + event.get("within", self._within)))
            return
        self._open[event["name"]].append(self._now)
        self._renewing.append((event["name"], event.get("renews", ())))
        if event.get("loses") and "*" in event.get("renews", ()):
            self._losses.append(self._now)
        for channel in self._touched(event.get("renews", ())):
            channel.renewals += 1
            if event.get("loses"):
                channel.losses.append(self._now)
        for channel in self._touched(event.get("cuts", ())):
            channel.cuts += 1

    def take_lost(self, event: Event) -> None:
        """Begin another age: what was seen since the fault began is lost as well."""
        self._losses.append(self._now)
        for channel in self._channels.values():
            channel.losses.append(event["at"])

    def _touched(self, names: Iterable[str]) -> Iterator[Channel]:
        for name, channel in self._channels.items():
            if "*" in names or name in names or f"kind:{channel.kind}" in names:
                yield channel

    def take_owed(self, event: Event) -> None:
        epochs = {
            key: reader.place[0]
            for key, reader in self._readers.items()
            if reader.place is not None
            and self._channels[key[1]].kind != "newest"
            and self.is_open(*key)
        }
        self._debts.owe(epochs, self._now, event["within"])

    def take_connect(self, event: Event) -> None:
        super().take_connect(event)
        self._debts.connect(event["client"], self._now)
        for key in self._debts:
            if not self.is_open(*key):  # a page that the client has left
                self._debts.forget(key)

    def take_replaced(self, event: Event) -> None:
        self._debts.rest(event["client"], self._now)

    def take_died(self, event: Event) -> None:
        self._died.add(event["run"])
        self._deaths.append(self._now)
        for channel in self._touched(("kind:declared",)):
            channel.renewals += 1

    # Publishers

    def take_call(self, event: Event) -> None:
        self._publishes[event["id"]] = Publish(self._now, event["channel"], event["run"])
        self._channels[event["channel"]].waiting += 1

    def take_ok(self, event: Event) -> None:
        publish = self._publishes[event["id"]]
        publish.done, publish.position = self._now, parse(event["position"])
        epoch, offset = publish.position
        channel = self._channels[publish.channel]
        channel.waiting -= 1
        channel.stored[epoch] = max(offset, channel.stored.get(epoch, 0))
        row = Row(event["id"], publish.at)
        self._learn_row(publish.channel, publish.position, row)

    def take_fail(self, event: Event) -> None:
        publish = self._publishes[event["id"]]
        publish.done, publish.failed, publish.maybe = self._now, True, event["maybe"]
        publish.error = event.get("error", "")
        if publish.error.startswith("ChannelFull"):
            self.check_overflow(publish.channel)
        elif not publish.maybe:
            self._channels[publish.channel].waiting -= 1

    # Readers

    def take_begin(self, event: Event) -> None:
        self._readers[event["client"], event["channel"]] = Reader()
        self._debts.forget((event["client"], event["channel"]))

    def take_there(self, event: Event) -> None:
        self._answer(event["client"])
        self._place(event)

    def take_resume(self, event: Event) -> None:
        """Let a reader go on from where another reader of its page is, which was told for both."""
        self._place(event)
        key = event["client"], event["channel"]
        self._debts.pay(key, parse(event["position"])[0], self._now)

    def _place(self, event: Event) -> None:
        reader = self._readers[event["client"], event["channel"]]
        self._learn_epoch(event["channel"], event["position"])
        reader.place, reader.since = parse(event["position"]), self._now
        self._channels[event["channel"]].reach(reader.place)

    def take_recv(self, event: Event) -> None:
        name, place = event["channel"], parse(event["position"])
        reader = self._readers[event["client"], name]
        row = Row(event["id"], event["sent"], event.get("fence"))
        self._learn_row(name, place, row)
        whom = f"{event['client']} on {name}"
        if self._channels[name].kind == "newest":
            self._check_newest(whom, name, reader, place)
        else:
            self._check_next(whom, reader, place)
        reader.place = place
        self._channels[name].reach(place)
        self.note_delivery(event)
        self._pay(event["client"], name)
        if row.sent > reader.since and self._now - row.sent > self._within:
            self._late.append((row.sent, self._now, f"{row.id} reached {whom} late"))

    def _check_next(self, whom: str, reader: Reader, place: Place) -> None:
        before = reader.place
        if before is None:
            self.say("I1", f"{whom} got {show(place)} before it was told where it is")
        elif before[0] == NEW and place[1] == 1:
            return
        elif place[0] != before[0]:
            self.say("I1", f"{whom} went from {show(before)} to {show(place)} without `full`")
        elif place[1] <= before[1]:
            self.say("I2", f"{whom} got {show(place)} after {show(before)}")
        elif place[1] != before[1] + 1:
            self.say("I1", f"{whom} got {show(place)} right after {show(before)}")

    def _check_newest(self, whom: str, name: str, reader: Reader, place: Place) -> None:
        before = reader.place
        if before is None:
            self.say("I1", f"{whom} got {show(place)} before it was told where it is")
        elif place[0] == before[0] and place[1] <= before[1]:
            self.say("I2", f"{whom} got {show(place)} after {show(before)}")
        elif place[0] != before[0] and not self._channels[name].is_later(place[0], before[0]):
            self.say("I1", f"{whom} went back from {show(before)} to {show(place)}")

    def take_full(self, event: Event) -> None:
        name = event["channel"]
        channel, reader = self._channels[name], self._readers[event["client"], name]
        whom, before = f"{event['client']} on {name}", reader.place
        self._answer(event["client"])
        if event["position"] is None and process_of(name):
            self.check_overflow(name)
            return
        if event["position"] is None or before is None or channel.kind == "newest":
            self.say("I9", f"{whom} at {show(before)} was told `full` to {event['position']}")
            return
        self._learn_epoch(name, event["position"])
        place = parse(event["position"])
        if place[0] != before[0]:
            new = channel.seen.get(before[0], 0.0) > self._now - TOLD  # seen late, maybe over
            if not (new or channel.is_later(place[0], before[0])):
                self.say("I9", f"{whom} was told `full` from {show(before)} back to {show(place)}")
            elif place[1] < before[1] and channel.of_one_age(place[0], before[0]):
                self.say("I2", f"{whom} at {show(before)} is to get all after {show(place)} again")
        elif channel.known[place[0]] < before[1] + 1 + channel.size and not self.is_acknowledged(
            name, before
        ):
            reader.cuts += 1
            if reader.cuts > channel.cuts:
                self.say("I9", f"{whom} at {show(before)} was told `full` needlessly")
        reader.place, reader.since = place, self._now
        channel.reach(place)
        self._pay(event["client"], name)

    def _pay(self, client: str, name: str) -> None:
        place = self._readers[client, name].place
        late = self._debts.pay((client, name), place[0], self._now) if place else 0.0
        if late > 0:
            self.say("I16", f"{client} on {name} was told `full` {late:.1f} s late")

    def take_closed(self, event: Event) -> None:
        name, reason = event["channel"], event["reason"]
        told = f"{event['client']} on {name} was told `closed`"
        if process_of(name):
            self.check_own_closed(name, told, reason)
        elif name not in self._channels:
            self._check_runtime(name, reason)
        else:
            self.say("I9", f"{told} ({reason}), and the channel lives")

    def _check_runtime(self, name: str, reason: str) -> None:
        """Expect the end of a channel whose iterator has ended with its worker."""
        if reason != "failed":
            self.say("I12", f"{name} ended as `{reason}`, and its iterator was cut off")

    # The log

    def _learn_epoch(self, name: str, position: str) -> None:
        epoch, offset = parse(position)
        if epoch == NEW:
            return
        channel = self._channels[name]
        channel.known[epoch] = max(offset, channel.known.get(epoch, 0))
        if epoch in channel.epochs:
            return
        if len(channel.epochs) > channel.renewals:
            self.say("I9", f"{name} has a new epoch {epoch} that no fault explains")
            channel.renewals += 1  # told once
        channel.epochs[epoch], channel.seen[epoch] = len(channel.losses), self._now

    def _learn_row(self, name: str, place: Place, row: Row) -> None:
        channel = self._channels[name]
        self._learn_epoch(name, show(place))
        there = channel.rows.setdefault(place, row)
        there.fence = there.fence or row.fence
        if there.id != row.id:
            self.say("I3", f"{name} has both {there.id} and {row.id} at {show(place)}")
        elif there is row:
            self._check_age(name, channel, place, row)

    def _check_age(self, name: str, channel: Channel, place: Place, row: Row) -> None:
        age = channel.epochs[place[0]]
        same = channel.ages.setdefault((age, place[1]), row)
        if same.id != row.id:
            self.say(
                "I3", f"{name} has both {same.id} and {row.id} at offset {place[1]}, and no loss"
            )
        for other in self._stands[name, row.id]:
            if other[1] != place[1] and channel.epochs[other[0]] == age:
                self.say("I6", f"{row.id} is twice on {name}, at {show(other)} and {show(place)}")
        self._stands[name, row.id].append(place)

    def take_held(self, event: Event) -> None:
        row = Row(event["id"], event["sent"], event.get("fence"))
        self._learn_row(event["channel"], parse(event["position"]), row)

    def take_top(self, event: Event) -> None:
        name, position = event["channel"], event["position"]
        worker, other = self._tops.setdefault(name, (event["worker"], position))
        self._learn_epoch(name, position)
        if other != position:
            self.say("I4", f"{name} is at {other} on {worker}, at {position} on {event['worker']}")
            if parse(position)[1] > parse(other)[1]:
                self._tops[name] = event["worker"], position

    def take_final(self, event: Event) -> None:
        name = event["channel"]
        if process_of(name):
            self.check_final(event)
        if name in self._tops and self._tops[name][1] != event["position"]:
            top = self._tops[name][1]
            self.say("I4", f"{event['client']} on {name} ends at {event['position']}, not at {top}")

    def take_left(self, event: Event) -> None:
        for key in event["keys"]:
            if not LASTING.fullmatch(key) and not self._stays(key):
                self.say("I15", f"the key {key} is left")
        for topic in event["topics"]:
            self.say("I15", f"a subscription to {topic} is left")
        self.check_tables(event.get("tables", {}))

    def _stays(self, key: str) -> bool:
        kind, _, name = key.partition("}")[2].partition(":")
        of = self._channels.get(name)
        return kind in ("c", "h", "d", "dp") and of is not None and of.kind != "member"

    # At the end

    def _check_lateness(self) -> None:
        for sent, came, text in self._late:
            calm = self._calm.between(sent, came)
            if calm > self._within:
                self.say(
                    "I16",
                    f"{text}, {came - sent:.1f} s after its call, {calm:.1f} of it calm",
                    came,
                )

    def _check_two_readers(self) -> None:
        for began, sent, text in self._two:
            seconds = sent - began
            if seconds > STILL or self._calm.between(began, sent) > seconds - 1e-6:
                self.say("I10", f"{text}, {seconds:.1f} s after that one's first answer", sent)

    def _check_publishes(self) -> None:
        by_channel: dict[tuple[str, int], list[tuple[int, Publish, str]]] = defaultdict(list)
        for id_, publish in self._publishes.items():
            places = self._stands.get((publish.channel, id_), [])
            self._check_outcome(id_, publish, places)
            for age, offset in {
                (self._channels[publish.channel].epochs[p[0]], p[1]) for p in places
            }:
                by_channel[publish.channel, age].append((offset, publish, id_))
        for (name, age), stored in by_channel.items():
            self._say_all(check_order(f"{name} (age {age})", stored))

    def _say_all(self, found: Iterable[Found]) -> None:
        for one in found:
            self.say(*one)

    def _check_outcome(self, id_: str, publish: Publish, places: list[Place]) -> None:
        channel, end = self._channels[publish.channel], publish.done or self._now
        calm = self._calm.between(publish.at, end)
        if publish.failed and not publish.maybe and places:
            self.say("I7", f"{id_} failed for certain, and stands at {show(places[0])}", end)
        if self.explains_failure(publish):
            return
        begin = publish.at - 1  # a fault may just have ended
        if publish.failed and self._calm.between(begin, end) > end - begin - 1e-6:
            self.say("I16", f"{id_} failed where there was no fault", end)
        if publish.done is None and publish.run not in self._died and calm > 2 * self._within:
            self.say("I16", f"the call of {id_} never returned", publish.at)
        if publish.position is not None and publish.channel in self._tops:
            epoch, top = parse(self._tops[publish.channel][1])
            same = channel.epochs[epoch] == channel.epochs[publish.position[0]]
            if same and publish.position[1] > top:
                self.say(
                    "I5", f"{id_} was stored at {show(publish.position)}; the log ends at {top}"
                )


def check(history: Iterable[Event]) -> list[Violation]:
    """Return the violations in a history, in the order of time."""
    checker = Checker()
    for event in history:
        checker.take(event)
    return checker.finish()
