"""One connection to Redis: its order, whatever happens to its bytes and to those who wait."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from asgi_comet import BrokerUnavailable
from asgi_comet.brokers.redis.address import Address, parse_address
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection, ReplyError
from asgi_comet.brokers.redis.dialing import dial
from asgi_comet.brokers.redis.keys import Keys
from asgi_comet.brokers.redis.scripts import Scripts
from tests.kit.redis import Client, RedisServer
from tests.kit.redis_proxy import RedisProxy, turns

pytestmark = pytest.mark.anyio

SCRIPTS = Scripts(Keys())


def same(reply: Any) -> Any:
    return reply


def call(*command: str | bytes | int) -> Call[Any]:
    return Call(command, same)


@asynccontextmanager
async def connected(
    address: Address, on_frame: Callable[[bytes, bytes], None] | None = None, silence: float = 20.0
) -> AsyncIterator[Connection]:
    connection = Connection(await dial(address, 20.0), on_frame or (lambda *_: None), silence)
    task = asyncio.create_task(connection.run())
    try:
        yield connection
    finally:
        connection.close("the test is over")
        task.cancel()
        with suppress(asyncio.CancelledError, BrokerUnavailable):
            await task


def address_of(redis: RedisServer) -> Address:
    return parse_address(redis.url)


async def test_replies_come_in_the_order_of_the_requests(redis: RedisServer) -> None:
    async with connected(address_of(redis)) as connection:
        replies = [connection.send(call("ECHO", number)) for number in range(1000)]
        assert await asyncio.gather(*replies) == [b"%d" % number for number in range(1000)]


async def test_frames_replies_and_subscriptions_have_one_order(redis: RedisServer) -> None:
    seen: list[object] = []
    async with connected(address_of(redis), lambda _, frame: seen.append(frame)) as connection:

        def ask(number: int) -> asyncio.Future[None]:
            return connection.send(Call(("ECHO", number), seen.append))

        connection.send(call("PUBLISH", "t", "before"))
        subscribed = connection.subscribe(["t", "u"])
        connection.send(call("PUBLISH", "t", "one"))
        asked = ask(2)
        connection.send(call("PUBLISH", "u", "three"))
        ask(4)
        connection.unsubscribe(["t"])
        connection.send(call("PUBLISH", "t", "after"))
        await subscribed
        await asked
        await ask(5)
    assert seen == [b"one", b"2", b"three", b"4", b"5"]


async def test_an_error_is_that_of_its_own_request(redis: RedisServer) -> None:
    async with connected(address_of(redis)) as connection:
        first, wrong, second = (
            connection.send(call(*command.split())) for command in ("ECHO 1", "GET", "ECHO 2")
        )
        with pytest.raises(ReplyError, match="wrong number of arguments") as caught:
            await wrong
        assert (caught.value.code, caught.value.maybe_stored) == ("ERR", True)
        assert (await first, await second) == (b"1", b"2")


async def test_a_subscription_that_is_refused_shifts_no_reply(redis: RedisServer) -> None:
    async with connected(address_of(redis)) as connection:
        await connection.send(call("ACL", "SETUSER", "deaf", "on", ">x", "+@all", "~*"))
        await connection.send(call("AUTH", "deaf", "x"))
        refused, echo = connection.subscribe(["t"]), connection.send(call("ECHO", "x"))
        with pytest.raises(ReplyError, match="NOPERM"):
            await refused
        assert await echo == b"x"


async def test_a_reply_that_cannot_be_read_harms_no_other(redis: RedisServer) -> None:
    async with connected(address_of(redis)) as connection:
        wrong = connection.send(Call(("ECHO", "x"), int))
        right = connection.send(call("ECHO", "y"))
        with pytest.raises(ValueError, match="invalid literal"):
            await wrong
        assert await right == b"y"


async def test_a_frame_that_cannot_be_taken_in_is_logged(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bytes] = []

    def take(_: bytes, frame: bytes) -> None:
        if frame == b"bad":
            raise RuntimeError("a fault of ours")
        seen.append(frame)

    async with connected(address_of(redis), take) as connection:
        await connection.subscribe(["t"])
        for frame in ("bad", "good"):
            await connection.send(call("PUBLISH", "t", frame))
    assert seen == [b"good"]
    assert "a frame of b't' could not be taken in" in caplog.text


async def test_a_script_that_redis_forgot_is_loaded_again(redis: RedisServer) -> None:
    async with connected(address_of(redis)) as connection:
        for _ in range(3):
            await connection.send(call("SCRIPT", "FLUSH"))
            found = [connection.send(SCRIPTS.lineage()) for _ in range(3)]
            assert len(set(await asyncio.gather(*found))) == 1


async def test_a_script_that_may_not_be_loaded_is_an_error(redis: RedisServer) -> None:
    async with connected(address_of(redis)) as connection:
        await connection.send(call("SCRIPT", "FLUSH"))
        await connection.send(
            call("ACL", "SETUSER", "few", "on", ">x", "+@all", "-script", "~*", "&*")
        )
        await connection.send(call("AUTH", "few", "x"))
        with pytest.raises(ReplyError, match="NOSCRIPT") as caught:
            await connection.send(SCRIPTS.lineage())
        assert not caught.value.maybe_stored


# Waiters that are cancelled, wherever


@pytest.mark.parametrize("turn", range(8))
async def test_a_waiter_that_is_cancelled_shifts_no_reply(redis: RedisServer, turn: int) -> None:
    async with connected(address_of(redis)) as connection:
        for victim in range(5):
            replies = [connection.send(call("ECHO", number)) for number in range(5)]
            await turns(turn)
            replies[victim].cancel()
            found = await asyncio.gather(*replies, return_exceptions=True)
            assert [one for number, one in enumerate(found) if number != victim] == [
                b"%d" % number for number in range(5) if number != victim
            ]


async def test_a_subscription_whose_waiter_is_cancelled_shifts_no_reply(redis: RedisServer) -> None:
    seen: list[bytes] = []
    async with connected(address_of(redis), lambda _, frame: seen.append(frame)) as connection:
        for turn in range(8):
            subscribed, echo = connection.subscribe(["t", "u"]), connection.send(call("ECHO", turn))
            await turns(turn)
            subscribed.cancel()
            connection.send(call("PUBLISH", "t", turn))
            assert await echo == b"%d" % turn
        await connection.send(call("ECHO", ""))
    assert seen == [b"%d" % turn for turn in range(8)]


async def test_no_reply_is_crossed_among_thousands_of_cancelled_ones(redis: RedisServer) -> None:
    choose = random.Random(7)
    async with RedisProxy(redis).run() as proxy, connected(proxy.address) as connection:
        proxy.harm.piece = 7
        waiting: list[tuple[int, asyncio.Future[Any]]] = []
        answered = 0
        for number in range(3000):
            waiting.append((number, connection.send(call("ECHO", number))))
            await turns(choose.randrange(3))
            if choose.random() < 0.5:
                choose.choice(waiting)[1].cancel()
        for number, reply in waiting:
            if not reply.cancelled():
                assert await reply == b"%d" % number
                answered += 1
        assert 500 < answered < 2500


# Bytes that are cut and split, wherever


class Journal:
    """Requests of every form, and what came of them."""

    def __init__(self, connection: Connection) -> None:
        self.futures: list[asyncio.Future[Any]] = []
        self.expected: list[Any] = []
        self.connection = connection

    def ask(self, *command: str | bytes | int, expect: Any) -> None:
        self.futures.append(self.connection.send(call(*command)))
        self.expected.append(expect)

    def ask_all(self) -> None:
        self.futures.append(self.connection.subscribe(["t", "u"]))
        self.expected.append(None)
        self.ask("ECHO", "a\r\n$3\r\n", expect=b"a\r\n$3\r\n")
        self.ask("PUBLISH", "t", "m1\n", expect=1)
        self.ask("MGET", "x", "y", expect=[None, None])
        self.ask("NONSENSE", expect="ERR")
        self.ask("EVAL", "return {1, {'a', {}}, redis.error_reply('X y')}", 0, expect="nested")
        self.ask("PUBLISH", "u", "m2", expect=1)
        self.ask("ECHO", "last", expect=b"last")

    async def outcome(self, number: int) -> Any:
        """Return a reply, or the word of the error."""
        try:
            found = await self.futures[number]
        except ReplyError as error:
            return error.code
        except BrokerUnavailable as error:
            return "lost" if error.maybe_stored else "not written"
        if isinstance(found, list) and len(found) == 3:
            assert found[:2] == [1, [b"a", []]]
            return "nested"
        return found

    async def check(self) -> int:
        """Check that the replies are the right ones, up to some point; return how many came."""
        found = [await self.outcome(number) for number in range(len(self.futures))]
        came = found.index("lost") if "lost" in found else len(found)
        assert found == self.expected[:came] + ["lost"] * (len(found) - came)
        return came


async def test_replies_that_are_split_at_every_byte_are_read(redis: RedisServer) -> None:
    seen: list[bytes] = []
    async with (
        RedisProxy(redis).run() as proxy,
        connected(proxy.address, lambda _, frame: seen.append(frame)) as connection,
    ):
        proxy.harm.piece = 1
        journal = Journal(connection)
        journal.ask_all()
        assert await journal.check() == len(journal.futures)
        assert seen == [b"m1\n", b"m2"]


async def test_replies_that_are_cut_at_every_byte_are_right_or_lost(redis: RedisServer) -> None:
    came: list[tuple[int, int]] = []
    async with RedisProxy(redis).run() as proxy:
        length = 0
        while True:
            seen: list[bytes] = []
            proxy.harm.cut = None
            async with connected(proxy.address, lambda _, frame, s=seen: s.append(frame)) as one:  # type: ignore[misc]
                proxy.harm.cut, journal = length, Journal(one)
                journal.ask_all()
                came.append((await journal.check(), len(seen)))
                assert seen == [b"m1\n", b"m2"][: len(seen)]
            if came[-1][0] == len(journal.futures):
                break
            length += 1
    assert came == sorted(came)
    assert came[0] == (0, 0)
    assert came[-1] == (8, 2)
    assert length > 200


async def test_what_was_not_written_was_not_done(redis: RedisServer) -> None:
    async with connected(address_of(redis)) as connection:
        asked = connection.send(call("ECHO", "x"))
        connection.close("enough")
        later = connection.send(call("ECHO", "y"))
        for reply in (asked, later):
            with pytest.raises(BrokerUnavailable, match="enough") as caught:
                await reply
            assert not caught.value.maybe_stored
        assert connection.closed == "enough"


async def test_requests_after_a_failed_write_are_not_written(redis: RedisServer) -> None:
    """A write to a closed transport is an error on uvloop."""
    async with RedisProxy(redis).run() as proxy:
        line = await dial(proxy.address, 20.0)
        connection = Connection(line, lambda *_: None)  # learns of the end when it runs
        proxy.reset()
        await turns()
        asked: list[asyncio.Future[Any]] = []
        for number in range(9):
            asked.append(connection.send(call("ECHO", number)))
            await turns(1)
        with pytest.raises(BrokerUnavailable):
            await connection.run()
        maybe_stored: list[bool] = []
        for reply in asked:
            with pytest.raises(BrokerUnavailable) as caught:
                await reply
            maybe_stored.append(caught.value.maybe_stored)
        assert maybe_stored == [True, *[False] * 8]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"+OK\r\n", "answered what was not asked for"),
        (b">3\r\n$9\r\nsubscribe\r\n$1\r\nt\r\n:1\r\n", "confirmed what was not asked for"),
        (b"?\r\n", "the connection failed"),
        (b"", "Redis closed the connection"),
    ],
)
async def test_what_breaks_the_order_ends_the_connection(
    redis: RedisServer, said: bytes, reason: str
) -> None:
    await ends_after(redis, said, reason, asked=False)


async def test_a_reply_in_place_of_a_confirmation_ends_the_connection(redis: RedisServer) -> None:
    await ends_after(redis, b"+OK\r\n", "answered where it was to confirm", asked=True)


async def ends_after(redis: RedisServer, said: bytes, reason: str, *, asked: bool) -> None:
    """Let a server that is none of ours say something, at once or when it is asked."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(1000):
            writer.write(b"%1\r\n$5\r\nproto\r\n:3\r\n" * data.count(b"HELLO"))
            writer.write(b"+OK\r\n" * data.count(b"SETINFO"))
            writer.write(said * data.count(b"SUBSCRIBE"))

    path = redis.folder / "false"
    listening = await asyncio.start_unix_server(serve, path)
    connection = Connection(await dial(parse_address(f"unix://{path}"), 20.0), lambda *_: None)
    if asked:
        connection.subscribe(["t"])
    else:
        writers[0].write(said)
        writers[0].close()
    with pytest.raises(BrokerUnavailable, match=reason):
        await connection.run()
    writers[0].transport.abort()
    listening.close()
    path.unlink()
    await turns()


async def test_a_silent_redis_is_taken_for_dead(make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis()
    async with connected(address_of(redis), silence=0.2) as connection:
        await connection.send(call("ECHO", "x"))
        redis.send(signal.SIGSTOP)
        with pytest.raises(BrokerUnavailable, match="did not answer within") as caught:
            await connection.send(call("ECHO", "y"))
        assert caught.value.maybe_stored
        redis.send(signal.SIGCONT)


async def test_a_worker_that_stood_still_does_not_take_redis_for_dead(
    redis: RedisServer, client: Client
) -> None:
    """The reply has come, and was not read: the machine is busy, or a handler blocks the loop."""
    async with connected(address_of(redis), silence=0.2) as connection:
        for number in range(3):
            asked = connection.send(call("ECHO", number))
            await turns()
            client.execute_command("DEBUG", "SLEEP", "0.4")  # in this thread
            client.ping()  # all replies are written by now
            assert await asked == b"%d" % number


async def test_a_redis_that_is_killed_ends_the_connection(
    make_redis: Callable[..., RedisServer],
) -> None:
    redis = make_redis()
    async with connected(address_of(redis)) as connection:
        await connection.send(call("ECHO", "x"))
        asked = connection.send(call("BLPOP", "nothing", 0))
        await turns()
        redis.stop()
        with pytest.raises(BrokerUnavailable):
            await asked


async def test_a_replica_is_left(make_redis: Callable[..., RedisServer]) -> None:
    redis = make_redis()
    async with connected(address_of(redis)) as connection:
        await connection.send(call("REPLICAOF", "127.0.0.1", 1))
        with pytest.raises(ReplyError, match="READONLY") as caught:
            await connection.send(call("SET", "a", 1))
        assert not caught.value.maybe_stored
        assert (connection.closed or "").startswith("Redis says: READONLY")


async def test_late_bytes_of_a_dead_connection_can_be_killed(redis: RedisServer) -> None:
    async with RedisProxy(redis).run() as proxy, connected(proxy.address) as old:
        client = await old.send(call("CLIENT", "ID"))
        proxy.harm.deaf = True
        old.send(call("SET", "late", 1))
        await turns(20)
        old.close("given up")
        proxy.harm.deaf = False
        async with connected(address_of(redis)) as new:
            assert await new.send(call("CLIENT", "KILL", "ID", client)) == 1
            await proxy.release()
            assert await new.send(call("GET", "late")) is None


async def test_pushes_that_were_not_asked_for_are_passed_over(redis: RedisServer) -> None:
    seen: list[object] = []
    async with connected(address_of(redis), lambda _, frame: seen.append(frame)) as connection:
        await connection.send(call("CLIENT", "TRACKING", "ON"))
        await connection.send(call("GET", "a"))
        with redis.client() as client:
            client.set("a", 1)
        assert await connection.send(call("ECHO", "x")) == b"x"
        assert (seen, connection.closed) == ([], None)
