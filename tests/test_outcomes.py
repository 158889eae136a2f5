from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asgi_comet.outcomes import RANGES, Awaited, Outcome, Outcomes


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=RANGES))
def test_confirmed_offsets_are_exactly_those_in_a_range(ranges: list[tuple[int, int]]) -> None:
    outcomes, model = Outcomes(), set[int]()
    for after, length in ranges:
        outcomes.confirm(after, after + length)
        model |= set(range(after + 1, after + length + 1))
    assert {n for n in range(60) if outcomes.confirmed(n)} == model


def test_ranges_are_bounded_and_the_oldest_go_first() -> None:
    outcomes = Outcomes()
    for n in range(RANGES):
        outcomes.confirm(10 * n, 10 * n + 1)
    assert outcomes.confirmed(1)
    outcomes.confirm(10 * RANGES, 10 * RANGES + 1)
    assert not outcomes.confirmed(1)
    assert outcomes.confirmed(11)


def test_a_reader_that_keeps_up_costs_one_range() -> None:
    outcomes = Outcomes()
    for n in range(1000):
        outcomes.confirm(n, n + 1)
        outcomes.confirm(n, n + 1)  # another listener with the same message
    assert outcomes._ranges == [(0, 1000)]


def test_awaited_messages_are_settled_by_a_confirmation_or_the_last_loss() -> None:
    outcomes, settled = Outcomes(), dict[int, Outcome]()

    def wait(offset: int, *listeners: str) -> Awaited:
        awaited = Awaited(offset, set(listeners), lambda o: settled.update({offset: o}))
        outcomes.watch(awaited)
        return awaited

    wait(1, "a", "b")
    lonely = wait(2)
    gone = wait(3, "a")
    outcomes.unwatch(gone)
    outcomes.lose("a")
    assert settled == {}
    outcomes.confirm(1, 2)
    assert settled == {2: Outcome.SUCCESS}
    outcomes.lose("b")
    assert settled == {2: Outcome.SUCCESS, 1: Outcome.FAILURE}
    lonely.expire()
    assert settled[2] is Outcome.FAILURE
