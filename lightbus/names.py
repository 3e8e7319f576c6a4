"""Checks the names of APIs, services and listeners, and replaces placeholders in names."""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import string
import unicodedata
from collections.abc import Iterable

from lightbus.exceptions import InvalidName

# Transports join the names of a service, a listener and an API, and add up to 30 characters. The
# strictest limit of a broker for the joined name is 255 bytes. Each allowed character is one byte.
MAX_LENGTH = 75

# The name of a process is not joined to others, and contains the name of a host, which may be long.
_MAX_PROCESS_LENGTH = 120

# Transports join names with ":". All brokers and drivers support the other characters, so a name
# that works with one transport works with all of them.
_NOT_ALLOWED = re.compile(r"[^a-zA-Z0-9_.,@/+-]")

_ADJECTIVES = (
    "amber bold brisk calm clever eager fair gentle happy keen lively merry proud quiet swift warm"
)
_NOUNS = "badger cedar comet dune falcon fern heron lark maple meadow otter pine raven river robin"


def check_name(kind: str, name: object) -> str:
    """Return `name` if it is a valid name.

    Args:
        kind: "API", "event", "service", "listener" or "process".
        name: The name.

    Raises:
        InvalidName: The name is not a string, is empty, is longer than 75 characters (120 for a
            process), or contains other characters than ASCII letters, digits, and ``-_.,@/+``.
    """
    if not isinstance(name, str):
        raise InvalidName(kind, name, "it is not a string")
    if not name:
        raise InvalidName(kind, name, "it is empty")
    if match := _NOT_ALLOWED.search(name):
        raise InvalidName(
            kind,
            name,
            f"the character {match.group()!r} is not allowed; use a-z, A-Z, 0-9 and -_.,@/+",
        )
    longest = _MAX_PROCESS_LENGTH if kind == "process" else MAX_LENGTH
    if len(name) > longest:
        raise InvalidName(kind, name, f"it is longer than {longest} characters")
    return name


def to_valid_name(text: str) -> str:
    """Return `text` if it is a valid name, and a similar name otherwise.

    Characters that are not allowed become ``-``. A hash of the text is appended, so that different
    texts give different names.
    """
    if len(text) <= MAX_LENGTH and not _NOT_ALLOWED.search(text):
        return text
    # Some systems store an accented letter as one character, and others as two.
    composed = unicodedata.normalize("NFC", text)
    encoded = composed.encode("utf-8", "surrogatepass")
    end = hashlib.blake2s(encoded, digest_size=4).hexdigest()
    readable = _NOT_ALLOWED.sub("-", composed)[: MAX_LENGTH - len(end) - 1].strip("-")
    return f"{readable}-{end}" if readable else end


def fill_placeholders(template: str) -> str:
    """Return `template` with its placeholders replaced.

    The placeholders are ``{hostname}``, ``{pid}``, ``{random4}``, ``{random8}`` and ``{random16}``
    (letters and digits), and ``{friendly}`` (an adjective and a noun).

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
            f"unknown placeholder {{{unknown}}}.{did_you_mean(unknown, values)} "
            f"Placeholders: {', '.join(values)}",
        ) from error
    except (ValueError, IndexError, AttributeError) as error:
        raise InvalidName(
            "service or process", template, f"its placeholders are not valid: {error}"
        ) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name that is most similar to `name`, or an empty
    string.
    """
    from difflib import get_close_matches  # noqa: PLC0415 - it is slow to import

    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def _random_text(length: int) -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=length))
