"""One SSH session with a device, by NAPALM or netmiko: extras that are imported when they are needed."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from nms_workers.errors import AuthError, ConfigError, NmsError, ParseError, Refused, TargetError, Timeout, Unreachable
from nms_workers.services.snmp.drivers import drivers
from nms_workers.services.snmp.target import ConfigurationAccess
from nms_workers.transport.deadline import remaining

# the device did not understand the command: Cisco and alike, Juniper, MikroTik, Huawei
_COMPLAINT = re.compile(r"\s*(?:\^\s|%|Error:|bad command|syntax error|expected|unknown command)", re.IGNORECASE)
_CONNECT = 15.0  # seconds until the device asks who we are


class Session(Protocol):
    """What is asked of a device."""

    def running(self) -> str:
        """Its running configuration, secrets included."""

    def replace(self, text: str, *, agreed: Callable[[str], bool]) -> bool:
        """Put another configuration in place of the running one, and keep it over a restart.

        Args:
            agreed: is given what the device says would change; where it is not, nothing is.

        Returns:
            Whether it was put in place. A device that cannot take all of it goes back by itself.
        """


@contextmanager
def session(host: str, access: ConfigurationAccess) -> Iterator[Session]:
    """Log in, and out at the end.

    Raises:
        ConfigError: the extra is not installed, or a secret cannot be read.
        AuthError: the device does not accept the user.
        Unreachable: no connection, or its host key is not the known one.
        Timeout: a command was not answered in time.
        Refused: it does not take the configuration.
        TargetError: another failure. What the libraries say of it is left out: it may hold lines with secrets.
    """
    try:
        import netmiko  # noqa: PLC0415 - an extra
        import paramiko  # noqa: PLC0415
        from napalm.base import exceptions as napalm  # noqa: PLC0415
    except ImportError:
        hint = "pip install nms-workers[config]"
        raise ConfigError("configurations are read by NAPALM and netmiko, which are not installed", hint=hint) from None
    for library in ("netmiko", "paramiko"):
        logging.getLogger(library).setLevel(logging.WARNING)  # they log every line that is sent and read
    where = f"{host}, port {access.port}"
    try:
        made: _Napalm | _Netmiko = (_Napalm if drivers()[access.driver].library == "napalm" else _Netmiko)(host, access)
        try:
            yield made
        finally:
            made.close()
    except NmsError:
        raise
    except netmiko.NetmikoAuthenticationException:
        raise AuthError(f"{where} does not accept our user", hint="check username, password and key_file") from None
    except (paramiko.SSHException, napalm.ConnectionException) as exc:  # netmiko's own are paramiko's, too
        raise _no_session(where, exc) from None
    except netmiko.ReadTimeout:
        raise Timeout(f"{where} did not answer a command in {access.timeout:g} s") from None
    except (napalm.ReplaceConfigException, napalm.CommandErrorException) as exc:
        hint = "see whether its file system has room and its configuration archive works"
        raise Refused(f"{where} did not take the configuration: {type(exc).__name__}", hint=hint) from None
    except Exception as exc:  # noqa: BLE001 - the libraries have no common ancestor, and their words may hold secrets
        raise TargetError(f"the driver {access.driver} failed with {where}: {type(exc).__name__}") from None


def _no_session(where: str, exc: BaseException) -> Unreachable:
    """Why, as the first cause tells it."""
    causes: list[str] = []
    while exc is not None and len(causes) < 10:
        causes.append(str(exc).lower())
        exc = exc.__cause__ or exc.__context__  # type: ignore[assignment]
    if any("known_hosts" in words or "host key" in words for words in causes):
        hint = "compare its host key, and add it to known_hosts"
        return Unreachable(f"the host key of {where} is not the known one", hint=hint)
    return Unreachable(f"no SSH session with {where}", hint="does SSH listen there?")


class _Netmiko:
    def __init__(self, host: str, access: ConfigurationAccess) -> None:
        import netmiko  # noqa: PLC0415 - an extra

        self._access, self._show = access, drivers()[access.driver].show
        self._device: Any = netmiko.ConnectHandler(
            device_type=access.driver, host=host, username=access.username, password=_password(access), **_ssh(access)
        )
        if access.enable is not None:
            self._device.enable()

    def running(self) -> str:
        return _checked(self._access, str(self._device.send_command(self._show, read_timeout=_limit(self._access))))

    def replace(self, text: str, *, agreed: Callable[[str], bool]) -> bool:
        able = ", ".join(name for name, row in drivers().items() if row.library == "napalm")
        raise Refused(f"the driver {self._access.driver} reads only", hint=f"these can put back: {able}")

    def close(self) -> None:
        self._device.disconnect()


class _Napalm:
    def __init__(self, host: str, access: ConfigurationAccess) -> None:
        import napalm  # noqa: PLC0415 - an extra

        self._access = access
        options = {**_ssh(access), **drivers()[access.driver].options}
        driver = napalm.get_network_driver(access.driver)
        self._device: Any = driver(host, access.username, _password(access), _limit(access), optional_args=options)
        self._device.open()

    def running(self) -> str:
        return _checked(self._access, str(self._device.get_config(retrieve="running")["running"]))

    def replace(self, text: str, *, agreed: Callable[[str], bool]) -> bool:
        self._device.load_replace_candidate(config=text)
        if not agreed(self._device.compare_config()):
            self._device.discard_config()
            return False
        self._device.commit_config()
        return True

    def close(self) -> None:
        self._device.close()


def _ssh(access: ConfigurationAccess) -> dict[str, Any]:
    """netmiko's arguments."""
    return {
        "port": access.port,
        "secret": access.enable.reveal() if access.enable else "",
        "use_keys": access.key_file is not None,
        "key_file": str(access.key_file) if access.key_file else None,
        "conn_timeout": remaining(_CONNECT),
        "auth_timeout": remaining(_CONNECT),
        "banner_timeout": remaining(_CONNECT),
        "read_timeout_override": _limit(access),
        "ssh_strict": not access.any_host_key,
        "system_host_keys": not access.any_host_key and access.known_hosts is None,
        "alt_host_keys": access.known_hosts is not None,
        "alt_key_file": str(access.known_hosts or ""),
    }


def _password(access: ConfigurationAccess) -> str:
    return access.password.reveal() if access.password else ""


def _limit(access: ConfigurationAccess) -> float:
    return remaining(access.timeout)


def _checked(access: ConfigurationAccess, text: str) -> str:
    if len(text) > access.max_bytes:
        raise ParseError(f"the configuration has more than {access.max_bytes} characters", hint="raise max_bytes")
    if len(text.strip().splitlines()) < 2 or _COMPLAINT.match(text):
        hint = "check the driver, and what the user may do"
        raise ParseError(f"the device shows no configuration to the driver {access.driver}", hint=hint)
    return text
