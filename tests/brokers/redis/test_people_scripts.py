"""What the scripts of sessions and client processes do, one by one.

Each call runs twice: it recognises its own repetition. Time is told by moving deadlines.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError

from asgi_comet.brokers.audience import Progress
from asgi_comet.brokers.redis.calls import Group, Item, Living, Log
from asgi_comet.brokers.redis.keys import Keys, ProcessKeys, SessionKeys
from asgi_comet.brokers.redis.pages import Page
from asgi_comet.brokers.redis.people_calls import Announced, Mark, Reader
from asgi_comet.brokers.redis.people_replies import (
    Changed,
    Claimed,
    Closed,
    Closing,
    Crowded,
    Entered,
    Made,
    Missing,
    Moved,
    Others,
    OwnPage,
    Replaced,
    Unexpired,
    Visited,
    read_refusal,
)
from asgi_comet.brokers.redis.people_scripts import PeopleScripts
from asgi_comet.brokers.redis.replies import Ended, Gone, Opened, Refused, Stored
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.brokers.redis.stock_scripts import OWN, StockScripts
from asgi_comet.core.messages import First, Last, Message, Now, Start
from asgi_comet.position import Position
from tests.kit.redis import Client, RedisServer, milliseconds, run

KEYS = Keys()
SCRIPTS = Scripts(KEYS)
PEOPLE = PeopleScripts(KEYS)
PARTITION = KEYS.partition_of("ab")
S, NEW, OTHER = KEYS.session("abS"), KEYS.session("abNEW"), KEYS.session("abOTHER")
P, Q = KEYS.process("abP"), KEYS.process("abQ")
P_AS_SESSION = KEYS.session("abP")
FIRST, LATE, TIMEOUT = 30_000, 90_000, 600_000
HOUR, MONTH = 3_600_000, 30 * 24 * 3_600_000
UNKNOWN_SESSION = Visited("", None, "", 0, False, "", False)


def twice(client: Client, call: Any) -> Any:
    return run(client, call, times=2)


def opened(client: Client, *processes: ProcessKeys, of: SessionKeys = S) -> None:
    for process in processes:
        assert twice(client, PEOPLE.open_process(of, process)) == Made(process.id)


def connected(client: Client, process: ProcessKeys, worker: str = "V") -> None:
    assert twice(client, PEOPLE.enter(S, process, worker)) == Entered()


def remaining(client: Client, process: ProcessKeys) -> float | None:
    """Return how many ms there are until the deadline."""
    seconds, micros = client.time()
    deadline = client.zscore(process.deadlines, process.id)
    return None if deadline is None else deadline - seconds * 1000 - micros // 1000


def about(ms: float) -> Any:
    return pytest.approx(ms, abs=20_000)


def expired(client: Client, process: ProcessKeys) -> None:
    client.zadd(process.deadlines, {process.id: 1})


def members(client: Client, session: SessionKeys) -> list[str]:
    return [one.decode() for one in client.zrange(session.processes, 0, -1)]


def visit(client: Client, session: SessionKeys, process: ProcessKeys | None = None) -> Visited:
    found = twice(client, PEOPLE.visit(session, process))
    assert isinstance(found, Visited)
    return found


def move(client: Client, *processes: ProcessKeys, user: bytes | None, **more: Any) -> Any:
    return twice(client, PEOPLE.move(S, NEW, processes, user=user, **more))


# Keys


def test_the_names_of_the_keys() -> None:
    assert KEYS.partition_of("AA") == 0
    assert KEYS.partition_of("__") == 4095 % 64
    assert KEYS.partition_of("BA") == 0
    assert Keys("comet", 4096).partition_of("BA") == 64
    assert KEYS.session("AAx").session == "comet:{10}s:AAx"
    assert KEYS.session("AAx").processes == "comet:{10}sp:AAx"
    assert KEYS.session("AAx").heir == "comet:{10}f:AAx"
    process = KEYS.process("AAy")
    assert process.process == "comet:{10}p:AAy"
    assert (process.channels, process.audiences) == ("comet:{10}pc:AAy", "comet:{10}pk:AAy")
    assert process.registered == "comet:{10}reg:AAy"
    assert process.deadlines == KEYS.deadlines(0) == "comet:{10}exp"
    assert process.closing == KEYS.closing(0) == "comet:{10}closing"


def test_the_keys_of_an_own_channel_are_beside_its_process() -> None:
    channel = KEYS.process("AAy").channel("a b")
    assert channel.meta == "comet:{10}c:~AAy~a b"
    assert channel.name == channel.topic == "~AAy~a b"


@pytest.mark.parametrize("id_", ["", "A", "A~x", "~Ax", "é9"])
def test_an_id_without_a_partition_is_refused(id_: str) -> None:
    with pytest.raises(ValueError, match="expected an id that begins with its partition"):
        KEYS.process(id_)


def test_ids_of_different_partitions_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 'ACx' in the partition of 'abS'"):
        PEOPLE.visit(S, KEYS.process("ACx"))


def test_a_reply_that_no_script_gives_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected why a client process is refused"):
        read_refusal([b"other"])


# visit


def test_a_visit_of_an_unknown_session_and_process(client: Client) -> None:
    assert visit(client, S) == visit(client, S, P) == UNKNOWN_SESSION
    assert client.keys() == []


def test_a_visit_tells_of_user_default_and_process(client: Client) -> None:
    twice(client, PEOPLE.open_process(S, P, default=True))
    assert visit(client, S, P) == Visited("", None, "abP", 1, False, "abS", False, ("abP",))
    assert visit(client, OTHER, P) == Visited("", None, "", 0, False, "abS", False)
    move(client, P, user=b'"ann"', keep=True)
    assert visit(client, NEW, P) == Visited("", b'"ann"', "abP", 0, True, "abNEW", False, ("abP",))
    assert visit(client, S).heir == "abNEW"


def test_a_visit_is_answered_when_redis_is_full(client: Client) -> None:
    opened(client, P)
    used = client.info("memory")["used_memory"]
    client.config_set("maxmemory", used // 2)
    try:
        assert visit(client, S, P).session == "abS"
        assert twice(client, PEOPLE.enter(S, P, "V")) == Entered()
        assert twice(client, PEOPLE.touch(PARTITION, ["abP"])) == ()
        assert twice(client, PEOPLE.leave(P, "V"))
        assert isinstance(twice(client, PEOPLE.claim(S, P, Reader("V", 1), [])), Claimed)
        assert twice(client, PEOPLE.save(P, Reader("V", 1), b"state"))
        assert run(client, PEOPLE.bury([P.id], counted(client, "V"))) == 1
        with pytest.raises(OutOfMemoryError):
            run(client, PEOPLE.open_process(S, Q))
        assert move(client, P, user=b"1") == Changed(("abP",), closed=False)
        assert isinstance(twice(client, PEOPLE.close(NEW, P)), Closing)
        assert run(client, PEOPLE.finish(P, []))
    finally:
        client.config_set("maxmemory", 0)


# open_process


def test_a_process_is_opened_once(client: Client) -> None:
    opened(client, P)
    assert members(client, S) == ["abP"]
    assert remaining(client, P) == about(FIRST)
    expired(client, P)
    opened(client, P)
    assert client.zscore(P.deadlines, "abP") == 1
    assert client.pttl(P.process) == -1


def test_the_first_deadline_is_the_timeout_if_that_is_shorter(client: Client) -> None:
    run(client, PeopleScripts(KEYS, timeout=2).open_process(S, P))
    left = remaining(client, P)
    assert left is not None
    assert left <= 2


def test_a_process_of_another_session_is_not_opened(client: Client) -> None:
    opened(client, P)
    assert twice(client, PEOPLE.open_process(OTHER, P)) == Moved("abS")
    assert members(client, OTHER) == []


def test_a_process_that_has_closed_is_not_opened_again(client: Client) -> None:
    opened(client, P)
    twice(client, PEOPLE.close(S, P))
    assert twice(client, PEOPLE.open_process(S, P)) == Closed()
    run(client, PEOPLE.finish(P, []))
    assert twice(client, PEOPLE.open_process(S, P)) == Closed()


def test_two_workers_that_need_the_default_process_get_one(client: Client) -> None:
    assert twice(client, PEOPLE.open_process(S, P, default=True)) == Made("abP")
    assert twice(client, PEOPLE.open_process(S, Q, default=True)) == Made("abP")
    assert not client.exists(Q.process)
    assert visit(client, S).defaults == 1


def test_the_next_default_process_has_another_number(client: Client) -> None:
    twice(client, PEOPLE.open_process(S, P, default=True))
    twice(client, PEOPLE.close(S, P))
    assert visit(client, S) == Visited("", None, "", 1, False, "", False)
    assert 0 < client.pttl(S.session) <= HOUR
    assert twice(client, PEOPLE.open_process(S, Q, default=True)) == Made("abQ")
    assert visit(client, S).defaults == 2
    assert client.pttl(S.session) == -1


def test_the_default_process_stays_when_another_one_closes(client: Client) -> None:
    twice(client, PEOPLE.open_process(S, P, default=True))
    opened(client, Q)
    twice(client, PEOPLE.close(S, Q))
    assert visit(client, S).default == "abP"
    opened(client, KEYS.process("abR"))
    twice(client, PEOPLE.close(S, P))
    assert visit(client, S).default == ""


def many(client: Client, count: int) -> list[ProcessKeys]:
    """Open processes; the first is the oldest, by a second each."""
    found = [KEYS.process(f"ab{number:02}") for number in range(count)]
    opened(client, *found)
    seconds = client.time()[0]
    for number, one in enumerate(found):
        client.zadd(S.processes, {one.id: seconds * 1000 - (count - number) * 1000})
    return found


def test_a_session_has_32_processes_and_the_longest_idle_closes_for_the_next(
    client: Client,
) -> None:
    found = many(client, 31)
    opened(client, P)
    assert len(members(client, S)) == 32
    assert twice(client, PEOPLE.open_process(S, Q)) == Crowded("ab00")
    assert not client.exists(Q.process)
    call = PEOPLE.open_process(S, Q, instead_of=found[1])  # not the longest idle
    assert twice(client, call) == Crowded("ab00")
    assert twice(client, PEOPLE.open_process(S, Q, instead_of=found[0])) == Made("abQ")
    assert len(members(client, S)) == 32
    assert "ab00" not in members(client, S)
    assert twice(client, PEOPLE.close(S, found[0])) == Closing(frozenset(), {}, frozenset(), "abS")


def test_a_connected_process_is_not_idle(client: Client) -> None:
    found = many(client, 32)
    for one in found[:-1]:
        connected(client, one)
    assert twice(client, PEOPLE.open_process(S, Q)) == Crowded("ab31")
    connected(client, found[-1])
    assert twice(client, PEOPLE.open_process(S, Q)) == Crowded("")
    run(client, PEOPLE.leave(found[3], "V"))
    assert twice(client, PEOPLE.open_process(S, Q)) == Crowded("ab03")


def test_the_idle_time_begins_with_the_last_disconnect(client: Client) -> None:
    found = many(client, 32)
    connected(client, found[0])
    twice(client, PEOPLE.leave(found[0], "V"))
    assert twice(client, PEOPLE.open_process(S, Q)) == Crowded("ab01")


def test_a_process_that_was_never_connected_is_idle_since_it_was_opened(client: Client) -> None:
    opened(client, P, Q)
    client.zadd(S.processes, {"abP": 1})
    ten_seconds_ago = client.time()[0] * 1000 - 10_000
    client.zadd(P.deadlines, {"abP": ten_seconds_ago + TIMEOUT})  # when its connection closed
    call = PeopleScripts(KEYS, most=2).open_process(S, KEYS.process("abR"))
    assert twice(client, call) == Crowded("abP")


def test_a_default_process_closed_for_another_one_is_not_the_default(client: Client) -> None:
    twice(client, PEOPLE.open_process(S, P, default=True))
    scripts = PeopleScripts(KEYS, most=1)
    assert twice(client, scripts.open_process(S, Q, instead_of=P)) == Made("abQ")
    assert visit(client, S).default == ""
    assert client.pttl(S.session) == -1


# enter, leave, touch, late


def test_a_connected_process_has_a_later_deadline_until_the_last_worker_leaves(
    client: Client,
) -> None:
    opened(client, P)
    connected(client, P, "V")
    connected(client, P, "W")
    assert remaining(client, P) == about(TIMEOUT + LATE)
    assert twice(client, PEOPLE.leave(P, "V"))
    assert remaining(client, P) == about(TIMEOUT + LATE)
    assert twice(client, PEOPLE.leave(P, "W"))
    assert remaining(client, P) == about(TIMEOUT)


def test_a_repeated_leave_does_not_move_the_deadline(client: Client) -> None:
    opened(client, P)
    connected(client, P)
    twice(client, PEOPLE.leave(P, "V"))
    expired(client, P)
    twice(client, PEOPLE.leave(P, "V"))
    assert client.zscore(P.deadlines, "abP") == 1


def test_nothing_is_made_by_a_connection_of_a_process_that_is_not_there(client: Client) -> None:
    assert twice(client, PEOPLE.enter(S, P, "V")) == Closed()
    assert not twice(client, PEOPLE.leave(P, "V"))
    assert twice(client, PEOPLE.touch(PARTITION, ["abP", "abQ"])) == ("abP", "abQ")
    assert client.keys() == []


def test_a_closed_process_and_one_of_another_session_are_not_entered(client: Client) -> None:
    opened(client, P)
    connected(client, P)
    assert twice(client, PEOPLE.enter(OTHER, P, "W")) == Moved("abS")
    twice(client, PEOPLE.close(S, P))
    assert twice(client, PEOPLE.enter(S, P, "W")) == Closed()
    assert not twice(client, PEOPLE.leave(P, "V"))
    assert remaining(client, P) is None


def test_touch_postpones_and_never_hastens(client: Client) -> None:
    opened(client, P, Q)
    later = client.time()[0] * 1000 + 10 * TIMEOUT
    client.zadd(Q.deadlines, {"abQ": later})
    assert twice(client, PEOPLE.touch(PARTITION, ["abP", "abX", "abQ"])) == ("abX",)
    assert remaining(client, P) == about(TIMEOUT + LATE)
    assert client.zscore(Q.deadlines, "abQ") == later


def test_touch_puts_a_lost_deadline_back(client: Client) -> None:
    opened(client, P, Q)
    client.delete(P.deadlines)
    assert twice(client, PEOPLE.touch(PARTITION, ["abP"])) == ()
    assert remaining(client, P) == about(TIMEOUT + LATE)
    assert remaining(client, Q) is None


def test_a_lost_process_is_not_touched(client: Client) -> None:
    opened(client, P)
    connected(client, P)
    client.delete(P.process)
    assert twice(client, PEOPLE.touch(PARTITION, ["abP"])) == ("abP",)
    assert not client.exists(P.process)


# Dead workers


def counted(client: Client, *workers: str) -> Living:
    """Count the living workers a moment later."""
    return Living(frozenset(workers), milliseconds(client) + 1)


def workers_of(client: Client, process: ProcessKeys) -> set[bytes]:
    return {name for name in client.hkeys(process.process) if name[1:2] == b":"}


def test_the_last_living_worker_that_leaves_takes_the_dead_ones_along(client: Client) -> None:
    opened(client, P)
    for worker in "UVW":
        connected(client, P, worker)
        assert twice(client, PEOPLE.hold(S, P, worker)) == Entered()
    assert twice(client, PEOPLE.leave(P, "V", 0, counted(client, "V", "W")))
    assert workers_of(client, P) == {b"w:V", b"k:W", b"w:W"}
    assert remaining(client, P) == about(TIMEOUT + LATE)
    assert twice(client, PEOPLE.leave(P, "W", 0, counted(client, "V", "W")))
    assert workers_of(client, P) == {b"w:V", b"w:W"}
    assert remaining(client, P) == about(TIMEOUT)


def test_a_worker_that_came_after_the_count_is_not_taken_for_dead(client: Client) -> None:
    opened(client, P)
    before = Living(frozenset("V"), milliseconds(client))
    for worker in "UV":
        connected(client, P, worker)
        twice(client, PEOPLE.hold(S, P, worker))
    all_ = {b"k:U", b"k:V", b"w:U", b"w:V"}
    run(client, PEOPLE.bury([P.id], before))
    assert workers_of(client, P) == all_
    assert twice(client, PEOPLE.leave(P, "V", 0, before))
    assert workers_of(client, P) == all_ - {b"k:V"}
    assert remaining(client, P) == about(TIMEOUT + LATE)


def test_processes_forget_dead_workers(client: Client) -> None:
    opened(client, P, Q)
    for process in (P, Q):
        for worker in "UV":
            connected(client, process, worker)
            twice(client, PEOPLE.hold(S, process, worker))
    assert twice(client, PEOPLE.bury(["abP", "abQ", "abX"], counted(client, "V"))) == 3
    for process in (P, Q):
        assert workers_of(client, process) == {b"k:V", b"w:V"}
        assert client.hget(process.process, "s") == b"abS"
    assert not client.exists(KEYS.process("abX").process)


def test_late_processes_are_found(client: Client) -> None:
    opened(client, P, Q)
    assert twice(client, PEOPLE.late(PARTITION)) == ()
    expired(client, Q)
    assert twice(client, PEOPLE.late(PARTITION)) == ("abQ",)


def test_an_owner_forgets_a_channel_whose_record_is_lost(client: Client) -> None:
    log = Log(KEYS.site("a"), "S", "made", 3, 2**20)
    for end in (
        SCRIPTS.end(log, "ended", 1, owner="W", fence="W:1"),
        SCRIPTS.unused(log.keys, 1, owner="W", fence="W:1"),
    ):
        client.sadd(log.keys.owned_by("W"), "a")
        twice(client, end)
        assert not client.exists(log.keys.owned_by("W"))


# close, finish


def test_a_process_closes_in_two_phases(client: Client) -> None:
    opened(client, P, Q)
    connected(client, P, "V")
    connected(client, P, "W")
    log = own_channel(client, P)
    client.hset(P.process, "w:U", 1)
    client.hset(P.process, "w:V", 1)
    client.hset(P.channels, ":past", 1)
    client.sadd(P.audiences, "notifier\x1fkey")
    client.set(P.registered, "state")
    closing = Closing(frozenset("UVW"), {"a": "P,3"}, frozenset([b"notifier\x1fkey"]), "abS")
    assert twice(client, PEOPLE.close(S, P)) == closing
    assert twice(client, PEOPLE.close(OTHER, P)) == closing
    assert members(client, S) == ["abQ"]
    assert remaining(client, P) is None
    assert not client.exists(P.registered)
    assert client.pttl(P.process) == about(MONTH)
    assert visit(client, S, P).closed
    assert run(client, PEOPLE.finish(P, [log.keys]))
    assert 0 < client.pttl(P.process) <= HOUR
    assert not run(client, PEOPLE.finish(P, [log.keys]))
    assert twice(client, PEOPLE.close(S, P)) == Closed()
    twice(client, PEOPLE.close(S, Q))
    run(client, PEOPLE.finish(Q, []))
    assert sorted(client.keys()) == sorted(
        [KEYS.lineage.encode(), P.process.encode(), Q.process.encode()]
    )


def test_a_closing_whose_process_is_lost_is_forgotten(client: Client) -> None:
    client.zadd(P.closing, {"abP": 1})
    assert twice(client, PEOPLE.close(S, P, resumes=True)) == Closed()
    assert not client.exists(P.closing)


def test_a_process_whose_record_is_lost_is_closed_with_all_that_it_had(client: Client) -> None:
    twice(client, PEOPLE.open_process(S, P, default=True))
    log = own_channel(client, P)
    client.delete(P.process)
    assert twice(client, PEOPLE.close(P_AS_SESSION, P, if_late=True)) == Unexpired()
    expired(client, P)
    closing = Closing(frozenset(), {"a": "P,3"}, frozenset(), "")
    assert twice(client, PEOPLE.close(P_AS_SESSION, P, if_late=True)) == closing
    assert visit(client, S).processes == ("abP",)  # the sweeper does not know the session
    run(client, PEOPLE.finish(P, [log.keys]))
    assert not client.exists(log.keys.meta, P.channels, P.deadlines, P.closing)
    assert twice(client, PEOPLE.close(S, P)) == Closed()
    assert visit(client, S).processes == ()
    assert not client.exists(S.processes)


def test_a_session_forgets_a_process_whose_record_is_lost(client: Client) -> None:
    twice(client, PEOPLE.open_process(S, P, default=True))
    client.delete(P.process)
    assert twice(client, PEOPLE.close(S, P)) == Closing(frozenset(), {}, frozenset(), "abS")
    run(client, PEOPLE.finish(P, []))
    assert visit(client, S) == Visited("", None, "", 1, False, "", False)
    assert 0 < client.pttl(S.session) <= HOUR
    assert not client.exists(S.processes)
    assert twice(client, PEOPLE.close(S, P)) == Closed()
    assert twice(client, PEOPLE.open_process(S, P)) == Closed()


def test_a_login_does_not_make_a_lost_process_again(client: Client) -> None:
    opened(client, P, Q)
    client.delete(P.process)
    assert move(client, P, Q, user=b'"ann"') == Changed(("abQ",), closed=False)
    assert members(client, NEW) == ["abQ"]
    assert not client.exists(P.process)


def test_an_unknown_process_and_one_of_another_session_are_not_closed(client: Client) -> None:
    assert twice(client, PEOPLE.close(S, P)) == Closed()
    opened(client, P)
    assert twice(client, PEOPLE.close(OTHER, P)) == Moved("abS")
    assert members(client, S) == ["abP"]


def test_a_sweeper_closes_no_process_that_was_connected_again(client: Client) -> None:
    opened(client, P)
    expired(client, P)
    connected(client, P)
    assert twice(client, PEOPLE.close(S, P, if_late=True)) == Unexpired()
    assert members(client, S) == ["abP"]
    expired(client, P)
    assert isinstance(twice(client, PEOPLE.close(S, P, if_late=True)), Closing)


def test_a_process_without_a_deadline_is_late(client: Client) -> None:
    opened(client, P)
    client.zrem(P.deadlines, "abP")
    assert isinstance(twice(client, PEOPLE.close(S, P, if_late=True)), Closing)


def test_an_unfinished_closing_is_taken_up_by_one_worker_after_a_minute(client: Client) -> None:
    opened(client, P)
    twice(client, PEOPLE.close(S, P))
    assert run(client, PEOPLE.unfinished(PARTITION)) == ()
    client.zadd(P.closing, {"abP": 1})
    assert run(client, PEOPLE.unfinished(PARTITION)) == ("abP",)
    assert run(client, PEOPLE.unfinished(PARTITION)) == ()


def test_a_session_is_forgotten_with_its_last_process_unless_it_is_kept(client: Client) -> None:
    for keep, user in ((False, None), (True, b"1")):
        client.flushall()
        opened(client, P, Q)
        move(client, P, Q, user=b"1", keep=keep)
        twice(client, PEOPLE.close(NEW, P))
        assert client.pttl(NEW.session) == -1
        twice(client, PEOPLE.close(NEW, Q))
        assert visit(client, NEW).user == user
        if keep:
            assert client.pttl(NEW.session) == about(MONTH)
            opened(client, KEYS.process("abR"), of=NEW)
            assert client.pttl(NEW.session) == -1


# move


def test_a_visitor_who_logs_in_keeps_the_processes(client: Client) -> None:
    twice(client, PEOPLE.open_process(S, P, default=True))
    opened(client, Q)
    assert move(client, Q, P, user=b'"ann"') == Changed(("abP", "abQ"), closed=False)
    assert members(client, NEW) == ["abP", "abQ"]
    assert visit(client, NEW, Q) == Visited(
        "", b'"ann"', "abP", 0, False, "abNEW", False, ("abP", "abQ")
    )
    assert visit(client, S, P) == Visited(
        "abNEW", None, "", 1, False, "abNEW", False, followed="abNEW"
    )
    assert members(client, S) == []
    assert twice(client, PEOPLE.open_process(S, KEYS.process("abX"))) == Moved("abNEW")
    assert twice(client, PEOPLE.enter(S, P, "V")) == Moved("abNEW")
    assert twice(client, PEOPLE.enter(NEW, P, "V")) == Entered()


@pytest.mark.parametrize("user", [None, b'"bob"'])
def test_a_user_who_leaves_takes_the_processes_along(client: Client, user: bytes | None) -> None:
    move(client, user=b'"ann"', keep=True)
    opened(client, P, of=NEW)
    third = KEYS.session("abTHIRD")
    call = PEOPLE.move(NEW, third, [P], user=user, keep=user is not None)
    assert twice(client, call) == Changed(("abP",), closed=True)
    assert members(client, NEW) == members(client, third) == []
    assert visit(client, third, P) == Visited("", user, "", 0, bool(user), "abNEW", True)
    assert twice(client, PEOPLE.enter(third, P, "V")) == Closed()
    assert isinstance(twice(client, PEOPLE.close(third, P)), Closing)


def test_the_same_user_who_logs_in_again_keeps_the_processes(client: Client) -> None:
    move(client, user=b'"ann"', keep=True)
    opened(client, P, of=NEW)
    call = PEOPLE.move(NEW, OTHER, [P], user=b'"ann"')
    assert twice(client, call) == Changed(("abP",), closed=False)
    assert members(client, OTHER) == ["abP"]


def test_a_user_without_a_process_is_remembered_if_kept(client: Client) -> None:
    assert move(client, user=b"1") == Changed((), closed=False)
    assert visit(client, NEW) == UNKNOWN_SESSION
    client.flushall()
    assert move(client, user=b"1", keep=True) == Changed((), closed=False)
    assert visit(client, NEW) == Visited("", b"1", "", 0, True, "", False)
    assert client.pttl(NEW.session) == about(MONTH)


def test_a_move_that_does_not_know_all_processes_changes_nothing(client: Client) -> None:
    opened(client, P, Q)
    assert move(client, user=b"1") == Others(("abP", "abQ"))
    assert move(client, P, P, user=b"1") == Others(("abP", "abQ"))
    assert move(client, P, KEYS.process("abX"), user=b"1") == Others(("abP", "abQ"))
    assert visit(client, S, P).session == "abS"
    assert not client.exists(S.heir)


def test_two_workers_that_move_a_session_at_once_make_one_heir(client: Client) -> None:
    opened(client, P)
    move(client, P, user=b"1")
    call = PEOPLE.move(S, OTHER, [P], user=b"2")
    assert twice(client, call) == Moved("abNEW")
    assert visit(client, NEW).user == b"1"
    assert not client.exists(OTHER.session)


def test_a_repeated_move_undoes_no_later_change(client: Client) -> None:
    opened(client, P, Q)
    first = PEOPLE.move(S, NEW, [P, Q], user=b"1")
    assert twice(client, first) == Changed(("abP", "abQ"), closed=False)
    twice(client, PEOPLE.close(NEW, P))
    twice(client, PEOPLE.move(NEW, OTHER, [Q], user=None))
    client.pexpire(S.heir, 500_000)
    assert twice(client, first) == Changed(("abP", "abQ"), closed=False)
    assert visit(client, NEW).user is None
    assert visit(client, OTHER).user is None


def test_the_old_id_is_an_unknown_one_after_ten_seconds(client: Client) -> None:
    opened(client, P)
    move(client, P, user=b"1")
    client.pexpire(S.heir, 600_000 - 9_000)
    assert visit(client, S).heir == "abNEW"
    client.pexpire(S.heir, 600_000 - 10_001)
    assert visit(client, S) == replace(UNKNOWN_SESSION, followed="abNEW")
    opened(client, Q, of=S)
    assert members(client, NEW) == ["abP"]
    call = PEOPLE.move(S, OTHER, [Q], user=b"2")
    assert twice(client, call) == Changed(("abQ",), closed=False)
    assert visit(client, S).heir == "abOTHER"


@pytest.mark.parametrize("known", ["", "abOTHER"])
def test_a_lost_process_is_not_opened_again_under_a_former_id(client: Client, known: str) -> None:
    move(client, user=b"1", keep=True)
    client.pexpire(S.heir, 500_000)
    copy = Announced("V", connected=True, held=True, followed=known)
    assert twice(client, PEOPLE.announce(S, P, copy)) == Moved("abNEW")
    assert not client.exists(P.process)


def test_a_lost_process_is_opened_again_under_an_id_that_is_in_use_again(client: Client) -> None:
    move(client, user=b"1", keep=True)
    client.pexpire(S.heir, 500_000)
    copy = Announced("V", connected=True, held=True, followed=visit(client, S).followed)
    assert twice(client, PEOPLE.announce(S, P, copy)) == Entered()
    assert visit(client, S, P).session == "abS"


# Own channels


def own_channel(client: Client, process: ProcessKeys, name: str = "a", size: int = 3) -> Log:
    log = Log(process.channel(name), "P", "made", size, 2**20)
    run(client, SCRIPTS.open(log, "e"))
    return log


def append(client: Client, log: Log, *data: bytes) -> Any:
    append.number += 1  # type: ignore[attr-defined]
    groups = [Group(log, [Item(one) for one in data])]
    call = SCRIPTS.append("P", append.number, groups)  # type: ignore[attr-defined]
    return twice(client, call)[0]


append.number = 0  # type: ignore[attr-defined]


def claim(
    client: Client,
    number: int,
    *channels: tuple[Log, Start],
    worker: str = "V",
    session: SessionKeys = S,
    **more: Any,
) -> Any:
    came = more.pop("came", (-math.inf, math.inf))
    reader = Reader(worker, number, again=more.pop("again", False), came=came)
    named = [(log.keys, start) for log, start in channels]
    return twice(client, PEOPLE.claim(session, P, reader, named, **more))


def page(client: Client, number: int, log: Log, start: Start, **more: Any) -> Page:
    found = claim(client, number, (log, start), **more)
    assert isinstance(found, Claimed)
    (one,) = found.pages
    assert isinstance(one, OwnPage)
    return one.page


def texts(page: Page) -> list[bytes]:
    return [one.data for one in page.run]


def listen(client: Client, *workers: str) -> Any:
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe("end", *map(KEYS.inbox, workers))
    return subscription


def heard(client: Client, subscription: Any) -> list[tuple[str, bytes]]:
    client.publish("end", "")
    found: list[tuple[str, bytes]] = []
    while True:
        frame = subscription.get_message(timeout=20)
        if frame is None:
            continue
        if frame["channel"] == b"end":
            return found
        found.append((frame["channel"].decode().rpartition(":")[2], frame["data"]))


def test_a_claim_reads_acknowledges_and_connects(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    append(client, log, b"1", b"2", b"3")
    found = page(client, 1, log, First())
    assert texts(found) == [b"1", b"2", b"3"]
    assert remaining(client, P) == about(TIMEOUT + LATE)
    found = page(client, 2, log, Position("e", 2))
    assert (found.first, found.top, texts(found)) == (3, 3, [b"3"])
    fields = client.hmget(log.keys.meta, "f", "b", "k", "a")
    assert fields == [b"3", b"1", b"2", b"2"]
    assert texts(page(client, 3, log, Position("e", 2))) == [b"3"]
    assert texts(page(client, 4, log, Position("e", 3))) == []
    assert client.llen(log.keys.log) == 0
    assert texts(page(client, 5, log, First())) == []


def test_a_page_of_another_epoch_acknowledges_nothing(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    append(client, log, b"1", b"2")
    assert page(client, 1, log, Position("other", 1)).after is None
    assert page(client, 1, log, Position("e", 3)).after is None
    assert texts(page(client, 1, log, Last(1))) == [b"2"]
    assert texts(page(client, 1, log, Now())) == []
    assert client.llen(log.keys.log) == 2


def test_all_channels_of_a_claim_share_one_budget(client: Client) -> None:
    opened(client, P)
    first, second = own_channel(client, P, "a"), own_channel(client, P, "b c")
    append(client, first, b"11", b"22")
    append(client, second, b"33")
    none = replace(first, keys=P.channel("none"))
    found = claim(client, 1, (first, First()), (none, First()), (second, First()), max_bytes=5)
    assert found.pages[0].page.run == (Message(1, b"11"), Message(2, b"22"))
    assert found.pages[1] == Missing(past=False)
    assert found.pages[2].page.run == ()
    assert texts(page(client, 2, second, First(), max_bytes=1)) == [b"33"]
    assert texts(page(client, 2, first, First(), most=1)) == [b"11"]


def test_the_newest_reader_replaces_the_one_before_and_gets_the_frames(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    frames = listen(client, "V", "W")
    append(client, log, b"1")
    page(client, 1, log, First(), worker="V")
    assert heard(client, frames) == []
    append(client, log, b"2")
    assert heard(client, frames) == [("V", b"me 2 ~abP~a\n1:2")]
    page(client, 7, log, Position("e", 1), worker="W")
    before = client.time()[0] * 1000
    ((inbox, frame),) = heard(client, frames)
    reader, _, at = frame.partition(b" ")
    assert (inbox, reader) == ("V", b"rV:1")
    assert int(at) >= before - 1000
    append(client, log, b"3")
    assert heard(client, frames) == [("W", b"me 3 ~abP~a\n1:3")]
    page(client, 2, log, Position("e", 1), worker="W")
    assert heard(client, frames) == []  # the worker knows its own connections


def test_a_reader_that_was_replaced_does_not_come_back(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    claim(client, 1, (log, First()), worker="V")
    assert isinstance(claim(client, 1, (log, First()), worker="V", again=True), Claimed)
    claim(client, 1, (log, First()), worker="W")
    assert claim(client, 1, (log, First()), worker="V", again=True) == Replaced()
    assert client.hget(P.process, "r") == b"W:1"
    assert client.hget(log.keys.meta, "r") == KEYS.inbox("W").encode()


@pytest.mark.parametrize(
    ("came", "reads"), [((10, 19), False), ((10, 20), True), ((20, 30), True), ((30, 40), True)]
)
def test_a_connection_that_surely_came_before_the_reader_is_not_let_in(
    client: Client, came: tuple[float, float], reads: bool
) -> None:
    opened(client, P)
    claim(client, 1, worker="V", came=(20, 30))
    assert (claim(client, 2, worker="W", came=came) != Replaced()) == reads
    assert client.hget(P.process, "r") == (b"W:2" if reads else b"V:1")
    assert isinstance(claim(client, 3, worker="X"), Claimed)  # now


def test_a_connection_is_let_in_if_the_clock_was_set_back_since_the_reader_came(
    client: Client,
) -> None:
    opened(client, P)
    claim(client, 1, worker="V")
    in_an_hour = int(client.hget(P.process, "ra") or 0) + 3_600_000_000
    client.hset(P.process, "ra", in_an_hour)  # by the clock as it was then
    assert isinstance(claim(client, 2, worker="W", came=(20, 30)), Claimed)
    assert client.hget(P.process, "r") == b"W:2"
    assert int(client.hget(P.process, "ra") or 0) == 20


def test_a_connection_claims_again_what_was_lost(client: Client) -> None:
    opened(client, P)
    assert isinstance(claim(client, 1, again=True), Claimed)


def test_a_connection_that_claims_again_acknowledges_nothing(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    append(client, log, b"1", b"2")
    found = page(client, 1, log, Position("e", 1), again=True)
    assert (texts(found), client.llen(log.keys.log)) == ([b"2"], 2)


def test_a_worker_with_another_id_claims_again(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    frames = listen(client, "V", "W")
    claim(client, 1, (log, First()), worker="V")
    again = Reader("W", 1, again=True, formerly="V")
    asked = [(log.keys, First())]
    assert isinstance(twice(client, PEOPLE.claim(S, P, again, asked)), Claimed)
    assert heard(client, frames) == []
    assert client.hget(log.keys.meta, "r") == KEYS.inbox("W").encode()


# Names of own channels


def test_a_channel_is_made_once_and_its_reader_is_told(client: Client) -> None:
    log = Log(P.channel("a"), "P", "made", 3, 100)
    assert twice(client, SCRIPTS.open(log, "e")) == Refused("closed", "lost")
    opened(client, P)
    frames = listen(client, "V")
    assert claim(client, 1, (log, Position("new", 0))).pages == (Missing(past=False),)
    assert twice(client, SCRIPTS.open(log, "e")) == Opened("e", 0, 1)
    assert heard(client, frames) == [("V", b"ee 0 ~abP~a")]
    assert twice(client, SCRIPTS.open(replace(log, making="other"), "f")) == Refused(
        "taken", "P made"
    )
    assert heard(client, frames) == []
    append(client, log, b"1")
    assert heard(client, frames) == [("V", b"me 1 ~abP~a\n1:1")]
    assert texts(page(client, 2, log, Position("new", 0))) == [b"1"]
    assert client.pttl(log.keys.meta) == -1
    twice(client, PEOPLE.close(S, P))
    assert twice(client, SCRIPTS.open(log, "e")) == Refused("closed")


def test_the_name_of_a_channel_that_came_and_went_is_past(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    frames = listen(client, "V")
    claim(client, 1, (log, First()))
    assert twice(client, SCRIPTS.end(log, "failed", 5000)) == Ended("failed")
    assert heard(client, frames) == [("V", b"ce failed ~abP~a")]
    assert page(client, 2, log, Position("new", 0)).closed == "failed"
    assert 0 < client.pttl(log.keys.meta) <= 5000
    client.delete(log.keys.meta, log.keys.log)  # its linger time is over
    new = Position("new", 0)
    assert claim(client, 3, (log, new)).pages == (Missing(past=True),)
    assert claim(client, 3, (log, Position("e", 1))).pages == (Missing(past=True),)
    assert twice(client, SCRIPTS.open(log, "f", again=True)) == Gone()
    assert run(client, PEOPLE.claim(S, P, Reader("V", 4), [(log.keys, Now())])).pages == (
        Missing(past=False),
    )
    assert claim(client, 5, (log, new)).pages == (Missing(past=False),)
    assert twice(client, SCRIPTS.open(log, "f", again=True)) == Opened("f", 0, 1)


def test_a_process_remembers_a_thousand_names(client: Client) -> None:
    opened(client, P)
    for number in range(1001):
        client.hset(P.channels, f":{number}", number)
    log = own_channel(client, P)
    run(client, SCRIPTS.end(log, "ended", 5000))
    names = client.hkeys(P.channels)
    assert len(names) == 900
    assert b":a" in names
    assert b":102" in names
    assert b":101" not in names


def test_the_channels_of_a_closed_process_leave_no_names(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    twice(client, PEOPLE.close(S, P))
    run(client, SCRIPTS.end(log, "ended", 5000))
    run(client, PEOPLE.finish(P, []))
    assert not client.exists(P.channels)


def test_the_owner_of_a_channel_is_told_of_its_end_as_well(client: Client) -> None:
    opened(client, P)
    log = Log(P.channel("a"), "P", "made", 1, 100, traits="s")
    frames = listen(client, "V", "W")
    run(client, SCRIPTS.open(log, "e", owner="W", fence="W:1"))
    append(client, log, b"1")
    assert append(client, log, b"2") == Refused("full")
    assert heard(client, frames) == [("W", b"ce full ~abP~a")]
    run(client, SCRIPTS.open(log, "f", owner="W", fence="W:1"))
    claim(client, 1, (log, First()))
    run(client, SCRIPTS.end(log, "ended", 5000))
    assert heard(client, frames) == [("V", b"cf ended ~abP~a"), ("W", b"cf ended ~abP~a")]


def test_a_channel_of_a_dead_worker_fails(client: Client) -> None:
    opened(client, P)
    log = Log(P.channel("a"), "U", "made", 1, 100, traits="s")
    run(client, SCRIPTS.open(log, "e", owner="W", fence="W:1"))
    frames = listen(client, "V")
    claim(client, 1, (log, First()))
    assert client.smembers(log.keys.owned_by("W")) == {b"~abP~a"}
    assert KEYS.named("~abP~a") == log.keys
    assert run(client, SCRIPTS.inherit(log.keys, "W", 5000))
    assert heard(client, frames) == [("V", b"ce failed ~abP~a")]
    assert client.hkeys(P.channels) == [b":a"]
    assert not client.exists(log.keys.owned_by("W"))


def test_the_state_of_the_registration_protocol_is_of_the_reader(client: Client) -> None:
    opened(client, P)
    claim(client, 1)
    assert run(client, PEOPLE.load(P)) is None
    assert twice(client, PEOPLE.save(P, Reader("V", 1), b"state"))
    claim(client, 2)
    assert not twice(client, PEOPLE.save(P, Reader("V", 1), b"late"))
    assert twice(client, PEOPLE.load(P)) == b"state"
    twice(client, PEOPLE.close(S, P))
    assert not twice(client, PEOPLE.save(P, Reader("V", 2), b"late"))
    assert run(client, PEOPLE.load(P)) is None


def test_no_claim_to_a_process_that_has_closed_or_moved(client: Client) -> None:
    assert claim(client, 1) == Closed()
    opened(client, P)
    assert claim(client, 1, session=OTHER) == Moved("abS")
    assert not client.hexists(P.process, "r")
    twice(client, PEOPLE.close(S, P))
    assert claim(client, 1) == Closed()


def test_a_full_channel_says_so_to_its_reader(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    frames = listen(client, "V")
    claim(client, 1, (log, First()))
    assert isinstance(append(client, log, b"1", b"2", b"3"), Stored)
    heard(client, frames)
    assert append(client, log, b"4") == Refused("full")
    assert heard(client, frames) == [("V", b"ce full ~abP~a")]
    assert page(client, 2, log, Position("e", 3)).closed == "full"


def test_what_was_sent_makes_room_and_what_was_acknowledged_goes(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    append(client, log, b"1", b"2", b"3")
    assert twice(client, PEOPLE.mark([Mark(log.keys, "e", sent=1)])) == (True,)
    assert isinstance(append(client, log, b"4"), Stored)
    assert client.lrange(log.keys.log, 0, -1) == [b"2", b"3", b"4"]
    assert twice(client, PEOPLE.mark([Mark(log.keys, "e", acknowledged=3)])) == (True,)
    assert client.lrange(log.keys.log, 0, -1) == [b"4"]
    assert client.hmget(log.keys.meta, "f", "b", "k", "a") == [b"4", b"1", b"3", b"3"]
    marks = [Mark(log.keys, "e", sent=2, acknowledged=1)]
    assert twice(client, PEOPLE.mark(marks)) == (True,)
    assert client.hmget(log.keys.meta, "f", "b", "k", "a") == [b"4", b"1", b"3", b"3"]


def test_what_a_reader_skips_is_known_for_good(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)

    def mark(**values: Any) -> list[int]:
        assert twice(client, PEOPLE.mark([Mark(log.keys, "e", **values)])) == (True,)
        return [int(value or 0) for value in client.hmget(log.keys.meta, "a", "ja", "j")]

    for _ in range(5):
        append(client, log, b"1", b"2")
        client.hset(log.keys.meta, "k", client.hget(log.keys.meta, "s") or 0)
    assert mark(acknowledged=2) == [2, 0, 0]
    assert mark(skipped=(1, 4)) == [2, 2, 4]  # the record knows more than the worker
    assert mark(skipped=(0, 4)) == [2, 2, 4]
    assert mark(acknowledged=5) == [5, 2, 4]
    assert mark(skipped=(5, 7), acknowledged=8) == [8, 2, 7]
    client.hdel(log.keys.meta, "ja", "j")
    assert mark(skipped=(5, 7)) == [8, 5, 7]  # reported after the reader has come back
    assert mark(skipped=(8, 9)) == [8, 5, 9]
    (progress,) = [one.progress for one in claim(client, 1, (log, Position("e", 10))).pages]
    assert progress == Progress("e", 10, 10, (5, 9))


def test_marks_that_do_not_fit_change_nothing(client: Client) -> None:
    opened(client, P)
    log, site = own_channel(client, P), Log(KEYS.site("a"), "S", "-", 3, 100)
    run(client, SCRIPTS.open(site, "e"))
    append(client, log, b"1")
    marks = [
        Mark(log.keys, "other", sent=1, acknowledged=1),
        Mark(log.keys, "e", sent=2),
        Mark(log.keys, "e", acknowledged=2),
        Mark(log.keys, "e", skipped=(0, 2)),
        Mark(log.keys, "other", skipped=(0, 1)),
        Mark(site.keys, "e", sent=0),
        Mark(P.channel("b"), "e", sent=0),
        Mark(log.keys, "e", sent=1),
    ]
    assert twice(client, PEOPLE.mark(marks)) == (*[False] * 7, True)
    assert client.hmget(log.keys.meta, "f", "k", "a", "j") == [b"1", b"1", None, None]
    assert not client.exists(P.channel("b").meta)


def test_a_lost_log_is_marked_as_lost(client: Client) -> None:
    opened(client, P)
    log = own_channel(client, P)
    append(client, log, b"1", b"2")
    client.delete(log.keys.log)
    assert twice(client, PEOPLE.mark([Mark(log.keys, "e", acknowledged=1)])) == (True,)
    assert client.hmget(log.keys.meta, "f", "b", "a") == [b"3", b"0", b"1"]


def test_workers_that_race_for_the_last_place(redis: RedisServer) -> None:
    with redis.client() as one, redis.client() as other:
        many(one, 31)
        replies = [
            run(one, PEOPLE.open_process(S, P)),
            run(other, PEOPLE.open_process(S, Q)),
        ]
        assert replies == [Made("abP"), Crowded("ab00")]
        victim = KEYS.process("ab00")
        connected(one, victim)  # the tab comes back in this moment
        found = run(other, PEOPLE.open_process(S, Q, instead_of=victim))
        assert found == Crowded("ab01")
        assert remaining(one, victim) == about(TIMEOUT + LATE)


def test_keys_of_other_programs_are_recognised() -> None:
    keys = KEYS.process("AAx")
    ours = [keys.process, keys.channel("~news").meta]
    theirs = ["comet:{x}p:AAx", "comet:{10}p:A", "other"]
    call = StockScripts(KEYS, 60).scan("0")
    found = call.read([b"7", [key.encode() for key in [*ours, *theirs]]])
    assert found == ("7", (("p", "AAx"), (OWN, "~AAx~~news")))
