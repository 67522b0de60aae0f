"""Suricata, in a network namespace of its own."""

import os
import shutil
import socket
from pathlib import Path

from tests.servers.server import Conf, Server, run, which


class SuricataServer(Server):
    """Suricata on the loopback interface of a network namespace of its own, which ends with it.

    Settings: https://docs.suricata.io/en/latest/configuration/suricata-yaml.html, by their dotted names; the file and
    the rules they go on top of lie with the tests of the service.

    Args:
        prevents: it believes that it stands in the way of the traffic, and says what it drops.
    """

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf, *, prevents: bool = False) -> None:
        self.prevents = prevents
        self.socket, self.eve = folder / "command.socket", folder / "log" / "eve.json"
        self.rules, self.config = folder / "rules", folder / "suricata.yaml"
        super().__init__(name, folder, program, conf)

    def prepare(self) -> None:
        source = Path(__file__).parents[1] / "services" / "suricata"
        for part in (self.eve.parent, self.rules):
            part.mkdir(exist_ok=True)
        shutil.copy(source / "local.rules", self.rules)
        beside = (above / "etc" / "suricata" for above in self.program.parents)
        vendor = next(folder for folder in beside if folder.is_dir())
        own = {
            "default-rule-path": self.rules,
            "classification-file": vendor / "classification.config",
            "reference-config-file": vendor / "reference.config",
        }  # in the file: the check of a rule set reads them as well
        lines = "".join(f'{name}: "{path}"\n' for name, path in own.items())
        self.config.write_text((source / "suricata.yaml").read_text() + lines)

    def argv(self) -> list[str]:
        unshare, ip = which("unshare", self.name), which("ip", self.name)
        settings = {"unix-command.filename": str(self.socket), **self.conf}
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        engine = [str(self.program), "-c", str(self.config), "--af-packet=lo", "-l", str(self.eve.parent), "-k", "none"]
        engine += ["--simulate-ips"] if self.prevents else []
        enter = f'{ip} link set lo up && exec "$@"'
        return [unshare, *mapped(), "--net", "sh", "-c", enter, "sh", *engine, *options]

    def ready(self) -> bool:
        """It counts: that is the last thing to begin."""
        try:
            with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rwb") as both:
                connection.settimeout(5)
                connection.connect(str(self.socket))
                for line in (b'{"version":"0.2"}\n', b'{"command":"dump-counters"}\n'):
                    both.write(line)
                    both.flush()
                    if b'"OK"' not in both.readline():
                        return False
                return True
        except OSError:
            return False

    def inside(self, *argv: str, stdin: str = "") -> str:
        """Run a program in its network namespace; what it wrote."""
        user = ["--user", "--preserve-credentials"] if os.geteuid() else []
        enter = [which("nsenter", self.name), f"--target={self.pid}", *user, "--net"]
        return run([*enter, *argv], cwd=self.folder, env=self.env(), stdin=stdin)


def mapped() -> list[str]:
    """Who is not root becomes it in a user namespace, to have a network namespace."""
    return ["--user", "--map-root-user"] if os.geteuid() else []
