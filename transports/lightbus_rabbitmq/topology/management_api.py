"""`ManagementAPI`: lists queues and policies, which AMQP cannot."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote, urlencode

import msgspec
from yarl import URL

from lightbus.exceptions import TransportRefused, TransportUnavailable
from lightbus_rabbitmq.settings import RabbitMQSettings, display_url

_PAGE_SIZE = 500
# The largest answer that is read, in bytes
_MAX_BYTES = 32 * 1024 * 1024


class Policy(msgspec.Struct, frozen=True):
    """A policy, or an operator policy, of a virtual host.

    Attributes:
        name: The name.
        pattern: The regular expression that matches the names of queues and exchanges.
        definition: The settings.
        priority: RabbitMQ applies the policy with the highest priority that matches.
        apply_to: The kinds of objects that the policy is for.
    """

    name: str
    pattern: str
    definition: dict[str, Any]
    priority: int = 0
    apply_to: str = msgspec.field(name="apply-to", default="all")


class _Queue(msgspec.Struct, frozen=True):
    name: str


class _Page(msgspec.Struct, frozen=True):
    page_count: int
    items: list[_Queue]


class ManagementAPI:
    """A client for RabbitMQ's management API.

    Args:
        settings: The settings, with a `management_url`.
    """

    def __init__(self, settings: RabbitMQSettings) -> None:
        self._settings = settings
        self._url = URL(settings.management_url or "")
        amqp_url = settings.urls[0]
        self._user = self._url.user or amqp_url.user or "guest"
        self._password = self._url.password or amqp_url.password or "guest"
        self._vhost = quote(unquote(amqp_url.raw_path[1:]) or "/", safe="")

    async def queue_names(self, prefix: str) -> list[str]:
        """Return the names of all queues that begin with `prefix`.

        Raises:
            TransportRefused: The API refused, or its answer was not RabbitMQ's.
            TransportUnavailable: It did not answer in time.
        """
        found: list[str] = []
        page = page_count = 1
        while page <= page_count:
            options = {
                "page": page,
                "page_size": _PAGE_SIZE,
                "name": f"^{re.escape(prefix)}",
                "use_regex": "true",
                "columns": "name",
            }
            answer = await self._get(f"queues/{self._vhost}?{urlencode(options)}", _Page)
            found += [queue.name for queue in answer.items]
            page, page_count = page + 1, answer.page_count
        return [name for name in found if name.startswith(prefix)]

    async def policies(self, *, are_operator_policies: bool) -> list[Policy]:
        """Return the policies or the operator policies of the virtual host.

        The errors are those of `queue_names`.
        """
        kind = "operator-policies" if are_operator_policies else "policies"
        found: list[Policy] = await self._get(f"{kind}/{self._vhost}", list[Policy])
        return found

    async def _get(self, path: str, answer_type: Any) -> Any:
        place = f"The RabbitMQ management API at {display_url(self._url)}"
        try:
            async with asyncio.timeout(self._settings.operation_timeout):
                answer = await asyncio.to_thread(self._read, path)
            return msgspec.json.decode(answer, type=answer_type)
        except urllib.error.HTTPError as error:
            raise TransportRefused(
                f"{place} refused to show {path.partition('/')[0]}: {error.code} {error.reason}. "
                "Its user needs the tag `policymaker` or `monitoring`, and access to the virtual "
                "host."
            ) from error
        except msgspec.DecodeError as error:
            raise TransportRefused(f"{place} returned an answer that is not RabbitMQ's.") from error
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "reason", None) or str(error) or "no answer in time"
            raise TransportUnavailable(f"{place} was not reached: {reason}.") from error

    def _read(self, path: str) -> bytes:
        base = str(self._url.with_user(None).with_query(None)).rstrip("/")
        request = urllib.request.Request(f"{base}/api/{path}")  # noqa: S310 - the scheme is checked
        credentials = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        # Unredirected, so that the password is not sent to the target of a redirect.
        request.add_unredirected_header("Authorization", f"Basic {credentials}")
        context = None
        if self._url.scheme == "https":
            context = ssl.create_default_context(cafile=self._settings.tls.ca_file)
        timeout = self._settings.operation_timeout
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:  # noqa: S310
            found: bytes = answer.read(_MAX_BYTES)
        return found
