"""Bans at a fail2ban: an address for each action, spread over several jails.

The moment of a ban is the server's own, to the millisecond: the line `[jail] Ban ADDRESS` of its log, which it writes
when it has decided on the ban, right before it runs the jail's action. That action is a shell that notes the address,
as one that calls a firewall is.
"""

import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

from nms_workers.bench.place import TARGETS, BenchError
from nms_workers.errors import NmsError
from nms_workers.jobs.wish import Wish
from nms_workers.service import service
from nms_workers.services.fail2ban.client import Fail2banClient
from nms_workers.services.fail2ban.target import Fail2banTarget
from nms_workers.supervisor import Process

_FIRST = IPv4Address("198.18.0.1")  # set aside for measurements: RFC 2544
_BAN = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) .*\] Ban (198\.1[89]\.[\d.]+)$", re.MULTILINE | re.ASCII)
_FILES = {  # jail.conf(5)
    "fail2ban.conf": """
[Definition]
loglevel = INFO
logtarget = {folder}/fail2ban.log
syslogsocket = auto
socket = {folder}/fail2ban.sock
pidfile = {folder}/fail2ban.pid
dbfile = {folder}/fail2ban.sqlite3
dbmaxmatches = 10
dbpurgeage = 1d
allowipv6 = auto
[Thread]
stacksize = 0
""",
    "jail.conf": """
[DEFAULT]
backend = polling
usedns = no
filter = login
action = note
enabled = true
bantime = 1d
logpath = {folder}/login.log
""",
    "filter.d/login.conf": "[Definition]\nfailregex = ^login failed from <HOST>$\n",
    "action.d/note.conf": "[Definition]\nactionban = echo <ip> >> {folder}/banned\nactionunban =\n",
}
_TARGET = """
[[targets]]
service = "fail2ban"
name = "fw"
socket = "{}"
timezone = "UTC"
skip = {}
"""


class AtFail2ban:
    """A fail2ban with a jail for each of `TARGETS`.

    Args:
        folder: where it lies; made.

    Raises:
        BenchError: the program is not here.
    """

    def __init__(self, folder: Path) -> None:
        program = shutil.which("fail2ban-server")
        if program is None:
            hint = "install Debian's package fail2ban, or measure --at redis"
            raise BenchError("there is no fail2ban-server on this machine to ban at", hint=hint)
        self._folder = folder
        self._client = Fail2banClient(Fail2banTarget(socket=folder / "fail2ban.sock", timezone="UTC"))
        self._write()
        where = ["-c", str(folder), "-s", str(folder / "fail2ban.sock"), "-p", str(folder / "fail2ban.pid")]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        self.process = Process("target", [program, "-x", "-f", *where, "start"], environment, self._ready)

    def targets(self) -> str:
        """One server; changes of different jails run side by side."""
        return _TARGET.format(self._folder / "fail2ban.sock", list(service("fail2ban").polls()))

    def wish(self, number: int) -> Wish:
        """Ban the address of this number."""
        arguments = {"jail": f"bench{number % TARGETS}", "address": str(_FIRST + number)}
        return Wish("fail2ban", "ban_ip", "fw", arguments, requested_by="bench")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """The log tells of everything."""
        yield

    def effects(self) -> Mapping[int, Sequence[float]]:
        """The moments of bans in the log."""
        found: dict[int, list[float]] = defaultdict(list)
        for text, address in _BAN.findall((self._folder / "fail2ban.log").read_text(encoding="utf-8")):
            moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC)
            found[int(IPv4Address(address)) - int(_FIRST)].append(moment.timestamp())
        return found

    def agrees(self, numbers: range) -> bool:
        """The server names each address as banned, and its action ran once for each."""
        wanted = sorted(str(_FIRST + number) for number in numbers)
        acted = sorted((self._folder / "banned").read_text(encoding="ascii").split())
        return wanted == acted == sorted(ban.address for ban in self._client.get_banned())

    def close(self) -> None:
        """There is nothing to let go of."""

    def _ready(self) -> bool:
        try:
            return len(self._client.get_jails_status()) == TARGETS
        except NmsError:  # it is still starting
            return False

    def _write(self) -> None:
        jails = "".join(f"[bench{number}]\n" for number in range(TARGETS))
        for name, text in _FILES.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(folder=self._folder).lstrip() + (jails if name == "jail.conf" else ""))
        (self._folder / "login.log").touch()
