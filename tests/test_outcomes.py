from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_comet.channels.outcomes import RANGES, Awaited, Outcome, Outcomes, Ranges
from asgi_comet.testing._inspect import answers_sent


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 8)), max_size=RANGES))
def test_confirmed_offsets_are_exactly_those_in_a_range(ranges: list[tuple[int, int]]) -> None:
    outcomes, model = Outcomes(), set[int]()
    for after, length in ranges:
        outcomes.confirm(after, after + length)
        model |= set(range(after + 1, after + length + 1))
    assert {n for n in range(60) if outcomes.of(n) is Outcome.SUCCESS} == model


def test_ranges_are_bounded_and_the_oldest_go_first() -> None:
    ranges = Ranges()
    for n in range(RANGES):
        ranges.add(10 * n, 10 * n + 1)
    assert 1 in ranges
    ranges.add(10 * RANGES, 10 * RANGES + 1)
    assert len(ranges) == RANGES
    assert 1 not in ranges
    assert 11 in ranges
    assert ranges.floor == 1


def test_of_messages_too_long_ago_the_outcome_is_unknown_not_a_failure() -> None:
    outcomes = Outcomes()
    for n in range(RANGES + 1):
        outcomes.confirm(10 * n, 10 * n + 1)
    assert outcomes.of(1) is Outcome.UNKNOWN
    assert outcomes.of(2) is None
    assert outcomes.of(11) is Outcome.SUCCESS


def test_a_reader_that_keeps_up_costs_one_range() -> None:
    ranges = Ranges()
    for n in range(1000):
        ranges.add(n, n + 1)
        assert not ranges.add(n, n + 1)  # another listener with the same message
    assert len(ranges) == 1


class Waiting:
    """Somebody who waits for outcomes."""

    def __init__(self, outcomes: Outcomes) -> None:
        self.outcomes = outcomes
        self.settled: dict[int, Outcome] = {}

    def wait(self, offset: int, *listeners: str) -> Awaited:
        def settle(outcome: Outcome) -> None:
            self.settled.setdefault(offset, outcome)  # the first one counts

        awaited = Awaited(offset, set(listeners), settle)
        self.outcomes.watch(awaited)
        return awaited


def test_awaited_messages_are_settled_by_a_confirmation_or_the_last_loss() -> None:
    outcomes = Outcomes()
    waiting = Waiting(outcomes)
    waiting.wait(1, "a", "b")
    lonely = waiting.wait(2)
    outcomes.unwatch(waiting.wait(3, "a"))
    outcomes.lose("a")
    assert waiting.settled == {}
    outcomes.confirm(1, 2)
    assert waiting.settled == {2: Outcome.SUCCESS}
    outcomes.lose("b")
    assert waiting.settled == {2: Outcome.SUCCESS, 1: Outcome.FAILURE}
    lonely.expire()
    assert waiting.settled[2] is Outcome.SUCCESS
    waiting.wait(9).expire()
    assert waiting.settled[9] is Outcome.FAILURE


def test_what_was_sent_is_confirmed_by_the_position_where_the_answer_ended() -> None:
    outcomes = Outcomes()
    waiting = Waiting(outcomes)
    waiting.wait(3, "a")
    outcomes.send(2, 4)
    outcomes.send(3, 4)  # to another client, who had more already
    outcomes.excuse("a")
    outcomes.lose("a")  # it came and went: that is no failure
    outcomes.acknowledge(3)
    assert waiting.settled == {}
    outcomes.acknowledge(4)
    assert waiting.settled == {3: Outcome.SUCCESS}
    assert [outcomes.of(n) for n in (2, 3, 4, 5)] == [None, Outcome.SUCCESS, Outcome.SUCCESS, None]


def test_what_one_client_acknowledges_says_nothing_of_what_another_was_sent() -> None:
    outcomes = Outcomes()
    outcomes.send(0, 2)  # never acknowledged
    outcomes.send(4, 5)
    outcomes.acknowledge(5)
    assert [outcomes.of(n) for n in range(1, 6)] == [None, None, None, None, Outcome.SUCCESS]


def test_answers_that_nobody_acknowledges_are_forgotten_in_the_end() -> None:
    outcomes = Outcomes()
    for n in range(10 * RANGES):
        outcomes.send(n, n + 1)
        outcomes.send(max(n - 1, 0), n + 1)
    assert answers_sent(outcomes) == RANGES


def test_clients_that_acknowledge_nothing_leave_the_outcome_unknown() -> None:
    outcomes = Outcomes()
    waiting = Waiting(outcomes)
    handed = waiting.wait(1, "stream")
    waiting.wait(2, "stream")
    outcomes.hand(0, 1)
    assert outcomes.of(1) is Outcome.UNKNOWN
    handed.expire()
    outcomes.lose("stream")
    assert waiting.settled == {1: Outcome.UNKNOWN, 2: Outcome.FAILURE}
    outcomes.confirm(0, 1)
    assert outcomes.of(1) is Outcome.SUCCESS


def test_a_stream_that_leaves_with_a_message_is_no_failure_and_one_without_is() -> None:
    outcomes = Outcomes()
    waiting = Waiting(outcomes)
    waiting.wait(1, "stream")
    waiting.wait(2, "stream")
    waiting.wait(3, "stream", "other")
    waiting.wait(4, "another")
    outcomes.leave("stream", 1)
    assert waiting.settled == {2: Outcome.FAILURE}
    outcomes.confirm(0, 1)  # it came back
    assert waiting.settled == {1: Outcome.SUCCESS, 2: Outcome.FAILURE}
    outcomes.leave("other", 2)
    assert waiting.settled[3] is Outcome.FAILURE
    assert 4 not in waiting.settled


def test_a_stream_that_leaves_with_nobody_else_there_leaves_it_to_the_deadline() -> None:
    outcomes = Outcomes()
    waiting = Waiting(outcomes)
    message = waiting.wait(1, "stream")
    outcomes.hand(0, 1)
    outcomes.leave("stream", 1)
    assert waiting.settled == {}
    message.expire()
    assert waiting.settled == {1: Outcome.UNKNOWN}


def test_nothing_is_known_of_messages_at_offsets_of_another_epoch() -> None:
    outcomes = Outcomes()
    waiting = Waiting(outcomes)
    outcomes.confirm(0, 3)
    outcomes.hand(3, 4)
    outcomes.send(4, 5)
    waiting.wait(5, "stream")
    outcomes.forget()
    assert waiting.settled == {5: Outcome.UNKNOWN}
    outcomes.acknowledge(5)
    assert [outcomes.of(n) for n in range(1, 6)] == [None] * 5


def test_what_the_only_client_skips_is_unknown_for_good() -> None:
    outcomes = Outcomes()
    waiting = Waiting(outcomes)
    outcomes.confirm(0, 2)
    for offset in (3, 5, 6):
        waiting.wait(offset)
    outcomes.skip(2, 5)
    assert waiting.settled == {3: Outcome.UNKNOWN, 5: Outcome.UNKNOWN}
    outcomes.confirm(5, 6)
    assert [outcomes.of(n) for n in range(1, 8)] == [
        *(Outcome.SUCCESS, Outcome.SUCCESS, Outcome.UNKNOWN, Outcome.UNKNOWN),
        *(Outcome.UNKNOWN, Outcome.SUCCESS, None),
    ]
    outcomes.forget()
    assert outcomes.skipped == 0


@pytest.mark.parametrize(
    ("upto", "skipped", "known"),
    [
        (0, (0, 0), "....."),
        (4, (0, 0), "ssss."),
        (2, (2, 4), "ss??."),
        (4, (2, 4), "ss??."),
        (5, (2, 4), "ss??s"),
        (5, (0, 4), "????s"),
        (1, (2, 4), "s.??."),
    ],
)
@pytest.mark.parametrize("times", [1, 2])
def test_what_a_store_knows_of_the_only_client_is_learnt(
    upto: int, skipped: tuple[int, int], known: str, times: int
) -> None:
    outcomes = Outcomes()
    for _ in range(times):
        outcomes.learn(upto, skipped)
    letters = {Outcome.SUCCESS: "s", Outcome.UNKNOWN: "?", None: "."}
    assert "".join(letters[outcomes.of(n)] for n in range(1, 6)) == known


def test_a_store_that_does_not_know_yet_what_was_skipped_changes_nothing() -> None:
    outcomes = Outcomes()
    outcomes.skip(0, 3)
    outcomes.learn(2, (0, 0))
    outcomes.learn(4, (0, 0))
    assert [outcomes.of(n) for n in (1, 3, 4)] == [
        *(Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.SUCCESS)
    ]
