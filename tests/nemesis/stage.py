"""Where a run takes place: a Redis and a spare one, the proxy, workers and loaders."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kit.redis import Client, RedisServer
from tests.kit.serving import Address, reserved_port
from tests.nemesis.clients import HOST
from tests.nemesis.history import Journal
from tests.nemesis.names import KINDS, ROOM, channels
from tests.nemesis.proxy import Proxy
from tests.nemesis.workers import LoaderProcess, Worker

APPEND_ONLY = {"none": "", "everysec": "everysec", "always": "always"}
WORKERS = 3
SETTLED = 4.0  # seconds after which all that was published has arrived


@dataclass(frozen=True)
class Options:
    """How a run is to be."""

    minutes: float = 1.0
    seed: int = 1
    persistence: str = "none"
    durable: bool = False
    faults: tuple[str, ...] = ()
    kinds: tuple[str, ...] = tuple(KINDS)
    clients: int = 60
    loaders: int = 1
    pause: float = 5.0  # seconds between two faults
    linger: float = 0.0  # seconds that members have to end after their last client
    within: float = 5.0  # seconds in which messages arrive without a fault


@dataclass
class Stage:
    """What faults act on.

    Attributes:
        primary: The Redis that workers are connected to.
        spare: Another one, which does not run; a replica when a fault wants one.
    """

    folder: Path
    options: Options
    chance: random.Random
    journal: Journal
    primary: RedisServer
    spare: RedisServer
    proxy: Proxy
    workers: list[Worker] = field(default_factory=list)
    loaders: list[LoaderProcess] = field(default_factory=list)
    is_quiet: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    # What faults need

    @contextmanager
    def fault(
        self,
        name: str,
        *,
        within: float | None = None,
        renews: tuple[str, ...] = (),
        loses: bool = False,
        cuts: tuple[str, ...] = (),
    ) -> Iterator[None]:
        """Write down a fault: while it lasts, and `within` seconds after it, messages may be late.

        Args:
            name: The name of the fault.
            within: How many seconds.
            renews: The channels that may get a new epoch, see `Checker`.
            loses: Whether the store may have lost messages of these channels.
            cuts: The channels whose held messages are lost, but not the epoch.
        """
        about = {"renews": renews, "loses": loses, "cuts": cuts}
        self.journal.write("fault", name=name, phase="begin", **about)
        try:
            yield
        finally:
            after = self.options.within if within is None else within
            self.journal.write("fault", name=name, phase="end", within=after)

    def sleep(self, least: float, most: float | None = None) -> float:
        """Wait for a time in between, and return it."""
        seconds = least if most is None else self.chance.uniform(least, most)
        time.sleep(seconds)
        return seconds

    def client(self, server: RedisServer | None = None) -> Client:
        return (server or self.primary).client()

    def choose(self) -> Worker:
        return self.chance.choice([one for one in self.workers if one.process is not None])

    def some(self) -> list[int]:
        """Choose one worker, or all, by number."""
        numbers = list(range(len(self.workers)))
        return self.chance.choice([numbers, [self.chance.choice(numbers)]])

    def until(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Wait for what another process does; tell whether it was in time."""
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Have nothing published meanwhile."""
        with self.fault("quiet"):
            self.hush(True)
            try:
                yield
            finally:
                self.hush(False)

    def hush(self, on: bool) -> None:
        self.is_quiet = on
        for loader in self.loaders:
            loader.tell("quiet" if on else "loud")
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.ask("POST", f"/loud?on={'false' if on else 'true'}")

    def restart(self, worker: Worker) -> None:
        worker.start(quiet=self.is_quiet)
        worker.wait()
        if worker.runs and not self.is_quiet:
            worker.ask("POST", "/loud?on=true")

    # The servers of Redis

    def begin_replica(self) -> RedisServer:
        """Start the spare as a replica of the primary; returns when it has all."""
        spare = self.spare
        start(spare)
        self.follow(spare, self.primary)
        return spare

    def follow(self, replica: RedisServer, of: RedisServer) -> None:
        with self.client(replica) as client:
            client.execute_command("REPLICAOF", HOST, of.port)
        reached = self.until(lambda: self.is_level(replica, of), 30)
        assert reached, "the replica was never level with the primary"

    def is_level(self, replica: RedisServer, of: RedisServer) -> bool:
        with self.client(replica) as client, self.client(of) as other:
            here, there = client.info("replication"), other.info("replication")
        level = here["slave_repl_offset"] == there["master_repl_offset"]
        return bool(here.get("master_link_status") == "up" and level)

    def cut_off(self, replica: RedisServer) -> None:
        """Make a replica a primary before any worker is connected to it."""
        with self.client(replica) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")

    def swap(self) -> None:
        """Move the workers over to the spare."""
        self.primary, self.spare = self.spare, self.primary
        self.proxy.move(self.primary.path)

    def end_spare(self) -> None:
        """Stop the spare, and forget its data."""
        self.spare.stop()
        for left in self.spare.folder.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def start(server: RedisServer) -> None:
    """Start a Redis, and read what it logs, so that it never waits for a reader."""
    server.start()
    process = server.process
    assert process is not None
    output = process.stdout
    assert output is not None

    def read() -> None:
        with contextlib.suppress(ValueError):  # closed
            for _ in output:
                pass

    threading.Thread(target=read, daemon=True).start()


@contextmanager
def setting(folder: Path, options: Options) -> Iterator[Stage]:
    """Start everything; nothing outlives the context."""
    with ExitStack() as stack:
        journal = Journal(folder / "run.jsonl")
        stack.callback(journal.close)
        primary, spare = (make_redis(stack, folder / name, options) for name in ("a", "b"))
        start(primary)
        proxy = Proxy(folder, WORKERS, primary.path)
        proxy.start()
        stack.callback(proxy.stop)
        chance = random.Random(options.seed)
        stage = Stage(folder, options, chance, journal, primary, spare, proxy)
        journal.write("setup", channels=channels(list(options.kinds)), within=options.within)
        with stage.fault("start", within=1):
            begin_workers(stack, stage)
            begin_loaders(stack, stage)
            time.sleep(3)
        yield stage


def make_redis(stack: ExitStack, folder: Path, options: Options) -> RedisServer:
    folder.mkdir()
    words = ["--repl-diskless-sync-delay", "0", "--bind", HOST]
    if options.persistence != "none":
        words += ["--appendonly", "yes", "--appendfsync", options.persistence]
    server = RedisServer(folder, *words, port=stack.enter_context(reserved_port()))
    stack.callback(server.stop)
    return server


def begin_workers(stack: ExitStack, stage: Stage) -> None:
    for number in range(WORKERS):
        environment = {
            "NEMESIS_BROKER": f"redis+unix://{stage.proxy.paths[number]}",
            "NEMESIS_DURABLE": "1" if stage.options.durable else "",
            "NEMESIS_SEED": str(stage.options.seed),
            "NEMESIS_KINDS": ",".join(stage.options.kinds),
        }
        port = stack.enter_context(reserved_port())
        worker = Worker(number, port, stage.folder, environment, lambda run: died(stage, run))
        stack.callback(worker.kill)
        stage.workers.append(worker)
        worker.start()
    for worker in stage.workers:
        worker.wait()


def died(stage: Stage, run: str) -> None:
    stage.journal.write("died", run=f"task-{run}")
    stage.journal.write("died", run=f"thread-{run}")


def begin_loaders(stack: ExitStack, stage: Stage) -> None:
    options = stage.options
    for number in range(options.loaders):
        setup = {
            "name": f"l{number}",
            "journal": str(stage.folder / f"l{number}.jsonl"),
            "ports": [worker.port for worker in stage.workers],
            "kinds": options.kinds,
            "clients": options.clients // options.loaders,
            "publishers": 2,
            "seed": options.seed,
        }
        loader = LoaderProcess(setup, stage.folder / f"l{number}.log")
        stack.callback(loader.end, 0)
        stage.loaders.append(loader)


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
            assert loader.end(60) == 0, "a loader has failed, see its log"
        list_keys(stage)


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


def list_keys(stage: Stage) -> None:
    """Write down what is left in Redis once the workers have stopped."""
    lingering = stage.options.linger > 0
    with stage.client() as client:
        stage.until(lambda: not any(ROOM in key for key in find_keys(client)), stage.options.linger)
        for worker in stage.workers:
            worker.stop()
        found = [key for key in find_keys(client) if lingering or are_lasting(key)]
        topics = [topic.decode() for topic in client.execute_command("PUBSUB", "CHANNELS")]
    stage.journal.write("left", keys=found, topics=topics)


def find_keys(client: Client) -> list[str]:
    """Return the keys, but for the records of members that have ended, which expire."""
    keys = [key.decode() for key in client.keys("*")]
    members = [key for key in keys if f"}}c:{ROOM}" in key]
    ended = {key for key in members if client.hexists(key, "c") and client.pttl(key) > 0}
    return sorted(set(keys) - ended)


def are_lasting(key: str) -> bool:
    """Tell whether a key is not of members, or of their owner, that had no time to end."""
    return not key.endswith((*KINDS["member"], "}dead")) and "}own:" not in key


def stop_and_go_on(process_send: Callable[[int], None], sleep: Callable[[], object]) -> None:
    """Stop a process for a while."""
    process_send(signal.SIGSTOP)
    try:
        sleep()
    finally:
        process_send(signal.SIGCONT)
