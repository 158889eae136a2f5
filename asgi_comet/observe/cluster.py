"""The figures of all workers, through the broker.

Owns how long the workers have for an answer, and that no two of them count as the same.
Must not know what a figure is.
"""

from __future__ import annotations

import json
from contextlib import suppress

from asgi_comet.errors import BrokerUnavailable
from asgi_comet.node.build import Node
from asgi_comet.observe.figures import Figures

__all__ = ["QUESTION", "read_all"]

QUESTION = "figures"
PATIENCE = 2.0  # seconds that the workers have for an answer


async def read_all(node: Node) -> list[Figures]:
    """Return the figures of each worker that answers in time, this one included.

    A worker that does not answer is missing: `comet_workers` is then larger than the count of
    `comet_info`. Empty without a broker, and while the broker cannot be reached.
    """
    answers: list[str] = []
    if node.broker.shared:
        with suppress(BrokerUnavailable):
            answers = await node.broker.ask_all(json.dumps([QUESTION, None]), PATIENCE)
    told = [found for found in map(json.loads, answers) if found]  # an older version says `null`
    workers = {found["number"]: found for found in told}  # one each: Prometheus refuses two
    return [workers[number] for number in sorted(workers, key=str)]
