"""Net-SNMP's agent: versions 1, 2c and 3, with a writable system group."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

from gufo.snmp import SnmpError
from gufo.snmp.sync import SnmpSession

from tests.servers.server import PASSWORD, Conf, Server

AUTH = ("MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512")
PRIV = ("DES", "AES128", "AES192", "AES256", "AES192C", "AES256C")  # C: keys are made longer as Cisco does it


class SnmpdServer(Server):
    """Communities `public` (read) and `private` (write); users `noauth`, `auth` (SHA), `priv` (SHA,
    AES), and one for each way to sign and to encrypt: `md5`, `sha512aes256c`.

    Settings: https://www.net-snmp.org/docs/man/snmpd.conf.html; a list repeats the line.

    Args:
        addresses: where it listens, all at one port.
        at_port: that port; default: a free one.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        program: Path,
        conf: Conf,
        *,
        lines: str = "",
        addresses: Sequence[str] = ("127.0.0.1",),
        at_port: int | None = None,
    ) -> None:
        self._lines, self._addresses, self._at_port = lines, addresses, at_port
        self.host = addresses[0]
        self.user, self.password, self.dbname = "priv", PASSWORD, ""
        super().__init__(name, folder, program, conf)
        self.url = f"udp://{self.host}:{self.port}"

    def prepare(self) -> None:
        for part in ("persist", "agentx"):
            (self.folder / part).mkdir(exist_ok=True)
        users = [
            ("noauth", "", "noauth"),
            ("auth", f'SHA "{PASSWORD}"', "auth"),
            ("priv", f'SHA "{PASSWORD}" AES "{PASSWORD}"', "priv"),
            *((auth.lower(), f'{auth} "{PASSWORD}"', "auth") for auth in AUTH),
            *(
                (f"{auth}{priv}".lower(), f'{auth} "{PASSWORD}" {priv} "{PASSWORD}"', "priv")
                for auth in AUTH
                for priv in PRIV
            ),
        ]
        made = [f"createUser {name} {keys}\nrwuser {name} {level}" for name, keys, level in users]
        self.port = self._at_port or self.port
        places = ",".join(f"udp:{address}:{self.port}" for address in self._addresses)
        conf = "\n".join(f"{key} {value}" for key, value in self.conf.items())
        base = dedent(
            f"""\
            agentAddress {places}
            rocommunity public 127.0.0.1
            rwcommunity private 127.0.0.1
            sysLocation a rack of the tests
            sysServices 76
            master agentx
            agentXSocket {self.folder}/agentx/master
            """
        )
        (self.folder / "snmpd.conf").write_text("\n".join([base, *made, conf, self._lines, ""]))

    def argv(self) -> list[str]:
        leave_out = "-smux,mteTrigger,mteTriggerConf"
        return [str(self.program), "-f", "-Lo", "-C", "-c", str(self.folder / "snmpd.conf"), "-I", leave_out]

    def env(self) -> dict[str, str]:
        return super().env() | {"SNMP_PERSISTENT_DIR": str(self.folder / "persist"), "MIBS": ""}

    def ready(self) -> bool:
        try:
            SnmpSession(self.host, self.port, community="public", timeout=0.5).get("1.3.6.1.2.1.1.3.0")
        except (OSError, SnmpError):
            return False
        return True
