from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from asgi_comet import Settings


def test_defaults_are_those_of_the_design() -> None:
    settings = Settings()
    assert settings.timeout == 20.0
    assert settings.jitter == 0.1
    assert settings.linger == 10.0
    assert settings.max_virtual_channels is None
    assert settings.body_limit == 65536
    assert settings.max_channels_per_request == 128
    assert settings.message_limit == 1048576
    assert settings.history_bytes == 8388608
    assert dataclasses.is_dataclass(settings)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().timeout = 1.0  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("time_out", "write timeout="),
        ("max_process", "write max_processes="),
        ("proxy", "there are timeout, jitter, process_timeout, "),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_name(name: str, advice: str) -> None:
    with pytest.raises(TypeError, match=f"^expected a setting, got '{name}'; {advice}"):
        Settings(**{name: 3})  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(TypeError, match=advice):
        dataclasses.replace(Settings(), **{name: 3})  # type: ignore[arg-type]


def test_an_unknown_setting_in_a_configuration_file_is_refused() -> None:
    with pytest.raises(ValidationError, match="time_out"):
        TypeAdapter(Settings).validate_python({"time_out": 3})
    assert TypeAdapter(Settings).validate_python({"timeout": 3}) == Settings(timeout=3)


def test_settings_can_be_copied() -> None:
    settings = Settings(timeout=3)
    assert copy.copy(settings) == pickle.loads(pickle.dumps(settings)) == settings


@pytest.mark.parametrize(
    "values",
    [
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": 3600.1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "soon"},
        {"jitter": 1},
        {"jitter": -0.1},
        {"jitter": float("nan")},
        {"max_virtual_channels": 0},
        {"body_limit": 0},
        {"linger": -1},
        {"linger": float("inf")},
    ],
)
def test_values_out_of_bounds_name_the_field(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        Settings(**values)


def test_bounds_themselves_are_allowed() -> None:
    assert Settings(timeout=3600, jitter=0, linger=0, max_virtual_channels=1).timeout == 3600


def test_a_history_must_be_able_to_hold_the_largest_message() -> None:
    assert Settings(history_bytes=10, message_limit=10).history_bytes == 10
    with pytest.raises(ValueError, match=r"history_bytes .* must be at least message_limit \(11\)"):
        Settings(history_bytes=10, message_limit=11)


def test_every_field_is_read_from_the_environment() -> None:
    special = {"jitter": "0.5", "cookie_name": "c", "cookie_samesite": "strict", "linger": "3"}
    special |= {"several_workers": "warn", "prefetch": "never", "strict_shared": "True"}
    special |= {"settle": "all"}
    names = [field.name for field in dataclasses.fields(Settings)]
    values = {name: special.get(name, "1048576") for name in names}
    values |= {"timeout": "5", "process_timeout": "6", "body_timeout": "7", "send_timeout": "8"}
    found = Settings.from_env({f"COMET_{name.upper()}": text for name, text in values.items()})
    assert {name: str(getattr(found, name)).removesuffix(".0") for name in names} == values


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMET_TIMEOUT", "7.5")
    monkeypatch.setenv("COMET_SECRET_KEY", "not ours to read")
    assert Settings.from_env() == Settings(timeout=7.5)


def test_an_empty_value_means_no_limit_where_there_may_be_none() -> None:
    assert Settings.from_env({"COMET_MAX_VIRTUAL_CHANNELS": ""}).max_virtual_channels is None
    with pytest.raises(ValueError, match=r"COMET_TIMEOUT: .*number, got ''"):
        Settings.from_env({"COMET_TIMEOUT": ""})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("COMET_TIMEOUT", "soon"),
        ("COMET_TIMEOUT", "0"),
        ("COMET_TIMEOUT", "nan"),
        ("COMET_MAX_VIRTUAL_CHANNELS", "many"),
        ("COMET_MAX_VIRTUAL_CHANNELS", "1.5"),
        ("COMET_MAX_VIRTUAL_CHANNELS", "-1"),
    ],
)
def test_a_bad_value_names_the_variable_and_what_came(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: .*, got '{text}'"):
        Settings.from_env({name: text})


def test_all_bad_values_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"COMET_TIMEOUT: .*; COMET_LINGER: "):
        Settings.from_env({"COMET_TIMEOUT": "x", "COMET_LINGER": "y"})


def test_a_rule_between_fields_is_told_as_it_is() -> None:
    with pytest.raises(ValueError, match=r"^history_bytes \(COMET_HISTORY_BYTES\) must be"):
        Settings.from_env({"COMET_HISTORY_BYTES": "10"})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("COMET_TIMEOT", "COMET_TIMEOUT"),
        ("COMET_TIME_OUT", "COMET_TIMEOUT"),
        ("COMET_MAX_PROCESS", "COMET_MAX_PROCESSES"),
        ("COMET_HISTORYSIZE", "COMET_HISTORY_SIZE"),
    ],
)
def test_a_misspelt_variable_is_one_warning_with_the_likely_name(
    name: str, meant: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings.from_env({name: "3", "COMET_LINGER": "4"}) == Settings(linger=4)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asgi_comet.settings", logging.WARNING)
    assert record.getMessage() == f"unknown variable {name}; did you mean {meant}?"


@pytest.mark.parametrize(
    "name", ["COMET_SECRET_KEY", "COMET_API_KEY", "COMET_PORT", "COMET_", "TIMEOT", "comet_timeot"]
)
def test_a_variable_that_is_not_ours_is_left_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert Settings.from_env({name: "3"}) == Settings()
    assert caplog.records == []
