"""The settings of one fail2ban server."""

from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, PositiveFloat

from nms_workers.service import TargetSettings

_LONGEST_PATH = 107  # bytes: sun_path of unix(7)

# No leading dash: `--all` in the place of a name means every jail.
JAIL_NAME = r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,63}"
JailName = Annotated[str, Field(pattern=rf"^{JAIL_NAME}$")]


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("the path must be absolute")
    return path


def _short(path: Path) -> Path:
    if len(bytes(path)) > _LONGEST_PATH:
        raise ValueError(f"the path of a unix socket has at most {_LONGEST_PATH} bytes")
    return path


def _zone(name: str) -> str:
    try:
        if name:
            ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, malformed, a folder of the database
        raise ValueError("no such time zone: write one as Europe/Berlin") from None
    return name


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Fail2banTarget(TargetSettings):
    """One fail2ban server, on the machine of the worker that polls it.

    Args:
        socket: of the server. In a container mount its folder, not the socket: it is made anew at every start.
        timeout: seconds for one answer.
        change_timeout: seconds for the answer to a change: the server runs the commands of the jail's actions first.
        timezone: of the server, `Europe/Berlin`: it tells times without it. Default: that of this machine.
        config: the server's configuration; read to start and reload jails only.
        server_program: prints what the configuration says, with `-d`; needed to start and reload jails only.
    """

    socket: Annotated[AbsolutePath, AfterValidator(_short)] = Path("/run/fail2ban/fail2ban.sock")
    timeout: PositiveFloat = 5.0
    change_timeout: PositiveFloat = 50.0
    timezone: Annotated[str, AfterValidator(_zone)] = ""
    config: AbsolutePath = Path("/etc/fail2ban")
    server_program: AbsolutePath = Path("/usr/bin/fail2ban-server")
