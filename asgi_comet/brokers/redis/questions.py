"""Questions of a worker to all workers.

Owns the match of answers to questions. Must not know the questions.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count

from asgi_comet.brokers.base import Host
from asgi_comet.brokers.redis.calls import Call
from asgi_comet.brokers.redis.connection import Connection
from asgi_comet.brokers.redis.probing import Inbox
from asgi_comet.brokers.redis.serving import Beginning, Serving

__all__ = ["Questions"]


class Questions:
    """Asks all workers, and answers them.

    A question goes to the topic of all workers, an answer to the inbox of the worker that asks.

    Args:
        topic: The topic of questions.
        serving: The connection.
        inbox: Takes the answers.
        host: Answers the questions.
    """

    def __init__(self, topic: str, serving: Serving, inbox: Inbox, host: Host) -> None:
        self.topic: str = topic
        self._serving = serving
        self._inbox = inbox
        self._host = host
        self._connection: Connection  # the newest one, on which all questions come
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Queue[str]] = {}
        inbox.on[b"q"] = self._take_answer

    async def begin(self, beginning: Beginning) -> None:
        """Take the questions of a new connection."""
        self._connection = beginning.connection
        await beginning.connection.subscribe([self.topic])

    async def ask(self, question: str, seconds: float) -> list[str]:
        """Return the answers of all workers, this one included, that came in time.

        Raises:
            BrokerUnavailable: The workers cannot be asked.
        """
        connection = await self._serving.connected()
        number, answers = next(self._numbers), list[str]()
        came = self._asked[number] = asyncio.Queue()
        frame = f"q{self._inbox.topic} {number} {question}"
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    workers = await connection.send(Call(("PUBLISH", self.topic, frame), int))
                    while len(answers) < workers:
                        answers.append(await came.get())
        finally:
            del self._asked[number]
        return answers

    def take(self, frame: bytes) -> None:
        """Answer a question."""
        inbox, number, question = frame[1:].decode().split(" ", 2)
        answer = f"q{number} {self._host.answer(question)}"
        self._connection.send(Call(("PUBLISH", inbox, answer), int))

    def _take_answer(self, frame: bytes) -> None:
        number, _, answer = frame[1:].decode().partition(" ")
        came = self._asked.get(int(number))
        if came is not None:
            came.put_nowait(answer)
