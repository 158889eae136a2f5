"""`comet.script`: whatever is in it, it ends only where it should, and is read back as it was."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_comet import SITE, Channel, Comet
from asgi_comet.api.pages import Markup, render_script
from asgi_comet.errors import NoClientProcess
from tests.kit.html import read

HOSTILE = [
    "</script><script>alert(1)</script>",
    "</SCRIPT >",
    "<!--<script>",
    "-->",
    "<![CDATA[",
    "&lt;/script&gt;&#60;",
    '"><img src=x onerror=alert(1)>',
    "'\"\\\u2028\u2029",
    "{{ 7 * 7 }}${7*7}<%= 7 %>",
    "__proto__",
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.fixture
def news(comet: Comet) -> Channel[Any]:
    return comet.create(scope=SITE, name="news")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_it_ends_it_or_begins_anything_else(text: str) -> None:
    page = {text: {"channel": text, "url": text, "position": [text]}}
    html = render_script(page)
    assert read(html) == page
    inside = html.removeprefix('<script type="application/json" id="comet">')
    assert not set("<>&") & set(inside.removesuffix("</script>"))


@given(st.dictionaries(st.text(), values))
def test_it_is_read_back_as_it_was(page: dict[str, Any]) -> None:
    assert read(render_script(page)) == page


def test_template_engines_insert_it_as_it_is() -> None:
    html = render_script({"a": "<"})
    assert isinstance(html, Markup)
    assert html.__html__() is html
    assert html == '<script type="application/json" id="comet">{"a":"\\u003c"}</script>'


def test_a_channel_is_given_with_its_place_by_the_name_of_the_page(
    comet: Comet, news: Channel[Any]
) -> None:
    other = comet.create(scope=SITE)
    assert read(comet.script(headlines=news, other=other)) == {
        "channels": {"headlines": news.reference(), "other": other.reference()}
    }
    before = news.reference()
    news.publish("x")
    assert read(comet.script(news=news))["channels"]["news"] != before


def test_a_channel_of_another_server_is_given_with_its_address(comet: Comet) -> None:
    name = HOSTILE[0]
    far = comet.external_channel(prefix="https://live.example.com/comet", name=name, history=5)
    assert read(comet.script(far=far)) == {
        "channels": {
            "far": {"url": "https://live.example.com/comet", "channel": name, "position": "last:5"}
        }
    }


def test_hostile_names_of_channels_and_of_arguments(comet: Comet) -> None:
    for text in HOSTILE:
        channels = {text: comet.create(scope=SITE, name=text)}
        found = read(comet.script(None, **channels))
        assert found == {"channels": {text: channels[text].reference()}}


def test_without_anything_it_is_still_an_element(comet: Comet) -> None:
    assert read(comet.script()) == {"channels": {}}


def test_outside_of_a_request_there_is_no_process_to_give(comet: Comet) -> None:
    with pytest.raises(NoClientProcess):
        comet.script(comet.open_process())


def test_what_is_no_process_or_no_channel_is_refused(comet: Comet) -> None:
    anything: Any = comet.create(scope=SITE, name="news")
    with pytest.raises(TypeError, match=r"got Channel; .*comet\.script\(process, news=news\)"):
        comet.script(anything)
    anything = 1
    with pytest.raises(TypeError, match="expected news to be a channel, got int"):
        comet.script(news=anything)
