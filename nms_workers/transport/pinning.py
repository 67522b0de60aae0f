"""TLS by fingerprint: trust one certificate, of the server or of the authority that made the server's.

A fingerprint alone proves nothing of an authority: everybody may send its certificate along. So the certificate is
looked for in what the server sends, and every connection is then verified against it alone.
"""

import hashlib
import ssl
import sys
import threading

from nms_workers.errors import Unreachable


class PinnedContext(ssl.SSLContext):
    """A context that trusts nothing until it has seen the certificate with its fingerprint. Thread-safe.

    The name in a certificate is not looked at: such a fingerprint names one server, or those of one cluster.
    """

    fingerprint: str
    looking: ssl.SSLContext  # accepts everything; for connections that nothing is sent over

    def pin(self, fingerprint: str, looking: ssl.SSLContext) -> None:
        """Set what is trusted: SHA-256 in hexadecimal, colons as you like; and what to look with."""
        self.fingerprint, self.looking = fingerprint.replace(":", "").lower(), looking
        self.check_hostname = False
        self.verify_mode = ssl.CERT_REQUIRED
        self.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the server's own certificate may be what is trusted
        self._lock, self._seen = threading.Lock(), False

    @property
    def seen(self) -> bool:
        """Whether the certificate was seen."""
        return self._seen

    def trust(self, sock: ssl.SSLSocket, host: str) -> None:
        """Take the certificate out of what a server sent.

        Raises:
            Unreachable: it is not there.
        """
        for der in _chain(sock):
            if hashlib.sha256(der).hexdigest() == self.fingerprint:
                with self._lock:
                    if not self._seen:
                        self.load_verify_locations(cadata=der)
                        self._seen = True
                return
        hint = "if its certificate was changed on purpose, set tls.fingerprint anew; if not, somebody is in between"
        raise Unreachable(
            f"TLS with {host} failed: no certificate there has the fingerprint of tls.fingerprint", hint=hint
        )


def _chain(sock: ssl.SSLSocket) -> list[bytes]:
    """The certificates a server sent, as DER."""
    if sys.version_info >= (3, 13):
        return list(sock.get_unverified_chain())
    chain = sock._sslobj.get_unverified_chain()  # type: ignore[attr-defined] # public since 3.13
    return [ssl.PEM_cert_to_DER_cert(one.public_bytes()) for one in chain or ()]
