"""The end of a run: where the logs and the clients end, and what is left of them."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from asgi_comet.brokers.redis.keys import Keys
from tests.kit.redis import Client
from tests.kit.serving import Address
from tests.nemesis.browsers import HOST
from tests.nemesis.names import KINDS, ROOM, channels
from tests.nemesis.stage import Stage
from tests.nemesis.workers import Worker

SETTLED = 4.0  # seconds after which all that was published has arrived
EMPTIED = 280.0  # seconds after which nothing is left of pages, also of those of killed workers;
# nothing expires for two minutes after a worker was missing
PEOPLE = re.compile(r"(s|sp|p|pc|pk|reg|n|u):|[chd]p?:~|closing$")
"""The keys of pages, sessions, and channels of pages, behind the partition."""

FORMER = re.compile(r"([sf]|li):|[ch]:runtime-")
"""The keys that only expire: remembered sessions, ids that sessions had, changes, iterators."""

CLOSED = re.compile(r"p:")
"""The keys of pages, which expire if the page has closed."""

FOREVER = -1
"""The time to live of a key that does not expire; one that has gone has another."""

SITE = {"members", "timers", "jobs", "redis bids"}
"""Tables of the site's channels, too, which one worker or another reads."""

LATELY = {"redis notes", "redis news", "redis heard"}
"""Tables of what a worker has lately heard, which are bounded by time or number."""

VARYING = {*SITE, *LATELY, *(f"redis {of}" for of in ("bytes", "followed", "topics", "windows"))}
"""Tables whose size tells nothing."""


def conclude(stage: Stage) -> None:
    """Let everything settle, and write down where the logs and the clients end."""
    time.sleep(stage.options.within)
    with stage.fault("conclusion", within=3600):
        stage.hush(True)
        time.sleep(SETTLED)
        tops = read_logs(stage)
        for loader in stage.loaders:
            loader.tell(f"finish {json.dumps(tops)}")
        for loader in stage.loaders:
            assert loader.end(90) == 0, f"a loader has failed:\n{loader.log()}"
        stage.journal.write("over")
        list_what_is_left(stage)


def read_logs(stage: Stage) -> dict[str, str]:
    """Write down each log as it is at the end; return the positions of the newest messages."""
    tops: dict[str, str] = {}
    names = list(channels(list(stage.options.kinds)))
    for worker in stage.workers:
        for name in names:
            for event in poll(worker, {name: "last:1000"}):
                note_held(stage, event)
        for event in poll(worker, dict.fromkeys(names, "now")):
            if "position" in event:
                name, position = event["channel"], event["position"]
                stage.journal.write("top", worker=worker.run, channel=name, position=position)
                tops[name] = max(position, tops.get(name, ""), key=offset_of)
    return tops


def note_held(stage: Stage, event: dict[str, Any]) -> None:
    channel = event["channel"]
    if "data" in event:
        fields = {"position": event["position"], **event["data"]}
        stage.journal.write("held", channel=channel, **fields)
    elif "error" in event:
        reason = event.get("reason", event["error"])
        stage.journal.write("closed", client="the run", channel=channel, reason=reason)


def offset_of(position: str) -> int:
    return int(position.rpartition(".")[2] or 0)


def poll(worker: Worker, starts: dict[str, str]) -> list[dict[str, Any]]:
    body = json.dumps({"channels": starts})
    headers = {"Content-Type": "application/json"}
    answer = Address(HOST, worker.port).request("POST", "/comet/poll", body, headers)
    assert answer.status == 200, answer
    events: list[dict[str, Any]] = json.loads(answer.body)["events"]
    return events


def list_what_is_left(stage: Stage) -> None:
    """Write down what is left in the workers, and in Redis once they have stopped."""
    tables: dict[str, dict[str, int]] = {}
    if stage.options.people:
        if stage.options.hurries and not stage.options.memory:
            calm_down(stage)
        stage.until(lambda: not is_anything_left(stage), EMPTIED)
        tables = excesses(stage)
    if stage.options.memory:
        stage.journal.write("left", keys=[], topics=[], tables=tables)
        return
    lingering = stage.options.linger > 0
    with stage.client() as client:
        stage.until(lambda: not any(ROOM in key for key in find_keys(client)), stage.options.linger)
        for worker in stage.workers:
            worker.stop()
        found = [key for key in find_keys(client) if lingering or are_lasting(key)]
        topics = [topic.decode() for topic in client.execute_command("PUBSUB", "CHANNELS")]
    stage.journal.write("left", keys=found, topics=topics, tables=tables)


def calm_down(stage: Stage) -> None:
    """Have what is left expire at once, which waits up to 90 s for workers that were away."""
    for worker in stage.workers:
        assert worker.ask("POST", "/hurry") == 200
    with stage.client() as client:
        client.delete(Keys().calm)


def is_anything_left(stage: Stage) -> bool:
    """Tell whether something is left of pages, in workers or in Redis."""
    if any(excesses(stage).values()):
        return True
    if stage.options.memory:
        return False
    with stage.client() as client:
        return bool(find_people(client))


def excesses(stage: Stage) -> dict[str, dict[str, int]]:
    """Return what each worker has in its tables beyond what it had without a client."""
    found: dict[str, dict[str, int]] = {}
    for worker in stage.workers:
        now = worker.tables()
        of = {name: size for name, size in now.items() if name not in VARYING}
        found[worker.run] = {n: size for n, size in of.items() if size > stage.tables.get(n, 0)}
    return found


def find_people(client: Client) -> list[str]:
    """Return the keys of pages and sessions, but for those that only expire."""
    return [key for key in find_keys(client) if PEOPLE.match(key.partition("}")[2])]


def find_keys(client: Client) -> list[str]:
    """Return the keys, but for the records of members and pages that have ended, which expire."""
    keys = [key.decode() for key in client.keys("*")]
    members = [key for key in keys if f"}}c:{ROOM}" in key]
    ended = {key for key in members if client.hexists(key, "c") and client.pttl(key) != FOREVER}
    pages = [key for key in keys if CLOSED.match(key.partition("}")[2])]
    ended |= {key for key in pages if client.hexists(key, "x") and client.pttl(key) != FOREVER}
    former = {
        key for key in keys if FORMER.match(key.partition("}")[2]) and client.pttl(key) != FOREVER
    }
    sessions = {key.rpartition("}s:")[2].encode() for key in former if "}s:" in key}
    users = [key for key in keys if "}u:" in key]  # of a login whose answer was lost
    former |= {key for key in users if sessions.intersection(client.zrange(key, 0, -1))}
    return sorted(set(keys) - ended - former)


def are_lasting(key: str) -> bool:
    """Tell whether a key is not of members, or of their owner, that had no time to end."""
    return not key.endswith((*KINDS["member"], "}dead")) and "}own:" not in key
