"""The faults, each a function with a name: what it does, and what readers may be told for it."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from asgi_comet.brokers.redis.keys import Keys
from tests.kit.programs import find_program
from tests.nemesis.names import KINDS
from tests.nemesis.stage import Stage, start, stop_and_go_on

Fault: TypeAlias = Callable[[Stage], None]

EVERYTHING = ("*",)
SOURCES = ("kind:source",)
OWNED = (*SOURCES, "kind:declared")  # `died` tells the checker of those of a killed worker
TAKEN_OVER = 15.0  # seconds until the sources of a dead worker are read again
TAKEN_OVER_LATE = 30.0  # the same if its inheritor dies as well
NOTICED = 7.0  # seconds that a worker may be away without losing what it owns
TOLD = 5.0  # seconds in which readers are told of a promotion

FAULTS: dict[str, Fault] = {}
KIND_OF: dict[str, str] = {}
"""What a fault acts on: `worker`, `redis` or `proxy`; two of one kind do not overlap."""


def named(name: str, kind: str) -> Callable[[Fault], Fault]:
    def name_it(fault: Fault) -> Fault:
        FAULTS[name], KIND_OF[name] = fault, kind
        return fault

    return name_it


# Workers


@named("worker-kill", "worker")
def kill_worker(stage: Stage) -> None:
    worker = stage.choose()
    with stage.fault("worker-kill", renews=SOURCES, within=TAKEN_OVER):
        worker.kill()
        stage.sleep(0, 2)
        stage.restart(worker)


@named("worker-term", "worker")
def end_worker(stage: Stage) -> None:
    worker = stage.choose()
    with stage.fault("worker-term"):
        worker.stop()
        stage.restart(worker)


@named("worker-stop", "worker")
def stop_worker(stage: Stage) -> None:
    worker, seconds = stage.choose(), stage.chance.uniform(1, 20)
    away = seconds > NOTICED
    limit = TAKEN_OVER if away else None
    with stage.fault("worker-stop", renews=OWNED if away else (), within=limit):
        stop_and_go_on(worker.send, lambda: stage.sleep(seconds))


@named("two-deaths", "worker")
def kill_the_inheritor(stage: Stage) -> None:
    """Kill a worker, then the only one that can inherit from it, then start another one."""
    first, second, third = stage.chance.sample(stage.workers, 3)
    with stage.fault("two-deaths", within=TAKEN_OVER_LATE):
        third.stop()
        with (
            stage.fault("first-death", renews=SOURCES, within=TAKEN_OVER_LATE),
            stage.client() as client,
        ):
            first.kill()
            stage.until(lambda: bool(client.exists(Keys().dead)), 12)
            with stage.fault("second-death", renews=SOURCES, within=TAKEN_OVER_LATE):
                second.kill()
                for worker in (third, first, second):
                    stage.restart(worker)


# Redis


@named("redis-kill", "redis")
def kill_redis(stage: Stage) -> None:
    options = stage.options
    loses = options.persistence != "always"
    renews = EVERYTHING if loses or not options.durable else ()
    with stage.fault("redis-kill", renews=renews, loses=loses):
        stage.primary.stop(signal.SIGKILL)
        stage.sleep(0, 3)
        start(stage.primary)
        if options.persistence == "none":
            stage.journal.write("emptied")


@named("redis-stop", "redis")
def stop_redis(stage: Stage) -> None:
    with stage.fault("redis-stop"):
        stop_and_go_on(stage.primary.send, lambda: stage.sleep(1, 20))


@named("client-kill-normal", "redis")
def kill_normal_clients(stage: Stage) -> None:
    kill_clients(stage, "normal")


@named("client-kill-pubsub", "redis")
def kill_pubsub_clients(stage: Stage) -> None:
    kill_clients(stage, "pubsub")


def kill_clients(stage: Stage, kind: str) -> None:
    with stage.fault(f"client-kill-{kind}"), stage.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", kind)


@named("client-pause-write", "redis")
def pause_writes(stage: Stage) -> None:
    pause(stage, "WRITE")


@named("client-pause-all", "redis")
def pause_all(stage: Stage) -> None:
    pause(stage, "ALL")


def pause(stage: Stage, what: str) -> None:
    with stage.fault(f"client-pause-{what.lower()}"), stage.client() as client:
        client.execute_command("CLIENT", "PAUSE", 3000, what)
        stage.sleep(3)


@named("script-flush", "redis")
def flush_scripts(stage: Stage) -> None:
    with stage.fault("script-flush"), stage.client() as client:
        client.execute_command("SCRIPT", "FLUSH")


@named("out-of-memory", "redis")
def run_out_of_memory(stage: Stage) -> None:
    with stage.fault("out-of-memory"), stage.client() as client:
        client.config_set("maxmemory", 1)
        stage.sleep(2, 5)
        client.config_set("maxmemory", 0)


@named("flushall", "redis")
def flush_all(stage: Stage) -> None:
    with stage.fault("flushall", renews=EVERYTHING, loses=True), stage.client() as client:
        client.flushall()
        stage.journal.write("emptied")


@named("del-list", "redis")
def delete_list(stage: Stage) -> None:
    name = choose_channel(stage)
    with stage.fault("del-list", cuts=(name,)), stage.client() as client:
        client.delete(Keys().site(name).log)


@named("del-hash", "redis")
def delete_hash(stage: Stage) -> None:
    name = choose_channel(stage)
    with stage.fault("del-hash", renews=(name,), loses=True), stage.client() as client:
        client.delete(Keys().site(name).meta)


@named("del-both", "redis")
def delete_both(stage: Stage) -> None:
    name, keys = choose_channel(stage), Keys()
    with stage.fault("del-both", renews=(name,), loses=True), stage.client() as client:
        client.delete(keys.site(name).meta, keys.site(name).log)


def choose_channel(stage: Stage) -> str:
    return stage.chance.choice([name for kind in stage.options.kinds for name in KINDS[kind]])


@named("debug-sleep", "redis")
def sleep_in_redis(stage: Stage) -> None:
    with stage.fault("debug-sleep"), stage.client() as client:
        client.execute_command("DEBUG", "SLEEP", 3)


# Between workers and Redis


@named("reset", "proxy")
def reset_connections(stage: Stage) -> None:
    with stage.fault("reset"):
        stage.proxy.reset(stage.some())


@named("hole-requests", "proxy")
def lose_requests(stage: Stage) -> None:
    dig_hole(stage, "requests")


@named("hole-replies", "proxy")
def lose_replies(stage: Stage) -> None:
    dig_hole(stage, "replies")


def dig_hole(stage: Stage, what: str) -> None:
    with stage.fault(f"hole-{what}"):
        stage.proxy.hole(stage.some(), requests=what == "requests")
        stage.sleep(1, 4)
        stage.proxy.heal()


@named("latency", "proxy")
def slow_down(stage: Stage) -> None:
    with stage.fault("latency"):
        stage.proxy.slow(partial(stage.chance.uniform, 0.0, 0.4))
        stage.sleep(4)
        stage.proxy.heal()


@named("twice", "proxy")
def send_twice(stage: Stage) -> None:
    with stage.fault("twice"):
        stage.proxy.twice(True)
        stage.proxy.reset(range(len(stage.workers)))
        stage.sleep(5)
        stage.proxy.twice(False)


@named("late-bytes", "proxy")
def release_late_bytes(stage: Stage) -> None:
    with stage.fault("late-bytes"):
        result = stage.proxy.late(stage.choose().number)
    stage.journal.write("note", text=f"late-bytes: {result}")


def drop(script: str) -> None:
    # No two faults of one kind overlap, and two that start the same worker must not.
    @named(f"drop-{script}", "worker" if script == "open" else "proxy")
    def drop_reply(stage: Stage) -> None:
        with stage.fault(f"drop-{script}"):
            if script == "open":  # a worker that begins opens channels
                again = threading.Thread(target=stage.proxy.drop_reply, args=("open",))
                again.start()
                worker = stage.choose()
                worker.stop()
                stage.restart(worker)
                again.join()
            else:
                came = stage.proxy.drop_reply(script)
                stage.journal.write("note", text=f"drop-{script}: {'came' if came else 'none'}")


for _script in ("append", "beat", "open", "own", "follow", "tops"):
    drop(_script)


# Replicas


@named("promotion", "redis")
def promote_late(stage: Stage) -> None:
    """Promote a replica that lags, under load."""
    replica = stage.begin_replica()
    with stage.fault("promotion", renews=EVERYTHING, loses=True):
        stage.cut_off(replica)
        stage.sleep(0.2, 2)
        stage.journal.write("lost")
        stage.swap()
    stage.end_spare()


@named("idle-promotion", "redis")
def promote_while_idle(stage: Stage) -> None:
    """Promote a replica that lags while nothing is published: readers are told all the same."""
    replica = stage.begin_replica()
    with stage.fault("promotion", renews=EVERYTHING, loses=True):
        stage.cut_off(replica)
        stage.sleep(1, 2)
        with stage.quiet():
            stage.sleep(3)
            stage.journal.write("lost")
            stage.journal.write("owed", within=TOLD)
            stage.swap()
            stage.sleep(TOLD + 1)
    stage.end_spare()


@named("failback", "redis")
def fail_over_and_back(stage: Stage) -> None:
    """Promote a replica that has everything, and then the former primary again."""
    stage.begin_replica()
    for _ in range(2):
        with stage.fault("failback", renews=EVERYTHING), stage.client() as client:
            client.execute_command("CLIENT", "PAUSE", 2000, "WRITE")
            stage.until(lambda: stage.is_level(stage.spare, stage.primary), 1.5)
            stage.cut_off(stage.spare)
            stage.swap()
        stage.sleep(3)
        stage.follow(stage.spare, stage.primary)
        stage.sleep(1)
    stage.end_spare()


@named("replica", "redis")
def attach_replica(stage: Stage) -> None:
    """Attach a first replica, and take a backup: no reader is told anything."""
    with stage.fault("replica"):
        stage.begin_replica()
        backup = str(stage.folder / "backup.rdb")
        command = [find_program("redis-cli"), "-s", str(stage.primary.path), "--rdb", backup]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        stage.sleep(1)
    stage.end_spare()
