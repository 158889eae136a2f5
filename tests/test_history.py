from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asgi_comet.core.history import History, Received
from asgi_comet.core.messages import Message


def data(history: History, after: int, max_bytes: int | None = None) -> list[bytes] | None:
    run = history.after(after, max_bytes)
    return None if run is None else [message.data for message in run]


def filled(*messages: bytes, size: int = 10, max_bytes: int = 1000) -> History:
    history = History(size=size, max_bytes=max_bytes)
    for message in messages:
        history.append(message)
    return history


def test_offsets_are_dense_from_one() -> None:
    history = History(size=3, max_bytes=100)
    assert [history.append(b"x") for _ in range(5)] == [1, 2, 3, 4, 5]
    assert history.top == 5
    assert str(history.position) == f"{history.epoch}.5"


def test_the_epoch_is_new_for_every_incarnation_and_fits_a_position() -> None:
    epochs = {History(size=1, max_bytes=1).epoch for _ in range(100)}
    assert len(epochs) == 100
    assert all(len(epoch) <= 32 for epoch in epochs)
    assert History(size=1, max_bytes=1, epoch="given").epoch == "given"


def test_a_reader_gets_the_run_right_after_its_offset() -> None:
    history = filled(b"a", b"b", b"c")
    assert data(history, 0) == [b"a", b"b", b"c"]
    assert data(history, 2) == [b"c"]
    assert data(history, 3) == []


def test_a_reader_behind_the_history_or_beyond_its_top_gets_a_gap() -> None:
    history = filled(b"a", b"b", b"c", size=2)
    assert data(history, 0) is None
    assert data(history, 1) == [b"b", b"c"]
    assert data(history, 4) is None


def test_bounded_by_count_at_n_and_n_plus_one() -> None:
    history = filled(*[b"x"] * 3, size=3)
    assert (len(history), history.first) == (3, 1)
    history.append(b"x")
    assert (len(history), history.first) == (3, 2)


def test_bounded_by_bytes_at_n_and_n_plus_one() -> None:
    history = filled(b"aaaa", b"bbbb", max_bytes=8)
    assert (len(history), history.bytes) == (2, 8)
    history.append(b"c")
    assert (data(history, 1), history.bytes) == ([b"bbbb", b"c"], 5)


def test_a_message_over_the_bytes_is_held_alone() -> None:
    history = filled(b"a", b"b" * 20, max_bytes=8)
    assert data(history, 1) == [b"b" * 20]
    history.append(b"c")
    assert data(history, 2) == [b"c"]
    assert history.bytes == 1


@pytest.mark.parametrize(("limit", "count"), [(0, 1), (1, 1), (3, 1), (4, 2), (6, 3), (99, 3)])
def test_a_run_is_cut_to_bytes_but_has_one_message(limit: int, count: int) -> None:
    history = filled(b"aa", b"bb", b"cc")
    run = data(history, 0, limit)
    assert run == [b"aa", b"bb", b"cc"][:count]


def test_what_was_acknowledged_can_be_dropped() -> None:
    history = filled(b"a", b"b", b"c")
    history.drop_through(2)
    assert (data(history, 1), data(history, 2), history.bytes) == (None, [b"c"], 1)
    history.drop_through(99)
    assert (len(history), history.bytes, history.top) == (0, 0, 3)
    assert data(history, 3) == []
    assert history.append(b"d") == 4


class HistoryMachine(RuleBasedStateMachine):
    """The history against a plain list that keeps everything."""

    @initialize(size=st.integers(1, 5), max_bytes=st.integers(1, 20))
    def start(self, size: int, max_bytes: int) -> None:
        self.history = History(size=size, max_bytes=max_bytes)
        self.everything: list[bytes] = []
        self.dropped = 0

    @rule(message=st.binary(max_size=8))
    def append(self, message: bytes) -> None:
        self.everything.append(message)
        assert self.history.append(message) == len(self.everything)

    @rule(offset=st.integers(0, 12))
    def acknowledge(self, offset: int) -> None:
        self.history.drop_through(offset)
        self.dropped = max(self.dropped, min(offset, len(self.everything)))

    @rule(after=st.integers(0, 40), max_bytes=st.none() | st.integers(0, 20))
    def read(self, after: int, max_bytes: int | None) -> None:
        run = self.history.after(after, max_bytes)
        held = self.held()
        if not len(self.everything) - len(held) <= after <= len(self.everything):
            assert run is None
            return
        assert run is not None
        assert [m.offset for m in run] == list(range(after + 1, after + 1 + len(run)))
        rest = self.everything[after:]
        assert [m.data for m in run] == rest[: len(run)]
        if max_bytes is None:
            assert len(run) == len(rest)
        elif len(run) < len(rest):
            assert run
            assert sum(map(len, rest[: len(run) + 1])) > max_bytes
        if len(run) > 1 and max_bytes is not None:
            assert sum(len(m.data) for m in run) <= max_bytes

    def held(self) -> list[bytes]:
        """The newest messages that fit both bounds, the newest one in any case."""
        kept = self.everything[self.dropped :][-self.history.size :]
        while len(kept) > 1 and sum(map(len, kept)) > self.history.max_bytes:
            kept = kept[1:]
        return kept

    @invariant()
    def agrees(self) -> None:
        held = self.held()
        # Bounds are applied at each append, so what was dropped once does not come back.
        assert len(self.history) == len(held)
        assert self.history.bytes == sum(map(len, held))
        self.dropped = len(self.everything) - len(held)


TestHistoryAgainstAList = HistoryMachine.TestCase


# What another history has given offsets


def messages(first: int, count: int) -> list[Message]:
    return [Message(n, b"%d" % n) for n in range(first, first + count)]


def test_received_messages_keep_their_offsets() -> None:
    history = History(size=10, max_bytes=100, epoch="e")
    assert history.receive("e", 1, messages(1, 3)) is Received.APPENDED
    assert history.receive("e", 2, messages(2, 4)) is Received.APPENDED
    assert history.after(0) == messages(1, 5)
    assert history.receive("e", 1, messages(1, 5)) is Received.KNOWN
    assert history.receive("e", 6, []) is Received.KNOWN
    assert history.after(0) == messages(1, 5)


def test_what_does_not_follow_is_not_received() -> None:
    history = History(size=10, max_bytes=100, epoch="e")
    history.receive("e", 1, messages(1, 3))
    assert history.receive("e", 5, messages(5, 3)) is Received.GAP
    assert history.receive("f", 4, messages(4, 1)) is Received.OTHER_EPOCH
    assert history.after(0) == messages(1, 3)


def test_after_a_reset_it_begins_with_an_offset_of_another_epoch() -> None:
    history = History(size=2, max_bytes=100, epoch="e")
    history.receive("e", 1, messages(1, 3))
    history.reset("f", 8)
    assert (history.epoch, history.first, history.top, len(history)) == ("f", 8, 7, 0)
    assert history.bytes == 0
    assert history.after(7) == []
    assert history.after(6) is None
    assert history.receive("f", 7, messages(7, 4)) is Received.APPENDED
    assert history.after(8) == messages(9, 2)


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5))))
def test_whatever_comes_it_holds_the_newest_messages_without_a_gap(
    runs: list[tuple[int, int]],
) -> None:
    history = History(size=4, max_bytes=1000, epoch="e")
    for first, count in runs:
        top = history.top
        received = history.receive("e", first, messages(first, count))
        follows = first <= top + 1
        reached = max(top, first + count - 1) if follows else top
        assert history.top == reached
        assert (received is Received.GAP) == (not follows)
        assert (received is Received.APPENDED) == (reached > top)
        held = min(4, reached)
        assert history.after(reached - held) == messages(reached - held + 1, held)
