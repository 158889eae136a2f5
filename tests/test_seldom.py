"""Warnings that a client can cause."""

from __future__ import annotations

import logging

import pytest

from asgi_comet._runtime.seldom import Seldom
from asgi_comet.testing import ManualClock


def test_a_warning_a_second_says_how_many_it_stands_for(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    extra: dict[str, object] = {"comet": {"event": "channel.unknown"}}
    warnings = Seldom(logging.getLogger("asgi_comet.some"), clock.now)
    for n in range(3):
        warnings.warning("channel %.5r", f"room:{n}", extra=extra)
    assert caplog.messages == ["channel 'room"]
    clock.advance(0.99)
    warnings.warning("channel %r", "room:4", extra=extra)
    clock.advance(0.01)
    warnings.warning("channel %r", "room:5", extra=extra)
    clock.advance(1)
    warnings.warning("channel %r", "room:6", extra=extra)
    assert caplog.messages[1:] == [
        "channel 'room:5' (3 more like this since the last line)",
        "channel 'room:6'",
    ]
    assert [vars(record)["comet"] for record in caplog.records] == [extra["comet"]] * 3
