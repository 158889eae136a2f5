"""The parts of the in-process broker, and the demands of the suite of brokers, in docs/brokers.md.

Owns how the files and the test classes become text: `python -m tests.broker_page` writes it.
"""

from __future__ import annotations

import re
from pathlib import Path

from asgi_comet import testing

__all__ = ["CONTRACTS", "PAGE", "shown", "texts"]

PAGE = Path(__file__).parent.parent / "docs" / "brokers.md"
FOLDER = Path(testing.__file__).parent

PARTS = [
    ("store", "`Store`: the logs, their offsets and epochs"),
    ("joined_outbox", "`Outbox`: the messages on their way to the store"),
    ("joined_frames", "`Frames`: the messages on their way to a worker"),
    ("joined_windows", "`JoinedWindows`: brings windows up to date"),
    ("joined_bids", "`JoinedBids`: which worker owns a channel"),
    ("joined", "`JoinedBroker`: the methods of `Broker`"),
    ("joined_claims", "`JoinedClaims`: own channels and their readers"),
    ("town", "`Town`: the sessions and client processes in the store"),
    ("register", "`Register`: the changes that each worker is told of"),
    ("joined_people", "`JoinedPeople`: the methods of `People`"),
    ("joined_audience", "`JoinedAudience`: the methods of `Audience`"),
]
"""The files of the in-process broker, in the order of the walk."""

CONTRACTS = {
    "BrokerContract": testing.BrokerContract,
    "SharedBrokerContract": testing.SharedBrokerContract,
    "PeopleContract": testing.PeopleContract,
    "OwnContract": testing.OwnContract,
    "AudienceContract": testing.AudienceContract,
}
"""The classes of the suite."""


def texts() -> dict[str, str]:
    """Return the text of each block."""
    return {"parts": _parts()} | {name: _demands(of) for name, of in CONTRACTS.items()}


def shown() -> dict[str, str]:
    """Return the text of each block that the page has."""
    return dict(re.findall(r"<!-- (\w+) -->\n(.*?)<!-- /\1 -->\n", _read(), re.DOTALL))


def _parts() -> str:
    counts = [len((FOLDER / f"{file}.py").read_text("utf-8").splitlines()) for file, _ in PARTS]
    lines = zip(PARTS, counts, strict=True)
    rows = [f"| `{file}.py` | {count} | {has} |" for (file, has), count in lines]
    total = f"| together | {sum(counts)} | |"
    return "\n".join(["| file | lines | has |", "|---|---|---|", *rows, total, ""])


def _demands(contract: type) -> str:
    """Return what the tests of a class demand, without those of its public bases."""
    bases = [one for one in contract.__mro__ if one is contract or one not in CONTRACTS.values()]
    tests = [name for one in reversed(bases) for name in vars(one) if name.startswith("test_")]
    return "".join(f"- {name.removeprefix('test_').replace('_', ' ')}\n" for name in tests)


def _read() -> str:
    return PAGE.read_text("utf-8")


def _write() -> None:
    text = _read()
    for name, block in texts().items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
        before, _, rest = text.partition(start)
        text = before + start + block + end + rest.partition(end)[2]
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    _write()
