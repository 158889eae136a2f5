"""The faults that are about pages: what an operator does, and what hits a script of people."""

from __future__ import annotations

import itertools
import json

from tests.kit.serving import Address, Answer
from tests.nemesis.browsers import HOST
from tests.nemesis.faults import EVERYTHING, drop, named
from tests.nemesis.names import ADMIN
from tests.nemesis.stage import Stage
from tests.nemesis.workers import Worker

FIRST = 3.0  # seconds until an iterator has yielded
ENDED = 10.0  # seconds until all workers know the end of a channel
TOLD = 3.0  # seconds that an operator and its confirmations take

PEOPLE = (
    "deactivation",
    "long-burst",
    "full-and-people",
    "promotion-and-people",
    "drop-open_process",
    "drop-move",
    "drop-claim",
    "held-after-claim",
)
"""The faults that need pages."""

IN_MEMORY = ("deactivation", "long-burst")
"""The faults that need no Redis."""

_numbers = itertools.count(1)


@named("deactivation", "worker")
def deactivate(stage: Stage) -> None:
    """Switch push off and on again: once `deactivate` has returned, no client gets anything."""
    with stage.fault("deactivation"):
        answer = command(stage, "deactivate")
        if answer is not None and confirms_all(answer):
            stage.journal.write("deactivated")
        stage.sleep(1, 2)
        stage.journal.write("activated")
        stage.until(lambda: command(stage, "activate") is not None, 20)


def command(stage: Stage, word: str) -> Answer | None:
    """Give a worker a command; `None` if the worker refuses, or is away."""
    head = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
    address = Address(HOST, stage.choose().port)
    try:
        answer = address.request("POST", f"/comet/admin/{word}", "", head)
    except OSError:  # another fault has killed the worker
        return None
    return answer if answer.status == 200 else None


def confirms_all(answer: Answer) -> bool:
    """Tell whether all workers have confirmed a command."""
    try:
        told = json.loads(answer.body)
    except ValueError:
        return True
    if not isinstance(told, dict) or "workers" not in told:
        return True
    return bool(told["workers"] == told.get("confirmed"))


@named("long-burst", "people")
def burst(stage: Stage) -> None:
    """Publish 5,000 messages to a page that reads."""
    with stage.fault("long-burst"):
        stage.tell("burst")
        stage.sleep(3)


@named("rolling-restart", "worker")
def restart_all(stage: Stage) -> None:
    """Restart all workers, one after the other."""
    with stage.fault("rolling-restart"):
        for worker in stage.workers:
            worker.stop()
            stage.restart(worker)
            stage.sleep(1)


@named("term-iterator", "worker")
def end_an_iterator(stage: Stage) -> None:
    """Stop a worker while it reads an iterator given at run time: its channel has failed."""
    worker = stage.choose()
    with stage.fault("term-iterator"):
        stop_reading(stage, worker)
        stage.restart(worker)


def stop_reading(stage: Stage, worker: Worker) -> None:
    """Give a worker an iterator, stop the worker, and write down how the channel has ended."""
    name = f"runtime-{next(_numbers)}-{worker.run}"
    made = Address(HOST, worker.port).request("POST", f"/runtime?name={name}")
    stage.sleep(FIRST)
    worker.stop()
    others = [one for one in stage.workers if one.process is not None]
    if made.status == 200 and others:
        stage.until(lambda: bool(reasons_of(others[0].port, name)), ENDED)
        for reason in reasons_of(others[0].port, name) or ["nothing"]:
            stage.journal.write("closed", client="the run", channel=name, reason=reason)


def reasons_of(port: int, name: str) -> list[str]:
    """Return why a channel is closed, as a client is told after its last message."""
    body = json.dumps({"channels": {name: "last:1"}, "idle": True})
    head = {"Content-Type": "application/json"}
    answer = Address(HOST, port).request("POST", "/comet/poll", body, head)
    events = json.loads(answer.body)["events"] if answer.status == 200 else []
    return [event["reason"] for event in events if event.get("error") == "closed"]


@named("full-and-people", "redis")
def fill_redis(stage: Stage) -> None:
    """Fill the memory of Redis: acknowledging, closing and resuming go on."""
    with stage.fault("full-and-people"), stage.client() as client:
        client.config_set("maxmemory", 1)
        for _ in range(3):
            stage.tell("close")
            stage.sleep(1)
        client.config_set("maxmemory", 0)


@named("promotion-and-people", "redis")
def promote_after_a_logout(stage: Stage) -> None:
    """Promote a replica that has not heard of a login and of a right that was taken away."""
    replica = stage.begin_replica()
    with stage.fault("promotion-and-people", renews=EVERYTHING, loses=True):
        stage.cut_off(replica)
        for loader in stage.loaders:
            loader.tell("act")
        stage.sleep(TOLD)
        stage.journal.write("lost")
        stage.swap()
    stage.end_spare()


for _script in ("open_process", "move", "claim"):
    drop(_script)


@named("held-after-claim", "proxy")
def hold_after_claim(stage: Stage) -> None:
    """Hold back what follows the reply to `claim`."""
    with stage.fault("held-after-claim"):
        came = stage.proxy.hold_after("claim", stage.chance.uniform(0.5, 3))
    stage.journal.write("note", text=f"held-after-claim: {'came' if came else 'none'}")


@named("cut-after-unsubscribe", "proxy")
def cut_after_unsubscribe(stage: Stage) -> None:
    """End a connection between the end of a subscription and what would end the channel."""
    with stage.fault("cut-after-unsubscribe"):
        came = stage.proxy.cut_after("unsubscribe")
    stage.journal.write("note", text=f"cut-after-unsubscribe: {'came' if came else 'none'}")
