"""Channels inside of responses of a real FastAPI application become their references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, TypeAdapter, ValidationError

from asgi_comet import SITE, Channel, Comet, CometMiddleware, ExternalChannel
from asgi_comet.testing._inspect import feed_of
from tests.kit.stage import KEY

comet = Comet(KEY)
app = FastAPI()
app.add_middleware(CometMiddleware, comet=comet)
news: Channel[int] = comet.create(scope=SITE, name="news", type=int)
far = comet.external_channel(prefix="https://live.example.com/comet", name="far", history=3)


class Page(BaseModel):
    title: str
    inbox: Channel[Any]
    far: ExternalChannel
    more: list[Channel[int]] = []
    none: Channel[int] | None = None


@app.get("/model")
def model() -> Page:
    return Page(title="t", inbox=news, far=far, more=[news])


@app.get("/model-async")
async def model_async() -> Page:
    return Page(title="t", inbox=news, far=far, more=[news])


@app.get("/model-of-a-dict", response_model=Page)
def model_of_a_dict() -> Any:
    return {"title": "t", "inbox": news, "far": far, "more": [news]}


@app.get("/annotated")
def annotated() -> dict[str, Any]:
    return {"title": "t", "inbox": news, "far": far, "more": [news], "none": None}


@app.get("/plain")
def plain():  # type: ignore[no-untyped-def]  # tested: no response model
    return {"title": "t", "inbox": news, "far": far, "more": [news], "none": None}


@app.get("/plain-async")
async def plain_async():  # type: ignore[no-untyped-def]  # the same
    return {"title": "t", "inbox": news, "far": far, "more": [news], "none": None}


@app.get("/alone")
def alone() -> Channel[int]:
    return news


@app.get("/alone-plain")
async def alone_plain():  # type: ignore[no-untyped-def]  # the same
    return news


@app.get("/several")
async def several() -> dict[str, Channel[int] | ExternalChannel]:
    return {"news": news, "far": far}


@pytest.fixture(scope="module")
def page() -> Iterator[TestClient]:
    with TestClient(app, root_path="/root") as client:
        yield client


def reference() -> dict[str, str]:
    position = f"{feed_of(news).history.epoch}.0"
    return {"url": "/root/comet", "channel": "news", "position": position}


FAR = {"url": "https://live.example.com/comet", "channel": "far", "position": "last:3"}


@pytest.mark.parametrize(
    "path", ["model", "model-async", "model-of-a-dict", "annotated", "plain", "plain-async"]
)
def test_a_channel_becomes_its_reference_wherever_it_is(page: TestClient, path: str) -> None:
    answer = page.get(f"/{path}")
    assert answer.status_code == 200
    assert answer.json() == {
        "title": "t",
        "inbox": reference(),
        "far": FAR,
        "more": [reference()],
        "none": None,
    }


@pytest.mark.parametrize("path", ["alone", "alone-plain"])
def test_a_channel_may_be_all_there_is(page: TestClient, path: str) -> None:
    assert page.get(f"/{path}").json() == reference()


def test_channels_of_both_kinds_may_be_where_either_is(page: TestClient) -> None:
    assert page.get("/several").json() == {"news": reference(), "far": FAR}


@pytest.mark.parametrize("separate", [True, False])
def test_the_schema_names_one_component_with_three_texts(separate: bool) -> None:
    described = FastAPI(separate_input_output_schemas=separate)
    described.get("/model")(model)
    described.get("/alone")(alone)
    found = described.openapi()
    schema = found["components"]["schemas"]["ChannelReference"]
    assert schema["required"] == ["url", "channel", "position"]
    for name in schema["required"]:
        assert schema["properties"][name]["type"] == "string"
        assert schema["properties"][name]["description"]
    link = {"$ref": "#/components/schemas/ChannelReference"}
    properties = found["components"]["schemas"]["Page"]["properties"]
    assert link.items() <= properties["inbox"].items()
    assert link.items() <= properties["far"].items()
    assert link in properties["none"]["anyOf"]
    assert properties["more"]["items"] == link
    alone_ = found["paths"]["/alone"]["get"]["responses"]["200"]["content"]["application/json"]
    assert link.items() <= alone_["schema"].items()


def test_what_is_no_channel_does_not_pass_for_one() -> None:
    adapter: TypeAdapter[Channel[Any]] = TypeAdapter(Channel[Any])
    assert adapter.validate_python(news) is news
    for value in (far, {"url": "/comet", "channel": "news", "position": "now"}, None):
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
    with pytest.raises(ValidationError, match="expected no channel in a request"):
        adapter.validate_json('{"url": "/comet", "channel": "news", "position": "now"}')


def test_a_channel_can_be_sent_on_a_channel() -> None:
    channel = comet.create(scope=SITE)
    channel.publish({"go on at": far})
    run = feed_of(channel).history.after(0)
    assert run is not None
    assert run[0].data == (
        b'{"go on at":{"url":"https://live.example.com/comet","channel":"far","position":"last:3"}}'
    )


def test_an_external_channel_tells_what_it_is() -> None:
    assert repr(far) == "<ExternalChannel 'https://live.example.com/comet' 'far' last:3>"
    assert dict(far) == FAR
