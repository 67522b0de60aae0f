"""Traffic inside the network namespace of a Suricata, as a program: one JSON list of wishes on standard input.

A wish is ["http", path], ["http", path, source address], ["dns", name] or ["tls", folder of the certificate].
"""

import http.client
import http.server
import json
import socket
import ssl
import struct
import sys
import threading


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path.startswith("/found") else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


class _Site6(http.server.HTTPServer):
    address_family = socket.AF_INET6


def http_request(path: str, source: str = "127.0.0.1") -> None:
    kind, place = (_Site6, "::1") if ":" in source else (http.server.HTTPServer, "127.0.0.1")
    with kind((place, 0), _Page) as site:
        thread = threading.Thread(target=site.handle_request)
        thread.start()
        client = http.client.HTTPConnection(place, site.server_port, timeout=10, source_address=(source, 0))
        client.request("GET", path)
        client.getresponse().read()
        client.close()
        thread.join()


def dns_question(name: str) -> None:
    """Ask, and answer that there is no such name."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    question = labels + struct.pack(">HH", 1, 1)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 53))
        client.sendto(struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question, ("127.0.0.1", 53))
        _, peer = server.recvfrom(512)
        server.sendto(struct.pack(">HHHHHH", 7, 0x8183, 1, 0, 0, 0) + question, peer)
        client.recv(512)


def tls_handshake(folder: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    with socket.create_server(("127.0.0.1", 443)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as peer:
                peer.sendall(b"done")

        thread = threading.Thread(target=serve)
        thread.start()
        trusting = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        with (
            socket.create_connection(("127.0.0.1", 443)) as connection,
            trusting.wrap_socket(connection, server_hostname="ids.example") as peer,
        ):
            peer.recv(10)
        thread.join()


def stray_packets() -> None:
    """A TCP segment that belongs to no session, with a header that is too short: an anomaly."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(b"\x00\x50\x00\x50" + b"\0" * 8 + b"\x10\x00" + b"\0" * 6, ("127.0.0.1", 0))


_KINDS = {"http": http_request, "dns": dns_question, "tls": tls_handshake, "stray": stray_packets}

if __name__ == "__main__":
    for kind, *arguments in json.load(sys.stdin):
        _KINDS[kind](*arguments)
