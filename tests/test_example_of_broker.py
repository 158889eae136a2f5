"""docs/brokers.md, the page for authors of brokers, and its example."""

from __future__ import annotations

import builtins
import collections.abc
import inspect
import re
import subprocess
import sys

import pytest

import asgi_comet
from asgi_comet import brokers, testing
from asgi_comet.brokers import Arrival, Audience, Broker, Host, Log, People, PeopleHost
from tests.broker_page import CONTRACTS, FOLDER, PAGE, PARTS, shown, texts
from tests.kit.programs import ROOT


@pytest.mark.parametrize("block", texts())
def test_each_list_of_the_page_is_that_of_the_code(block: str) -> None:
    assert shown()[block] == texts()[block], "write it again with `python -m tests.broker_page`"


def test_the_walk_leaves_out_no_file_of_the_broker() -> None:
    files = {path.stem for path in FOLDER.glob("joined*.py")} | {"store", "town", "register"}
    assert {file for file, _ in PARTS} == files


def test_each_class_of_the_suite_has_its_list() -> None:
    assert set(CONTRACTS) == {name for name in testing.__all__ if name.endswith("Contract")}
    assert all(texts()[name].count("\n") > 5 for name in CONTRACTS)


@pytest.mark.parametrize("interface", [Broker, Host, People, PeopleHost, Audience])
def test_each_method_of_the_interface_is_named(interface: type) -> None:
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", PAGE.read_text("utf-8")))))
    assert {name for name in vars(interface) if not name.startswith("_")} - named == set()


@pytest.mark.parametrize("interface", [Broker, Host, People, PeopleHost, Audience, Arrival, Log])
def test_an_author_imports_each_name_of_a_signature_or_an_error(interface: type) -> None:
    known = {*asgi_comet.__all__, *brokers.__all__, *dir(builtins), *dir(collections.abc)}
    used = set[str]()
    for member in vars(interface).values():
        function = member.fget if isinstance(member, property) else member
        if inspect.isfunction(function):
            annotations = " ".join(map(str, function.__annotations__.values()))
            raised = (inspect.getdoc(function) or "").partition("Raises:")[2]
            used |= set(re.findall(r"\w+", annotations)) | set(
                re.findall(r"^ +(\w+): ", raised, re.MULTILINE)
            )
    assert used
    assert used - known == set()


def test_the_example_passes_the_whole_suite() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "examples/broker_contract.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    demands = sum(text.count("\n") for name, text in texts().items() if name != "parts")
    (passed,) = re.findall(r"^(\d+) passed", run.stdout, re.MULTILINE)
    assert int(passed) >= demands  # some run with one worker and with three
