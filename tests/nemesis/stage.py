"""Where a run takes place: a Redis and a spare one, the proxy, workers and loaders."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.redis import Client, RedisServer
from tests.kit.serving import reserved_port
from tests.nemesis.browsers import HOST
from tests.nemesis.history import Journal
from tests.nemesis.names import KINDS, channels
from tests.nemesis.proxy import Proxy
from tests.nemesis.workers import LoaderProcess, Worker

APPEND_ONLY = {"none": "", "everysec": "everysec", "always": "always", "lagging": ""}
"""How Redis persists; `lagging`: not at all, and every other fault promotes a replica that lags."""

WORKERS = 3


@dataclass(frozen=True)
class Options:
    """How a run is to be."""

    minutes: float = 1.0
    seed: int = 1
    persistence: str = "none"
    memory: bool = False  # one worker, with the broker in memory
    people: bool = True
    notifiers: bool = True
    durable: bool = False
    faults: tuple[str, ...] = ()
    kinds: tuple[str, ...] = tuple(KINDS)
    clients: int = 60
    loaders: int = 1
    calm: bool = False  # no faults
    pause: float = 5.0  # seconds between two faults
    linger: float = 0.0  # seconds that members have to end after their last client
    within: float = 5.0  # seconds in which messages arrive without a fault
    rate: float = 0.3  # seconds between two bursts of a publisher
    acts: float = 1.0  # seconds between two acts of the operator of a loader
    trials: int = 0  # acts, after which a loader says so
    twice: bool = True  # whether two clients read some pages in turn
    fails: bool = True  # whether a source fails now and then
    hurries: bool = False  # whether what is left at the end is forgotten soon

    @property
    def workers(self) -> int:
        return 1 if self.memory else WORKERS


@dataclass
class Stage:
    """What faults act on.

    Attributes:
        primary: The Redis that workers are connected to.
        spare: Another one, which does not run; a replica when a fault wants one.
        tables: What is in the tables of a worker without a client.
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
    tables: dict[str, int] = field(default_factory=dict)
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

    def tell(self, line: str) -> None:
        """Tell one of the loaders."""
        self.chance.choice(self.loaders).tell(line)

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
        proxy = Proxy(folder, options.workers, primary.path)
        if not options.memory:
            start(primary)
            proxy.start()
            stack.callback(proxy.stop)
        chance = random.Random(options.seed)
        stage = Stage(folder, options, chance, journal, primary, spare, proxy)
        journal.write("setup", channels=channels(list(options.kinds)), within=options.within)
        with stage.fault("start", within=1):
            begin_workers(stack, stage)
            stage.tables = most([one.tables() for one in stage.workers]) if options.people else {}
            begin_loaders(stack, stage)
            time.sleep(3)
        yield stage


def most(tables: list[dict[str, int]]) -> dict[str, int]:
    """Return the largest size of each table."""
    names = {name for one in tables for name in one}
    return {name: max(one.get(name, 0) for one in tables) for name in names}


def make_redis(stack: ExitStack, folder: Path, options: Options) -> RedisServer:
    folder.mkdir()
    words = ["--repl-diskless-sync-delay", "0", "--bind", HOST]
    if APPEND_ONLY[options.persistence]:
        words += ["--appendonly", "yes", "--appendfsync", options.persistence]
    server = RedisServer(folder, *words, port=stack.enter_context(reserved_port()))
    stack.callback(server.stop)
    return server


def begin_workers(stack: ExitStack, stage: Stage) -> None:
    options = stage.options
    rights = stage.folder / "rights"
    rights.mkdir()
    for number in range(options.workers):
        environment = {
            "NEMESIS_BROKER": "" if options.memory else f"redis+unix://{stage.proxy.paths[number]}",
            "NEMESIS_DURABLE": "1" if options.durable else "",
            "NEMESIS_SEED": str(options.seed),
            "NEMESIS_KINDS": ",".join(options.kinds),
            "NEMESIS_FAILS": "1" if options.fails else "",
            "NEMESIS_PAUSE": str(options.rate),
            "NEMESIS_PEOPLE": str(rights) if options.people else "",
            "NEMESIS_NOTIFIERS": "1" if options.notifiers else "",
            "NEMESIS_HURRIES": "1" if options.hurries else "",
        }
        port = stack.enter_context(reserved_port())
        worker = Worker(number, port, stage.folder, environment, lambda run: died(stage, run))
        stack.callback(worker.kill)
        stage.workers.append(worker)
        worker.start()
    for worker in stage.workers:
        worker.wait()


def died(stage: Stage, run: str) -> None:
    for publisher in (f"task-{run}", f"thread-{run}", run):
        stage.journal.write("died", run=publisher)


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
            "people": options.people,
            "notifiers": options.notifiers,
            "twice": options.twice,
            "acts": options.acts,
            "trials": options.trials,
        }
        loader = LoaderProcess(setup, stage.folder / f"l{number}.log")
        stack.callback(loader.end, 0)
        stage.loaders.append(loader)


def stop_and_go_on(process_send: Callable[[int], None], sleep: Callable[[], object]) -> None:
    """Stop a process for a while."""
    process_send(signal.SIGSTOP)
    try:
        sleep()
    finally:
        process_send(signal.SIGCONT)
