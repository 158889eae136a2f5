"""The dashboard and the alerts of `deploy/` show the figures that exist, and all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asgi_comet.observe.names import FIGURES
from tests.figures import names

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
ALERTS = (DEPLOY / "prometheus" / "alerts.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "asgi_comet.json").read_text())
ROWS = ["Promise", "Audience", "Traffic", "Latency", "Sources", "Limits", "Broker"]
LABELS = {figure.name: set(figure.labels) for figure in FIGURES}

USED = re.compile(r"(comet_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
OF_PROMETHEUS = {"job", "instance", "worker", "le"}


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", [])


def queries() -> list[str]:
    variables = [
        one["definition"] for one in DASHBOARD["templating"]["list"] if "definition" in one
    ]
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*variables, *shown]


def alerts() -> dict[str, str]:
    """The expression of each alert."""
    return dict(re.findall(r"- alert: (\w+)\n +expr: (.*)\n", ALERTS))


def used(expressions: list[str]) -> set[str]:
    """The figures in some expressions; a histogram by the name of its family."""
    found = {name for one in expressions for name, _ in USED.findall(one)}
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_the_dashboard_and_the_alerts_use_figures_that_exist() -> None:
    every = set(names())
    assert used(queries()) <= every
    assert used(list(alerts().values())) <= every
    described = re.findall(r"\bcomet_\w+", ALERTS)
    assert set(described) <= every


def test_each_figure_is_shown() -> None:
    assert set(names()) - used(queries()) == set()


@pytest.mark.parametrize("expression", [*queries(), *alerts().values()])
def test_an_expression_selects_and_groups_by_labels_that_its_figures_have(expression: str) -> None:
    assert expression.count("(") == expression.count(")")
    found = USED.findall(expression)
    assert found
    for name, selected in found:
        labels = LABELS[re.sub(r"_(bucket|sum|count)$", "", name)] | OF_PROMETHEUS
        assert set(re.findall(r"(\w+)=~", selected)) <= labels
        for grouped in GROUPED.findall(expression):
            assert set(grouped.split(", ")) <= labels


def test_each_panel_selects_the_servers_and_channels_that_are_chosen() -> None:
    for panel in panels():
        assert panel["description"]
        for target in panel["targets"]:
            for name, selected in USED.findall(target["expr"]):
                assert 'job=~"$job", instance=~"$instance"' in selected, target
                assert ("$channel" in selected) == ("channel" in LABELS.get(name, ())), target


def test_the_dashboard_has_its_rows_and_variables() -> None:
    assert DASHBOARD["uid"] == "asgi-comet"
    rows = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert [row["title"] for row in rows] == ROWS
    assert [row["collapsed"] for row in rows] == [False] * 4 + [True] * 3
    variables = [one["name"] for one in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "job", "instance", "channel"]
    ids = [panel["id"] for panel in [*panels(), *rows]]
    assert len(ids) == len(set(ids))


def test_each_alert_says_what_to_do() -> None:
    assert len(alerts()) == 5
    for part in ALERTS.split("- alert: ")[1:]:
        for field in ("expr: ", "for: ", "severity: ", "summary: ", "description: >-\n"):
            assert part.count(field) == 1, part


def test_the_metrics_are_scraped_where_they_are() -> None:
    scraped = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    assert "metrics_path: /comet/admin/metrics\n" in scraped
    assert "workers: [all]\n" in scraped
    for name in ("prometheus", "grafana"):
        assert f"./{name}:" in (DEPLOY / "compose.yml").read_text()
