"""The settings of one Suricata, checked before anything is asked."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from nms_workers.service import TargetSettings
from nms_workers.transport.secret import Secret

Port = Annotated[int, Field(ge=1, le=65535)]


class EveList(TargetSettings):
    """A Redis list that Suricata writes its event log to (`filetype: redis`).

    Args:
        host, port, db: where the list is.
        username, password: a user of the server's access control list.
        key: the list; `<key>:nms:reading` and `<key>:nms:position` beside it are ours.
        mode: as in suricata.yaml; `list` is LPUSH.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 6379
    db: Annotated[int, Field(ge=0)] = 0
    username: str = ""
    password: Secret | None = None
    key: str = Field(default="suricata", min_length=1, max_length=200)
    mode: Literal["list", "lpush", "rpush"] = "list"


class SuricataTarget(TargetSettings):
    """One Suricata, on the host of the worker that reads it (`worker` of the target names another host's).

    Args:
        socket: its command socket (`unix-command` in suricata.yaml).
        timeout: seconds for one whole answer.
        reload_timeout: seconds that loading the rules may take.
        eve_file: its event log as a file (`filetype: regular`); rotated and truncated files are followed.
        eve_socket: a socket we listen at, where Suricata writes its event log to (`filetype: unix_stream`). What comes
            is kept in `<eve_socket>.json` until it was read, 192 MiB at most.
        eve_list: a Redis list that holds its event log.
        position: where we note how far the event log was read; default: `<eve_file>.position`. In a Redis list it is
            noted beside the list.
        scan_bytes: how much of the event log a search looks at, from its end.
        program, config: the engine and its settings, to check rules with before they go live.
        rules: the folder of the rule files; default: `default-rule-path` of the settings.
    """

    socket: Path = Path("/var/run/suricata/suricata-command.socket")
    timeout: PositiveFloat = 5.0
    reload_timeout: PositiveFloat = 120.0
    eve_file: Path | None = None
    eve_socket: Path | None = None
    eve_list: EveList | None = None
    position: Path | None = None
    scan_bytes: PositiveInt = 256 << 20
    program: Path = Path("/usr/bin/suricata")
    config: Path = Path("/etc/suricata/suricata.yaml")
    rules: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in ("eve_file", "eve_socket", "eve_list") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.position and self.eve_list:
            raise ValueError("the position in a Redis list is noted beside the list")
        paths = (self.socket, self.eve_file, self.eve_socket, self.position, self.program, self.config, self.rules)
        if relative := [str(path) for path in paths if path and not path.is_absolute()]:
            raise ValueError(f"{relative[0]} is not an absolute path")
        return self

    @property
    def log_file(self) -> Path | None:
        """The file that holds the event log, Suricata's own or the one we keep for its socket."""
        if self.eve_socket:
            return self.eve_socket.with_name(self.eve_socket.name + ".json")
        return self.eve_file
