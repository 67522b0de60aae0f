"""A requests adapter that keeps the deadline in every single read, and takes TLS from one context.

Read timeouts count from byte to byte: a server that sends one byte a second holds a caller for ever, in the headers as
well as in the body. These sockets ask for the time left before each read, so nothing outlives its deadline.
"""

import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

from nms_workers.transport.deadline import remaining
from nms_workers.transport.pinning import PinnedContext

_LONGEST_READ = 300.0  # seconds; for a socket that nobody gave a timeout


class _Socket(socket.socket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(remaining(self.gettimeout() or _LONGEST_READ))
        return super().recv_into(*args, **kwargs)


class _TlsSocket(ssl.SSLSocket):
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(remaining(self.gettimeout() or _LONGEST_READ))
        return super().recv_into(*args, **kwargs)


def keep_deadline(plain: socket.socket) -> socket.socket:
    """The same connection as a socket that asks for the time left before each read."""
    timeout = plain.gettimeout()
    sock = _Socket(fileno=plain.detach())
    sock.settimeout(timeout)
    return sock


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return keep_deadline(super()._new_conn())


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return keep_deadline(super()._new_conn())

    def connect(self) -> None:
        pinned = self.ssl_context
        if isinstance(pinned, PinnedContext):
            self.assert_hostname = False
            if not pinned.seen:
                self._look(pinned)
            self.cert_reqs = ssl.CERT_REQUIRED
        super().connect()

    def _look(self, pinned: PinnedContext) -> None:
        """Shake hands without sending anything, and see who it is."""
        self.ssl_context, self.cert_reqs = pinned.looking, ssl.CERT_NONE
        try:
            super().connect()
            pinned.trust(cast(ssl.SSLSocket, self.sock), self.host)
        finally:
            if self.sock is not None:
                self.sock.close()
            self.sock = None  # close() would forget the proxy's tunnel too
            self.ssl_context = pinned


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}


class DeadlineAdapter(HTTPAdapter):
    """Sends requests over pooled connections. Safe to share between threads. Retries nothing.

    Args:
        context: TLS of every connection; the per-request `verify` and `cert` of requests have no say.
        server_name: name to ask for and to expect in the certificate, instead of the URL's.
        proxy_auth: gives the `Proxy-Authorization` header, asked at each request; None sends none.
        connections: idle connections kept for each host.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_name: str | None,
        proxy_auth: Callable[[], str | None],
        connections: int,
    ) -> None:
        super().__init__(pool_maxsize=connections)
        context.sslsocket_class = _TlsSocket
        if isinstance(context, PinnedContext):
            context.looking.sslsocket_class = _TlsSocket
        self._tls = {"ssl_context": context} | ({"server_hostname": server_name} if server_name else {})
        self._proxy_auth = proxy_auth
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Host of the request, and our TLS."""
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, dict(self._tls)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: requests would add its own authorities to our context."""

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """The credentials for the proxy, from the secret and never from the URL."""
        auth = self._proxy_auth()
        return {"Proxy-Authorization": auth} if auth else {}

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> PoolManager:
        """The pools behind `proxy`; new ones when its credentials have changed."""
        known = self.proxy_manager.get(proxy)
        if isinstance(known, ProxyManager) and known.proxy_headers != self.proxy_headers(proxy):
            self.proxy_manager.pop(proxy, None)
            known.clear()
        manager: PoolManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
