"""Compares what goes to a broker or into a file with the formats that are kept in ``golden/``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).with_name("golden")


def assert_format(name: str, found: Any) -> None:
    """Fail where `found` is not what the file of this name in ``golden/`` holds.

    Programs of other versions read these formats. To change one on purpose, delete its file: the
    next run writes it again, and fails.
    """
    file = _FOLDER / name
    text = found if isinstance(found, str) else json.dumps(found, indent=2) + "\n"
    if not file.exists():
        file.write_text(text)
        raise AssertionError(f"{file} did not exist. It was written; review it and run again.")
    assert text == file.read_text()


def typed(value: Any) -> Any:
    """Return a value of AMQP with the names of its types, in the order in which it was sent."""
    if isinstance(value, dict):
        return {name: typed(item) for name, item in value.items()}
    return f"{type(value).__name__}: {value}"


def with_placeholders(value: Any, names: dict[str, str]) -> Any:
    """Return `value`, with what differs from run to run replaced by placeholders.

    Args:
        value: Lists and objects, with text in them.
        names: What to write instead, by the key of the value in its object.
    """
    if isinstance(value, dict):
        return {
            key: f"<{names[key]}>" if key in names else with_placeholders(item, names)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [with_placeholders(item, names) for item in value]
    return value
