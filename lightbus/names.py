"""Which names APIs, services and listeners may have, and names made up from placeholders."""

from __future__ import annotations

import os
import random
import re
import socket
import string

from lightbus.exceptions import InvalidName, did_you_mean

_LONGEST = 120  # an AMQP short string holds 255, and names are joined in pairs

# Transports build longer names from these, parted by ":". What is left is what every broker and
# driver takes, so that a name which works with one transport works with the next.
_REFUSED = re.compile(r"[^a-zA-Z0-9_.,@/+-]")

_ADJECTIVES = (
    "amber bold brisk calm clever eager fair gentle happy keen lively merry proud quiet swift warm"
)
_NOUNS = "badger cedar comet dune falcon fern heron lark maple meadow otter pine raven river robin"


def checked_name(kind: str, name: object) -> str:
    """Return `name` if it can be the name of a `kind` ("API", "event", "service", "listener").

    Raises:
        InvalidName: It is not a string, is empty, is longer than 120 characters, or holds another
            character than the letters a to z and A to Z, digits, and ``-_.,@/+``.
    """
    if not isinstance(name, str):
        raise InvalidName(kind, name, "it is not a string")
    if not name:
        raise InvalidName(kind, name, "it is empty")
    if found := _REFUSED.search(name):
        raise InvalidName(
            kind,
            name,
            f"it holds {found.group()!r}; a to z, A to Z, digits and any of -_.,@/+ can be used",
        )
    if len(name) > _LONGEST:
        raise InvalidName(kind, name, f"it is longer than {_LONGEST} characters")
    return name


def usable_name(name: str) -> str:
    """Return `name` with ``-`` for all that a name may not hold."""
    return _REFUSED.sub("-", name)[:_LONGEST]


def filled_in(template: str) -> str:
    """Return `template` with its placeholders replaced.

    ``{hostname}``, ``{pid}``, ``{random4}``, ``{random8}``, ``{random16}`` (letters and digits) and
    ``{friendly}`` (an adjective and a noun) are known.

    Raises:
        InvalidName: A placeholder is not known, or a brace is left open.
    """
    values = {
        "hostname": socket.gethostname(),
        "pid": str(os.getpid()),
        "random4": _random_text(4),
        "random8": _random_text(8),
        "random16": _random_text(16),
        "friendly": f"{random.choice(_ADJECTIVES.split())}-{random.choice(_NOUNS.split())}",
    }
    try:
        return template.format_map(values)
    except KeyError as error:
        unknown = str(error.args[0])
        raise InvalidName(
            "service or process",
            template,
            f"the placeholder {{{unknown}}} is not known.{did_you_mean(unknown, values)} "
            f"Known: {', '.join(values)}",
        ) from error
    except (ValueError, IndexError, AttributeError) as error:
        raise InvalidName(
            "service or process", template, f"its braces do not match: {error}"
        ) from error


def _random_text(length: int) -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=length))
