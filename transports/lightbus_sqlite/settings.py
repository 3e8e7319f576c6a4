"""What the configuration may say below ``sqlite:``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Prefetch = Annotated[int, msgspec.Meta(ge=1)]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]

# SQLite gives these a meaning of their own, as databases that no other process finds.
_NO_FILE = re.compile(r":memory:$|file:")


class SQLiteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of `SQLiteTransport`.

    Attributes:
        path: The file; ``~`` is the user's home. Left out, ``lightbus/events.db`` in the user's
            state folder. It becomes absolute, without symbolic links, when the settings are made:
            a later change of the current folder or of the environment changes nothing.
        prefetch: How many events a listener holds, at most, and never fewer than its `concurrency`;
            1 or more.
        lease: How long the events of a worker that was killed are kept from others, in seconds;
            more than 0.
    """

    path: NonEmpty = ""
    prefetch: Prefetch = 20
    lease: Seconds = 10.0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "path", str(_resolved(self.path)))

    def __str__(self) -> str:
        return self.path


def _resolved(path: str) -> Path:
    if _NO_FILE.match(path):
        raise ValueError(
            f"`path` is {path!r}, which is not the path of a file; for events in memory, name the "
            "transport `memory`"
        )
    try:
        if path:
            return Path(path).expanduser().resolve()
        # The file of this user, in which all services meet that name no other.
        return (platformdirs.user_state_path("lightbus") / "events.db").resolve()
    except RuntimeError as error:
        given = f"`path` is {path!r}" if path else "`path` is not set"
        raise ValueError(
            f"{given}, and there is no such home folder. Set `path` to an absolute path"
        ) from error
    except OSError as error:
        raise ValueError(
            f"`path` is {path!r}, and the current folder cannot be read: {error.strerror}. Set it "
            "to an absolute path"
        ) from error
