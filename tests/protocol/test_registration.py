from __future__ import annotations

import json
import subprocess
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_comet.channels.encoding import make_encode
from asgi_comet.core.messages import Message
from asgi_comet.errors import BadRequest
from asgi_comet.protocol.registration import (
    EMPTY,
    decode_registration,
    encode_ended,
    encode_messages,
    spellings,
    unescape,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)


def escape(text: str) -> str:
    """JavaScript's `escape`, by the letter of ECMAScript's annex B."""
    raw = text.encode("utf-16-be", "surrogatepass")
    units = [int.from_bytes(raw[i : i + 2]) for i in range(0, len(raw), 2)]
    safe = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789@*_+-./")
    return "".join(chr(u) if u in safe else f"%{u:02X}" if u < 256 else f"%u{u:04X}" for u in units)


def register(*names: str) -> bytes:
    return b"registration=" + escape("\n".join(names)).encode()


def decode(body: bytes, limit: int = 128) -> list[list[str]]:
    return [list(spellings(identifier)) for identifier in decode_registration(body, limit)]


def messages(*texts: str) -> list[Message]:
    encode = make_encode(str)
    return [Message(n, encode("a", text)) for n, text in enumerate(texts, 1)]


def client_reads(answer: bytes) -> list[tuple[str, str | None]]:
    """What a client makes of an answer; `None` is an end."""
    if not answer:
        return []
    pairs = [line.split(":") for line in answer.decode("ascii").split("\n")]
    return [(unquote(i), None if m == "ENDED_CHANNEL" else unquote(m)) for i, m in pairs]


@given(st.lists(NAMES, min_size=1, max_size=20, unique=True))
def test_identifiers_escaped_by_javascript_are_read(names: list[str]) -> None:
    found = decode(register(*names))
    assert [
        name in spelled for name, spelled in zip(names, found, strict=True)
    ] == [True] * len(names)  # fmt: skip


@given(st.lists(NAMES, min_size=1, max_size=20, unique=True))
def test_identifiers_encoded_as_components_are_read_at_the_first_try(names: list[str]) -> None:
    found = decode(b"registration=" + quote("\n".join(names), safe="").encode())
    assert [spelled[0] for spelled in found] == names


@pytest.mark.parametrize(
    ("body", "names"),
    [
        (b"registration=a", ["a"]),
        (b"registration=a%0Ab%0ac", ["a", "b", "c"]),
        (b"registration=a\nb\r\nc", ["a", "b", "c"]),
        (b"registration=a%0D%0Ab%u000Ac", ["a", "b", "c"]),
        (b"registration=a&registration=b", ["a", "b"]),
        (b"x=1&registration=a&y=registration", ["a"]),
        (b"%72egistration=a", ["a"]),
        (b"registration=%0A%0Aa%0A", ["a"]),
        (b"registration=a%0Aa&registration=a", ["a"]),
        (b"registration=%u20AC%20", ["€ "]),
        (b"registration=%uD83C%uDF88", ["🎈"]),
        (b"registration=%F0%9F%8E%88", ["🎈"]),
        ("registration=é".encode(), ["é"]),
        ("registration=é".encode("latin-1"), ["é"]),
        (b"registration=%E9t%E9", ["été"]),
        (b"registration=%C3%A9%0A%E9", ["é", "é"]),
        (b"registration=a=b", ["a=b"]),
        (b"registration=100%", ["100%"]),
        (b"registration=%zz%u12", ["%zz%u12"]),
        (b"registration=%2541", ["%41"]),
        (b"registration=%25u0041", ["%u0041"]),
        (b"registration=%uD800", ["\ufffd"]),
        (b"registration=%uDC00%uD800", ["\ufffd\ufffd"]),
    ],
)
def test_requests_and_what_they_name(body: bytes, names: list[str]) -> None:
    assert [spelled[0] for spelled in decode(body)] == names


def test_the_other_spellings_are_latin_1_and_plus_as_space() -> None:
    assert decode(b"registration=%C3%A9+b") == [["é+b", "Ã©+b", "é b"]]


@pytest.mark.parametrize(
    "body", [b"", b"registration=", b"registration", b"x=a", b"registration=%0A%0A", b"&&", b"\xff"]
)
def test_no_identifier_is_told_in_the_words_of_the_original(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_registration(body, 128)
    assert str(caught.value) == EMPTY == "Empty or incorrect registration"


def test_the_number_of_identifiers_at_the_limit_and_one_over() -> None:
    names = [f"c{n}" for n in range(129)]
    assert len(decode_registration(register(*names[:128]), 128)) == 128
    with pytest.raises(BadRequest, match="at most 128 channels"):
        decode_registration(register(*names), 128)


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_a_bad_one(body: bytes) -> None:
    for prefix in (b"", b"registration="):
        try:
            found = decode_registration(prefix + body, 128)
        except BadRequest:
            continue
        assert found
        for identifier in found:
            for name in spellings(identifier):
                name.encode()  # never a lone surrogate
                encode_ended(name).decode("ascii")


@given(TEXTS)
def test_unescape_undoes_escape(text: str) -> None:
    # Two Latin-1 characters that happen to be UTF-8 are read as such; the second spelling is exact.
    assert unescape(escape(text), latin=True) == text


@settings(max_examples=500)
@given(NAMES, st.lists(TEXTS, max_size=5))
@example("a:b", ["x:y\nz", "ENDED_CHANNEL", "", "%45NDED_CHANNEL", '"', "\u2028\ufeff\x00"])
def test_one_pair_in_is_one_pair_out(name: str, texts: list[str]) -> None:
    assert client_reads(encode_messages(name, "e", messages(*texts))) == [(name, t) for t in texts]


def test_an_end_cannot_be_mistaken() -> None:
    assert encode_messages("a", "e", messages("ENDED_CHANNEL")) == b"a:%45NDED_CHANNEL"
    assert encode_ended("a:\n") == b"a%3A%0A:ENDED_CHANNEL"
    assert client_reads(encode_ended("é")) == [("é", None)]


def test_the_alphabet_is_that_of_encode_uri_component() -> None:
    every = "".join(map(chr, range(0x20, 0x7F)))
    kept = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.!~*'()"
    written = encode_messages("a", "e", messages(every)).decode().partition(":")[2]
    assert {c for c in every if c in written and quote(c, safe="") not in written} <= set(kept)
    assert written == "".join(c if c in kept else f"%{ord(c):02X}" for c in every)


def test_values_that_are_not_text_are_sent_as_json() -> None:
    run = [Message(1, b'{"price":1.5}'), Message(2, b"17"), Message(3, b"null")]
    assert client_reads(encode_messages("t", "e", run)) == [
        ("t", '{"price":1.5}'),
        ("t", "17"),
        ("t", "null"),
    ]


NODE = """
const input = JSON.parse(require("fs").readFileSync(0, "utf8"));
const read = answer => answer.split("\\n").map(pair => pair.split(":").map(decodeURIComponent));
process.stdout.write(JSON.stringify({
  read: input.answers.map(read),
  escaped: input.names.map(name => escape(name)),
  unescaped: input.names.map(name => unescape(escape(name))),
  components: input.names.map(name => encodeURIComponent(name)),
}));
"""


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(NAMES, TEXTS), min_size=50, max_size=200))
def test_javascript_reads_what_we_write_and_we_read_what_it_escapes(
    cases: list[tuple[str, str]],
) -> None:
    answers = [encode_messages(name, "e", messages(text)).decode() for name, text in cases]
    names = [name for name, _ in cases]
    sent = json.dumps({"answers": answers, "names": names})
    run = subprocess.run(
        ["node", "-e", NODE], input=sent.encode(), capture_output=True, check=True, timeout=60
    )
    found = json.loads(run.stdout)
    assert found["read"] == [[[name, text]] for name, text in cases]
    assert found["escaped"] == [escape(name) for name in names]
    assert found["unescaped"] == names
    for name, escaped, component in zip(names, found["escaped"], found["components"], strict=True):
        assert name in set(spellings(escaped))
        assert next(spellings(component)) == name
