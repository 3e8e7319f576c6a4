"""Which names APIs, services and listeners may have, and names made up from placeholders."""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import string
import unicodedata

from lightbus.exceptions import InvalidName, did_you_mean

# Transports join the names of a service, a listener and an API into one, with up to 30 characters
# more, and a name in AMQP holds 255 bytes. With this limit on each name, they always fit together.
# Every allowed character is one byte.
LONGEST_NAME = 75

# The name of a process is not joined to others, and the full name of a host may be long.
_LONGEST_PROCESS_NAME = 120

# Transports separate joined names by ":". Every broker and driver accepts the characters that are
# left, so a name that works with one transport works with all.
_REFUSED = re.compile(r"[^a-zA-Z0-9_.,@/+-]")

_ADJECTIVES = (
    "amber bold brisk calm clever eager fair gentle happy keen lively merry proud quiet swift warm"
)
_NOUNS = "badger cedar comet dune falcon fern heron lark maple meadow otter pine raven river robin"


def checked_name(kind: str, name: object) -> str:
    """Return `name` if it can be the name of a `kind`.

    Args:
        kind: "API", "event", "service", "listener" or "process".
        name: The name.

    Raises:
        InvalidName: It is not a string, is empty, is longer than 75 characters (120 for a process),
            or holds another character than the letters a to z and A to Z, digits, and ``-_.,@/+``.
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
    longest = _LONGEST_PROCESS_NAME if kind == "process" else LONGEST_NAME
    if len(name) > longest:
        raise InvalidName(kind, name, f"it is longer than {longest} characters; shorten it")
    return name


def usable_name(text: str) -> str:
    """Return `text` if it can be a name, and otherwise a name like it.

    Other characters become ``-``, and a hash of the text follows, so that different texts give
    different names.
    """
    if len(text) <= LONGEST_NAME and not _REFUSED.search(text):
        return text
    # Some systems store an accented letter as one character, and others as two.
    composed = unicodedata.normalize("NFC", text)
    encoded = composed.encode("utf-8", "surrogatepass")
    end = hashlib.blake2s(encoded, digest_size=4).hexdigest()
    readable = _REFUSED.sub("-", composed)[: LONGEST_NAME - len(end) - 1].strip("-")
    return f"{readable}-{end}" if readable else end


def filled_in(template: str) -> str:
    """Return `template` with its placeholders replaced.

    ``{hostname}``, ``{pid}``, ``{random4}``, ``{random8}``, ``{random16}`` (letters and digits) and
    ``{friendly}`` (an adjective and a noun) are known.

    Raises:
        InvalidName: A placeholder is unknown, or a brace is not closed.
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
