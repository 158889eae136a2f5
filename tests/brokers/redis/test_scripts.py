"""What the scripts do that takes time, another server, or much data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import OutOfMemoryError, ResponseError

from asgi_comet.brokers.redis.calls import Call, Group, Item, Log
from asgi_comet.brokers.redis.keys import Keys, tag_of
from asgi_comet.brokers.redis.pages import Page
from asgi_comet.brokers.redis.replies import (
    Beat,
    Gone,
    Refused,
    Stored,
    read_ended,
    read_owned,
)
from asgi_comet.brokers.redis.scripts import Scripts
from asgi_comet.core.messages import First, Last, Now
from asgi_comet.position import Position
from tests.kit.redis import Client, RedisServer, run

KEYS = Keys()
SCRIPTS = Scripts(KEYS)
LOG = Log(KEYS.site("a"), "S", "-", 10, 2**20, traits="r")


def append(client: Client, number: int, *items: Item, log: Log = LOG, worker: str = "W") -> Any:
    (outcome,) = run(client, SCRIPTS.append(worker, number, [Group(log, items)]), times=2)
    return outcome


# Keys


def test_the_tags_are_those_of_the_first_release() -> None:
    assert [tag_of(number, 64) for number in range(5)] == ["10", "18", "113", "342", "29"]
    assert tag_of(63, 64) == "40"
    assert KEYS.lineage == "comet:{10}lin"
    assert KEYS.inbox("W") == "comet:{10}i:W"
    assert KEYS.batch("W") == "comet:{10}b:W"
    assert KEYS.site("a b").meta == "comet:{343}c:a b"
    assert KEYS.site("élan").topic.endswith("}t:élan")
    assert KEYS.owned_by("W")[0] == "comet:{10}own:W"
    assert len(set(KEYS.owned_by("W"))) == 64
    assert KEYS.site("x").owned_by("W") in KEYS.owned_by("W")


@pytest.mark.parametrize("partitions", [1, 64, 4096])
def test_each_partition_has_its_share_of_the_slots(partitions: int) -> None:
    for number in {0, partitions // 2, partitions - 1}:
        slot = key_slot(b"comet:{%s}c:a" % tag_of(number, partitions).encode())
        assert slot * partitions // 16384 == number


@pytest.mark.parametrize(
    "prefix", ["", "a b", "a{b", "a}b", "a\n", "a*", "a?", "[a", "a]", "\\a", "a" * 101]
)
def test_a_prefix_that_would_break_the_keys_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="expected prefix to be 1 to 100 characters"):
        Keys(prefix)
    assert Keys("a" * 100).prefix


@pytest.mark.parametrize("partitions", [0, 4097])
def test_a_number_of_partitions_that_cannot_be_is_refused(partitions: int) -> None:
    with pytest.raises(ValueError, match="expected partitions to be 1 to 4096"):
        Keys("comet", partitions)


# Heartbeats. Time is told by moving the scores of the others.


def beat(client: Client, worker: str, *, joins: bool = False) -> Beat:
    found = run(client, SCRIPTS.beat(worker, joins=joins), times=2)
    assert isinstance(found, Beat)
    return found


def late(client: Client, worker: str) -> None:
    client.zadd(KEYS.workers, {worker: 1})


def turn_is_over(client: Client, dead: str) -> None:
    heir = client.hget(KEYS.dead, dead).decode().partition(" ")[2]
    client.hset(KEYS.dead, dead, f"1 {heir}")


def calm_down(client: Client) -> None:
    client.set(KEYS.calm, 1)


def test_workers_join_and_see_each_other(client: Client) -> None:
    assert beat(client, "V") == Beat("missing")
    assert beat(client, "V", joins=True) == Beat("alive", calm=False, living=frozenset(["V"]))
    assert beat(client, "W", joins=True).living == {"V", "W"}
    calm_down(client)
    assert beat(client, "V") == Beat("alive", calm=True, living=frozenset(["V", "W"]))


def test_a_worker_that_died_is_inherited_by_one_at_a_time(client: Client) -> None:
    for worker in "UVW":
        beat(client, worker, joins=True)
    calm_down(client)
    late(client, "U")
    living = frozenset(["V", "W"])
    assert beat(client, "V") == Beat("alive", calm=True, living=living, dead=("U",), number=1)
    assert beat(client, "W").dead == ()
    assert beat(client, "U") == Beat("dead")
    assert beat(client, "U", joins=True) == Beat("dead")
    turn_is_over(client, "U")
    assert beat(client, "W").dead == ("U",)
    assert beat(client, "V").dead == ()
    assert run(client, SCRIPTS.inherited("U"))
    assert not run(client, SCRIPTS.inherited("U"))
    assert beat(client, "W").dead == ()
    assert beat(client, "U") == Beat("missing")


def test_an_heir_that_died_is_inherited_with_what_it_had_to_inherit(client: Client) -> None:
    for worker in "UVW":
        beat(client, worker, joins=True)
    late(client, "U")
    assert beat(client, "V").dead == ("U",)
    late(client, "V")
    turn_is_over(client, "U")
    assert set(beat(client, "W").dead) == {"U", "V"}


def test_workers_that_declare_different_names_hear_of_it(client: Client) -> None:
    assert not run(client, SCRIPTS.beat("V", joins=True, digest="one")).mixed
    assert run(client, SCRIPTS.beat("W", joins=True, digest="two")).mixed
    assert run(client, SCRIPTS.beat("V", joins=False, digest="one")).mixed
    run(client, SCRIPTS.depart("W", owning=False))
    assert not run(client, SCRIPTS.beat("V", joins=False, digest="one")).mixed


@pytest.mark.parametrize("score", [1, 10**14])
def test_where_nobody_has_beaten_or_the_clock_has_jumped_nobody_is_dead(
    client: Client, score: int
) -> None:
    for worker in "UVW":
        beat(client, worker, joins=True)
    late(client, "U")
    assert beat(client, "V").dead == ("U",)
    calm_down(client)
    for worker in "VW":
        client.zadd(KEYS.workers, {worker: score})
    client.hset(KEYS.dead, "U", "1 V")
    found = beat(client, "W")
    assert (found.calm, found.dead) == (False, ())
    assert found.living == {"V", "W"}


def test_a_worker_that_stops_is_inherited_only_if_it_owns_something(client: Client) -> None:
    for worker in "UVW":
        beat(client, worker, joins=True)
    run(client, SCRIPTS.depart("U", owning=False), times=2)
    run(client, SCRIPTS.depart("V", owning=True))
    found = beat(client, "W")
    assert (set(found.living), found.dead) == ({"W"}, ("V",))


# The numbers of workers


def number(client: Client, worker: str, had: int = 0) -> int:
    """Have a worker join, and return its number."""
    found: int = run(client, SCRIPTS.beat(worker, joins=True, number=had), times=2).number
    return found


def test_each_worker_has_the_lowest_number_that_no_other_living_one_has(client: Client) -> None:
    assert [number(client, worker) for worker in "UVW"] == [0, 1, 2]
    assert [beat(client, worker).number for worker in "WVU"] == [2, 1, 0]
    run(client, SCRIPTS.depart("V", owning=True), times=2)
    assert client.hlen(KEYS.numbers) == 2
    assert [number(client, "X"), number(client, "Y")] == [1, 3]
    late(client, "U")
    late(client, "X")
    assert [number(client, "A"), number(client, "B"), number(client, "C")] == [0, 1, 4]
    assert client.hlen(KEYS.numbers) == len("WYABC")


def test_a_worker_that_joins_again_has_its_number_again_unless_it_was_given_away(
    client: Client,
) -> None:
    for worker in "UVW":
        number(client, worker)
    client.flushall()  # Redis has lost its data
    assert number(client, "W", had=2) == 2
    assert number(client, "A") == 0
    assert [number(client, "V", had=1), number(client, "U", had=0)] == [1, 3]


def test_a_hundred_restarts_of_a_worker_need_one_number(client: Client) -> None:
    number(client, "lasting")
    for count in range(100):
        name = f"restarted-{count}"
        assert number(client, name) == 1
        if count % 2:
            run(client, SCRIPTS.depart(name, owning=False))
        else:
            late(client, name)  # killed
    assert client.hlen(KEYS.numbers) <= 2


# Bounds, and what is not ours


def test_ten_thousand_ids_are_known_and_the_oldest_go_first(client: Client) -> None:
    run(client, SCRIPTS.open(LOG, "e"))
    a_while_ago = client.time()[0] * 1000 - 300_000
    for number in range(1, 41):
        items = [Item(b"x", f"{number}:{i:03}") for i in range(250)]
        append(client, number, *items)
        client.zadd(LOG.keys.ids, {one.id: a_while_ago + number for one in items})
    assert append(client, 41, Item(b"y", "1:000")).positions == (Position("e", 1),)
    assert client.zcard(LOG.keys.ids) == 10_000
    assert append(client, 42, Item(b"z", "new")).positions == (Position("e", 10_001),)
    assert client.zcard(LOG.keys.ids) == client.hlen(LOG.keys.positions) == 10_000
    assert append(client, 43, Item(b"y", "40:249")).positions == (Position("e", 10_000),)
    assert append(client, 44, Item(b"y", "1:000")).positions == (Position("e", 10_002),)


def test_frames_are_cut_at_256_kib(client: Client) -> None:
    run(client, SCRIPTS.open(LOG, "e"))
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(LOG.keys.topic, "end")
    data = [b"%d" % n * 100_000 for n in range(5)]
    append(client, 1, *map(Item, [*data, b"9" * 300_000]))
    client.publish("end", "")
    frames = []
    while True:
        frame = subscription.get_message(timeout=20)
        if frame is not None and frame["channel"] == b"end":
            break
        if frame is not None:
            frames.append(frame["data"])
    assert [frame.partition(b"\n")[0] for frame in frames] == [
        b"me 1 ", b"me 3 ", b"me 5 ", b"me 6 "
    ]  # fmt: skip
    assert frames[0] == b"me 1 \n100000:%s100000:%s" % (data[0], data[1])
    subscription.close()


def test_a_key_that_is_not_ours_stops_no_other_channel_of_a_batch(client: Client) -> None:
    logs = [replace(LOG, keys=KEYS.site(name)) for name in "abc"]
    for log in logs:
        run(client, SCRIPTS.open(log, "e"))
    for key in (logs[1].keys.meta, logs[1].keys.log):
        client.set(key, "of another program")
        groups = [Group(log, [Item(b"x")]) for log in logs]
        number = 1 if key == logs[1].keys.meta else 2
        first, wrong, last = run(client, SCRIPTS.append("W", number, groups), times=3)
        assert (first, last) == (Stored("e", number, (Position("e", number),)),) * 2
        assert isinstance(wrong, Refused)
        assert wrong.why == "wrong"
        assert wrong.detail.startswith(f"{logs[1].keys.meta} WRONGTYPE")
        client.delete(key)
        run(client, SCRIPTS.open(logs[1], "e"))


def test_a_full_redis_refuses_what_needs_room_and_nothing_else(
    client: Client, redis: RedisServer
) -> None:
    run(client, SCRIPTS.open(LOG, "e"))
    append(client, 1, Item(b"x"))
    beat(client, "W", joins=True)
    calls: list[Call[Any]] = [
        SCRIPTS.own(LOG, "W", "W:1", "f", keep=True),
        SCRIPTS.open(LOG, "h"),
        SCRIPTS.append("W", 2, [Group(LOG, [Item(b"y")])]),
    ]
    for call in calls:
        assert call.script is not None
        client.script_load(call.script.source)
    client.config_set("maxmemory", 1)
    try:
        for call in calls:
            with pytest.raises(OutOfMemoryError):
                client.execute_command(*call.command)
        page = run(client, SCRIPTS.follow(LOG.keys, First()))
        assert [message.data for message in page.run] == [b"x"]
        assert beat(client, "W").status == "alive"
        run(client, SCRIPTS.tops([LOG.keys]))
        run(client, SCRIPTS.lineage())
        run(client, SCRIPTS.renew(LOG, "g"))  # readers are told that a source has failed
        assert run(client, SCRIPTS.unused(LOG.keys, 0, owner="", fence=""), times=2)
        run(client, SCRIPTS.end(LOG, "ended", 1), times=2)
    finally:
        client.config_set("maxmemory", 0)


def test_records_and_messages_live_as_long_as_they_are_to(client: Client) -> None:
    log = replace(LOG, lives=10**7, history_lives=10**6)
    run(client, SCRIPTS.open(log, "e"))
    append(client, 1, Item(b"x", "id"), log=log)
    assert 9 * 10**6 < client.pttl(log.keys.meta) <= 10**7
    assert 9 * 10**5 < client.pttl(log.keys.log) <= 10**6
    assert 5 * 10**5 < client.pttl(log.keys.ids) <= 6 * 10**5
    assert client.pttl(KEYS.lineage) == -1
    run(client, SCRIPTS.end(log, "ended", 10**5))
    assert 5 * 10**5 < client.pttl(log.keys.meta) <= 6 * 10**5
    assert 9 * 10**4 < client.pttl(log.keys.log) <= 10**5


def test_where_no_message_is_asked_for_none_is_read(client: Client) -> None:
    run(client, SCRIPTS.open(LOG, "e"))
    append(client, 1, *(Item(b"%d" % number) for number in range(9)))
    for start in (First(), Last(9), Last(1), Now(), Position("e", 4)):
        client.config_resetstat()
        page = run(client, SCRIPTS.follow(LOG.keys, start, most=0))
        assert page.run == ()
        assert page.after is not None
        assert "cmdstat_lrange" not in client.info("commandstats")


def test_of_a_channel_that_is_never_swept_nothing_is_left(client: Client) -> None:
    for traits, swept in (("", []), ("r", [b"a"]), ("", [])):
        run(client, SCRIPTS.open(replace(LOG, traits=traits), "e"))
        assert client.zrange(LOG.keys.names, 0, -1) == swept
    client.delete(LOG.keys.meta, LOG.keys.log, KEYS.lineage)  # as if their time was over
    assert client.keys() == []


def test_the_scripts_stay_below_the_prefix(client: Client) -> None:
    client.execute_command(
        "ACL", "SETUSER", "narrow", "on", ">x", "+@all", "%RW~comet:*", "&comet:*"
    )
    try:
        client.execute_command("AUTH", "narrow", "x")
        run(client, SCRIPTS.open(LOG, "e"))
        assert append(client, 1, Item(b"x", "id")).top == 1
    finally:
        client.execute_command("AUTH", "default", "")


def test_a_reply_of_no_form_is_told() -> None:
    for read in (read_owned, read_ended):
        with pytest.raises(ValueError, match="got"):
            read(5)


def test_a_script_of_another_kind_of_key_is_an_error(client: Client) -> None:
    client.set(LOG.keys.meta, "of another program")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        run(client, SCRIPTS.open(LOG, "e"))


# Generations


def attach(replica: Client, primary: RedisServer) -> None:
    replica.replicaof("127.0.0.1", primary.port)
    while replica.info("replication").get("master_link_status") != "up":
        pass


def test_a_replica_that_comes_or_a_backup_renews_no_generation(
    make_redis: Callable[..., RedisServer],
) -> None:
    primary, replica = make_redis(with_port=True), make_redis(with_port=True)
    with primary.client() as one, replica.client() as two:
        generation = run(one, SCRIPTS.lineage(), times=2)
        attach(two, primary)
        assert run(one, SCRIPTS.lineage(), times=2) == generation
        two.replicaof("no", "one")
        assert run(one, SCRIPTS.lineage(), times=2) == generation


def test_after_a_promotion_who_may_have_missed_something_is_told(
    make_redis: Callable[..., RedisServer],
) -> None:
    primary, replica = make_redis(with_port=True), make_redis(with_port=True)
    with primary.client() as one, replica.client() as two:
        run(one, SCRIPTS.open(LOG, "e1"))
        append(one, 1, *[Item(b"%d" % n) for n in range(3)])
        attach(two, primary)
        two.execute_command("DEBUG", "SLEEP", 0)
        one.execute_command("WAIT", 1, 20_000)
        two.replicaof("no", "one")
        append(one, 2, Item(b"lost"))
        for position in (Position("e1", 4), Position("e1", 3)):
            page = run(two, SCRIPTS.follow(LOG.keys, position))
            assert (page.epoch != "e1", page.after, page.top) == (True, None, 3)
        page = run(two, SCRIPTS.follow(LOG.keys, Last(10)), times=2)
        assert [message.data for message in page.run] == [b"0", b"1", b"2"]
        stored = append(two, 1, Item(b"another"), worker="V")
        assert stored.positions == (Position(page.epoch, 4),)


@pytest.mark.parametrize("durable", [False, True])
def test_another_process_of_the_same_data_renews_the_generation_unless_nothing_is_ever_lost(
    make_redis: Callable[..., RedisServer], durable: bool
) -> None:
    redis = make_redis("--appendonly", "yes", "--appendfsync", "always")
    scripts = replace(SCRIPTS, durable=durable)
    with redis.client() as client:
        before = run(client, scripts.lineage(), times=2)
        run(client, scripts.open(LOG, "e"))
    redis.stop()
    redis.start()
    with redis.client() as client:
        assert (run(client, scripts.lineage(), times=2) == before) is durable
        page = run(client, scripts.follow(LOG.keys, Now()))
        assert isinstance(page, Page)
        assert (page.epoch == "e") is durable


def test_without_info_there_is_one_generation(client: Client) -> None:
    client.execute_command("ACL", "SETUSER", "blind", "on", ">x", "+@all", "-info", "~*", "&*")
    try:
        client.execute_command("AUTH", "blind", "x")
        assert run(client, SCRIPTS.lineage(), times=2) == "-"
    finally:
        client.execute_command("AUTH", "default", "")


def test_there_is_nothing_where_nothing_was_opened(client: Client) -> None:
    assert run(client, SCRIPTS.follow(LOG.keys, Now())) == Gone()
    assert run(client, SCRIPTS.find(LOG.keys)) is None
    assert append(client, 1, Item(b"x")) == Refused("gone")
