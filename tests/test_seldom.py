"""Warnings that a client can cause."""

from __future__ import annotations

import logging

import pytest

from asgi_comet._runtime.seldom import Seldom
from asgi_comet.testing import ManualClock


def test_a_warning_a_second_says_how_many_it_stands_for(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    warnings = Seldom(logging.getLogger("asgi_comet.some"), clock.now)
    for n in range(3):
        warnings.warning("channel %.5r", f"room:{n}")
    assert caplog.messages == ["channel 'room"]
    clock.advance(0.99)
    warnings.warning("channel %r", "room:4")
    clock.advance(0.01)
    warnings.warning("channel %r", "room:5")
    clock.advance(1)
    warnings.warning("channel %r", "room:6")
    assert caplog.messages[1:] == [
        "channel 'room:5' (3 more like this since the last line)",
        "channel 'room:6'",
    ]
