"""What `docs/watching.md` says is so: the figures, the values of their labels, and the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.figures import FILE, names
from tests.kit.scraping import understand
from tests.kit.serving import Address, serve

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "watching.md").read_text()
EXAMPLE = ROOT / "examples" / "metrics.py"


def test_the_page_explains_each_figure_and_no_other() -> None:
    tables = set(re.findall(r"comet_\w+", PAGE[PAGE.index("## All figures") :]))
    first = {"comet_gaps_total", "comet_resumes_total"}
    assert tables | first == set(names())
    assert set(re.findall(r"\bcomet_\w+", PAGE)) - {"comet_metrics"} == set(names())


def test_the_page_names_the_labels_of_each_figure() -> None:
    shown = dict(re.findall(r"`(comet_\w+)\{([^}]+)\}`", PAGE))
    for line in FILE.read_text().splitlines():
        name, _, *labels = re.sub(r"\([^)]*\)", "", line).split(" ")
        expected = set(labels) - {"worker"}
        assert set(shown.get(name, "").replace(",", "").split()) == expected, name


@pytest.mark.parametrize("line", FILE.read_text().splitlines())
def test_the_page_explains_each_value_of_a_label(line: str) -> None:
    for values in re.findall(r"\(([^)]*)\)", line):
        for value in values.split(","):
            assert f"`{value}`" in PAGE


def test_the_code_of_the_page_is_in_the_example() -> None:
    source = EXAMPLE.read_text()
    (_, route, register) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert route in source
    assert register in source


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    from examples import metrics

    monkeypatch.setattr(metrics, "SCRAPE_TOKEN", "secret")
    with serve(metrics.app) as address:
        yield address


@pytest.mark.parametrize("path", ["/metrics", "/comet-metrics"])
def test_the_example_tells_its_figures_behind_a_guard(server: Address, path: str) -> None:
    assert server.request("GET", path).status in (401, 403)
    wrong = server.request("GET", path, headers={"Authorization": "Bearer wrong"})
    assert wrong.status == 403
    right = server.request("GET", path, headers={"Authorization": "Bearer secret"})
    assert right.status == 200
    found = understand(right.body.decode())
    assert found.find("comet_published_total", channel="clock")
    assert len(found.find("scrapes_total")) == (path == "/metrics")
