"""Notifications of version 3: pysnmp's user-based security model (RFC 3414), and what it leaves to its caller.

pysnmp checks digests, decrypts, answers informs and reports to whoever asks for our engine. It does not check, and so
we do, for messages whose sender is the authority (traps):

* the level of security: it takes a message without authentication from a user who has keys;
* the time window: it takes its notion of the sender's clock from the very message that it then compares with it.
"""

import os
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from cachetools import LRUCache
from pyasn1.codec.ber import encoder
from pyasn1.error import PyAsn1Error
from pysnmp.carrier.base import AbstractTransportDispatcher
from pysnmp.entity import config
from pysnmp.entity.engine import SnmpEngine
from pysnmp.entity.rfc3413 import ntfrcv
from pysnmp.error import PySnmpError
from pysnmp.proto.rfc1902 import OctetString

from nms_workers.errors import ConfigError
from nms_workers.services.snmp.exact import AUTH, PRIV
from nms_workers.settings import TrapUser
from nms_workers.traps import ber

WINDOW_SECONDS = 150  # RFC 3414 section 2.2.3
_ENTERPRISE = bytes.fromhex("80001f8805")  # RFC 3411: bytes chosen by us follow; Net-SNMP's number, as we have none
_SEEN = 100_000  # digests of messages, so that none is taken twice inside its window
_DOMAIN, _PEER = (1, 3, 6, 1, 6, 1, 1), ("127.0.0.1", 0)  # snmpUDPDomain; where answers go is not pysnmp's business


class Checked(NamedTuple):
    """What became of a message.

    Args:
        message: the notification in it, if it is one that may be taken.
        answer: what to send back: a report at once, an acknowledgement once the notification is kept.
        why: what was wrong with it, for people.
    """

    message: ber.Message | None = None
    answer: bytes = b""
    why: str = ""


class Usm:
    """Checks messages of version 3. For one thread, in which all of it must happen.

    Args:
        users: who may send.
        folder: where our engine's id and the number of its starts are kept.

    Raises:
        ConfigError: a key cannot be read, or the folder not be used.
    """

    def __init__(self, users: Sequence[TrapUser], folder: Path) -> None:
        self._users = {user.username.encode(): user for user in users}
        self._engine_ids = {name: frozenset(map(bytes.fromhex, one.engine_ids)) for name, one in self._users.items()}
        self._clock = _Clocks()
        self._seen: LRUCache[bytes, bool] = LRUCache(_SEEN)
        self._known: set[tuple[bytes, bytes]] = set()
        self.engine_id, boots = _identity(folder)
        self._engine, self._outbox = _engine(self.engine_id, boots, self._arrived)
        self._pdus: list[bytes] = []
        for name in self._users:
            self._know(name, self.engine_id)

    def check(self, data: bytes) -> Checked:
        """Check a message.

        Raises:
            ParseError: it is no message of version 3.
        """
        envelope = ber.read_envelope(data)
        why = self._refusal(envelope)
        if why:
            return Checked(why=why)
        if envelope.engine_id not in (b"", self.engine_id):
            self._know(envelope.user, envelope.engine_id)
        self._pdus.clear()
        self._outbox.sent.clear()
        self._outbox.handle_timer_tick(time.monotonic())
        try:
            self._engine.message_dispatcher.receive_message(self._engine, _DOMAIN, _PEER, data)
        except (PySnmpError, PyAsn1Error) as exc:
            return Checked(why=f"pysnmp refuses it: {type(exc).__name__}")
        answer = self._outbox.sent[0] if self._outbox.sent else b""
        if not self._pdus:
            return Checked(answer=answer, why="" if answer else "wrong keys, or it cannot be decrypted")
        if why := self._late(envelope, data):
            return Checked(why=why)
        pdu = self._pdus[0]
        return Checked(ber.read_pdu(pdu, 0, len(pdu), 3, b""), answer)

    def _refusal(self, envelope: ber.Envelope) -> str:
        """What can be refused before any key is tried."""
        if envelope.engine_id == b"" or (envelope.engine_id == self.engine_id and not envelope.user):
            return ""  # a manager asks who we are, as it must before it sends an inform
        user = self._users.get(envelope.user)
        if user is None:
            return "a user who is not in the settings"
        if envelope.engine_id != self.engine_id and envelope.engine_id not in self._engine_ids[envelope.user]:
            return f"engine {envelope.engine_id.hex()} is not among the engine_ids of its user"
        level = bool(user.auth_protocol) + 2 * bool(user.priv_protocol)
        asking = envelope.engine_id == self.engine_id and not envelope.boots and not envelope.time  # for our clock
        if envelope.flags & 0b11 != level and not (asking and envelope.flags & 0b01):
            return "another level of security than its user has"
        return ""

    def _late(self, envelope: ber.Envelope, data: bytes) -> str:
        """Whether an authentic trap is an old one sent again."""
        if envelope.engine_id == self.engine_id or not envelope.flags & 0b01:
            return ""  # pysnmp compares with our own clock; nothing is certain about what is not authenticated
        if not self._clock.fits(envelope):
            return "it is older than its sender's clock allows: a replay, or the clock went back"
        digest = blake2b(data, digest_size=16).digest()
        if digest in self._seen:
            return "the very same message came before"
        self._seen[digest] = True
        return ""

    def _know(self, name: bytes, engine_id: bytes) -> None:
        """Make a user's keys for an engine, when they are first needed: that takes a tenth of a second."""
        if (name, engine_id) in self._known:
            return
        self._known.add((name, engine_id))
        user = self._users[name]
        auth, priv = user.auth_protocol, user.priv_protocol
        config.add_v3_user(
            self._engine,
            user.username,
            getattr(config, AUTH[auth]) if auth else config.USM_AUTH_NONE,
            user.auth_key.reveal() if user.auth_key else None,
            getattr(config, PRIV[priv, user.key_expansion]) if priv else config.USM_PRIV_NONE,
            user.priv_key.reveal() if user.priv_key else None,
            securityEngineId=OctetString(engine_id),
        )

    def _arrived(self, pdu: Any) -> None:
        self._pdus.append(encoder.encode(pdu))


class _Clocks:
    """The clocks of the engines that sent something authentic (RFC 3414 section 3.2, step 7b)."""

    def __init__(self) -> None:
        self._latest: dict[bytes, tuple[int, int, float]] = {}

    def fits(self, told: ber.Envelope) -> bool:
        """Whether a message may be of now; the clock goes on by it."""
        now = time.monotonic()
        boots, latest, at = self._latest.get(told.engine_id, (-1, 0, now))
        if told.boots == 0x7FFFFFFF or told.boots < boots:
            return False
        if told.boots == boots and told.time < latest + int(now - at) - WINDOW_SECONDS:
            return False
        if told.boots > boots or told.time > latest:
            self._latest[told.engine_id] = (told.boots, told.time, now)
        return True


class _Outbox(AbstractTransportDispatcher):  # type: ignore[misc]
    """Takes what pysnmp would send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def send_message(self, outgoingMessage: Any, transportDomain: Any, transportAddress: Any) -> None:  # noqa: N803
        self.sent.append(bytes(outgoingMessage))


def _engine(engine_id: bytes, boots: int, arrived: Callable[[Any], None]) -> tuple[SnmpEngine, _Outbox]:
    """An engine without sockets. Its id is set afterwards: given at once, pysnmp keeps its starts in a folder that
    every user of the host can write.
    """
    engine = SnmpEngine()
    objects = engine.get_mib_builder().import_symbols("__SNMP-FRAMEWORK-MIB", "snmpEngineID", "snmpEngineBoots")
    objects[0].syntax = objects[0].syntax.clone(engine_id)
    objects[1].syntax = objects[1].syntax.clone(boots)
    engine.snmpEngineID = objects[0].syntax
    outbox = _Outbox()
    engine.register_transport_dispatcher(outbox)
    ntfrcv.NotificationReceiver(engine, lambda *_: None)
    engine.observer.register_observer(
        lambda _engine, _point, told, _context: arrived(told["pdu"]), "rfc3412.receiveMessage:request"
    )
    return engine, outbox


def _identity(folder: Path) -> tuple[bytes, int]:
    """Our engine's id, made once, and how often it started (RFC 3414 section 2.2: it must never be told twice)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "engine"
        engine_id, boots = _ENTERPRISE + os.urandom(8), 0
        if path.exists():
            told, number = path.read_text(encoding="ascii").split()
            engine_id, boots = bytes.fromhex(told), int(number)
        fresh = path.with_suffix(f".{os.getpid()}")
        with fresh.open("w", encoding="ascii") as file:
            file.write(f"{engine_id.hex()} {boots + 1}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"our engine's id cannot be kept in {folder}: {exc}",
            hint="look at the disk and at the file engine; without it a new id is made",
        ) from None
    return engine_id, boots + 1
