"""Fail2ban, with jails that log to files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.server import Conf, Server


class Fail2banServer(Server):
    """fail2ban with one jail `nms` that reads the file `jail_log` and writes what it does to the file `action_log`.

    Settings: jail.conf(5), over those of the jail; `jails` are more jails, each with a log of its own in the folder.
    """

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf, *, jails: Sequence[str] = ()) -> None:
        self.user = self.password = self.dbname = ""
        self.config = folder / "etc"
        self.socket = folder / "run" / "fail2ban.sock"
        self.jail_log, self.action_log = folder / "nms.log", folder / "actions.log"
        self._jails = ["nms", *jails]
        self.url = f"unix://{self.socket}"
        super().__init__(name, folder, program, conf)

    def prepare(self) -> None:
        defaults = {
            "backend": "polling",
            "usedns": "no",
            "filter": "login",
            "action": "note",
            "enabled": "true",
            "bantime": "600",
            "findtime": "60",
            "maxretry": "2",
            "ignoreip": "127.0.0.9",
            "logpath": f"{self.folder}/%(__name__)s.log",
            **self.conf,
        }
        ban, unban = (f"echo <name> {what} <ip> >> {self.action_log}" for what in ("ban", "unban"))
        sections: dict[str, dict[str, Mapping[str, str | Sequence[str]]]] = {
            "fail2ban.conf": {
                "Definition": {
                    "loglevel": "INFO",
                    "logtarget": "STDERR",
                    "syslogsocket": "auto",
                    "socket": str(self.socket),
                    "pidfile": str(self.folder / "fail2ban.pid"),
                    "dbfile": str(self.folder / "fail2ban.sqlite3"),
                    "dbmaxmatches": "10",
                    "dbpurgeage": "1d",
                    "allowipv6": "auto",
                },
                "Thread": {"stacksize": "0"},
            },
            "jail.conf": {"DEFAULT": defaults} | {jail: {} for jail in self._jails},
            "filter.d/login.conf": {"Definition": {"failregex": "^.*login failed from <HOST>$", "ignoreregex": ""}},
            "action.d/note.conf": {"Definition": {"actionban": ban, "actionunban": unban}},
        }
        for name, content in sections.items():
            path = self.config / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                line
                for section, settings in content.items()
                for line in (f"[{section}]", *(f"{key} = {value}" for key, value in settings.items()))
            ]
            path.write_text("\n".join(lines) + "\n")
        for jail in self._jails:
            (self.folder / f"{jail}.log").touch()

    def argv(self) -> list[str]:
        where = ["-s", str(self.socket), "-p", str(self.folder / "fail2ban.pid")]
        return [str(self.program), "-x", "-f", "-c", str(self.config), *where, "start"]

    def ready(self) -> bool:
        """It says `ready` when all of its jails have been started."""
        return self.output().count("Server ready") > self._seen

    def start(self) -> None:
        self.socket.parent.mkdir(exist_ok=True)
        self._seen = self.output().count("Server ready")
        super().start()
