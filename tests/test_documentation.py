"""What the documents show is what runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asgi_comet.testing import wait_for_listeners
from tests.serving import hold_registration, poll, serve

ROOT = Path(__file__).parent.parent


def test_the_thirty_lines_of_the_readme_are_the_example_that_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (shown,) = re.findall(r"```python\n(\"\"\".*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown == (ROOT / "examples" / "quickstart.py").read_text()
    assert len([line for line in shown.splitlines() if line.strip()]) <= 32
    monkeypatch.setenv("SECRET_KEY", "k" * 32)
    from examples import quickstart

    with serve(quickstart.app) as server:
        (begun, *told) = poll(server, {"news": "last:1"})
        (first,) = told or poll(server, {"news": begun["position"]})
        assert re.fullmatch(r"It is \d\d:\d\d\.", first["data"])
        held = hold_registration(server, "registration=news")
        wait_for_listeners(quickstart.news.channel(), 1)
        posted = server.request("POST", "/news", "Hello", {"Content-Type": "text/plain"})
        assert posted.status == 200
        assert held.answer().body == b"news:Hello"
        assert b"/comet/comet.js" in server.request("GET", "/").body


def test_links_between_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name}: {link}"
