"""Configurations, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

import lightbus
from lightbus.exceptions import ConfigError


def problem_of(config: dict[str, Any]) -> ConfigError:
    """Return the error that creating a bus from `config` ends with."""
    with pytest.raises(ConfigError) as raised:
        lightbus.create(config)
    return raised.value


def default_api(**settings: Any) -> dict[str, Any]:
    return {"apis": {"default": settings}}
