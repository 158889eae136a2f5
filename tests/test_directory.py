from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from asgi_comet import NonUniqueChannelName, ProcessClosed
from asgi_comet.channels.directory import ENDED_NAMES, Directory
from asgi_comet.channels.feed import Feed
from asgi_comet.channels.kind import Kind
from asgi_comet.core.history import History
from asgi_comet.testing._inspect import expected, past_names
from tests.kit.listening import Ear


def make() -> Directory:
    return Directory(threading.Lock(), "a process")


def make_feed(directory: Directory, name: str = "a") -> Feed:
    return Feed(name, Kind.SITE, History(size=1, max_bytes=1), directory)


def add(directory: Directory, name: str = "a") -> Feed:
    feed = make_feed(directory, name)
    with directory.lock:
        directory.add(feed)
    return feed


def test_a_live_feed_is_found_by_its_name() -> None:
    directory = make()
    feed = add(directory)
    assert directory.find("a") is feed
    assert directory.find("b") is None
    assert (len(directory), directory.feeds()) == (1, [feed])


def test_a_second_live_feed_of_a_name_is_refused_and_changes_nothing() -> None:
    directory, ear = make(), Ear()
    feed = add(directory)
    assert directory.expect("a", ear) is feed  # there is nothing to wait for
    with pytest.raises(NonUniqueChannelName, match="'a', which is taken"):
        add(directory)
    assert (directory.find("a"), len(directory)) == (feed, 1)
    assert ear.expected == ()


def test_directories_of_one_lock_have_their_own_names() -> None:
    lock = threading.Lock()
    one, other = Directory(lock), Directory(lock)
    assert one.lock is other.lock
    assert add(one) is not add(other)


def test_an_ended_feed_that_is_kept_can_be_read_and_its_name_is_free() -> None:
    directory = make()
    feed = add(directory)
    assert directory.end(feed, keep=True)
    assert (directory.find("a"), len(directory), directory.feeds()) == (feed, 0, [feed])
    namesake = add(directory)
    assert (directory.find("a"), directory.feeds()) == (namesake, [namesake])


def test_an_ended_feed_that_is_not_kept_is_gone() -> None:
    directory = make()
    assert directory.end(add(directory), keep=False)
    assert (directory.find("a"), len(directory), directory.feeds()) == (None, 0, [])


def test_only_a_live_feed_ends_and_never_its_namesake() -> None:
    directory = make()
    feed = add(directory)
    stranger = make_feed(directory)
    assert not directory.end(stranger, keep=True)
    assert directory.end(feed, keep=True)
    assert not directory.end(feed, keep=True)
    namesake = add(directory)
    assert not directory.end(feed, keep=False)
    assert directory.find("a") is namesake


@pytest.mark.parametrize("keep", [True, False])
def test_a_forgotten_feed_is_gone_but_its_name_is_of_the_past(keep: bool) -> None:
    directory = make()
    feed = add(directory)
    directory.end(feed, keep=keep)
    assert not directory.is_past("a")
    directory.forget(feed)
    assert (directory.find("a"), directory.is_past("a"), directory.is_past("b")) == (
        None,
        True,
        False,
    )


def test_forgetting_leaves_a_namesake_alone() -> None:
    directory = make()
    feed = add(directory)
    directory.end(feed, keep=True)
    namesake = add(directory)
    directory.forget(feed)
    assert (directory.find("a"), directory.is_past("a")) == (namesake, False)
    directory.end(namesake, keep=True)
    directory.forget(feed)
    assert directory.find("a") is namesake


def test_a_name_is_of_the_past_until_there_is_a_new_one_or_somebody_begins_anew() -> None:
    directory = make()
    for begin in (lambda: add(directory), lambda: directory.begin_anew("a")):
        feed = directory.find("a") or add(directory)
        directory.end(feed, keep=False)
        directory.forget(feed)
        assert directory.is_past("a")
        begin()
        assert not directory.is_past("a")
    directory.begin_anew("never there")


def test_names_of_the_past_are_bounded_at_n_and_n_plus_one_and_the_oldest_goes() -> None:
    directory = make()

    def come_and_go(number: int) -> None:
        feed = add(directory, str(number))
        directory.end(feed, keep=False)
        directory.forget(feed)

    for number in range(ENDED_NAMES):
        come_and_go(number)
    assert all(directory.is_past(str(number)) for number in range(ENDED_NAMES))
    come_and_go(ENDED_NAMES)
    assert not directory.is_past("0")
    assert all(directory.is_past(str(number)) for number in range(1, ENDED_NAMES + 1))
    assert len(past_names(directory)) == ENDED_NAMES


def test_those_who_waited_are_told_by_the_feed_that_comes() -> None:
    directory = make()
    one, two, other = Ear(), Ear(), Ear()
    directory.expect("a", one)
    directory.expect("a", two)
    directory.expect("b", other)
    with directory.lock:
        assert directory.add(make_feed(directory)) == {one, two}
        assert directory.add(make_feed(directory, "c")) == set()
    assert list(expected(directory)) == ["b"]


def test_who_waits_no_more_leaves_nothing() -> None:
    directory = make()
    one, two = Ear(), Ear()
    directory.expect("a", one)
    directory.expect("a", two)
    assert one.expected == ((directory, "a"),)
    directory.unexpect("a", one)
    directory.unexpect("a", one)
    assert expected(directory) == {"a": {two}}
    directory.unexpect("a", two)
    directory.unexpect("a", two)
    directory.unexpect("never", two)
    assert expected(directory) == {}


def test_threads_that_compete_for_a_name_get_it_one_at_a_time() -> None:
    directory = make()

    def compete(_: int) -> tuple[int, int]:
        won = ended = 0
        for _ in range(500):
            try:
                feed = add(directory)
            except NonUniqueChannelName:
                continue
            won += 1
            ended += directory.end(feed, keep=won % 2 == 0)
            directory.forget(feed)
        return won, ended

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(compete, range(8)))
    assert all(won == ended for won, ended in results)
    assert (len(directory), directory.feeds()) == (0, [])


def test_channels_that_ended_and_can_be_read_are_bounded_and_the_oldest_go_first() -> None:
    directory = make()
    for number in range(ENDED_NAMES + 1):
        directory.end(add(directory, f"c{number}"), keep=True)
    assert directory.find("c0") is None
    assert directory.is_past("c0")
    assert directory.find("c1") is not None


def test_one_that_closed_takes_no_more_feeds() -> None:
    directory = make()
    feed = add(directory)
    assert directory.close() == [feed]
    with pytest.raises(ProcessClosed):
        add(directory, "b")
