"""The fixture `comet_app` in projects of users, with each plugin that runs async tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

NEWS = """
from fastapi import Body, FastAPI

from asgi_comet import SITE, Comet, CometMiddleware


def make_app(broker=None):
    comet = Comet("change me: a secret of at least 32 bytes", broker=broker)
    news = comet.create(scope=SITE, name="news", type=str)
    app = FastAPI()
    app.add_middleware(CometMiddleware, comet=comet)

    @app.post("/news")
    async def post(text: str = Body()) -> None:
        await news.publish(text).stored()

    app.state.comet = comet
    return app
"""

TESTS = """
import pytest
from news import make_app as make


async def test_news(comet_app):
    tab = comet_app.browser().tab()
    news = tab.channel("news")
    await tab.post("/news", json="Hello")
    assert await news.next() == "Hello"
    await news.expect_silence()
    await comet_app.check()


class TestInAClass:
    @pytest.mark.parametrize("text", ["a", "b"])
    async def test_news(self, text, comet_app):
        await test_news(comet_app)
"""

APP = """

@pytest.fixture
def app():
    return make()
"""


ASYNCIO = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")


def write(folder: Path, **files: str) -> None:
    (folder / "news.py").write_text(NEWS)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def run_pytest(folder: Path, *arguments: str, **outcomes: int) -> str:
    """Run the tests of a project; check how many passed and failed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *arguments, str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.stderr == ""
    last = done.stdout.splitlines()[-1].partition(" in ")[0].replace("errors", "error")
    expected = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    assert last == expected, done.stdout
    return done.stdout


def test_with_pytest_asyncio(tmp_path: Path) -> None:
    write(tmp_path, test_news=TESTS + APP)
    run_pytest(tmp_path, *ASYNCIO, "-p", "no:anyio", passed=3)


def test_with_the_plugin_of_anyio_on_asyncio_and_trio(tmp_path: Path) -> None:
    write(tmp_path, test_news=TESTS + APP)
    run_pytest(tmp_path, "-o", "anyio_mode=auto", "-p", "no:asyncio", passed=6)


def test_with_marks_of_either_plugin_beside_the_other(tmp_path: Path) -> None:
    text = "import pytest\nfrom test_news import app, test_news as check\n"
    for mark in ("asyncio", "anyio"):
        text += (
            f"@pytest.mark.{mark}\nasync def test_{mark}(comet_app):\n    await check(comet_app)\n"
        )
    write(tmp_path, test_news=TESTS + APP, test_marks=text)
    run_pytest(tmp_path, *ASYNCIO[2:], "-k", "test_marks", passed=3, deselected=3)


def test_without_pytest(tmp_path: Path) -> None:
    write(
        tmp_path,
        script="""
import sys
import anyio
from asgi_comet.testing import run
from news import make_app

async def main():
    async with run(make_app()) as comet_app:
        tab = comet_app.browser().tab()
        news = tab.channel("news")
        await tab.post("/news", json="Hello")
        print(await news.next())
        await comet_app.check()

for backend in ("asyncio", "trio"):
    anyio.run(main, backend=backend)
assert "pytest" not in sys.modules
""",
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py"], capture_output=True, cwd=tmp_path, check=False
    )
    assert (done.stdout, done.stderr) == (b"Hello\nHello\n", b"")


def test_options_and_fixtures(tmp_path: Path) -> None:
    write(
        tmp_path,
        test_news="""
import pytest
from news import make_app as make

@pytest.fixture
def make_app():
    return make

@pytest.mark.comet(workers=2, base_url="https://example.com")
async def test_workers(comet_app):
    comet_app.broker.down()
    comet_app.broker.up()
    await comet_app.restart()
    answer = await comet_app.browser().tab().get("/docs")
    assert str(answer.url) == "https://example.com/docs"

async def test_one_worker(comet_app):
    await comet_app.restart()
""",
    )
    run_pytest(tmp_path, *ASYNCIO, passed=2)


def test_a_fixture_names_the_comet(tmp_path: Path) -> None:
    write(
        tmp_path,
        test_news="""
import pytest
from news import make_app

@pytest.fixture
def app():
    app = make_app()
    app.mount("/other", make_app())
    return app

@pytest.fixture
def comet(app):
    return app.state.comet

async def test_comet(comet_app, comet):
    assert comet_app.comet is comet
""",
    )
    run_pytest(tmp_path, *ASYNCIO, passed=1)


def test_mistakes_are_explained(tmp_path: Path) -> None:
    write(
        tmp_path,
        test_sync=APP.replace("make()", "None") + "\ndef test_sync(comet_app): ...",
        test_missing="async def test_missing(comet_app): ...",
        test_fixture="""
import pytest
@pytest.fixture
def app(unknown): ...
async def test_fixture(comet_app): ...
""",
        test_option="""
import pytest
from news import make_app
@pytest.fixture
def app(): return make_app()
@pytest.mark.comet(worker=2)
async def test_option(comet_app): ...
""",
    )
    text = (tmp_path / "test_sync.py").read_text()
    (tmp_path / "test_sync.py").write_text(
        "import pytest\nfrom news import make_app\n" + text.replace("None", "make_app()")
    )
    said = run_pytest(tmp_path, *ASYNCIO, error=4)
    assert "expected a fixture `app` that returns the application, or `make_app`" in said
    assert "expected an async test for comet_app, got test_sync: with fastapi.testclient" in said
    assert "fixture 'unknown' not found" in said
    assert "unexpected keyword argument 'worker'" in said


def test_a_failure_shows_the_line_of_the_test(tmp_path: Path) -> None:
    write(
        tmp_path,
        test_news=APP.join(
            [
                "import pytest\nfrom news import make_app as make\n",
                """
async def test_silence(comet_app):
    tab = comet_app.browser().tab()
    news = tab.channel("news")
    await tab.post("/news", json="Hello")
    await news.expect_silence()  # here
""",
            ]
        ),
    )
    said = run_pytest(tmp_path, *ASYNCIO, "--tb=short", failed=1)
    assert "expected silence on 'news', got ['Hello']" in said
    assert "# here" in said
    assert "in expect_silence" not in said


def test_the_plugin_imports_nothing_but_pytest_until_a_fixture_is_used() -> None:
    code = """
import json, sys, pytest
before = set(sys.modules)
import asgi_comet.testing.plugin
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(done.stdout) == [
        "asgi_comet",
        "asgi_comet._runtime",
        "asgi_comet._runtime.lazy",
        "asgi_comet.testing",
        "asgi_comet.testing.plugin",
    ]


def test_a_session_without_the_fixture_loads_no_library(tmp_path: Path) -> None:
    code = "import sys\ndef test_it(): assert not {'anyio', 'httpx', 'starlette'} & {*sys.modules}"
    (tmp_path / "test_it.py").write_text(code)
    run_pytest(
        tmp_path, "-p", "no:anyio", "-p", "no:asyncio", "-p", "no:hypothesispytest", passed=1
    )


@pytest.mark.parametrize("option", ["--markers", "--fixtures"])
def test_pytest_lists_the_mark_and_the_fixture(tmp_path: Path, option: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *ASYNCIO, option],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    shown = {"--markers": "@pytest.mark.comet(workers=1", "--fixtures": "\ncomet_app"}
    assert shown[option] in done.stdout


def test_what_the_page_shows_runs(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    page, _, _ = (root / "docs/testing.md").read_text().partition("## A test of each example")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shown = [block for block in blocks if "examples" not in block and "members.app" not in block]
    apart = [block for block in shown if "broker.down" in block]
    header = (
        "from asgi_comet.testing import follow, run\nfrom fastapi.testclient import TestClient\n"
    )
    text = header + "\n".join(block for block in shown if block not in apart)
    make = "import pytest\nfrom news import make_app as make\n" + APP.replace("app()", "make_app()")
    write(
        tmp_path,
        main=(root / "examples/quickstart.py").read_text(),
        test_page=text,
        test_workers=make.replace("return make()", "return make") + "\n".join(apart),
    )
    run_pytest(tmp_path, *ASYNCIO, passed=text.count("def test_") + len(apart))
    assert len(shown) >= 9
    assert len(apart) == 1
