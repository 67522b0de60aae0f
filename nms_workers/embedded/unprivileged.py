"""Running a server as an ordinary user, whoever started us: PostgreSQL refuses root and users without a name."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import NamedTuple

from nms_workers.errors import ConfigError

_PROBE_SECONDS = 10.0


class User(NamedTuple):
    """Who a server runs as.

    Args:
        prefix: what to put before the server's own argv.
        uid, gid: who must own its files, as seen from here.
    """

    prefix: tuple[str, ...]
    uid: int
    gid: int


def unprivileged(program: Path) -> User:
    """How to run `program` as an ordinary user with a name.

    Root, and a user without an entry in passwd (a container started with a bare uid), become nobody: in a user
    namespace where the kernel allows one, because then the files stay with their owner; else, for root, by setuid.

    Raises:
        ConfigError: neither way works here.
    """
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 and _has_name(uid):
        return User((), uid, gid)
    nobody = pwd.getpwnam("nobody")
    namespace = ("unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", "--")
    ways = [User(namespace, uid, gid)]
    if uid == 0:
        # setuid clears the signal that ends a child with its parent, so it is set anew behind it
        setuid = (f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--pdeathsig=KILL")
        ways.append(User(("setpriv", *setuid, "--"), nobody.pw_uid, nobody.pw_gid))
    for way in ways:
        if _runs([*way.prefix, str(program), "--version"]):
            return way
    raise ConfigError(
        f"{program} cannot be run as an ordinary user from uid {uid}",
        hint="start the program as an ordinary user with an entry in /etc/passwd, or configure an external database",
    )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _runs(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=_PROBE_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
