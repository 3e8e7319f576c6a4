"""The settings below ``rabbitmq:`` in the configuration."""

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
    "`url` is not of the form amqp://user:password@host:5672/vhost. Percent-encode the special "
    "characters in each part"
)

_WRONG_MANAGEMENT_FORM = (
    "`management_url` is not of the form http://user:password@host:15672. Percent-encode the "
    "special characters in each part"
)

_OPTIONS = ("heartbeat", "auth")
_AUTHENTICATIONS = ("plain", "external")
_MAX_HEARTBEAT = 600

# Options of other AMQP clients, and the settings that replace them
_SETTINGS_FOR = {
    "cacertfile": "tls.ca_file",
    "cafile": "tls.ca_file",
    "certfile": "tls.certificate_file",
    "keyfile": "tls.key_file",
    "connection_timeout": "connect_timeout",
    "timeout": "connect_timeout",
}

# The names of options that errors may show. Anything else may be a part of a password.
_OPTION_NAME = re.compile(r"[a-z_]{1,40}", re.IGNORECASE)

# An @ after the host. The password contains a character that ends the host, so that a URL parser
# would take the rest of the password for a path.
_WRONGLY_ENCODED = re.compile(r"[^:]*://[^/?#]*[/?#].*@", re.DOTALL)


class TLSSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The certificates for ``amqps://``.

    A relative path is relative to the working directory, and ``~`` is the home directory of the
    user.

    Attributes:
        ca_file: The certificates, in PEM, of the authorities that may sign the broker's
            certificate. The default is the certificates of the system.
        certificate_file: The certificate of this client, in PEM, for a broker that asks for one.
        key_file: The key of this client, in PEM, if it is not in the same file. The key must not
            have a password.

    Raises:
        ValueError: `key_file` is given without `certificate_file`. In a configuration, this is a
            `ConfigError`. If a file cannot be used, the first connection raises
            `TransportRefused`.
    """

    ca_file: FilePath | None = None
    certificate_file: FilePath | None = None
    key_file: FilePath | None = None

    def __post_init__(self) -> None:
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("`key_file` is given without `certificate_file`")
        for name in self.__struct_fields__:
            if (path := getattr(self, name)) is not None:
                msgspec.structs.force_setattr(self, name, _absolute_path(name, path))


class RabbitMQSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of `RabbitMQTransport`.

    Attributes:
        url: ``amqp://user:password@host:5672/vhost``, or a list of the URLs of one cluster, which
            are tried in order. The form is that of RabbitMQ's URI specification, except that an
            empty virtual host is ``/``. ``amqps://`` encrypts the connection and checks the
            broker's certificate. Two options can follow: ``?heartbeat=`` overrides `heartbeat`, and
            ``?auth=external`` logs in with the certificate of `tls`.
        tls: The certificates for ``amqps://``.
        prefetch: The largest number of events that a listener holds, from 1 to 65535. A listener
            holds fewer if its `acknowledgement_timeout` is long, but at least as many as its
            `concurrency`.
        heartbeat: The heartbeat of the connections, in seconds, from 1 to 600 (AMQP 0-9-1, section
            4.2.7).
        connect_timeout: How long one attempt to connect may take, in seconds. Must be more than 0.
        operation_timeout: How long the broker may take to answer any request except a send, in
            seconds. Must be more than 0.
        management_url: ``http://user:password@host:15672`` of RabbitMQ's management API, or a URL
            with ``https://``. `lightbus topology` gets queues and policies from it, which AMQP does
            not list. The default user is that of `url`.

    Raises:
        ValueError: A URL has a wrong form, or an unknown or invalid option; or `tls` is given
            without ``amqps://``. In a configuration, this is a `ConfigError`.
    """

    url: str | list[str]
    tls: TLSSettings = TLSSettings()
    prefetch: Prefetch = 50
    heartbeat: Heartbeat = 15
    connect_timeout: Seconds = 10.0
    operation_timeout: Seconds = 30.0
    management_url: str | None = None

    def __post_init__(self) -> None:
        # The messages must not show the URL, which may contain a password.
        if not self.urls:
            raise ValueError("`url` is an empty list")
        if any(_WRONGLY_ENCODED.match(url) for url in self._url_list):
            raise ValueError(_WRONG_FORM)
        for url in self.urls:
            if url.scheme not in ("amqp", "amqps") or not url.host or url.fragment:
                raise ValueError(_WRONG_FORM)
            _check_options(url)
            if self.tls != TLSSettings() and url.scheme != "amqps":
                raise ValueError("`tls` is given, but `url` does not begin with amqps://")
        if self.management_url is not None:
            url = _parse(self.management_url)
            is_wrong = _WRONGLY_ENCODED.match(self.management_url) or url.query or url.fragment
            if url.scheme not in ("http", "https") or not url.host or is_wrong:
                raise ValueError(_WRONG_MANAGEMENT_FORM)

    def __repr__(self) -> str:
        return f"RabbitMQSettings({self})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("url", str(self))]

    def __str__(self) -> str:
        return ", ".join(display_url(url) for url in self.urls)

    @property
    def urls(self) -> list[URL]:
        """Every URL, in the order in which they are tried."""
        return [_parse(url) for url in self._url_list]

    @property
    def _url_list(self) -> list[str]:
        return [self.url] if isinstance(self.url, str) else self.url


def _absolute_path(name: str, path: str) -> str:
    try:
        return str(Path(path).expanduser().absolute())
    except (OSError, RuntimeError) as error:
        raise ValueError(f"`{name}` is {path!r}, which is no usable path: {error}") from error


def _check_options(url: URL) -> None:
    """Raise ValueError if an option of `url` is unknown or invalid."""
    for name, value in url.query.items():
        if len(url.query.getall(name)) > 1:
            raise ValueError(f"`url` has the option {_option(name, value)} more than once")
        if name not in _OPTIONS:
            raise ValueError(f"`url` has the unknown option {_option(name, value)}.{_remedy(name)}")
    heartbeat = url.query.get("heartbeat", "1")
    is_number = heartbeat.isascii() and heartbeat.isdigit()
    if not is_number or not 1 <= int(heartbeat[:5]) <= _MAX_HEARTBEAT:
        raise ValueError(
            "the option 'heartbeat' of `url` must be a whole number of seconds, "
            f"1 to {_MAX_HEARTBEAT}"
        )
    if url.query.get("auth", "plain").lower() not in _AUTHENTICATIONS:
        raise ValueError(f"the option 'auth' of `url` must be {' or '.join(_AUTHENTICATIONS)}")


def _option(name: str, value: str) -> str:
    return repr(name) if value and _OPTION_NAME.fullmatch(name) else "(not shown)"


def _remedy(name: str) -> str:
    if setting := _SETTINGS_FOR.get(name):
        return f" Use the setting `{setting}`"
    return did_you_mean(name, _OPTIONS) or f" Known: {', '.join(_OPTIONS)}"


def display_url(url: URL) -> str:
    """Return `url` without user, password and options."""
    base = URL.build(scheme=url.scheme, host=url.host or "", port=url.port)
    return str(base.with_path(url.raw_path, encoded=True))


def _parse(url: str) -> URL:
    try:
        parsed = URL(url)
        parsed.port  # noqa: B018 - this checks the port
    except ValueError:
        return URL()
    # An empty path and %2F both stand for the virtual host "/". Show them in the same way.
    if parsed.host and parsed.raw_path in ("", "/%2F"):
        parsed = parsed.with_path("/", keep_query=True)
    # The URL library does not know the default port of AMQP.
    if parsed.host and parsed.port is None:
        return parsed.with_port(5671 if parsed.scheme == "amqps" else 5672)
    return parsed
