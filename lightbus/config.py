"""The configuration: read from a file, the environment and arguments, and checked.

Options of a command beat arguments, which beat the environment, which beats the file.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import attrs
import msgspec
import msgspec.inspect

from lightbus.config_file import read_config_file
from lightbus.encoding.json_codec import CastMode
from lightbus.exceptions import InvalidConfig, did_you_mean
from lightbus.names import checked_name, filled_in, usable_name
from lightbus.policy import Retry, Seconds

# Needs nothing to be installed or started.
DEFAULT_TRANSPORT = "sqlite"

DEFAULT_FILES = ("lightbus.yaml", "lightbus.yml", "lightbus.json", "lightbus.toml")

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=1)]
OnErrorName = Literal["shutdown", "acknowledge_and_log", "retry"]
# An empty value would silently select the default.
Text = Annotated[str, msgspec.Meta(min_length=1)]

# One transport's name, with its settings.
TransportSettings = Mapping[str, Mapping[str, Any] | None]


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the configuration says of one API.

    Attributes:
        event_transport: One transport's name, with its settings. Default: SQLite, in a file of the
            user that all services without another setting share.
        acknowledgement_timeout: How long a handler may take, and the wait before a failed event is
            tried again, in seconds; more than 0.
        max_attempts: How often an event is tried before it becomes a dead letter; 1 or more.
        on_error: What happens when a handler fails, unless `listen` is given `on_error`: the value
            of a member of `lightbus.OnError`.
        retry: The waits of listeners with `OnError.RETRY`.
        fire_timeout: How long firing may wait for the broker, in seconds; more than 0.
        require_listeners: Whether firing an event that no listener wants is an error.
        validate: Whether the values of an event that is fired must be of the types that the event
            is declared with.
        cast_values: How handlers get values: ``"strict"``, as the types of their hints; ``"lax"``,
            where text also does for numbers and booleans, and numbers for text; ``"off"``, as JSON
            has them. True means strict, and False off.
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
    def casting(self) -> CastMode:
        """What `cast_values` means."""
        if isinstance(self.cast_values, bool):
            return "strict" if self.cast_values else "off"
        return self.cast_values

    def __repr__(self) -> str:
        # The settings of a transport may hold a password.
        return f"ApiConfig(event_transport={'/'.join(self.event_transport)}, ...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("event_transport", "/".join(self.event_transport))]


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a config file says.

    Attributes:
        schema: ``$schema``, where editors find the JSON Schema of the file.
        service_name: Whose listeners these are.
        process_name: Names this process at the broker; may hold placeholders, as may the other.
        bus: The dotted name of the bus module.
        shutdown_timeout: How long a stopping worker waits for its handlers, in seconds; more than
            0.
        apis: Settings by API name, as `ApiConfig` has them; those of ``"default"`` are inherited.
    """

    # For editors, which look there for what a file may say.
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
        source: The file, or another name for where it came from.
        service_name: Whose listeners these are.
        is_service_named: False where no one gave a service name and the folder's is used.
        process_name_template: `process_name` before its placeholders are filled in.
        bus_module: The dotted name of the bus module, where the file gives one.
        shutdown_timeout: How long a stopping worker waits for its handlers, in seconds.
        apis: Settings by API name, always with ``"default"``.
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
        """Return the settings of the API called `name`."""
        return self.apis.get(name) or self.apis["default"]

    def process_name(self) -> str:
        """Return this process's name. A forked process has another, where placeholders differ.

        Raises:
            InvalidName: With its placeholders filled in, it cannot be one.
        """
        pid = os.getpid()
        if pid not in self._process_names:
            name = checked_name("process", filled_in(self.process_name_template))
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
def overridden(overrides: Overrides) -> Iterator[None]:
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
    """Return the configuration that `config`, the environment and the arguments give together.

    Args:
        config: The settings themselves, or the path of a YAML, JSON or TOML file. Left out:
            ``$LIGHTBUS_CONFIG``, else ``lightbus.yaml`` (or .yml, .json, .toml) in the current
            folder, else nothing but defaults.
        service_name: Overrides ``$LIGHTBUS_SERVICE_NAME`` and the file. An empty environment
            variable counts as not set.
        process_name: Overrides ``$LIGHTBUS_PROCESS_NAME`` and the file.

    Raises:
        InvalidConfig: A file cannot be read, a key of it is a duplicate, an environment variable
            that it names is not set or is empty, or a setting is unknown or has a wrong value; with
            the file and the path in it.
        InvalidName: The service's or the process's name is not valid.
    """
    overrides = _overrides.get()
    source, data = _read(config if overrides.config_file is None else overrides.config_file)
    document = convert(data, Document, source=source)
    return _checked(
        source,
        document,
        service_name=_first_given(
            overrides.service_name,
            service_name,
            os.environ.get("LIGHTBUS_SERVICE_NAME") or None,
        ),
        process_name=_first_given(
            overrides.process_name,
            process_name,
            os.environ.get("LIGHTBUS_PROCESS_NAME") or None,
        ),
    )


def load_file(file: str | Path, *, service_name: str) -> Config:
    """Return the configuration in a file, without overrides from options or the environment.

    Args:
        file: A YAML, JSON or TOML file.
        service_name: The service's name, where the file gives none.

    Raises:
        InvalidConfig: As `load` does.
        InvalidName: The service's or the process's name is not valid.
    """
    source, data = str(file), read_config_file(Path(file))
    document = convert(data, Document, source=source)
    return _checked(
        source,
        document,
        service_name=service_name if document.service_name is None else None,
        process_name=None,
    )


def _first_given(*values: str | None) -> str | None:
    return next((value for value in values if value is not None), None)


def _checked(
    source: str, document: Document, *, service_name: str | None, process_name: str | None
) -> Config:
    """Return the configuration of `document`. Given names override its own."""
    service_name = _first_given(service_name, document.service_name)
    name = _folder_name() if service_name is None else service_name
    loaded = Config(
        source=source,
        service_name=checked_name("service", filled_in(name)),
        is_service_named=service_name is not None,
        process_name_template=document.process_name if process_name is None else process_name,
        bus_module=document.bus,
        shutdown_timeout=document.shutdown_timeout,
        apis=_read_apis(document.apis, source),
    )
    loaded.process_name()
    return loaded


def convert(data: Any, wanted: type[T], *, source: str, path: str = "$") -> T:
    """Return `data` as a `wanted`.

    Args:
        data: What a file, or an argument, holds.
        wanted: A type that `msgspec` can make.
        source: Where `data` came from, for the error.
        path: Where in that it is.

    Raises:
        InvalidConfig: With the path of what does not fit, and the near name of an unknown key.
    """
    try:
        # Not strict, so that "${PORT}" can stand for a number.
        return msgspec.convert(data, wanted, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$")
    # Raised apart from that error, whose text can quote what was given, and so a password.
    if unknown := re.search(r"unknown field `(.*)`", problem):
        key, known = unknown.group(1), _keys(msgspec.inspect.type_info(wanted), place)
        problem = f"there is no setting {key!r}.{did_you_mean(key, known)}"
    elif problem.startswith("Invalid enum value"):
        choices = _choices(msgspec.inspect.type_info(wanted), place)
        problem += f"; give one of {', '.join(choices)}"
    raise InvalidConfig(problem, source=source, path=path + place.rstrip("`"))


def _keys(wanted: msgspec.inspect.Type, place: str) -> list[str]:
    """Return the keys that can stand in a `wanted`, at `place` in it (such as ``.retry``)."""
    return [name for kind in _types_at(wanted, place) for name in _fields(kind)]


def _choices(wanted: msgspec.inspect.Type, place: str) -> list[str]:
    """Return the texts that can stand at `place` in a `wanted`."""
    kinds = _types_at(wanted, place)
    return [
        str(choice)
        for kind in kinds
        if isinstance(kind, msgspec.inspect.LiteralType)
        for choice in kind.values
    ]


def _types_at(wanted: msgspec.inspect.Type, place: str) -> list[msgspec.inspect.Type]:
    key, _, rest = place.rstrip("`").lstrip(".").partition(".")
    kinds = list(wanted.types) if isinstance(wanted, msgspec.inspect.UnionType) else [wanted]
    if not key:
        return kinds
    known = [_fields(kind) for kind in kinds]
    return [kind for fields in known if key in fields for kind in _types_at(fields[key], rest)]


def _fields(kind: msgspec.inspect.Type) -> dict[str, msgspec.inspect.Type]:
    return {field.encode_name: field.type for field in getattr(kind, "fields", ())}


def _read_apis(apis: Mapping[str, Mapping[str, Any] | None], source: str) -> dict[str, ApiConfig]:
    inherited = apis.get("default") or {}
    found = {}
    for name, own in {"default": inherited, **apis}.items():
        path = f"$.apis.{name}"
        settings = {**inherited, **(own or {})}
        found[name] = convert(settings, ApiConfig, source=source, path=path)
        transports = found[name].event_transport
        if len(transports) != 1:
            raise InvalidConfig(
                f"names {', '.join(transports) or 'no transport'}; give one transport.",
                source=source,
                path=f"{path}.event_transport",
            )
    return found


def _folder_name() -> str:
    return usable_name(Path.cwd().name) or "service"


def _read(config: Mapping[str, Any] | str | Path | None) -> tuple[str, Any]:
    chosen = config if config is not None else os.environ.get("LIGHTBUS_CONFIG") or None
    if isinstance(chosen, Mapping):
        return "the config given to create()", dict(chosen)
    if "://" in str(chosen):
        # Not shown: it may hold a password.
        raise InvalidConfig("a URL is no path of a file.", source="the configuration")
    if chosen == "":
        raise InvalidConfig("the path of the config file is empty.", source="the configuration")
    file = Path(chosen) if chosen is not None else _default_file()
    if file is None:
        return "no lightbus.yaml in this folder", {}
    return str(file), read_config_file(file)


def _default_file() -> Path | None:
    found = [name for name in DEFAULT_FILES if Path(name).is_file()]
    if len(found) > 1:
        raise InvalidConfig(
            f"{' and '.join(found)} both exist. Keep one, or say which with LIGHTBUS_CONFIG.",
            source=str(Path.cwd()),
        )
    return Path(found[0]) if found else None
