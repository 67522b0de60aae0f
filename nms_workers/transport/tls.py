"""TLS as a client: which authorities to trust, which certificate to show, and what a failed handshake means."""

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from nms_workers.errors import AuthError, ConfigError, TargetError, Unreachable
from nms_workers.service import TargetSettings
from nms_workers.transport.pinning import PinnedContext
from nms_workers.transport.secret import Secret


class TlsSettings(BaseModel):
    """How to check the server and how to show who we are.

    Args:
        ca: PEM file of the authorities to trust instead of the system's.
        cert, key: PEM files of our own certificate, for servers that ask for one; `cert` may hold both.
        key_password: opens an encrypted key.
        verify: False accepts any certificate: anyone in between can read and change everything.
        server_name: the name to ask for and to find in the certificate, when the URL holds an address.
        min_version: the oldest TLS to accept.
        fingerprint: SHA-256 of one certificate that is trusted instead of all authorities, whatever name it is for: the
            server's own, or its authority's if the server sends that along.
    """

    model_config = TargetSettings.model_config

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    key_password: Secret | None = None
    verify: bool = True
    server_name: str | None = None
    min_version: Literal["1.2", "1.3"] = "1.2"
    fingerprint: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$")] | None = None

    @model_validator(mode="after")
    def _key_needs_cert(self) -> "TlsSettings":
        if self.cert is None and (self.key or self.key_password):
            raise ValueError("a key is of no use without its certificate: set cert too")
        if self.fingerprint and (self.ca or not self.verify):
            raise ValueError("fingerprint says alone whom to trust: leave out ca and verify")
        return self


_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """The context of connections made with these settings.

    Raises:
        ConfigError: a file is missing, unreadable or not what it should be; the message names it.
    """
    pinned = PinnedContext(ssl.PROTOCOL_TLS_CLIENT) if settings.fingerprint else None
    context = pinned or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[settings.min_version]
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif pinned is not None and settings.fingerprint:
        looking = settings.model_copy(update={"fingerprint": None, "verify": False})
        pinned.pin(settings.fingerprint, client_context(looking))
    elif settings.ca:
        _look_into(f"tls.ca: {settings.ca}", settings.ca)
        try:
            context.load_verify_locations(cafile=settings.ca)
        except OSError:
            raise ConfigError(f"tls.ca: {settings.ca} holds no certificate", hint="it must be a PEM file") from None
    else:
        context.load_default_certs()
    if settings.cert:
        _load_own(context, settings.cert, settings)
    return context


def _load_own(context: ssl.SSLContext, cert: Path, settings: TlsSettings) -> None:
    # An empty password keeps OpenSSL from asking for one at the terminal; for a key in clear it is ignored.
    password = settings.key_password.reveal() if settings.key_password else ""
    key = settings.key or cert
    _look_into(f"tls.cert: {cert} or the key {key}", cert, key)
    try:
        context.load_cert_chain(cert, settings.key, password)
    except OSError as exc:
        if isinstance(exc, ssl.SSLError) and exc.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"tls.key: {key} is not the key of the certificate {cert}") from None
        raise ConfigError(
            f"tls.cert: {cert} with the key {key} cannot be used",
            hint="both must be PEM, and an encrypted key needs its tls.key_password",
        ) from None


def _look_into(what: str, *files: Path) -> None:
    """Refuse what cannot be read. OpenSSL's own word for that may be the error number of something else before it."""
    try:
        for file in files:
            file.open("rb").close()
    except OSError as exc:
        raise ConfigError(f"{what} cannot be read: {exc.strerror}") from None


# X509_V_ERR_* of OpenSSL, https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
_UNKNOWN_AUTHORITY = ("comes from an authority we do not trust", "set tls.ca to the authority's PEM file")
_CERTIFICATE_FAULTS = {
    9: ("is not valid yet", "check the clocks of both machines"),
    10: ("has expired", "renew it on the target"),
    18: ("is self-signed", "set tls.ca to the certificate itself"),
    19: _UNKNOWN_AUTHORITY,
    20: _UNKNOWN_AUTHORITY,
    21: _UNKNOWN_AUTHORITY,
    23: ("has been revoked", "renew it on the target"),
    62: ("is for another name", "use a name that stands in it, or set tls.server_name"),
    64: ("is for another address", "use a name that stands in it, or set tls.server_name"),
}
# Reasons as OpenSSL words them; the alerts are what the other side says about us.
_Meaning = tuple[type[TargetError], str, str]
_OWN_CERTIFICATE: _Meaning = (
    AuthError,
    "it does not accept our certificate or the lack of one",
    "set tls.cert and tls.key to a certificate it accepts",
)
_NO_TLS: _Meaning = (Unreachable, "it does not speak TLS on this port", "try http://")
_VERSION: _Meaning = (Unreachable, "no common version", "check tls.min_version")
# In TLS 1.3 the alert about a missing certificate comes after our handshake is done, and may be lost in the reset.
_CLOSED: _Meaning = (
    Unreachable,
    "it closed the connection in the middle",
    "look at the target's log: it may also want a certificate of ours, tls.cert and tls.key",
)
_MEANINGS: dict[str, _Meaning] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _OWN_CERTIFICATE,
    "SSLV3_ALERT_BAD_CERTIFICATE": _OWN_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _OWN_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _OWN_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _OWN_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": _OWN_CERTIFICATE,
    "TLSV1_ALERT_ACCESS_DENIED": _OWN_CERTIFICATE,
    # TLS 1.2 says no more than this when it misses our certificate, and says it of ciphers too.
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        Unreachable,
        "it breaks off the handshake",
        "it may want a certificate of ours: tls.cert and tls.key",
    ),
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "TLSV1_ALERT_PROTOCOL_VERSION": _VERSION,
    "UNSUPPORTED_PROTOCOL": _VERSION,
    "NO_PROTOCOLS_AVAILABLE": _VERSION,
    "UNEXPECTED_EOF_WHILE_READING": _CLOSED,
    "SSLEOFERROR": _CLOSED,  # Python's own class, where OpenSSL gives no reason
}


def tls_fault(error: ssl.SSLError, host: str) -> TargetError:
    """What a failed handshake with `host` means: `AuthError` when it is our certificate, `Unreachable` otherwise."""
    reason = (error.reason or type(error).__name__).upper()
    kind, what, hint = _MEANINGS.get(reason, (Unreachable, reason.lower().replace("_", " "), ""))
    if isinstance(error, ssl.SSLCertVerificationError):
        fault, hint = _CERTIFICATE_FAULTS.get(error.verify_code, (f"is refused: {error.verify_message}", ""))
        what = f"its certificate {fault}"
    return kind(f"TLS with {host} failed: {what}", hint=hint)
