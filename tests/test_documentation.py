"""What the documents show is what runs."""

from __future__ import annotations

import re
from pathlib import Path

from asgi_comet.testing import wait_for_listeners
from tests.serving import hold_registration, poll, serve

ROOT = Path(__file__).parent.parent


def test_the_first_lines_of_the_readme_are_the_example_that_runs() -> None:
    text = (ROOT / "README.md").read_text()
    (shown, *_) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert (ROOT / "examples" / "quickstart.py").read_text().endswith(shown)
    assert len(text.splitlines()) <= 120
    from examples import quickstart

    with serve(quickstart.app) as server:
        held = hold_registration(server, "registration=news")
        wait_for_listeners(quickstart.news, 1)
        (command,) = re.findall(r"curl -X POST 'http://127.0.0.1:8000(\S+)'", text)
        assert server.request("POST", command).status == 200
        assert held.answer().body == b"news:Hello"
        assert poll(server, {"news": "last:1"})[-1]["data"] == "Hello"
        assert b"/comet/comet.js" in server.request("GET", "/").body


def test_the_readme_can_be_read_on_a_package_index() -> None:
    """There every link is absolute; here it leads to a file."""
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20
    for link in links:
        path = re.fullmatch(
            r"https://(?:github|raw.githubusercontent).com/asgi-comet/asgi-comet/(?:blob/)?main/([^#]+)(#.*)?",
            link,
        )
        assert path is not None, link
        assert (ROOT / path[1]).exists(), link


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


COMMAND = re.compile(
    r"(?:^ *|`|: )(uvicorn (?:[^`\n]*:app|[^`\n]*--root-path))|-m uvicorn .*\n.*\n.*", re.MULTILINE
)
BOUNDS = "--ws-max-size 65536 --ws-per-message-deflate false"


def test_every_command_line_of_uvicorn_bounds_what_a_websocket_may_send() -> None:
    shown = 0
    for path in [
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/**/*.py"),
        ROOT / "scripts/demo",
        ROOT / "README.md",
    ]:
        for line in COMMAND.finditer(path.read_text()):
            assert BOUNDS in line[0], (path.name, line[0])
            shown += 1
    assert shown >= 16
