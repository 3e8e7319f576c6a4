"""What the configuration may say below ``sqlite:``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import platformdirs

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Prefetch = Annotated[int, msgspec.Meta(ge=1)]


def default_path() -> Path:
    """Return the file of this user, in which all services meet that name no other."""
    return platformdirs.user_state_path("lightbus") / "events.db"


class SQLiteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of `SQLiteTransport`.

    Attributes:
        path: The file; ``~`` is the user's home. Left out, ``lightbus/events.db`` in the user's
            state folder.
        prefetch: How many events a listener holds, at most, and never fewer than its `concurrency`;
            1 or more.
        lease: How long the events of a worker that was killed are kept from others, in seconds;
            more than 0.
    """

    path: str = ""
    prefetch: Prefetch = 20
    lease: Seconds = 10.0

    def __post_init__(self) -> None:
        try:
            Path(self.path).expanduser()
        except RuntimeError as error:
            raise ValueError(f"`path` is {self.path!r}, and there is no such home") from error

    def __str__(self) -> str:
        return str(self.file)

    @property
    def file(self) -> Path:
        """The absolute path of the file, with no symbolic link in it."""
        return Path(self.path).expanduser().resolve() if self.path else default_path()
