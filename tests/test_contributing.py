"""What CONTRIBUTING.md says of the package is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import asgi_comet
from tests.public_api import PACKAGES
from tests.workers import TESTS, rows, shown

ROOT = Path(__file__).parent.parent
PACKAGE = Path(asgi_comet.__file__).parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return TEXT.partition(f"### {title}\n")[2].partition("\n##")[0]


PLACES = re.findall(r"^\| (.+?) \| `(.+?)` \| `(.+?)` \|$", section("Where to look"), re.MULTILINE)


@pytest.mark.parametrize(("word", "package", "file"), PLACES)
def test_each_file_that_is_named_exists(word: str, package: str, file: str) -> None:
    folder = PACKAGE if package == "asgi_comet" else PACKAGE / package
    assert (folder / file).is_file(), f"CONTRIBUTING.md, {word!r}: there is no {folder / file}"


def test_a_newcomer_finds_at_least_twenty_words() -> None:
    rows = [line for line in section("Where to look").splitlines() if line.startswith("| ")]
    assert len(PLACES) == len(rows) - 1 >= 20  # without the head of the table
    assert len({place[1:] for place in PLACES}) == len(PLACES)


def test_the_diagram_shows_the_layers_that_are_enforced() -> None:
    diagram = section("Layers").partition("```text\n")[2].partition("```")[0]
    shown = [re.split(r" {2,}", line)[0] for line in diagram.splitlines()]
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in linter["contracts"] if c["id"] == "one-way")
    assert shown == layers


def test_the_public_packages_are_those_of_the_list() -> None:
    first, second, *_ = [s for s in section("Public and private").splitlines() if s]
    assert re.findall(r"`(asgi_comet[.\w]*)`", f"{first} {second}") == PACKAGES


@pytest.mark.parametrize("mark", ["one_worker", "own_workers"])
def test_what_several_workers_leave_out_is_named_with_the_reason(mark: str) -> None:
    assert shown(mark) == rows(mark), "write it again with `python -m tests.workers`"


@pytest.mark.parametrize("mark", ["one_worker", "own_workers"])
def test_each_use_of_a_mark_has_a_row(mark: str) -> None:
    files = [*TESTS.glob("contract/*.py"), *TESTS.glob("integration/*.py")]
    uses = sum(file.read_text("utf-8").count(f"{mark}(") for file in files)
    assert uses == len(rows(mark))


def test_at_most_ten_tests_are_for_one_worker_only() -> None:
    assert 1 <= len(rows("one_worker")) <= 10
