"""The history of a run: what each actor saw, one JSON line for each event, in files of their own.

All actors run on one machine, so their monotonic clocks compare. An event is written before the
actor goes on, without a buffer, so that a killed actor has told all that it did.

| event | fields | written by |
|---|---|---|
| `setup` | `channels`: `{name: {"kind", "size"}}`, `within` | the run |
| `call` | `channel`, `id`, `run` | a publisher, before it publishes |
| `ok` | `id`, `position` | a publisher: the message is stored |
| `fail` | `id`, `maybe`, `error` | a publisher: the message is not, or perhaps not, stored |
| `died` | `run` | the run: a worker will not answer any more |
| `begin` | `client`, `channel` | a client that begins anew, at `now` or `last:N` |
| `there` | `client`, `channel`, `position` | a client that is told where it is |
| `recv` | `client`, `channel`, `position`, `id`, `sent`, `fence` | a client |
| `full` | `client`, `channel`, `position` | a client |
| `closed` | `client`, `channel`, `reason` | a client |
| `fault` | `name`, `phase`, `within`, `renews`, `loses`, `cuts` | the nemesis |
| `lost` | | the nemesis: the store goes on from what it was when the fault began |
| `emptied` | | the nemesis: the store has lost everything |
| `owed` | `within` | the nemesis: all readers are to be told `full` by then |
| `held` | `channel`, `position`, `id`, `sent`, `fence` | the run, which reads the logs at the end |
| `top` | `channel`, `worker`, `position` | the run: where a fresh reader begins at the end |
| `final` | `client`, `channel`, `position` | a client at the end |
| `note` | `text` | the nemesis, for people |
| `left` | `keys`, `topics`, `tables` | the run: what is left in Redis and in workers |

A page is a client process. Its channels are called `PROCESS~NAME`.

| event | fields | written by |
|---|---|---|
| `page` | `process`, `channels` | a worker that opens a page, before it answers |
| `opened` | `process`, `browser`, `readers` | a browser that has the answer |
| `connect` | `client`, `browser`, `user`, `generation`, `process` | a client of a page |
| `answered` | `client` | the same, when the server first answers on the connection |
| `replaced` | `client` | the same: another connection reads |
| `disconnect` | `client`, `process` | the same |
| `resume` | `client`, `channel`, `position` | a client that goes on from where its page is |
| `ack` | `client`, `channel`, `position` | a client, before it sends the position |
| `forbidden` | `client`, `channel` | a client |
| `closing` | `process` | a browser, before it closes a page |
| `gone` | `process`, `how` | a client: `closed`, or `forbidden` (no cookie) |
| `on_close` | `process`, `run` | a worker: the callback of a page |
| `act` | `act`, `name`, `browser`, `user` | an operator, before it asks |
| `acted` | the same, `done`, `status`, `generation` | an operator that has the answer, or none |
| `deactivated`, `activated` | | the nemesis: all workers have confirmed; it is about to ask |
| `outcome` | `id`, `success` | a publisher that has awaited the outcome |
| `receipt` | `id`, `acknowledged` (channels) | a worker that has awaited a receipt |
| `must` | `what`, `done` | what must work also during a fault |
| `over` | | the run: workers stop from now on |
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

Event: TypeAlias = dict[str, Any]
"""One event: `at` (seconds, monotonic), `event`, and the fields of the table above."""


class Journal:
    """The events of one actor. Thread-safe: a line is written by one system call."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"at": time.monotonic(), "event": event, **fields})
        self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def read_history(folder: Path) -> Iterator[Event]:
    """Read the events of all actors in the order of time."""
    files = [read_journal(path) for path in sorted(folder.glob("*.jsonl"))]
    return heapq.merge(*files, key=itemgetter("at"))


def read_journal(path: Path) -> Iterator[Event]:
    """Read the events of one actor, whose threads may have written slightly out of order."""
    with path.open("rb") as lines:
        yield from sorted(map(json.loads, whole(lines)), key=itemgetter("at"))


def whole(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Leave out a last line that a killed actor has not finished."""
    return (line for line in lines if line.endswith(b"\n"))
