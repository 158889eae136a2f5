"""What browsers do if a worker does not answer."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from tests.kit.serving import reserved_port
from tests.nemesis.browsers import HOST, Browser, Page
from tests.nemesis.history import Journal, read_journal


async def close(journal: Journal, dead: int, status: int | None) -> bool | None:
    """Close a page at a dead port, then at a worker that answers with a status, if any."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    page = Page(Browser("b", journal), [], {}, 1)
    page.process, page.url = "P", "/p/T"
    if status is None:
        return await page.close_anywhere([dead])
    async with await asyncio.start_server(answer, HOST) as server:
        return await page.close_anywhere([dead, server.sockets[0].getsockname()[1]])


@pytest.mark.parametrize(
    ("status", "done"), [(204, True), (410, True), (503, False), (403, False), (None, None)]
)
def test_a_page_is_closed_at_a_worker_that_answers(
    tmp_path: Path, status: int | None, done: bool | None
) -> None:
    with reserved_port() as dead, closing(Journal(tmp_path / "b.jsonl")) as journal:
        assert asyncio.run(close(journal, dead, status)) is done
    told = [event["event"] for event in read_journal(tmp_path / "b.jsonl")]
    assert told == ["closing"] * (1 if status is None else 2)
