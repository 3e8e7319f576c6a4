"""What the configuration may say below ``rabbitmq:``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from yarl import URL

from lightbus.names import did_you_mean

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Heartbeat = Annotated[int, msgspec.Meta(ge=1, le=600)]
Prefetch = Annotated[int, msgspec.Meta(ge=1, le=65535)]
FilePath = Annotated[str, msgspec.Meta(min_length=1)]

_WRONG_FORM = (
    "`url` is not of the form amqp://user:password@host:5672/vhost; in each of its parts, what has "
    "a meaning in a URL must be percent-encoded"
)

_WRONG_MANAGEMENT_FORM = (
    "`management_url` is not of the form http://user:password@host:15672; in each of its parts, "
    "what has a meaning in a URL must be percent-encoded"
)

_OPTIONS = ("heartbeat", "auth")
_AUTHENTICATIONS = ("plain", "external")
_LONGEST_HEARTBEAT = 600

# Options that other clients know, and the setting that does the same
_SETTINGS_FOR = {
    "cacertfile": "tls.ca_file",
    "cafile": "tls.ca_file",
    "certfile": "tls.certificate_file",
    "keyfile": "tls.key_file",
    "connection_timeout": "connect_timeout",
    "timeout": "connect_timeout",
}

# What may be shown of a URL that is not understood: no word that may be a part of a password
_OPTION_NAME = re.compile(r"[a-z_]{1,40}", re.IGNORECASE)

# An @ behind the host: the password holds a character that ends the host, and its rest is no secret
# to whoever parses the URL.
_WRONGLY_ENCODED = re.compile(r"[^:]*://[^/?#]*[/?#].*@", re.DOTALL)


class TLSSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The files that ``amqps://`` needs if the system's certificates are not enough.

    Paths become absolute when the settings are made, and ``~`` in them is the user's home.

    Attributes:
        ca_file: Certificates, in PEM, of those who may vouch for the broker. By default, those of
            the system.
        certificate_file: This client's own certificate, in PEM, for a broker that asks for one.
        key_file: Its key, in PEM, where it is not in the same file. It must have no password.

    Raises:
        ValueError: There is a `key_file` without a `certificate_file`. Of a configuration, that is
            a `ConfigError`. Files that cannot be used are a `TransportRefused` when the broker
            is first to be reached.
    """

    ca_file: FilePath | None = None
    certificate_file: FilePath | None = None
    key_file: FilePath | None = None

    def __post_init__(self) -> None:
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("`key_file` is given without `certificate_file`")
        for name in self.__struct_fields__:
            if (path := getattr(self, name)) is not None:
                msgspec.structs.force_setattr(self, name, _absolute(name, path))


class RabbitMQSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of `RabbitMQTransport`.

    Attributes:
        url: ``amqp://user:password@host:5672/vhost`` (RabbitMQ's URI specification, but that an
            empty virtual host is ``/``), or several of one cluster, tried in turn. ``amqps://``
            encrypts, and connects only to a broker whose certificate is good. Two options can
            follow: ``?heartbeat=`` overrides the setting, and ``auth=external`` logs in with the
            certificate of `tls`.
        tls: The certificates for that.
        prefetch: How many events a listener holds, at most, 1 to 65535 (``basic.qos`` of AMQP
            0-9-1). It holds fewer where `acknowledgement_timeout` is long, and never fewer than its
            `concurrency`.
        heartbeat: After how many seconds of silence, 1 to 600, a connection is checked (AMQP 0-9-1,
            section 4.2.7).
        connect_timeout: How long one try to connect may take, in seconds; more than 0.
        operation_timeout: How long the broker may take to answer anything but a send, in seconds;
            more than 0.
        management_url: ``http://user:password@host:15672`` of RabbitMQ's management API, for
            `lightbus topology`: it lists queues and policies, which AMQP does not. Without a user,
            that of `url`. With ``https://``, `tls.ca_file` counts.

    Raises:
        ValueError: A URL is of another form or has an option that is unknown or not valid, or `tls`
            is given where it is not ``amqps://``. Of a configuration, that is a `ConfigError`.
    """

    url: str | list[str]
    tls: TLSSettings = TLSSettings()
    prefetch: Prefetch = 50
    heartbeat: Heartbeat = 15
    connect_timeout: Seconds = 10.0
    operation_timeout: Seconds = 30.0
    management_url: str | None = None

    def __post_init__(self) -> None:
        # The messages must not show the URL, which may hold a password.
        if not self.urls:
            raise ValueError("`url` is an empty list")
        if any(_WRONGLY_ENCODED.match(url) for url in self._given):
            raise ValueError(_WRONG_FORM)
        for url in self.urls:
            if url.scheme not in ("amqp", "amqps") or not url.host or url.fragment:
                raise ValueError(_WRONG_FORM)
            _check_options(url)
            if self.tls != TLSSettings() and url.scheme != "amqps":
                raise ValueError("`tls` is given, but `url` does not begin with amqps://")
        if self.management_url is not None:
            url = _parsed(self.management_url)
            is_wrong = _WRONGLY_ENCODED.match(self.management_url) or url.query or url.fragment
            if url.scheme not in ("http", "https") or not url.host or is_wrong:
                raise ValueError(_WRONG_MANAGEMENT_FORM)

    def __repr__(self) -> str:
        return f"RabbitMQSettings({self})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("url", str(self))]

    def __str__(self) -> str:
        return ", ".join(shown(url) for url in self.urls)

    @property
    def urls(self) -> list[URL]:
        """Every URL, in the order in which they are tried."""
        return [_parsed(url) for url in self._given]

    @property
    def _given(self) -> list[str]:
        return [self.url] if isinstance(self.url, str) else self.url


def _absolute(name: str, path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except (OSError, RuntimeError) as error:
        raise ValueError(f"`{name}` is {path!r}, which leads nowhere: {error}") from error


def _check_options(url: URL) -> None:
    """Raise ValueError if an option of `url` is unknown or invalid."""
    for name, value in url.query.items():
        if len(url.query.getall(name)) > 1:
            raise ValueError(f"`url` has the option {_option(name, value)} more than once")
        if name not in _OPTIONS:
            raise ValueError(f"`url` has the unknown option {_option(name, value)}.{_remedy(name)}")
    heartbeat = url.query.get("heartbeat", "1")
    is_number = heartbeat.isascii() and heartbeat.isdigit()
    if not is_number or not 1 <= int(heartbeat[:5]) <= _LONGEST_HEARTBEAT:
        raise ValueError(
            "the option 'heartbeat' of `url` must be a whole number of seconds, "
            f"1 to {_LONGEST_HEARTBEAT}"
        )
    if url.query.get("auth", "plain").lower() not in _AUTHENTICATIONS:
        raise ValueError(f"the option 'auth' of `url` must be {' or '.join(_AUTHENTICATIONS)}")


def _option(name: str, value: str) -> str:
    return repr(name) if value and _OPTION_NAME.fullmatch(name) else "(not shown)"


def _remedy(name: str) -> str:
    if setting := _SETTINGS_FOR.get(name):
        return f" Use the setting `{setting}`"
    return did_you_mean(name, _OPTIONS) or f" Known: {', '.join(_OPTIONS)}"


def shown(url: URL) -> str:
    """Return `url` for people: where it leads, without user, password and options."""
    place = URL.build(scheme=url.scheme, host=url.host or "", port=url.port)
    return str(place.with_path(url.raw_path, encoded=True))


def _parsed(url: str) -> URL:
    try:
        parsed = URL(url)
        parsed.port  # noqa: B018 - reading it is what checks it
    except ValueError:
        return URL()
    # Two ways to write the virtual host that is called "/", which are to be told as one place.
    if parsed.host and parsed.raw_path in ("", "/%2F"):
        parsed = parsed.with_path("/", keep_query=True)
    # AMQP's own default port, of which the URL library knows nothing.
    if parsed.host and parsed.port is None:
        return parsed.with_port(5671 if parsed.scheme == "amqps" else 5672)
    return parsed
