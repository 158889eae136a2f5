"""What one worker makes of another; tests/integration/test_siblings.py does it on real servers."""

from __future__ import annotations

import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from asgi_comet import Comet, Settings, SeveralWorkers
from asgi_comet._runtime.clock import ExchangeableClock
from asgi_comet._runtime.loop import LoopThread
from asgi_comet._runtime.runtime import Runtime
from asgi_comet._runtime.tasks import Background
from asgi_comet._runtime.timers import Timers
from asgi_comet.identity.tokens import Identity, load_keys
from asgi_comet.testing import ManualClock
from asgi_comet.testing._inspect import inside, policy_of
from asgi_comet.workers.launch import Launch
from asgi_comet.workers.lockfile import LockFile
from asgi_comet.workers.siblings import Policy, Siblings
from tests.kit.running import advance
from tests.kit.serving import Tab
from tests.kit.stage import KEY, Made, on_every_loop
from tests.kit.turns import wait_all_tasks_blocked

SINGLE = Launch(serves=True, supervised=False, told=False, endless=False)
WORKER = Launch(serves=True, supervised=True, told=False, endless=False)
TOLD = Launch(serves=True, supervised=False, told=True, endless=False)
SCRIPT = Launch(serves=False, supervised=True, told=True, endless=False)

pytestmark = pytest.mark.anyio
anyio_backend = on_every_loop


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the lock files are."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def path(folder: Path) -> str:
    return str(folder / f"asgi-comet-{os.geteuid()}-app-{os.getppid()}")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def make(
    clock: ManualClock, policy: Policy | None = "refuse", timers: Timers | None = None
) -> Siblings:
    loop = LoopThread()
    timers = Timers(clock) if timers is None else timers
    exchangeable = ExchangeableClock(clock)
    runtime = Runtime(loop=loop, timers=timers, clock=exchangeable, background=Background(loop))
    return Siblings("app", policy, runtime)


@contextmanager
def sibling(path: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, until its input ends."""
    hold = (
        f"import fcntl, os, sys; path = {path!r}; fd = os.open(path, os.O_RDWR | os.O_CREAT); "
        "fcntl.flock(fd, fcntl.LOCK_EX); os.write(fd, b'%d' % os.getpid() + b'\\n'); "
        "print(flush=True); sys.stdin.read(); os.unlink(path)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.stdin.close()
        process.wait(20)


async def pass_seconds(clock: ManualClock, seconds: int) -> None:
    """Let time pass second by second, since the siblings look at each other all the time."""
    await wait_all_tasks_blocked()
    for _ in range(seconds):
        await advance(clock, 1)


# Certain


async def test_a_worker_that_was_told_of_several_refuses_at_once(
    path: str, clock: ManualClock
) -> None:
    with sibling(path) as other, pytest.raises(SeveralWorkers, match="run one worker") as caught:
        await make(clock).enter(TOLD)
    assert caught.value.process == other.pid


@pytest.mark.parametrize("alive", [True, False])
async def test_a_supervisor_that_would_start_it_again_without_end_is_stopped(
    path: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    class Parent:
        def is_alive(self) -> bool:
            return alive

    killed: list[tuple[int, int]] = []
    monkeypatch.setattr("multiprocessing.parent_process", Parent)
    kill = os.kill
    with sibling(path), monkeypatch.context() as patched:
        patched.setattr(os, "kill", lambda pid, n: killed.append((pid, n)) if n else kill(pid, n))
        with pytest.raises(SeveralWorkers):
            await make(clock).enter(replace(TOLD, endless=True))
    assert killed == ([(os.getppid(), signal.SIGTERM)] if alive else [])


async def test_a_worker_of_a_supervisor_refuses_once_it_is_no_restart(
    path: str, clock: ManualClock
) -> None:
    refused: list[int] = []

    async def enter() -> None:
        try:
            await make(clock).enter(WORKER)
        except SeveralWorkers as error:
            refused.append(error.process)

    with sibling(path) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(enter)
            await pass_seconds(clock, 9)
            assert refused == []
            await pass_seconds(clock, 1)
        assert refused == [other.pid]


async def test_a_worker_that_replaces_another_starts_when_that_has_gone(
    path: str, clock: ManualClock
) -> None:
    siblings = make(clock)
    async with anyio.create_task_group() as tasks:
        with sibling(path):
            tasks.start_soon(siblings.enter, WORKER)
            await pass_seconds(clock, 5)
        await pass_seconds(clock, 1)
    assert os.path.exists(path)
    siblings.leave()
    assert not os.path.exists(path)


async def test_a_holder_that_has_not_said_who_it_is_yet_is_asked_again(
    path: str, clock: ManualClock
) -> None:
    with sibling(path) as other:
        Path(path).write_text("")
        async with anyio.create_task_group() as tasks:

            async def enter() -> None:
                with pytest.raises(SeveralWorkers):
                    await make(clock).enter(TOLD)

            tasks.start_soon(enter)
            await wait_all_tasks_blocked()
            Path(path).write_text(f"{other.pid}\n")
            await pass_seconds(clock, 1)


async def test_a_lock_whose_holder_was_killed_is_nobodys(path: str, clock: ManualClock) -> None:
    """Its children may still have the descriptor, and with it the lock."""
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    siblings = make(clock)
    with sibling(path):
        Path(path).write_text(f"{dead.pid}\n")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(siblings.enter, WORKER)
            await pass_seconds(clock, 11)
        assert not siblings.found
        siblings.leave()


async def test_the_same_process_is_no_sibling(path: str, clock: ManualClock) -> None:
    first, second = make(clock), make(clock)
    await first.enter(TOLD)
    await second.enter(TOLD)
    assert not second.found
    second.leave()
    assert os.path.exists(path)
    first.leave()


# Not certain


@pytest.mark.parametrize(
    ("policy", "launch", "level"),
    [("refuse", SINGLE, logging.ERROR), ("warn", TOLD, logging.WARNING)],
)
async def test_otherwise_the_log_has_it_after_ten_seconds(
    path: str,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    policy: Policy,
    launch: Launch,
    level: int,
) -> None:
    timers = Timers(clock)
    siblings = make(clock, policy, timers)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(timers.run)
        with sibling(path) as other:
            await siblings.enter(launch)
            await pass_seconds(clock, 9)
            assert (caplog.records, siblings.found) == ([], False)
            await pass_seconds(clock, 2)
            assert siblings.found
            await pass_seconds(clock, 130)
            (record,) = caplog.records
            assert (record.levelno, f"process {other.pid} " in record.message) == (level, True)
            assert Path(path).read_text() == f"{other.pid}\n{os.getpid()}\n"
        assert not siblings.found
        await pass_seconds(clock, 60)
        assert Path(path).read_text() == f"{os.getpid()}\n"
        siblings.leave()
        tasks.cancel_scope.cancel()


async def test_the_holder_knows_of_those_that_serve_beside_it(
    path: str, clock: ManualClock
) -> None:
    siblings = make(clock)
    await siblings.enter(SINGLE)
    assert not siblings.found
    join = f"import os; open({path!r}, 'a').write(f'{{os.getpid()}}\\n'); input()"
    with subprocess.Popen([sys.executable, "-c", join], stdin=subprocess.PIPE) as other:
        assert other.stdin is not None
        while not siblings.found:
            pass
        other.stdin.write(b"\n")
    assert not siblings.found
    siblings.leave()


async def test_a_file_that_has_gone_has_no_others(folder: Path) -> None:
    lock = LockFile(str(folder / "lock"))
    lock.join()
    assert (lock.others(), os.listdir(folder)) == ([], [])


# Not looked for


async def test_a_lifespan_that_no_server_began_takes_no_lock(
    folder: Path, clock: ManualClock
) -> None:
    await make(clock).enter(SCRIPT)
    async with Comet(KEY).lifespan():
        assert os.listdir(folder) == []


async def test_with_a_broker_nothing_is_looked_for(folder: Path, clock: ManualClock) -> None:
    siblings = make(clock, None)
    await siblings.enter(TOLD)
    siblings.recognise(younger())
    assert (os.listdir(folder), siblings.found) == ([], False)


async def test_without_a_broker_the_setting_says_what_is_done() -> None:
    assert policy_of(Comet(KEY)) == "refuse"
    warned = Comet(KEY, settings=Settings(several_workers="warn"))
    assert policy_of(warned) == "warn"


# The file


async def test_the_file_is_its_owners_alone_and_says_nothing_of_the_key(
    path: str, clock: ManualClock
) -> None:
    siblings = make(clock)
    await siblings.enter(SINGLE)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    siblings.leave()
    siblings.leave()
    old, new = "o" * 32, "n" * 32
    names = [
        Identity(load_keys(keys)).name_application(prefix)
        for keys, prefix in [(old, "/comet"), (new, "/comet"), (new, "/push")]
    ]
    assert len(set(names)) == 3
    assert all("/" not in name and "." not in name and len(name) == 43 for name in names)
    assert Identity(load_keys([old, new])).name_application("/comet") == names[1]


async def test_a_file_of_another_user_is_ignored_and_logged(
    folder: Path,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stranger = os.geteuid() + 1
    (folder / f"asgi-comet-{stranger}-app-{os.getppid()}").write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: stranger)
    siblings = make(clock)
    await siblings.enter(TOLD)
    assert "belongs to another user" in caplog.text
    assert not siblings.found
    siblings.leave()


async def test_a_link_is_ignored_and_logged(
    folder: Path, path: str, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    os.symlink(folder / "victim", path)
    await make(clock).enter(TOLD)
    assert "several workers are not looked for" in caplog.text
    assert not (folder / "victim").exists()


async def test_a_system_without_a_temporary_directory_is_logged(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    siblings = make(clock)
    await siblings.enter(TOLD)
    assert "several workers are not looked for: No usable temporary directory" in caplog.text
    siblings.leave()


async def test_a_system_without_such_locks_is_logged(
    path: str,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", fail)
    await make(clock).enter(TOLD)
    assert "No locks available" in caplog.text


async def test_without_fcntl_one_line_says_so(
    folder: Path,
    clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asgi_comet.workers.lockfile.fcntl", None)
    await make(clock).enter(TOLD)
    (record,) = caplog.records
    assert "this system has no fcntl" in record.message
    assert os.listdir(folder) == []


async def test_a_file_that_its_holder_removed_in_this_moment_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    lock, flock = LockFile(str(folder / "lock")), fcntl.flock

    def remove_first(fd: int, operation: int) -> None:
        monkeypatch.setattr("fcntl.flock", flock)
        os.unlink(folder / "lock")
        flock(fd, operation)

    monkeypatch.setattr("fcntl.flock", remove_first)
    assert lock.take()
    assert (folder / "lock").exists()
    (folder / "lock").unlink()  # as somebody does who cleans up
    lock.release()
    assert not lock.held


# Client processes of another worker


def younger() -> str:
    return f"{'t' * 8}{2**44:x}"


def test_a_client_process_of_a_worker_beside_this_one_is_logged_once(
    make_server: Callable[..., Made], caplog: pytest.LogCaptureFixture
) -> None:
    ours, address = make_server()
    _, beside = make_server()
    for _ in range(2):
        gone = address.request("POST", f"{Tab(beside).url}/poll", "{}", JSON)
        assert gone.status == 410
    (record,) = [r for r in caplog.records if r.name == "asgi_comet.workers.siblings"]
    assert (record.levelno, "another worker opened" in record.message) == (logging.ERROR, True)
    assert inside(ours).siblings.found


def test_one_that_is_older_was_opened_before_a_restart(
    make_server: Callable[..., Made], caplog: pytest.LogCaptureFixture
) -> None:
    _, before = make_server()
    tab = Tab(before)
    _, address = make_server()
    assert address.request("POST", f"{tab.url}/poll", "{}", JSON).status == 410
    assert "another worker opened" not in caplog.text


def test_one_that_was_closed_here_is_known(
    make_server: Callable[..., Made], caplog: pytest.LogCaptureFixture
) -> None:
    _, address = make_server()
    tab = Tab(address)
    tab.post(f"{tab.url}/close")
    assert tab.post(f"{tab.url}/poll", {"channels": {"news": "now"}}).status == 410
    assert "another worker opened" not in caplog.text


def test_a_token_without_a_birth_is_understood(comet: Comet, server: object) -> None:
    """Those that were signed before tokens said it."""
    identity = inside(comet).requests.identity
    assert identity.birth_of(identity.sign_process("p")) == ""
    assert identity.birth_of("p.forged") == ""
    inside(comet).siblings.recognise("")
    assert not inside(comet).siblings.found


JSON = {"Content-Type": "application/json"}
