"""Names with words: what they match, and whether two could match the same."""

from __future__ import annotations

import itertools
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_comet import InvalidDeclaration, InvalidName
from asgi_comet.core.pattern import Pattern, parse_pattern


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("room:42", {"room": "42"}),
        ("room:ü x", {"room": "ü x"}),
        ("room:", None),
        ("room:a:b", None),
        ("room:a/b", None),
        ("Room:42", None),
        ("a room:42", None),
        ("room:4\n2", {"room": "4\n2"}),
        ("room:42\n", {"room": "42\n"}),
    ],
)
def test_a_word_is_one_or_more_characters_other_than_colon_and_slash(
    name: str, words: dict[str, str] | None
) -> None:
    assert parse_pattern("room:{room}").match(name) == words


def test_what_is_around_words_is_taken_as_it_is() -> None:
    pattern = parse_pattern("a.b*{x}[{y}]")
    assert pattern.words == ("x", "y")
    assert pattern.match("a.b*1[2]") == {"x": "1", "y": "2"}
    assert pattern.match("aXb*1[2]") is None
    assert pattern.fill({"y": "2", "x": "1"}) == "a.b*1[2]"


def test_a_name_without_words_matches_itself() -> None:
    pattern = parse_pattern("news")
    assert (pattern.words, pattern.match("news"), pattern.match("newsy")) == ((), {}, None)
    assert pattern.fill({}) == "news"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("room:{}", "a Python identifier each, got {}"),
        ("room:{a b}", "a Python identifier each, got {a b}"),
        ("room:{1}", "a Python identifier each, got {1}"),
        ("room:{ä}", "a Python identifier each, got {ä}"),
        ("room:{class}", "a Python identifier each, got {class}"),
        ("{a}:{a}", r"each word once, got ['a', 'a']"),
        ("{a", "braces around words only"),
        ("a}", "braces around words only"),
        ("{{a}}", "braces around words only"),
        ("{a}{b}", "something between two words"),
    ],
)
def test_bad_words_are_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(InvalidDeclaration) as caught:
        parse_pattern(name)
    assert reason in caught.value.reason
    assert caught.value.name == name
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    "name", ["", "~own", ":event", "@room", "@{a}", "open", "a\nb", "x" * 256, 7]
)
def test_a_name_that_no_channel_may_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        parse_pattern(name)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("room:{a}", "room:{b}", True),
        ("room:{a}", "{b}:x", True),
        ("room:{a}", "user:{a}", False),
        ("room:{a}", "room:{a}:{b}", False),
        ("a{x}", "{x}b", True),
        ("a{x}c", "b{x}c", False),
        ("{x}-{y}", "{z}", True),
        ("{x}/{y}", "{x}:{y}", False),
        ("aa{x}", "a{x}", True),
        ("{x}a", "a", False),
    ],
)
def test_two_overlap_if_some_name_matches_both(one: str, other: str, overlap: bool) -> None:
    assert parse_pattern(one).overlaps(parse_pattern(other)) is overlap
    assert parse_pattern(other).overlaps(parse_pattern(one)) is overlap


SHORT = 6
NAMES = ["".join(n) for size in range(1, SHORT + 1) for n in itertools.product("ab:", repeat=size)]


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    """Patterns that match names of `SHORT` characters or fewer, if they overlap at all."""
    parts = draw(st.lists(st.sampled_from(["a", "b", ":", "{}"]), min_size=1, max_size=SHORT // 2))
    assert isinstance(parts, list)
    text, words = "", 0
    for part in parts:
        if part == "{}" and text.endswith("}"):
            continue
        text += f"{{w{words}}}" if part == "{}" else part
        words += part == "{}"
    return parse_pattern("a" + text if text.startswith(":") else text)


@given(patterns(), patterns())
@example(parse_pattern("{x}a"), parse_pattern("{x}b"))
@example(parse_pattern("a{x}"), parse_pattern("{x}b"))
def test_overlap_agrees_with_trying_all_short_names(one: Pattern, other: Pattern) -> None:
    tried = any(one.match(n) is not None and other.match(n) is not None for n in NAMES)
    assert one.overlaps(other) is tried


TEXTS = st.text("ab-:/", max_size=3)
WORDS = ["u", "v", "w", "x", "y"]


@st.composite
def templates(draw: st.DrawFn) -> Pattern:
    """Patterns with several words in one segment or in many."""
    texts = draw(st.lists(TEXTS.filter(bool), max_size=len(WORDS) - 1))
    ends = draw(TEXTS.map(lambda text: text.lstrip(":"))), draw(TEXTS)
    between = "".join(f"{text}{{{word}}}" for text, word in zip(texts, WORDS[1:], strict=False))
    return parse_pattern(f"{ends[0]}{{u}}{between}{ends[1]}")


def as_expression(pattern: Pattern) -> re.Pattern[str]:
    """What a pattern means, as a regular expression."""
    parts = re.split(r"\{(.*?)\}", pattern.name)
    parts[0::2] = [re.escape(text) for text in parts[0::2]]
    parts[1::2] = [f"(?P<{word}>[^:/]+)" for word in parts[1::2]]
    return re.compile("".join(parts), re.DOTALL)


@settings(max_examples=500)
@given(templates(), st.text("ab-:/\n", max_size=12))
@example(parse_pattern("{u}-{v}"), "a--b-")
@example(parse_pattern("{u}aa{v}"), "baaaab")
@example(parse_pattern("a{u}a"), "aa")
@example(parse_pattern("{u}b{v}aba"), "aba")
def test_it_matches_as_the_regular_expression_does(pattern: Pattern, name: str) -> None:
    found = as_expression(pattern).fullmatch(name)
    assert pattern.match(name) == (found and found.groupdict())


@given(templates(), st.data())
def test_what_is_filled_in_is_matched_again(pattern: Pattern, data: st.DataObject) -> None:
    texts = st.text("ab-", min_size=1, max_size=4)
    words = {word: data.draw(texts) for word in pattern.words}
    name = pattern.fill(words)
    found = as_expression(pattern).fullmatch(name)
    assert found is not None
    assert pattern.match(name) == found.groupdict()


HOSTILE = [
    "{a}-{b}",
    "log:{a}-{b}-{c}",
    "{a}-{b}-{c}-{d}-{e}-{f}",
    "{a}a{b}aa{c}a{d}",
    "x{a}--{b}--y",
]
STALL = 0.05  # seconds


@pytest.mark.parametrize("template", HOSTILE)
def test_no_request_of_names_takes_long_to_match(template: str) -> None:
    pattern = parse_pattern(template)
    start = template.partition("{")[0]
    for filling in ("-", "a", "-a", "a-", "--a"):
        name = (start + filling * 255)[:254]
        before = time.thread_time()
        for _ in range(128):  # as many as one request may have
            pattern.match(f"{name}:")
            pattern.match(name)
        assert time.thread_time() - before < STALL
