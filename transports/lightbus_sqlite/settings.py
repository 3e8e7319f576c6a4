"""`SQLiteSettings`: the configuration below ``sqlite:``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Prefetch = Annotated[int, msgspec.Meta(ge=1)]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]

# SQLite opens these as a database in memory or as a URI.
_NOT_A_PATH = re.compile(r":memory:$|file:")


class SQLiteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of `SQLiteTransport`.

    Attributes:
        path: The path of the file; ``~`` stands for the user's home directory. The default is
            ``lightbus/events.db`` in the user's state directory. The path is made absolute, and its
            symbolic links are resolved, once, when the settings are created.
        prefetch: The maximum number of events that a worker holds per listener, 1 or more. A
            listener with a higher `concurrency` uses that instead.
        lease: After how long the events of a worker that was killed are redelivered, in seconds;
            more than 0.
    """

    path: NonEmpty = ""
    prefetch: Prefetch = 20
    lease: Seconds = 10.0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "path", str(_resolve(self.path)))

    def __str__(self) -> str:
        return self.path


def _resolve(path: str) -> Path:
    if _NOT_A_PATH.match(path):
        raise ValueError(
            f"`path` is {path!r}, which is not a file path. To keep events in memory, use the "
            "transport `memory`"
        )
    try:
        if path:
            return Path(path).expanduser().resolve()
        # One file per user, so that services without a `path` share their events.
        return (platformdirs.user_state_path("lightbus") / "events.db").resolve()
    except RuntimeError as error:
        given = f"`path` is {path!r}" if path else "`path` is not set"
        raise ValueError(
            f"{given}, and the home directory cannot be found. Set `path` to an absolute path"
        ) from error
    except OSError as error:
        raise ValueError(
            f"`path` is {path!r}, and the current directory cannot be read: {error.strerror}. Set "
            "`path` to an absolute path"
        ) from error
