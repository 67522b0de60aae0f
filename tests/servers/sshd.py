"""OpenSSH's server, which lets one key in as the user who runs the tests."""

import getpass
import socket
from collections.abc import Mapping
from pathlib import Path

from tests.servers.server import Conf, Server, run, which


class SshdServer(Server):
    """sshd; `ssh_config` is the client's configuration, with the key and the host key.

    Settings: https://man.openbsd.org/sshd_config.

    Args:
        environment: of whoever comes in.
    """

    def __init__(
        self, name: str, folder: Path, program: Path, conf: Conf, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.user, self.password, self.dbname = getpass.getuser(), "", ""
        self._environment = environment or {}
        self.ssh_config = folder / "ssh_config"
        super().__init__(name, folder, program, conf)
        self.url = f"ssh://{self.user}@{self.host}:{self.port}"

    def prepare(self) -> None:
        for key in ("host", "client"):
            argv = [which("ssh-keygen", self.name), "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)]
            run(argv, cwd=self.folder, env=self.env(), stdin="y\n")
        (self.folder / "authorized").write_text((self.folder / "client.pub").read_text())
        known = (self.folder / "host.pub").read_text()
        (self.folder / "known").write_text(f"[{self.host}]:{self.port} {known}")
        settings = {
            "ListenAddress": f"{self.host}:{self.port}",
            "HostKey": f"{self.folder}/host",
            "AuthorizedKeysFile": f"{self.folder}/authorized",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
        } | self.conf
        lines = [f"{key} {value}" for key, value in settings.items()]
        lines += [f"SetEnv {name}={value}" for name, value in self._environment.items()]
        (self.folder / "sshd_config").write_text("\n".join([*lines, ""]))
        self.ssh_config.write_text(
            f"IdentityFile {self.folder}/client\nIdentitiesOnly yes\nUserKnownHostsFile {self.folder}/known\n"
            "StrictHostKeyChecking yes\n"
        )

    def argv(self) -> list[str]:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it wants an empty folder to be locked into
        return [str(self.program), "-D", "-e", "-f", str(self.folder / "sshd_config")]

    def ready(self) -> bool:
        with socket.socket() as sock:
            sock.settimeout(5)
            return sock.connect_ex((self.host, self.port)) == 0
