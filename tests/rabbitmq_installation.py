"""Where the programs of a RabbitMQ are, and how they are started.

They are those that the machine has installed, or, of another version, those in the folder that
`RABBITMQ_ROOT` names: the root of a whole Debian system, such as `scripts/rabbitmq-root` makes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

HOW_TO_INSTALL = (
    "These tests start a private RabbitMQ node and found no {program}. Install RabbitMQ (Debian, "
    "Ubuntu: `apt-get install rabbitmq-server`). If it is installed in an unusual place, set "
    "RABBITMQ_SERVER to the path of its `rabbitmq-server` script, and put Erlang on PATH."
)

# Not the ones on Debian's PATH if it can be helped: these wrappers insist on the system's broker,
# its user and its folders. The scripts that they wrap are content with ours.
UNWRAPPED = "/usr/lib/rabbitmq/bin"

# Runs a program in another root, where it finds the processes, the devices and the temporary folder
# of this machine. `unshare` gives it mounts of its own, which end with it: nothing has to be
# unmounted, whatever ends it, and nobody else sees the root with this machine's folders in it.
ENTER_ROOT = """\
set -e
root=$1 temporary=$2
shift 2
mkdir -p "$root$temporary"
touch "$root/etc/hosts"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind /etc/hosts "$root/etc/hosts"
mount --bind "$temporary" "$root$temporary"
exec chroot "$root" "$@"
"""


class NodeFailed(Exception):
    """RabbitMQ is not installed, did not come up, or a command failed."""


class Installation:
    """The installed programs.

    Args:
        server: The script `rabbitmq-server`, where it is in an unusual place.
    """

    def __init__(self, server: str = "") -> None:
        self._server = server

    @property
    def server(self) -> Sequence[str]:
        """The command that starts a node."""
        return (self._find_server(),)

    @property
    def ctl(self) -> Sequence[str]:
        """The command `rabbitmqctl`."""
        return (str(Path(self._find_server()).with_name("rabbitmqctl")),)

    @property
    def epmd(self) -> Sequence[str]:
        """The command that starts an Erlang port mapper."""
        return (_find_program("epmd"),)

    def _find_server(self) -> str:
        unwrapped = Path(UNWRAPPED, "rabbitmq-server")
        if self._server:
            return _find_program(self._server)
        return str(unwrapped) if unwrapped.exists() else _find_program("rabbitmq-server")


class InstallationInRoot(Installation):
    """The programs of a Debian system in a folder. Starting them needs root's rights.

    The files of a node must be in the temporary folder.
    """

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root.absolute()

    @property
    def server(self) -> Sequence[str]:
        return self._entered(f"{UNWRAPPED}/rabbitmq-server")

    @property
    def ctl(self) -> Sequence[str]:
        return self._entered(f"{UNWRAPPED}/rabbitmqctl")

    @property
    def epmd(self) -> Sequence[str]:
        return self._entered("/usr/bin/epmd")

    def _entered(self, program: str) -> Sequence[str]:
        if not (self._root / program.removeprefix("/")).exists():
            raise NodeFailed(f"RABBITMQ_ROOT names {self._root}, in which there is no {program}.")
        if os.geteuid() != 0:
            raise NodeFailed("To start a RabbitMQ in a root of its own (RABBITMQ_ROOT), be root.")
        temporary = str(Path(tempfile.gettempdir()).absolute())
        enter = ("unshare", "--mount", "sh", "-c", ENTER_ROOT, "sh", str(self._root), temporary)
        return (*enter, program)


def chosen_installation(environment: Mapping[str, str]) -> Installation:
    """Return the programs that `RABBITMQ_ROOT` or `RABBITMQ_SERVER` choose, or the installed."""
    if root := environment.get("RABBITMQ_ROOT"):
        return InstallationInRoot(Path(root))
    return Installation(environment.get("RABBITMQ_SERVER", ""))


def _find_program(name: str) -> str:
    if program := shutil.which(name):
        return program
    raise NodeFailed(HOW_TO_INSTALL.format(program=name))
