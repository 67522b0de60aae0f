"""A router that speaks as Cisco IOS does, over real SSH: what is changed is changed, and what is not known is refused.

Commands and answers: Cisco IOS Configuration Fundamentals Command Reference (configure replace, show archive config
differences, verify /md5, tclsh), as NAPALM and netmiko expect them.
"""

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from difflib import ndiff
from pathlib import Path
from types import TracebackType
from typing import Self

import paramiko

_PUTS = re.compile(r'puts \[open "flash:/?(?P<file>\S+)" w\+\] \{(?P<text>[^}]*)\}\Z')


class Router:
    """Listens on 127.0.0.1 as long as it is open.

    Args:
        lines: its running configuration.
        password: of the user `nms`.
        deaf_to: it says that it took a configuration, and leaves out lines with this text.
        refuses: it does not take a configuration with this text, and goes back.
    """

    def __init__(self, lines: list[str], password: str, *, deaf_to: str = "", refuses: str = "") -> None:
        self.lines, self.password = list(lines), password
        self.deaf_to, self.refuses = deaf_to, refuses
        self.startup = list(lines)
        self.commands: list[str] = []
        self.files: dict[str, str] = {}
        self.key = paramiko.RSAKey.generate(2048)
        self._reads = 0
        self._over = threading.Event()
        self._transports: list[paramiko.Transport] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self.port: int = self._listener.getsockname()[1]

    def known_hosts(self, path: Path) -> Path:
        """A file that knows its host key."""
        path.write_text(f"[127.0.0.1]:{self.port} {self.key.get_name()} {self.key.get_base64()}\n")
        return path

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        for transport in self._transports:
            transport.close()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.key)
            self._transports.append(transport)
            self._start(self._serve, transport)

    def _serve(self, transport: paramiko.Transport) -> None:
        try:
            transport.start_server(server=_Door(self.password))
        except (paramiko.SSHException, EOFError):
            return  # the client did not like our key
        channel = None
        while channel is None:
            if self._over.is_set() or not transport.is_active():
                return
            channel = transport.accept(0.1)
        shell = _Shell(self)
        channel.sendall(f"\r\n{shell.prompt}".encode())
        for line in _lines(channel):
            answer = shell.line(line)
            if shell.left:
                break
            channel.sendall(f"{line}\r\n{answer}{shell.prompt}".replace("\n", "\r\n").replace("\r\r", "\r").encode())
        transport.close()

    def show(self) -> str:
        """show running-config: its head is another one at each reading."""
        self._reads += 1
        text = "\n".join(self.lines)
        head = f"! Last configuration change at 12:00:{self._reads:02} UTC Mon Jun 1 2026 by nms"
        return f"Building configuration...\n\nCurrent configuration : {len(text)} bytes\n!\n{head}\n{text}\n"

    def take(self, text: str) -> str:
        """configure replace: comments are not kept."""
        wanted = [line for line in text.splitlines() if line.strip() and not line.startswith("!")]
        if self.refuses and any(self.refuses in line for line in wanted):
            return "The original configuration has been successfully restored.\nError: rollback failed\n"
        self.lines = [line for line in wanted if not self.deaf_to or self.deaf_to not in line]
        return "Total number of passes: 1\nRollback Done\n\n"


class _Door(paramiko.ServerInterface):
    def __init__(self, password: str) -> None:
        self._password = password

    def check_auth_password(self, username: str, password: str) -> int:
        good = (username, password) == ("nms", self._password)
        return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_pty_request(self, *_: object) -> bool:
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        return True


def _lines(channel: paramiko.Channel) -> Iterator[str]:
    """What is typed, line by line; the text inside the braces of a TCL command is one."""
    typed = ""
    while data := channel.recv(65_536):
        typed += data.decode()
        while end := re.match(r"((?:[^{\r\n]|\{[^}]*\})*)(?:\r\n|\r|\n)", typed):
            typed = typed[end.end() :]
            yield end[1]


class _Shell:
    """One session: its mode, and the answer to each line."""

    def __init__(self, router: Router) -> None:
        self._router, self._mode, self.left = router, "", False

    @property
    def prompt(self) -> str:
        name = next((line.split()[1] for line in self._router.lines if line.startswith("hostname ")), "Router")
        return f"{name}{self._mode}#"

    def line(self, line: str) -> str:
        if line.strip():
            self._router.commands.append(line.split("{", maxsplit=1)[0].strip())
        if self._mode == "(config)":
            return self._configure(line.strip())
        if self._mode == "(tcl)" and (line == "tclquit" or line.startswith("puts")):
            return self._tcl(line.strip())  # every other command is done as outside of TCL
        for pattern, answer in _COMMANDS:
            if found := re.fullmatch(pattern, line.strip()):
                return answer(self, *found.groups())
        return f"{' ' * len(self.prompt)}^\n% Invalid input detected at '^' marker.\n\n"

    def _configure(self, line: str) -> str:
        lines = self._router.lines
        if line == "end":
            self._mode = ""
        elif line.startswith("no "):
            self._router.lines = [one for one in lines if one != line.removeprefix("no ")]
        elif line and line not in lines:
            lines.insert(max(0, len(lines) - 1), line)
        return ""

    def _tcl(self, line: str) -> str:
        if line == "tclquit":
            self._mode = ""
        elif put := _PUTS.match(line):
            self._router.files[put["file"]] = put["text"].replace("\r", "\n") + "\n"
        return ""

    def enter(self, mode: str) -> str:
        self._mode = mode
        return "Enter configuration commands, one per line.  End with CNTL/Z.\n" if mode == "(config)" else ""

    def leave(self) -> str:
        self.left = True
        return ""

    def directory(self, file: str | None = None) -> str:
        if file and file not in self._router.files:
            return f"%Error opening flash:/{file} (No such file or directory)\n"
        free = "99999999 bytes total (88888888 bytes free)"
        return f"Directory of flash:/{file or ''}\n\n    1  -rw-        5592  {file}\n\n{free}\n"

    def running(self) -> str:
        return self._router.show() + "\n"

    def md5(self, file: str) -> str:
        digest = hashlib.md5(self._router.files[file].encode(), usedforsecurity=False).hexdigest()
        return f".Done!\nverify /md5 (flash:/{file}) = {digest}\n\n"

    def differences(self, file: str) -> str:
        new = [line for line in self._router.files[file].splitlines() if line.strip()]
        told = [line for line in ndiff(self._router.lines, new) if line[0] in "+-"]
        return "\n".join(["!Contextual Config Diffs:", *(f"{line[0]}{line[2:]}" for line in told)]) + "\n\n"

    def copy(self, file: str) -> str:
        self._router.files[file] = "\n".join(self._router.lines)
        return "1234 bytes copied in 0.1 secs\n"

    def clear(self, file: str) -> str:
        self._router.files[file] = ""
        return ""

    def replace(self, file: str) -> str:
        return self._router.take(self._router.files[file])

    def write(self) -> str:
        self._router.startup = list(self._router.lines)
        return "Building configuration...\n[OK]\n"


_COMMANDS: list[tuple[str, Callable[..., str]]] = [
    ("", lambda _: ""),
    (r"terminal (?:width|length) \d+", lambda _: ""),
    ("enable", lambda _: ""),
    (r"show running-config", _Shell.running),
    (r"configure terminal", lambda shell: shell.enter("(config)")),
    (r"tclsh", lambda shell: shell.enter("(tcl)")),
    (r"dir", _Shell.directory),
    (r"dir flash:/?(\S*)", _Shell.directory),
    (r"verify /md5 flash:/(\S+)", _Shell.md5),
    (r"show archive", lambda _: "Archive feature not enabled\n"),
    (r"show archive config differences system:/running-config flash:/(\S+)", _Shell.differences),
    (r"copy running-config flash:/(\S+)", _Shell.copy),
    (r"copy null: flash:/(\S+)", _Shell.clear),
    (r"configure replace flash:/(\S+) force revert trigger error", _Shell.replace),
    (r"write mem", _Shell.write),
    (r"exit", _Shell.leave),
]
