from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer, TimestampSigner

from asgi_comet import Comet
from asgi_comet.identity.tokens import KNOWN_LIMIT, Identity, load_keys
from asgi_comet.testing._inspect import known, replace_known_processes

GOOD = "k" * 32


def test_one_key_or_a_list_of_keys_of_either_type() -> None:
    assert load_keys(GOOD) == [GOOD.encode()]
    assert load_keys([GOOD, b"n" * 40]) == [GOOD.encode(), b"n" * 40]


@pytest.mark.parametrize(
    ("key", "error", "text"),
    [
        ("", ValueError, "at least 32 bytes, got 0"),
        ("k" * 31, ValueError, "at least 32 bytes, got 31"),
        ([], ValueError, "at least one secret_key, got none"),
        ([GOOD, "short"], ValueError, "at least 32 bytes, got 5"),
        (None, TypeError, "got NoneType"),
        (7, TypeError, "got int"),
        ([7], TypeError, "got int"),
    ],
)
def test_a_missing_or_short_key_says_what_is_expected(
    key: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        Comet(key)
    if isinstance(key, str) and key:
        assert key not in str(caught.value)
    if error is ValueError:
        assert "secrets.token_urlsafe(32)" in str(caught.value)


def test_a_key_is_measured_in_bytes() -> None:
    assert load_keys("é" * 16) == [("é" * 16).encode()]


DAY = 24 * 3600.0
SIGNED_AT = 1_700_000_000.0
OLD, NEW, LATEST = b"o" * 32, b"n" * 32, b"l" * 32


def identity(*keys: bytes, at: float = SIGNED_AT) -> Identity:
    return Identity(list(keys or (OLD,)), now=lambda: at)


def both(old: Identity, new: Identity) -> tuple[str | None, str | None]:
    """What one makes of a session's and a process' signature by another."""
    return new.unsign_session(old.sign_session("s")), new.unsign_process(old.sign_process("p"))


def test_what_one_key_signed_verifies_in_every_list_that_holds_it() -> None:
    assert both(identity(OLD), identity(OLD, NEW)) == ("s", "p")
    assert both(identity(OLD), identity(OLD, NEW, LATEST)) == ("s", "p")


def test_the_last_key_signs() -> None:
    assert both(identity(OLD, NEW), identity(NEW)) == ("s", "p")
    assert both(identity(OLD, NEW), identity(OLD)) == (None, None)


def test_a_key_that_was_taken_out_verifies_no_longer() -> None:
    assert both(identity(OLD), identity(NEW)) == (None, None)
    assert both(identity(OLD, NEW), identity(OLD, LATEST)) == (None, None)


def test_a_session_is_no_process_and_a_process_no_session() -> None:
    ours = identity()
    assert ours.unsign_process(ours.sign_session("x")) is None
    assert ours.unsign_session(ours.sign_process("x")) is None
    assert ours.unsign_session(ours.sign_process(f"x.{ours.sign_session('x').split('.')[1]}")) is (
        None
    )


@pytest.mark.parametrize(
    ("later", "accepted"),
    [
        (-31, False),
        (-30.5, False),
        (-30, True),
        (0, True),
        (30, True),
        (30 * DAY, True),
        (30 * DAY + 30, True),
        (30 * DAY + 31, False),
        (300 * DAY, False),
    ],
)
def test_a_session_lasts_30_days_and_clocks_may_differ_by_30_seconds(
    later: float, accepted: bool
) -> None:
    value = identity().sign_session("s")
    expected = "s" if accepted else None
    verifier = identity(at=SIGNED_AT + later)
    assert verifier.unsign_session(value) == expected
    assert verifier.unsign_session(value) == expected  # the second time it is known


HOUR = 3600.0


@pytest.mark.parametrize(
    ("later", "accepted"),
    [(-31, False), (-30, True), (0, True), (8 * HOUR + 30, True), (8 * HOUR + 31, False)],
)
def test_an_operator_is_signed_in_for_8_hours_and_clocks_may_differ_by_30_seconds(
    later: float, accepted: bool
) -> None:
    value = identity().sign_operator("look.x")
    verifier = identity(at=SIGNED_AT + later)
    assert verifier.unsign_operator(value) == ("look.x" if accepted else None)
    assert verifier.unsign_session(value) is None


def test_a_session_that_was_verified_before_expires_all_the_same() -> None:
    now = SIGNED_AT
    ours = Identity([OLD], now=lambda: now)
    value = ours.sign_session("s")
    assert ours.unsign_session(value) == "s"
    now += 30 * DAY + 31
    assert ours.unsign_session(value) is None


def test_a_process_token_does_not_expire() -> None:
    token = identity().sign_process("p")
    assert identity(at=SIGNED_AT + 300 * DAY).unsign_process(token) == "p"


def test_the_time_of_day_is_the_default_clock() -> None:
    ours = Identity([OLD])
    assert ours.unsign_session(ours.sign_session("s")) == "s"


ALPHABET = string.ascii_letters + string.digits + "-_"
GARBAGE = [
    "",
    ".",
    "\x00",
    "é",
    "٣",
    "\ud800",
    "\U0001f600",
    " ",
    "\n",
    "=",
    "====",
    "!" * 100,
    ";",
]


def flip_bit(text: str, random: Random) -> str:
    place = random.randrange(len(text))
    return text[:place] + chr(ord(text[place]) ^ 1 << random.randrange(8)) + text[place + 1 :]


def truncate(text: str, random: Random) -> str:
    first, last = sorted(random.sample(range(len(text) + 1), 2))
    return random.choice([text[:first], text[last:], text[:first] + text[last:]])


def spare_bits(text: str, random: Random) -> str:
    """Another last character: of a digest's 43, the lowest two bits of the last say nothing."""
    return text[:-1] + random.choice(ALPHABET)


def change_case(text: str, random: Random) -> str:
    place = random.randrange(len(text))
    swapped = text[:place] + text[place].swapcase() + text[place + 1 :]
    return random.choice([swapped, text.upper(), text.lower(), text.swapcase()])


def swap_parts(text: str, random: Random) -> str:
    parts = text.split(".")
    random.shuffle(parts)
    return ".".join(random.choice([parts, parts[1:], [*parts, parts[0]], [parts[0], *parts]]))


def put_garbage(text: str, random: Random) -> str:
    place = random.randrange(len(text) + 1)
    garbage = random.choice(GARBAGE) + random.choice([chr(random.randrange(0x11_0000)), ""])
    return random.choice([text[:place] + garbage + text[place:], garbage, garbage + text])


def extend(text: str, random: Random) -> str:
    return text + "".join(random.choices(ALPHABET + "=.", k=random.randrange(1, 20)))


MUTATIONS = [flip_bit, truncate, spare_bits, change_case, swap_parts, put_garbage, extend]


@pytest.mark.parametrize("kind", ["session", "process"])
def test_of_ten_thousand_mutations_none_is_accepted_with_altered_content(kind: str) -> None:
    ours, random = identity(OLD, NEW), Random(kind)
    sign = ours.sign_session if kind == "session" else ours.sign_process
    unsign = ours.unsign_session if kind == "session" else ours.unsign_process
    refused = 0
    for number in range(10_000):
        name = secrets.token_urlsafe(18)
        mutated = MUTATIONS[number % len(MUTATIONS)](sign(name), random)
        if number % 3 == 0:
            mutated = random.choice(MUTATIONS)(mutated or ".", random)
        found = unsign(mutated)
        assert found in (None, name), (name, mutated)
        refused += found is None
    assert refused > 8_000


@given(st.text(st.characters()))
def test_any_text_is_refused_without_an_exception(text: str) -> None:
    assert identity().unsign_session(text) is None
    assert identity().unsign_process(text) is None


def test_another_spelling_of_a_signature_is_the_same_session() -> None:
    ours = identity()
    value = ours.sign_session("s")
    spellings = {ours.unsign_session(value[:-1] + last) for last in ALPHABET}
    assert spellings == {"s", None}


def test_a_known_text_is_not_asked_of_the_signer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = identity()
    value, token = ours.sign_session("s"), ours.sign_process("p")
    first = ours.unsign_session(value), ours.unsign_process(token)

    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("the signer was asked again")

    monkeypatch.setattr(Signer, "unsign", asked)
    monkeypatch.setattr(TimestampSigner, "unsign", asked)
    with pytest.raises(AssertionError, match="asked again"):
        ours.unsign_process(ours.sign_process("q"))
    assert (ours.unsign_session(value), ours.unsign_process(token)) == first == ("s", "p")


def test_what_is_refused_is_not_remembered() -> None:
    ours = identity()
    for number in range(100):
        ours.unsign_session(f"forged{number}")
        ours.unsign_process(f"forged{number}")
    assert known(ours) == ({}, {})


def test_known_texts_are_bounded_at_n_and_n_plus_one_and_the_oldest_goes() -> None:
    ours = identity()
    values = [ours.sign_session(str(n)) for n in range(KNOWN_LIMIT + 1)]
    tokens = [ours.sign_process(str(n)) for n in range(KNOWN_LIMIT + 1)]
    for value, token in zip(values[:-1], tokens[:-1], strict=True):
        assert ours.unsign_session(value) is not None
        assert ours.unsign_process(token) is not None
    assert list(known(ours).sessions) == values[:-1]
    assert list(known(ours).processes) == tokens[:-1]
    assert (ours.unsign_session(values[-1]), ours.unsign_process(tokens[-1])) == ("10000", "10000")
    assert list(known(ours).sessions) == values[1:]
    assert list(known(ours).processes) == tokens[1:]
    assert ours.unsign_session(values[0]) == "0"  # it costs a verification, no more


def test_a_spelling_of_any_length_takes_no_memory_of_that_length() -> None:
    ours = identity()
    value, token = ours.sign_session("s"), ours.sign_process("p")
    for number in range(10):  # what is not of its alphabet is nothing to the decoder of base64
        padding = "!" * (60_000 + number)
        assert ours.unsign_session(value + padding) in ("s", None)
        assert ours.unsign_process(token + padding) in ("p", None)
    assert sum(map(len, [*known(ours).sessions, *known(ours).processes])) < 10_000


class Contended(dict[str, Any]):
    """A table where another thread comes in between the look at the oldest and what follows."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile: Callable[[], object] | None = meanwhile

    def __iter__(self) -> Iterator[str]:
        names = list(super().__iter__())
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            thread = threading.Thread(target=meanwhile)
            thread.start()
            thread.join(0.5)  # or it waits for us to be done
        return iter(names)


def test_two_threads_that_make_room_at_the_bound_do_not_disturb_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asgi_comet.identity.tokens.KNOWN_LIMIT", 2)
    ours = identity()
    tokens = [ours.sign_process(str(number)) for number in range(4)]
    found = list[str | None]()
    table = Contended(lambda: found.append(ours.unsign_process(tokens[3])))
    replace_known_processes(ours, table)
    assert [ours.unsign_process(token) for token in tokens[:3]] == ["0", "1", "2"]
    assert (found or ["3"]) == ["3"]
    assert len(known(ours).processes) <= 3


def test_a_text_over_256_characters_is_not_even_verified() -> None:
    identity = Identity(load_keys("k" * 32))
    for sign, unsign in (
        (identity.sign_session, identity.unsign_session),
        (identity.sign_process, identity.unsign_process),
    ):
        longest = "x" * (256 - len(sign("")))
        assert len(sign(longest)) == 256
        assert unsign(sign(longest)) == longest
        assert unsign(sign(longest + "x")) is None
