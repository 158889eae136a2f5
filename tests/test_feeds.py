"""What a history decides of docs/semantics.md#kinds-of-channel, and positions."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_comet import ChannelClosed, ChannelFull, Outcome
from asgi_comet.brokers.audience import Progress
from asgi_comet.channels.directory import Directory
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.core.history import History
from asgi_comet.core.messages import NEXT_INCARNATION, Last, Message, Now
from asgi_comet.core.runs import Encoder
from asgi_comet.position import Position
from asgi_comet.testing._inspect import encoded, encoded_bytes
from asgi_comet.transports.subscribing import ending

KINDS = list(Kind)


def write(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
    return [b"%d:%s" % (m.offset, m.data) for m in messages]


encode = Encoder(write, b" ".join, gap=1)


def make(kind: Kind, *messages: bytes, size: int = 10, max_bytes: int = 1000) -> Feed:
    history = History(size=1 if kind is Kind.NEWEST else size, max_bytes=max_bytes, epoch="e")
    feed = Feed("f", kind, history, Directory(threading.Lock()))
    for message in messages:
        feed.append(message)
    return feed


def read(feed: Feed, after: int, max_bytes: int | None = None) -> bytes | None:
    chunk = feed.render(encode, after, max_bytes)
    if chunk is None:
        return None
    data: bytes = chunk.data
    return data


# Too slow a reader


def test_site_the_oldest_are_dropped_and_asking_for_one_is_a_gap() -> None:
    feed = make(Kind.SITE, *[b"m"] * 11)
    assert read(feed, 0) is None
    assert read(feed, 1) is not None
    assert feed.history.top == 11


def test_process_is_full_when_a_message_never_sent_would_have_to_go() -> None:
    feed = make(Kind.PROCESS, *[b"m"] * 10)
    with pytest.raises(ChannelFull, match="'f'") as caught:
        feed.append(b"one too many")
    assert caught.value.name == "f"
    assert (len(feed.history), feed.history.bytes) == (0, 0)
    assert not feed.readable
    with pytest.raises(ChannelFull):
        feed.append(b"never again")


def test_process_is_full_by_bytes_at_n_and_n_plus_one() -> None:
    feed = make(Kind.PROCESS, b"aaaa", b"bbbb", max_bytes=8)
    assert feed.history.bytes == 8
    with pytest.raises(ChannelFull):
        feed.append(b"c")


def test_process_what_was_sent_but_not_acknowledged_may_be_dropped_and_is_then_a_gap() -> None:
    feed = make(Kind.PROCESS, *[b"m"] * 10)
    feed.mark_sent(2)
    feed.append(b"m")
    feed.append(b"m")
    assert read(feed, 1) is None
    assert read(feed, 2) is not None
    with pytest.raises(ChannelFull):
        feed.append(b"m")


def test_process_what_was_acknowledged_makes_room() -> None:
    feed = make(Kind.PROCESS, *[b"m"] * 10)
    feed.acknowledge(9)
    assert (len(feed.history), feed.history.first) == (1, 10)
    for _ in range(9):
        feed.append(b"m")
    with pytest.raises(ChannelFull):
        feed.append(b"m")


def test_site_acknowledging_drops_nothing_for_others() -> None:
    feed = make(Kind.SITE, b"a", b"b")
    feed.acknowledge(2)
    assert read(feed, 0) == b"1:a 2:b"


def test_an_acknowledgement_of_the_only_client_confirms_all_up_to_it() -> None:
    feed = make(Kind.PROCESS, b"a", b"b", b"c")
    feed.acknowledge(2)
    assert [feed.outcomes.of(n) for n in (1, 2, 3)] == [Outcome.SUCCESS, Outcome.SUCCESS, None]


@pytest.mark.parametrize("epoch", ["e", "another"])
def test_nothing_is_known_of_the_messages_of_another_epoch(epoch: str) -> None:
    feed = make(Kind.PROCESS, b"1", b"2")
    feed.acknowledge(2)
    feed.reset(epoch, 1)
    known = Outcome.SUCCESS if epoch == "e" else None
    assert (feed.outcomes.of(1), feed.window) == (known, 12 if known else 10)


def test_all_at_the_same_place_share_what_is_rendered_until_something_comes() -> None:
    feed = make(Kind.SITE, b"a")
    first = feed.render(encode, 0)
    assert feed.render(encode, 0) is first
    feed.append(b"b")
    assert feed.render(encode, 0) is not first
    assert read(feed, 0) == b"1:a 2:b"


def test_a_run_is_written_without_the_lock_so_that_its_html_may_use_the_channel() -> None:
    feed = make(Kind.SITE, b"a")

    def write_and_publish(name: str, epoch: str, messages: Sequence[Message]) -> list[bytes]:
        assert not feed.lock.locked()
        if feed.history.top == 1:
            feed.append(b"b")
        return write(name, epoch, messages)

    publishing = Encoder(write_and_publish, b" ".join, gap=1)
    for expected in (b"1:a", b"1:a 2:b"):  # what lacks a message is not kept
        chunk = feed.render(publishing, 0)
        assert chunk is not None
        assert chunk.data == expected


def test_what_was_acknowledged_is_not_kept_in_encoded_form_either() -> None:
    feed = make(Kind.PROCESS, b"a" * 100, b"b")
    assert read(feed, 0) is not None
    assert encoded_bytes(feed) > 100
    feed.acknowledge(1)
    assert encoded(feed) == {}
    assert read(feed, 0) is None
    assert read(feed, 1) == b"2:b"


@given(st.lists(st.sampled_from(["append", "send", "acknowledge"]), max_size=60))
def test_process_never_loses_a_message_that_was_not_sent(steps: list[str]) -> None:
    feed, sent, top = make(Kind.PROCESS, size=3), 0, 0
    for step in steps:
        if step == "append":
            try:
                top = feed.append(b"m")
            except ChannelFull:
                assert top - sent == 3  # exactly: as many as it may hold were never sent
                return
        elif step == "send":
            feed.mark_sent(top)
            sent = top
        else:
            feed.acknowledge(sent)
        assert read(feed, sent) is not None


# The newest


def test_newest_holds_one_message_and_never_has_a_gap() -> None:
    feed = make(Kind.NEWEST, b"a", b"b", b"c")
    assert len(feed.history) == 1
    for after in (0, 1, 2):
        assert read(feed, after) == b"3:c"
    assert read(feed, 3) == b""


@pytest.mark.parametrize(
    ("start", "offset"),
    [
        (Position("e", 2), 2),
        (Position("e", 3), 3),
        (Position("e", 99), 3),
        (Position("other", 99), 0),
        (Now(), 3),
        (Last(1), 2),
        (Last(9), 2),
        (Last(0), 3),
    ],
)
def test_newest_answers_what_is_newer_whatever_the_epoch(start: Position, offset: int) -> None:
    assert make(Kind.NEWEST, b"a", b"b", b"c").locate(start) == offset


# Positions


@pytest.mark.parametrize(
    ("start", "offset"),
    [
        (Now(), 12),
        (Last(0), 12),
        (Last(3), 9),
        (Last(10), 2),
        (Last(99), 2),
        (Position("e", 12), 12),
        (Position("e", 5), 5),
        (Position("e", 0), 0),
        (Position("e", 13), None),
        (Position("x", 5), None),
        (Position("x", 0), None),
        (NEXT_INCARNATION, None),
    ],
)
def test_where_a_start_leads_on_a_site_channel(start: Position, offset: int | None) -> None:
    assert make(Kind.SITE, *[b"m"] * 12).locate(start) == offset


@pytest.mark.parametrize("kind", [Kind.PROCESS, Kind.UNLIMITED])
def test_before_it_existed_leads_to_the_first_message_of_a_process_channel(kind: Kind) -> None:
    feed = make(kind, b"a")
    assert feed.locate(NEXT_INCARNATION) == 0
    assert read(feed, 0) == b"1:a"


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_channel_places_everybody_at_zero(kind: Kind) -> None:
    feed = make(kind)
    assert [feed.locate(start) for start in (Now(), Last(5), Position("e", 0))] == [0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_channel_can_be_read_but_not_written(kind: Kind) -> None:
    feed = make(kind, b"a")
    feed.closed = "failed"
    with pytest.raises(ChannelClosed, match="failed"):
        feed.append(b"b")
    assert read(feed, 0) == b"1:a"


def test_a_run_is_cut_to_size_and_tells_how_far_it_reaches() -> None:
    feed = make(Kind.SITE, b"aa", b"bb", b"cc")
    for after, max_bytes, expected in (
        (0, 9, (b"1:aa 2:bb", 2)),
        (0, 8, (b"1:aa", 1)),
        (2, 9, (b"3:cc", 3)),
        (0, 1, (b"1:aa", 1)),
        (0, None, (b"1:aa 2:bb 3:cc", 3)),
    ):
        chunk = feed.render(encode, after, max_bytes)
        assert chunk is not None
        assert (chunk.data, chunk.upto) == expected


def test_publishing_in_threads_gives_dense_offsets_in_each_callers_order() -> None:
    feed = make(Kind.SITE, size=10_000, max_bytes=10**9)
    mine: list[list[int]] = [[] for _ in range(4)]

    def work(own: list[int]) -> None:
        own.extend(feed.append(b"m") for _ in range(1000))

    threads = [threading.Thread(target=work, args=(own,)) for own in mine]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in mine)
    assert sorted(n for own in mine for n in own) == list(range(1, 4001))


# Messages that a client is told to skip


def test_the_position_after_skipped_messages_confirms_none_of_them() -> None:
    feed = make(Kind.PROCESS, *[b"m"] * 6)
    feed.acknowledge(2)
    feed.skip(5)
    feed.skip(4)
    for offset in (3, 5, 6):
        feed.acknowledge(offset)
    assert [feed.outcomes.of(n) for n in range(1, 7)] == [
        *[Outcome.SUCCESS] * 2, *[Outcome.UNKNOWN] * 3, Outcome.SUCCESS
    ]  # fmt: skip


def test_a_client_that_has_all_messages_can_skip_none() -> None:
    feed = make(Kind.PROCESS, *[b"m"] * 3)
    feed.acknowledge(3)
    feed.skip(3)
    assert feed.outcomes.skipped == 0


def test_on_a_site_channel_one_client_skips_nothing_for_the_others() -> None:
    feed = make(Kind.SITE, *[b"m"] * 3)
    feed.skip(3)
    assert (feed.outcomes.skipped, feed.outcomes.of(3)) == (0, None)


def test_nothing_is_learnt_of_another_epoch() -> None:
    feed = make(Kind.PROCESS, *[b"m"] * 3)
    feed.learn(None)
    feed.learn(Progress("other", 3, 3))
    assert feed.outcomes.of(1) is None
    feed.learn(Progress("e", 3, 2))
    assert [feed.outcomes.of(n) for n in (2, 3)] == [Outcome.SUCCESS, None]


@pytest.mark.parametrize("count", [2, 5])
def test_what_the_next_incarnation_holds_no_more_is_skipped(count: int) -> None:
    feed, following = make(Kind.PROCESS, b"m"), make(Kind.PROCESS, size=2)
    following.mark_sent(count)
    for _ in range(count):
        following.append(b"m")
    following.succeed(feed)
    assert ending(feed).position == Position("e", count - 2)
    assert following.outcomes.skipped == count - 2
    assert following.outcomes.of(count - 1) is None
