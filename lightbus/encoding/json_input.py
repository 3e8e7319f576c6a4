"""Reads JSON that a person wrote, in which a duplicate key is a mistake."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lightbus.exceptions import LightbusException


class DuplicateKey(LightbusException):
    """A JSON object holds a key twice.

    Attributes:
        key: The key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"The key {key!r} is a duplicate.")
        self.key = key


def read_json(text: str) -> Any:
    """Return the value of `text`.

    Raises:
        ValueError: `text` is not JSON.
        DuplicateKey: A key of it is a duplicate.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DuplicateKey(key)
        found[key] = value
    return found
