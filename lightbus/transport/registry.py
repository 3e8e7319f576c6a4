"""Finds the transports of installed packages, by their names in the configuration."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from lightbus.exceptions import ConfigError
from lightbus.names import did_you_mean
from lightbus.transport.contract import EventTransport

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "lightbus.transports"


def find_transport(name: str) -> type[EventTransport]:
    """Return the transport that an installed package registers as `name` in the entry point group
    ``lightbus.transports``.

    Raises:
        ConfigError: The transport, or a package that it needs, is not installed.
    """
    entry_points = _entry_points()
    if name not in entry_points:
        raise ConfigError(
            f"Transport {name!r} is not installed.{did_you_mean(name, entry_points)} "
            f"Installed: {', '.join(sorted(entry_points)) or 'none'}."
        )
    return _load(entry_points[name])


def installed_transports() -> dict[str, type[EventTransport] | None]:
    """Return all transports of installed packages, by name. The value is None if a package that
    the transport needs is not installed.
    """
    found: dict[str, type[EventTransport] | None] = {}
    for name, entry_point in sorted(_entry_points().items()):
        try:
            found[name] = _load(entry_point)
        except ConfigError:
            found[name] = None
    return found


# Cached because it searches all installed packages, for each bus.
@functools.cache
def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - it is slow to import

    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}


def _load(entry_point: EntryPoint) -> type[EventTransport]:
    distribution = entry_point.dist.name if entry_point.dist else "lightbus"
    try:
        loaded = entry_point.load()
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Transport {entry_point.name!r} needs the package {error.name!r}, which is not "
            f"installed. Install it with: pip install '{distribution}[{entry_point.name}]'"
        ) from error
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"Transport {entry_point.name!r} is {entry_point.value}, which cannot be imported: "
            f"{error}."
        ) from error
    if not (isinstance(loaded, type) and EventTransport in loaded.__mro__):
        raise ConfigError(
            f"Transport {entry_point.name!r} is {entry_point.value}, which does not derive from "
            "EventTransport."
        )
    transport: type[EventTransport] = loaded
    return transport
