from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from asgi_comet import Comet, Settings, UnknownCommand
from asgi_comet.activation import Switch
from asgi_comet.testing._inspect import inside
from tests.kit.stage import KEY


@pytest.fixture
def activation() -> Switch:
    return inside(Comet(KEY, settings=Settings(timeout=20, jitter=0.1))).activation


def test_activation_is_on_at_first_and_idempotent(activation: Switch) -> None:
    assert activation.active
    activation.deactivate()
    activation.deactivate()
    assert not activation.active
    activation.activate()
    activation.activate()
    assert activation.active


def test_holds_are_spread_by_the_jitter(activation: Switch) -> None:
    holds = [activation.hold() for _ in range(1000)]
    assert 18 <= min(holds) < 18.5
    assert 21.5 < max(holds) <= 22


def test_the_timeout_can_be_changed(activation: Switch) -> None:
    activation.set_timeout(3600)
    assert activation.timeout == 3600
    activation.set_timeout(1)
    assert 0.9 <= activation.hold() <= 1.1


@pytest.mark.parametrize("seconds", ["5", None, True])
def test_what_is_no_number_changes_nothing(activation: Switch, seconds: Any) -> None:
    with pytest.raises(TypeError, match="expected a number of seconds, got"):
        activation.set_timeout(seconds)
    assert activation.timeout == 20


@pytest.mark.parametrize("seconds", [0, -1, 3600.1, math.nan, math.inf, -math.inf, 10**400])
def test_a_timeout_out_of_range_changes_nothing(activation: Switch, seconds: float) -> None:
    with pytest.raises(ValueError, match="expected a timeout of more than 0 and at most 3600"):
        activation.set_timeout(seconds)
    assert activation.timeout == 20


@pytest.mark.parametrize("prefix", ["", "comet:"])
def test_the_command_language(activation: Switch, prefix: str) -> None:
    activation.command(f"{prefix}deactivate")
    assert not activation.active
    activation.command(f"  {prefix}activate\n")
    assert activation.active
    activation.command(f"{prefix}set_timeout 5")
    assert activation.timeout == 5
    activation.command(f"{prefix}set_timeout 1e1  KILL")
    assert activation.timeout == 10


@pytest.mark.parametrize(
    "line",
    ["", "start", "Activate", "activate now", "comet: activate", "set_timeout", "set_timeout x",
     "set_timeout 5 kill", "set_timeout 5 KILL now", "set_timeout 1_0", "deactivate\nactivate",
     "comet:comet:activate", "set_timeout5"],
)  # fmt: skip
def test_any_other_line_is_unknown_and_does_nothing(activation: Switch, line: str) -> None:
    with pytest.raises(UnknownCommand, match="expected 'activate', 'deactivate'") as caught:
        activation.command(line)
    assert caught.value.line == line
    assert activation.active
    assert activation.timeout == 20


@pytest.mark.parametrize("seconds", ["0", "-5", "4000", "nan", "inf"])
def test_a_command_with_a_timeout_out_of_range(activation: Switch, seconds: str) -> None:
    with pytest.raises(ValueError, match="expected a timeout"):
        activation.command(f"set_timeout {seconds}")


def test_every_action_is_logged(activation: Switch, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "asgi_comet.activation"):
        activation.deactivate()
        activation.activate()
        activation.set_timeout(5, reset=True)
    assert [record.getMessage() for record in caplog.records] == [
        "deactivate (was active)",
        "activate (was inactive)",
        "set_timeout 5 KILL (was 20)",
    ]
