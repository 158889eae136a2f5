"""Each record of the package is an event of the list, and the page has the list."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path
from typing import get_args

import pytest

from asgi_comet.log_events import Event, Fields, event
from tests.kit.log_calls import find_log_calls, package_log_calls

PAGE = (Path(__file__).parent.parent / "docs" / "operating.md").read_text(encoding="utf-8")
CALLS = package_log_calls()
NAMES = get_args(Event)


def rows(begin: str) -> list[list[str]]:
    """The cells of a table, by how its first line begins; without the two lines of its head."""
    table = PAGE[PAGE.index(f"\n| {begin}") + 1 :].partition("\n\n")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]


EVENTS = rows("event | level")


def quoted(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


# The calls of the package


def test_each_log_call_has_an_event() -> None:
    assert len(CALLS) > 70
    assert [call.place for call in CALLS if not call.event] == []


def test_each_event_of_the_list_is_logged_and_the_reverse() -> None:
    assert {call.event for call in CALLS} == set(NAMES)


def test_the_list_is_short_and_sorted() -> None:
    assert len(NAMES) <= 35
    assert list(NAMES) == sorted(set(NAMES))
    assert [name for name in NAMES if not re.fullmatch(r"[a-z]+\.[a-z_]+", name)] == []


@pytest.mark.parametrize(
    "line",
    [
        "_logger.warning('x')",
        "_logger.log(level, 'x', extra={'comet': 1})",
        "self._warnings.warning('x', 1, extra=told)",
        "log.getLogger('x').exception('x', extra=make('source.failed'))",
        "if x:\n  try: pass\n  finally: _logger.error('x', extra=event(name))",
        "def g(): _logger.error('x')",
    ],
)
def test_a_log_call_without_an_event_is_found(line: str) -> None:
    (call,) = find_log_calls(
        line
        if line.startswith("log.")
        else "def f():\n" + "\n".join(f" {one}" for one in line.splitlines())
    )
    assert call.event == ""


@pytest.mark.parametrize(
    ("lines", "levels"),
    [
        ("_logger.exception('x', extra=event('a.b', channel=1))", {"error"}),
        ("told = event('a.b', channel=1); _seldom.warning('x', extra=told)", {"warning"}),
        ("told, y = event('a.b', channel=1), 2; _l.debug('x', extra=told)", {"debug"}),
        (
            "level = logging.INFO if y else logging.ERROR; "
            "_l.log(level, 'x', extra=event('a.b', channel=1))",
            {"info", "error"},
        ),
    ],
)
def test_the_event_of_a_log_call_is_read(lines: str, levels: set[str]) -> None:
    (call,) = find_log_calls(f"def f():\n {lines}\n future.exception()", "here")
    assert (call.event, set(call.fields), set(call.levels)) == ("a.b", {"channel"}, levels)


# The page


def test_the_page_has_the_events_of_the_list() -> None:
    assert [row[0] for row in EVENTS] == [f"`{name}`" for name in NAMES]


@pytest.mark.parametrize("row", EVENTS, ids=lambda row: row[0].strip("`"))
def test_levels_and_fields_of_the_page_are_those_of_the_code(row: list[str]) -> None:
    calls = [call for call in CALLS if f"`{call.event}`" == row[0]]
    levels = set().union(*(call.levels for call in calls))
    assert row[1].split(", ") == [
        one for one in ("error", "warning", "info", "debug") if one in levels
    ]
    assert quoted(row[4]) == set().union(*(call.fields for call in calls))
    assert all(row[2:4])


def test_the_page_has_the_fields_of_the_list() -> None:
    names = [row[0].strip("`") for row in rows("field of an event")]
    assert names == ["event", *Fields.__annotations__]
    assert set(Fields.__annotations__) == set().union(*(call.fields for call in CALLS))


def test_the_example_of_a_filter_finds_its_event() -> None:
    (code,) = re.findall(r"```python\n(class OnlyLosses.*?)```", PAGE, re.DOTALL)
    names: dict[str, type[logging.Filter]] = {}
    exec(code, {"logging": logging}, names)
    only = names["OnlyLosses"]()
    assert only.filter(make_record(event("message.lost", count=3)))
    assert not only.filter(make_record(event("loop.blocked")))
    assert not only.filter(make_record({}))


# Records


def make_record(extra: dict[str, object]) -> logging.LogRecord:
    logger = logging.getLogger("asgi_comet.channels.source")
    return logger.makeRecord(
        logger.name, logging.ERROR, "f", 1, "text %s", ("x",), None, extra=extra
    )


def test_a_text_is_cut_and_a_number_is_not() -> None:
    made = event("channel.unknown", channel="x" * 200, reason="y" * 201, count=10**300)
    assert made == {
        "comet": {
            "event": "channel.unknown",
            "channel": "x" * 200,
            "reason": "y" * 200,
            "count": 10**300,
        }
    }


RECIPES = re.findall(r"```python\n([^`]*?handler\.setFormatter\(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("recipe", RECIPES, ids=["structlog", "python-json-logger"])
def test_a_recipe_writes_the_event_as_json(recipe: str) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    exec(recipe, {"handler": handler})
    handler.handle(make_record(event("source.failed", channel="news")))
    line = json.loads(written.getvalue())
    assert line["comet"] == {"event": "source.failed", "channel": "news"}
    assert "text x" in line.values()
    assert {"ERROR", "error"} & set(map(str, line.values()))
    assert "asgi_comet.channels.source" in line.values()


def test_there_are_two_recipes() -> None:
    assert len(RECIPES) == 2
