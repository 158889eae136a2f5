"""The endpoints of the dashboard's lists: pages of channels and of tabs, and messages.

Owns what may be asked, and which role that needs. Must not know what a row holds.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from asgi_comet.admin.dashboard.asking import ask, page
from asgi_comet.admin.roles import Operator
from asgi_comet.http.exchange import JSON, Exchange, Refusal, answer, read_body
from asgi_comet.node.build import Node

__all__ = ["Request", "read", "tell", "tell_channels", "tell_messages", "tell_tabs"]

MOST = 200  # rows of one page

Text = Annotated[str, Field(max_length=1000)]


class Request(BaseModel, strict=True, extra="forbid"):
    """A request of the page."""


class Rows(Request):
    """A page of a list."""

    start: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    count: Annotated[int, Field(ge=0, le=MOST)] = MOST
    find: Text = ""


class Channels(Rows):
    """A page of the channels of a declaration."""

    of: Text


class Messages(Request):
    """The messages of a channel after a position."""

    channel: Text
    epoch: Text = ""
    after: Annotated[int, Field(ge=0)] = 0


R = TypeVar("R", bound=Request)


async def tell_channels(node: Node, operator: Operator, exchange: Exchange) -> None:
    """Answer with a page of the channels of a declaration."""
    asked = await read(node, exchange, Channels)
    ids = operator.role == "contents"  # a client with the identifier can read
    faults = operator.role != "look"
    details = {"of": asked.of, "find": asked.find, "ids": ids, "faults": faults}
    await tell(node, exchange, await page(node, "members", details, asked.start, asked.count))


async def tell_tabs(node: Node, _: Operator, exchange: Exchange) -> None:
    """Answer with a page of the client processes."""
    asked = await read(node, exchange, Rows)
    details = {"find": asked.find}
    await tell(node, exchange, await page(node, "tabs", details, asked.start, asked.count))


async def tell_messages(node: Node, _: Operator, exchange: Exchange) -> None:
    """Answer with messages of a channel, of the first worker that has it."""
    asked = await read(node, exchange, Messages)
    details = {"name": asked.channel, "epoch": asked.epoch, "after": asked.after}
    found = await ask(node, "messages", details)
    if not found:
        raise Refusal(404, "no worker has this channel")
    await tell(node, exchange, found[0])


async def read(node: Node, exchange: Exchange, kind: type[R]) -> R:
    """Read the body of a request.

    Raises:
        Refusal: 400 if the body is none of that kind.
    """
    body = await read_body(node, exchange)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the body"
        raise Refusal(400, f"expected {where} to be right: {wrong['msg']}") from None


async def tell(node: Node, exchange: Exchange, found: Any) -> None:
    """Answer with JSON."""
    await answer(node, exchange, JSON, json.dumps(found).encode())
