"""What the configuration files say of a jail, as the commands that build it.

Only the server's own program reads all of their format (includes, overrides, filters and actions with parameters), and
a running server never reads it again: whoever reloads a jail sends it the commands. `fail2ban-server -d` prints them,
one Python literal a line, without touching the server that runs; see fail2ban-server(1).
"""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

from nms_workers.errors import Refused, Timeout
from nms_workers.services.fail2ban.target import Fail2banTarget
from nms_workers.transport.deadline import remaining

_LIMIT = 30.0  # seconds; a hundred jails take one
_LONGEST = 1 << 20  # characters of one command


def commands(target: Fail2banTarget, jail: str) -> list[list[Any]]:
    """The commands that build this jail and start it, in their order.

    Raises:
        Refused: no enabled jail has this name, its configuration is faulty, or the program cannot be run.
        Timeout: the program did not end in time.
    """
    printed, complaints = _output(target)
    found = [one for one in _parsed(printed) if _of(one, jail)]
    if re.search(rf"not found any log file for '?{re.escape(jail)}'? jail", complaints):  # a reload drops such a jail
        raise Refused(f"the configuration names no log file of jail {jail} that is there", hint="see its logpath")
    if ["start", jail] not in found or found[0][:2] != ["add", jail]:
        hint = f"fail2ban-server -c {target.config} -t names what is wrong"
        raise Refused(f"the configuration has no enabled jail {jail!r}, or it is faulty", hint=hint)
    return found


def _of(command: list[Any], jail: str) -> bool:
    return len(command) >= 2 and command[0] in {"add", "set", "multi-set", "start"} and command[1] == jail


def _parsed(printed: str) -> Iterator[list[Any]]:
    for line in printed.splitlines():
        if line.startswith("[") and len(line) <= _LONGEST:
            try:
                command = ast.literal_eval(line)
            except (ValueError, SyntaxError, RecursionError):
                raise Refused("the configuration cannot be read: a command is no Python literal") from None
            if isinstance(command, list):
                yield command


def _output(target: Fail2banTarget) -> tuple[str, str]:
    """What the program prints, and what it complains about."""
    program, limit = target.server_program, remaining(_LIMIT)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [str(program), "-c", str(target.config), "-d"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Timeout(f"{program} did not print the configuration in {limit:.0f} s") from None
    except OSError as exc:
        hint = "run this job on the worker beside the server, and check server_program"
        raise Refused(f"{program} cannot be run: {exc.strerror}", hint=hint) from None
    complaints = done.stderr.decode(errors="replace")
    if done.returncode:
        last = complaints.strip().rpartition("\n")[2]
        raise Refused(f"the configuration in {target.config} cannot be read: {last[:200] or 'no reason given'}")
    return done.stdout.decode(errors="replace"), complaints
