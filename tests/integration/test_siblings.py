"""Several workers without a broker, on every server that docs/servers.md names."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.kit.measuring import MEASURED
from tests.kit.programs import ROOT, need
from tests.kit.servers import (
    APP,
    GRANIAN,
    GUNICORN,
    LIMIT,
    UVICORN,
    Kind,
    Running,
    Stream,
    running,
)
from tests.kit.stage import TOKEN
from tests.kit.workers import own_workers

pytestmark = own_workers("server programs with several workers and no broker")

LOWEST = ROOT / ".cache" / "lowest"
SENTENCE = "expected one worker, but process "
ONE_LINE = re.compile(rf"{SENTENCE}\d+ serves this application as well: .*`--workers 1`")


def with_workers(kind: Kind, *options: str) -> Kind:
    return Kind(kind.server, (*kind.options, *options))


HYPERCORN = [Kind("hypercorn", ("--worker-class", loop)) for loop in ("asyncio", "trio")]
TWO = ("--workers", "2")


def run(kind: Kind, app: str = APP, **environ: str) -> str:
    """Run a server that ends by itself; return all that it says."""
    bind = {"uvicorn": "--port=0", "granian": "--port=0"}.get(kind.server, "--bind=127.0.0.1:0")
    process = subprocess.Popen(
        [sys.executable, "-m", kind.server, bind, *kind.options, app],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=2 * LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"the server did not end: {said}")
    return said


def check_refused(said: str) -> None:
    assert ONE_LINE.search(said), said
    assert said.count(SENTENCE) == 1  # and not again and again


def pid(server: Running) -> int | None:
    """Ask which process serves; `None` if the connection was cut, for a worker ended just then."""
    with suppress(OSError, HTTPException):
        found: int = server.get("/pid")
        return found
    return None


def status(server: Running) -> dict[str, Any]:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    answer = server.address.request("GET", "/comet/admin/status", headers=bearer)
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


# Refused


@pytest.mark.parametrize(
    "kind", [UVICORN[0], GUNICORN, *HYPERCORN, GRANIAN[0]], ids=lambda kind: kind.id
)
def test_of_two_workers_one_refuses_and_the_server_ends(kind: Kind) -> None:
    check_refused(run(with_workers(kind, *TWO), **MEASURED))


def test_on_the_lowest_uvicorn_the_server_ends_as_well() -> None:
    need(LOWEST / ".installed", "scripts/install")
    check_refused(run(with_workers(UVICORN[0], *TWO), PYTHONPATH=str(LOWEST)))


@pytest.mark.parametrize("kind", [UVICORN[0], GUNICORN], ids=lambda kind: kind.id)
def test_web_concurrency_tells_the_number_of_workers(kind: Kind) -> None:
    check_refused(run(kind, WEB_CONCURRENCY="2"))


def test_a_mounted_application_refuses_as_well() -> None:
    kind = with_workers(UVICORN[0], *TWO, "--factory")
    assert ONE_LINE.search(run(kind, app="tests.kit.application:mounted"))


# Told, but not refused


@pytest.fixture
def both() -> Iterator[list[Running]]:
    """Two servers beside each other, whose parent is no server; the first holds the lock."""
    with ExitStack() as stack:
        servers = []
        for _ in range(2):
            server = stack.enter_context(running(UVICORN[0], MANUAL_CLOCK="1"))
            ready(server)
            servers.append(server)
        yield servers


def ready(server: Running) -> None:
    server.wait_for("Application startup complete")


def test_two_servers_of_one_parent_are_told_once_it_is_no_restart(both: list[Running]) -> None:
    first, second = both
    second.get("/advance?seconds=9.8")
    assert [status(server)["several_workers"] for server in both] == [False, False]
    second.get("/advance?seconds=2")
    second.wait_for(SENTENCE)
    assert status(second)["several_workers"] is True  # it answers once it is in the lock file
    assert status(first)["several_workers"] is True
    second.get("/advance?seconds=61")
    first.stop()
    assert status(second)["several_workers"] is False
    second.get("/advance?seconds=61")
    assert second.stop().count(SENTENCE) == 1


def test_a_sibling_that_leaves_in_time_is_not_worth_a_word(both: list[Running]) -> None:
    first, second = both
    first.stop()
    second.get("/advance?seconds=2")
    second.get("/advance?seconds=20")
    assert SENTENCE not in second.stop()


def test_workers_that_may_be_several_start_all_the_same() -> None:
    kind = with_workers(UVICORN[0], *TWO)
    with running(kind, COMET_SEVERAL_WORKERS="warn", MANUAL_CLOCK="1") as server:
        for _ in range(2):
            ready(server)
        other = server.get("/pid")
        while server.get("/pid") == other:
            pass
        while SENTENCE not in "".join(server.log):
            server.get("/advance?seconds=11")  # of whichever worker is asked
            while not server.lines.empty():
                server.log.append(server.lines.get_nowait() or "")
        while not status(server)["several_workers"]:
            pass


# Quiet


@pytest.mark.parametrize(
    "kind",
    [
        with_workers(GUNICORN, "--workers", "1"),
        with_workers(GRANIAN[0], "--workers", "1", "--respawn-interval", "1.5"),
    ],
    ids=lambda kind: kind.id,
)
def test_a_worker_that_replaces_another_starts(kind: Kind) -> None:
    with running(kind) as server:
        before = pid(server)
        Stream(server).head()  # it is open while the worker is replaced
        server.process.send_signal(signal.SIGHUP)
        while pid(server) in (None, before):
            pass
        assert status(server)["several_workers"] is False
        assert SENTENCE not in server.stop(within=LIMIT)


def test_a_reload_is_no_sibling(tmp_path: Path) -> None:
    (tmp_path / "watched.py").touch()
    kind = with_workers(UVICORN[0], "--reload", "--reload-dir", str(tmp_path))
    with running(kind, WEB_CONCURRENCY="2") as server:
        before = pid(server)
        (tmp_path / "watched.py").write_text("changed = True")
        server.wait_for("Reloading")
        while pid(server) in (None, before):
            pass
        assert SENTENCE not in server.stop(within=LIMIT)


def test_the_workers_of_a_test_run_are_no_siblings(tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(
        "import pytest\n"
        "from starlette.testclient import TestClient\n"
        "from asgi_comet import Comet\n"
        "from tests.kit.stage import application\n"
        "from tests.kit.serving import serve\n"
        "@pytest.mark.parametrize('number', range(2))\n"
        "def test_page(number):\n"
        "    app = application(Comet('k' * 32))\n"
        "    with TestClient(app) as client:\n"
        "        assert client.get('/').status_code == 200\n"
        "    with serve(app) as address:\n"
        "        assert address.request('GET', '/').status == 200\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n2", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "WEB_CONCURRENCY": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=6 * LIMIT,
    )
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr
    assert SENTENCE not in ran.stdout + ran.stderr


def test_without_file_locks_one_line_says_so() -> None:
    serve = (
        "import sys; sys.modules['fcntl'] = None; import uvicorn; "
        f"uvicorn.run({APP!r}, port=0, log_level='warning')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", serve],
        cwd=ROOT,
        env={**os.environ, **MEASURED},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "several workers are not looked for" in process.stderr.readline()
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT)
