"""The checker's part for whole channels at the end: the order of publishers, and of sources."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TypeAlias

from tests.nemesis.known import Calm, Channel, Publish, split

Found: TypeAlias = tuple[str, str, float]
"""An invariant, what happened, and when."""


def check_source(
    name: str, channel: Channel, calm: Calm, within: float, end: float
) -> Iterator[Found]:
    """Expect the values of one source after the other, each once, and no long silence."""
    last = max((row.sent for row in channel.ages.values()), default=0.0)
    if calm.between(last, end) > within:
        yield "I16", f"{name} is silent to the end", last
    replaced: dict[tuple[int, str], str] = {}
    for ((age, offset), row), ((then, following), after) in pairwise(sorted(channel.ages.items())):
        fence, count = split(row.id)
        if calm.between(row.sent, after.sent) > within:
            yield "I16", f"{name} was silent between {row.id} and {after.id}", after.sent
        if age != then:
            continue
        if after.fence != row.fence:
            replaced[age, str(row.fence)] = str(after.fence)
            if (age, str(after.fence)) in replaced:
                yield "I12", f"{name}: {after.id} is of a source that was replaced", after.sent
        elif following == offset + 1 and split(after.id) != (fence, count + 1):
            if channel.lost_between(row.sent, after.sent):
                continue  # it was stored, in what the store has lost
            yield "I5", f"{name}: {after.id} comes right after {row.id}", after.sent


def check_notes(name: str, channel: Channel) -> Iterator[Found]:
    """Expect what one caller notifies in its order."""
    newest: dict[tuple[int, str], int] = {}
    for (age, offset), row in sorted(channel.ages.items()):
        caller, number = split(row.id)
        if number <= newest.get((age, caller), 0):
            yield "I8", f"{name}: {row.id} stands at {offset}, after a later one", row.sent
        newest[age, caller] = number


def check_order(name: str, stored: list[tuple[int, Publish, str]]) -> Iterator[Found]:
    """Compare the offsets with the order of calls that overlap not, or are of one run."""
    newest: dict[str, tuple[int, str]] = {}
    ended = sorted((p.done, o, i) for o, p, i in stored if p.done is not None and not p.failed)
    at, top, last = 0, -1, ""
    for offset, publish, id_ in sorted(stored, key=lambda one: one[1].at):
        while at < len(ended) and ended[at][0] < publish.at:
            top, last = max((top, last), ended[at][1:])
            at += 1
        before = max((top, last), newest.get(publish.run, (-1, "")))
        if offset < before[0]:
            yield "I8", f"{name}: {id_} stands at {offset}, before {before[1]}", publish.at
        newest[publish.run] = max(newest.get(publish.run, (-1, "")), (offset, id_))
