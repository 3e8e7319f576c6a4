"""Reads a config file in YAML, JSON or TOML, and replaces references to environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightbus.exceptions import ConfigError

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def read_config_file(file: Path) -> Any:
    """Return the content of a YAML, JSON or TOML file.

    Raises:
        ConfigError: The file cannot be read or is not valid, has a duplicate key, or has aliases
            that expand to too many values; or an environment variable to which it refers is not
            set, or makes a value empty.
    """
    data = _parse(file)
    try:
        return _fill_in({} if data is None else data, str(file), "$")
    except RecursionError:
        raise ConfigError("it is nested too deeply.", source=str(file)) from None


def _parse(file: Path) -> Any:
    # Imported here, because these modules load slowly, and many programs have no config file.
    import json  # noqa: PLC0415
    import tomllib  # noqa: PLC0415

    import yaml  # noqa: PLC0415

    from lightbus.encoding.yaml_input import parse_yaml  # noqa: PLC0415

    parsers: dict[str, Callable[[str, str], Any]] = {
        ".yaml": parse_yaml,
        ".yml": parse_yaml,
        ".json": lambda text, _: json.loads(text, object_pairs_hook=_json_object),
        ".toml": lambda text, _: tomllib.loads(text),
    }
    parser = parsers.get(file.suffix)
    if parser is None:
        raise ConfigError(
            f"the name of a config file must end in {', '.join(parsers)}.", source=str(file)
        )
    try:
        return parser(file.read_text("utf-8"), str(file))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}.", source=str(file)) from error
    except RecursionError:
        reason, line = "it is nested too deeply", ""
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
    # Not chained to that error, which quotes lines of the file, and perhaps a password.
    raise ConfigError(f"is not valid {file.suffix[1:]}: {reason}{line}.", source=str(file))


class _DuplicateKey(dict[str, Any]):
    """A JSON object that has the same key twice."""

    key: str


def _json_object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            # Reported later, because the path of the object is not known yet.
            values = _DuplicateKey(values)
            values.key = key
            break
        values[key] = value
    return values


def _fill_in(value: Any, source: str, path: str) -> Any:
    """Return `value` with each ``${NAME}`` replaced by the environment variable of that name."""
    if isinstance(value, _DuplicateKey):
        raise ConfigError(f"the key {value.key!r} is a duplicate.", source=source, path=path)
    if isinstance(value, dict):
        return {k: _fill_in(v, source, f"{path}.{k}") for k, v in value.items()}
    if isinstance(value, list):
        return [_fill_in(v, source, f"{path}[{i}]") for i, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def look_up(match: re.Match[str]) -> str:
        variable = match.group(1)
        if variable not in os.environ:
            raise ConfigError(
                f"the environment variable {variable!r} is not set.", source=source, path=path
            )
        return os.environ[variable]

    filled = _VARIABLE.sub(look_up, value)
    if value and not filled:
        # An empty value would silently select the default.
        names = ", ".join(repr(name) for name in _VARIABLE.findall(value))
        raise ConfigError(f"the environment variable {names} is empty.", source=source, path=path)
    return filled
