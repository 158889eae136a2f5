"""What `comet.processes()` and its like return: a sequence that can also be awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from asgi_comet import Comet, ProcessLocal, View
from tests.kit.processes import open_in
from tests.kit.stage import KEY


def test_a_view_is_a_sequence() -> None:
    view = View(["a", "b", "c"])
    assert isinstance(view, Sequence)
    assert (len(view), view[0], view[-1], view[1:]) == (3, "a", "c", ["b", "c"])
    assert [*view] == ["a", "b", "c"]
    assert [*reversed(view)] == ["c", "b", "a"]
    assert ("b" in view, "d" in view, view.index("c"), view.count("a")) == (True, False, 2, 1)
    assert repr(view) == "View(['a', 'b', 'c'])"


def test_a_view_is_false_if_there_is_nothing() -> None:
    assert (bool(View([])), bool(View([None]))) == (False, True)


def test_a_view_equals_a_list_of_the_same_values() -> None:
    view = View([1, 2])
    assert view == [1, 2]
    assert [1, 2] == view  # noqa: SIM300 - a list asks the view
    assert view == View([1, 2])
    assert (view != [2, 1], view != View([1]), view != (1, 2)) == (True, True, True)


async def test_a_view_can_be_awaited_any_number_of_times() -> None:
    view = View([1, 2])
    for _ in range(2):
        found = await view
        assert type(found) is list
        assert found == [1, 2]
        assert [one async for one in view] == [1, 2]


async def test_what_a_view_gives_can_be_changed_without_changing_the_view() -> None:
    view = View([1, 2])
    for found in (view.here, await view):
        found.clear()
    assert view == view.here == [1, 2]


def test_a_view_shows_what_there_was_when_it_was_made() -> None:
    comet = Comet(KEY)
    one = open_in(comet)
    before = comet.processes()
    other = open_in(comet)
    assert before == [one]
    assert comet.processes() == [one, other]
    assert comet.sessions() == [one.session]
    one.close()
    other.close()
    assert before.here == [one]
    assert comet.processes() == comet.sessions() == []


async def test_processes_sessions_and_listeners_are_views() -> None:
    comet = Comet(KEY)
    process = open_in(comet, "session")
    notifier = comet.notifier("n", key=int)
    notifier.listen(1, process)
    views: list[View[Any]] = [comet.processes(), comet.sessions(), notifier.listeners(1)]
    assert [type(view) for view in views] == [View, View, View]
    assert [await view for view in views] == [[process], [process.session], [process]]


@pytest.mark.parametrize("given", ["text", 3, object()], ids=["text", "number", "object"])
async def test_what_is_no_client_process_is_refused_wherever_one_is_given(given: Any) -> None:
    comet = Comet(KEY)
    notifier = comet.notifier("n", key=int)
    comet.channels.create("news")
    text = f"expected a client process, got {type(given).__name__}"
    local = ProcessLocal(list[str])
    for give in (
        lambda: comet.create(scope=given),
        lambda: comet.create_unlimited(_source, scope=given),
        lambda: comet.revoke("news", process=given),
        lambda: notifier.listen(1, given),
        lambda: notifier.unlisten(1, given),
        lambda: notifier.channel(given),
        lambda: local.get(given),
        lambda: local.set([], given),
    ):
        with pytest.raises(TypeError, match=text):
            give()
    with pytest.raises(TypeError, match=text):
        await comet.wait_timeout(1, given)


async def _source() -> AsyncIterator[int]:
    yield 1
