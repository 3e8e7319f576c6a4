"""Parses JSON that a person wrote, and refuses duplicate keys."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


class DuplicateKey(ValueError):
    """A JSON object has the same key twice.

    Attributes:
        key: The duplicate key.
    """

    def __init__(self, key: str) -> None:
        super().__init__(f"The key {key!r} is a duplicate.")
        self.key = key


def read_json(text: str) -> Any:
    """Parse `text` as JSON.

    Raises:
        ValueError: `text` is not JSON.
        DuplicateKey: An object has the same key twice.
        RecursionError: `text` is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_build_object)


def _build_object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise DuplicateKey(key)
        values[key] = value
    return values
