"""Questions of the dashboard to all workers, and pages of lists that several workers have.

Owns which worker is asked for which rows. Must not know what a row is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from asgi_comet.errors import BrokerUnavailable
from asgi_comet.node.build import Node

__all__ = ["ask", "page"]

ASKED = 0.9  # seconds that the workers have for an answer: less than the pause between samples

Answer = dict[str, Any]

Slices = dict[str, tuple[int, int]]
"""The first row and the count of rows by worker; by `""` for a worker that is alone."""


async def ask(node: Node, kind: str, details: Any = None) -> list[Answer]:
    """Return the answers of all workers that answer in time; that of this one, if none does.

    A worker has no answer if it is of an older version, or does not know what is asked for.
    """
    question = json.dumps([kind, details])
    try:
        told = await node.broker.ask_all(question, ASKED)
    except BrokerUnavailable:
        told = []
    answers = [one for one in map(json.loads, told) if one]
    if not answers:
        here = json.loads(node.broker.host.answer(question))
        answers = [here] if here else []
    return sorted(answers, key=lambda one: str(one["worker"]))


async def page(node: Node, kind: str, asked: Answer, start: int, count: int) -> Answer:
    """Return a page of the lists of all workers, one after the other.

    Args:
        node: The parts of the Comet.
        kind: The question.
        asked: The details of the question.
        start: The first row.
        count: How many rows to return at most.
    """
    slices: Slices = {"": (start, count)}
    if node.broker.shared:
        totals = await ask(node, kind, asked | {"slices": {}})
        slices = _divide([(one["worker"], one["total"]) for one in totals], start, count)
    answers = await ask(node, kind, asked | {"slices": slices})
    for one in answers:
        for row in one["rows"]:
            row["worker"] = one["worker"]
    rows = [row for one in answers for row in one["rows"]]
    return {"total": sum(one["total"] for one in answers), "start": start, "rows": rows}


def _divide(totals: Sequence[tuple[str, int]], start: int, count: int) -> Slices:
    """Return the slices of the workers that have some rows of a page."""
    slices: Slices = {}
    for worker, total in totals:
        taken = min(max(total - start, 0), count)
        if taken:
            slices[worker] = start, taken
        start, count = max(start - total, 0), count - taken
    return slices
