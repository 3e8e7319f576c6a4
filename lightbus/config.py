"""Loads the configuration from a file, the environment and arguments, and checks it.

Options of a command beat arguments, which beat the environment, which beats the file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import attrs
import msgspec
import msgspec.inspect

from lightbus.config_file import read_config_file
from lightbus.encoding.json_codec import CastMode
from lightbus.encoding.settings import convert_settings
from lightbus.exceptions import ConfigError
from lightbus.names import check_name, fill_placeholders, to_valid_name
from lightbus.policy import Retry, Seconds

# The default, because it needs no package and no server
DEFAULT_TRANSPORT = "sqlite"

DEFAULT_FILES = ("lightbus.yaml", "lightbus.yml", "lightbus.json", "lightbus.toml")

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=1)]
OnErrorName = Literal["shutdown", "acknowledge_and_log", "retry"]
# An empty value would silently select the default.
Text = Annotated[str, msgspec.Meta(min_length=1)]

# The name of one transport, with its settings
TransportSettings = Mapping[str, Mapping[str, Any] | None]


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of one API.

    Attributes:
        event_transport: The name of a transport, with its settings. Default: SQLite, in a file that
            all services of the same user share.
        acknowledgement_timeout: The time limit of a handler, and the delay before a failed event is
            retried, in seconds; more than 0.
        max_attempts: The number of attempts before an event becomes a dead letter; 1 or more.
        on_error: What happens when a handler fails, if `listen` is called without `on_error`: the
            value of a member of `lightbus.OnError`.
        retry: The delays of listeners with `OnError.RETRY`.
        fire_timeout: How long firing waits for the broker, in seconds; more than 0.
        require_listeners: Whether firing an event without a listener is an error.
        validate: Whether the values of a fired event must have the types that the event declares.
        cast_values: How values are converted for handlers. ``"strict"``: to the types of their
            hints. ``"lax"``: likewise, and text is accepted for numbers and booleans, and numbers
            for text. ``"off"``: not at all. True means strict, and False means off.
    """

    event_transport: dict[str, dict[str, Any] | None] = msgspec.field(
        default_factory=lambda: {DEFAULT_TRANSPORT: None}
    )
    acknowledgement_timeout: Seconds = 60.0
    max_attempts: Count = 20
    on_error: OnErrorName = "shutdown"
    retry: Retry = Retry()
    fire_timeout: Seconds = 30.0
    require_listeners: bool = False
    validate: bool = True
    cast_values: CastMode | bool = "strict"

    @property
    def cast_mode(self) -> CastMode:
        """The mode that `cast_values` selects."""
        if isinstance(self.cast_values, bool):
            return "strict" if self.cast_values else "off"
        return self.cast_values

    def __repr__(self) -> str:
        # The settings of a transport may contain a password.
        return f"ApiConfig(event_transport={'/'.join(self.event_transport)}, ...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("event_transport", "/".join(self.event_transport))]


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of a config file.

    Attributes:
        schema: ``$schema``, the location of the JSON Schema of the file, for editors.
        service_name: The name of the service; may contain placeholders.
        process_name: The name of this process at the broker; may contain placeholders.
        bus: The dotted name of the bus module.
        shutdown_timeout: How long a stopping worker waits for its handlers, in seconds; more than
            0.
        apis: The settings of `ApiConfig`, by API name. APIs inherit those of ``"default"``.
    """

    schema: str | None = msgspec.field(name="$schema", default=None)
    service_name: Text | None = None
    process_name: Text = "{hostname}-{pid}"
    bus: Text | None = None
    shutdown_timeout: Seconds = 30.0
    apis: dict[str, dict[str, Any] | None] = {}


@attrs.frozen(kw_only=True)
class Config:
    """A checked configuration.

    Attributes:
        source: The path of the file, or a description of another source.
        service_name: The name of the service.
        is_service_named: False if no service name is configured, and that of the directory is used.
        process_name_template: The process name with its placeholders.
        bus_module: The dotted name of the bus module; None if the file does not state it.
        shutdown_timeout: How long a stopping worker waits for its handlers, in seconds.
        apis: The settings by API name. ``"default"`` is always present.
    """

    source: str
    service_name: str
    is_service_named: bool
    process_name_template: str
    bus_module: str | None
    shutdown_timeout: float
    apis: Mapping[str, ApiConfig]
    _process_names: dict[int, str] = attrs.field(factory=dict, init=False, repr=False, eq=False)

    def api(self, name: str) -> ApiConfig:
        """Return the settings of the API `name`."""
        return self.apis.get(name) or self.apis["default"]

    def process_name(self) -> str:
        """Return the name of this process. It may differ in a forked process.

        Raises:
            InvalidName: The name is not valid once its placeholders are replaced.
        """
        pid = os.getpid()
        if pid not in self._process_names:
            name = check_name("process", fill_placeholders(self.process_name_template))
            self._process_names[pid] = name
        return self._process_names[pid]


@attrs.frozen(kw_only=True)
class Overrides:
    """Settings that beat all others, such as the options of a command; None overrides nothing.

    Attributes:
        config_file: The path of the config file.
        service_name: The service name.
        process_name: The process name.
    """

    config_file: str | None = None
    service_name: str | None = None
    process_name: str | None = None


_overrides: ContextVar[Overrides] = ContextVar("overrides", default=Overrides())  # noqa: B039


@contextlib.contextmanager
def apply_overrides(overrides: Overrides) -> Iterator[None]:
    """Apply `overrides` to each configuration that `load` returns while the block runs.

    A command cannot pass its options to `lightbus.create()`, which the user's bus module calls.
    """
    token = _overrides.set(overrides)
    try:
        yield
    finally:
        _overrides.reset(token)


def load(
    config: Mapping[str, Any] | str | Path | None = None,
    *,
    service_name: str | None = None,
    process_name: str | None = None,
) -> Config:
    """Load the configuration from `config`, the environment and the arguments.

    Args:
        config: The settings, or the path of a YAML, JSON or TOML file. Default:
            ``$LIGHTBUS_CONFIG``, else ``lightbus.yaml`` (or .yml, .json, .toml) in the current
            directory, else the defaults of all settings.
        service_name: Overrides ``$LIGHTBUS_SERVICE_NAME`` and the file. An empty environment
            variable counts as not set.
        process_name: Overrides ``$LIGHTBUS_PROCESS_NAME`` and the file.

    Raises:
        ConfigError: The file cannot be read or has a duplicate key, an environment variable that
            it refers to is not set or is empty, or a setting is unknown or has a wrong value.
        InvalidName: The name of the service or the process is not valid.
    """
    overrides = _overrides.get()
    source, data = _read(config if overrides.config_file is None else overrides.config_file)
    document = convert_settings(data, Document, source=source)
    return _build_config(
        source,
        document,
        service_name=_first_not_none(
            overrides.service_name,
            service_name,
            os.environ.get("LIGHTBUS_SERVICE_NAME") or None,
        ),
        process_name=_first_not_none(
            overrides.process_name,
            process_name,
            os.environ.get("LIGHTBUS_PROCESS_NAME") or None,
        ),
    )


def load_file(file: str | Path, *, service_name: str) -> Config:
    """Load the configuration in a file, without overrides from options or the environment.

    Args:
        file: A YAML, JSON or TOML file.
        service_name: The name of the service if the file does not state it.

    Raises:
        ConfigError: As for `load`.
        InvalidName: The name of the service or the process is not valid.
    """
    source, data = str(file), read_config_file(Path(file))
    document = convert_settings(data, Document, source=source)
    return _build_config(
        source,
        document,
        service_name=service_name if document.service_name is None else None,
        process_name=None,
    )


def _first_not_none(*values: str | None) -> str | None:
    return next((value for value in values if value is not None), None)


def _build_config(
    source: str, document: Document, *, service_name: str | None, process_name: str | None
) -> Config:
    """Return the configuration of `document`, whose names the arguments override."""
    service_name = _first_not_none(service_name, document.service_name)
    name = _directory_name() if service_name is None else service_name
    config = Config(
        source=source,
        service_name=check_name("service", fill_placeholders(name)),
        is_service_named=service_name is not None,
        process_name_template=document.process_name if process_name is None else process_name,
        bus_module=document.bus,
        shutdown_timeout=document.shutdown_timeout,
        apis=_read_apis(document.apis, source),
    )
    config.process_name()
    return config


def _read_apis(apis: Mapping[str, Mapping[str, Any] | None], source: str) -> dict[str, ApiConfig]:
    defaults = apis.get("default") or {}
    configs = {}
    for name, own in {"default": defaults, **apis}.items():
        path = f"$.apis.{name}"
        settings = {**defaults, **(own or {})}
        configs[name] = convert_settings(settings, ApiConfig, source=source, path=path)
        transports = configs[name].event_transport
        if len(transports) != 1:
            raise ConfigError(
                f"expected one transport, got {', '.join(transports) or 'none'}.",
                source=source,
                path=f"{path}.event_transport",
            )
    return configs


def _directory_name() -> str:
    return to_valid_name(Path.cwd().name) or "service"


def _read(config: Mapping[str, Any] | str | Path | None) -> tuple[str, Any]:
    choice = config if config is not None else os.environ.get("LIGHTBUS_CONFIG") or None
    if isinstance(choice, Mapping):
        return "the config given to create()", dict(choice)
    if "://" in str(choice):
        # Not shown, because it may contain a password.
        raise ConfigError("expected the path of a file, got a URL.", source="the configuration")
    if choice == "":
        raise ConfigError("the path of the config file is empty.", source="the configuration")
    file = Path(choice) if choice is not None else _default_file()
    if file is None:
        return "no lightbus.yaml in this directory", {}
    return str(file), read_config_file(file)


def _default_file() -> Path | None:
    existing = [name for name in DEFAULT_FILES if Path(name).is_file()]
    if len(existing) > 1:
        raise ConfigError(
            f"{' and '.join(existing)} both exist. Remove one, or name one in LIGHTBUS_CONFIG.",
            source=str(Path.cwd()),
        )
    return Path(existing[0]) if existing else None
