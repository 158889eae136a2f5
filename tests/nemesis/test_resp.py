"""What the proxy understands of RESP3."""

from __future__ import annotations

import pytest

from asgi_comet.brokers.redis.connection import pack
from tests.nemesis.proxy import NAMES, name_of
from tests.nemesis.resp import Splitter, words_of

VALUES = [
    b"+OK\r\n",
    b":12\r\n",
    b"_\r\n",
    b"$-1\r\n",
    b"$3\r\na\r\n\r\n",
    b"*0\r\n",
    b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
    b"%1\r\n+a\r\n$2\r\nbc\r\n",
    b">3\r\n$7\r\nmessage\r\n$1\r\nt\r\n$0\r\n\r\n",
    b"|1\r\n+a\r\n+b\r\n:1\r\n",
]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_values_are_cut_wherever_the_bytes_are_split(size: int) -> None:
    splitter, stream, found = Splitter(), b"".join(VALUES), list[bytes]()
    for begin in range(0, len(stream), size):
        found += splitter.feed(stream[begin : begin + size])
    assert found == VALUES


def test_another_protocol_is_refused() -> None:
    with pytest.raises(AssertionError, match="expected RESP3"):
        Splitter().feed(b"HTTP/1.1 200 OK\r\n")


def test_the_words_of_a_request_are_read() -> None:
    assert words_of(pack(("GET", "key")), 5) == [b"GET", b"key"]
    assert words_of(pack(("EVALSHA", "a" * 40, 1, "key")), 2) == [b"EVALSHA", b"a" * 40]


def test_a_script_is_known_by_its_name() -> None:
    (sha,) = [sha.decode() for sha, name in NAMES.items() if name == "append"]
    assert name_of(pack(("EVALSHA", sha, 1, "key"))) == "append"
    assert name_of(pack(("SUBSCRIBE", "topic"))) == "subscribe"
