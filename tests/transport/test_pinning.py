"""TLS by fingerprint, with real certificates over real sockets."""

import hashlib
import ssl
from pathlib import Path

import proxy
import pytest
import trustme
from pydantic import ValidationError

from nms_workers.errors import Unreachable
from nms_workers.transport.http import HttpClient, HttpSettings
from nms_workers.transport.tls import TlsSettings
from tests.transport.sites import Call, Site

PROXY = ["--hostname", "127.0.0.1", "--port", "0", "--num-workers", "1", "--num-acceptors", "1", "--log-level", "ERROR"]
NAME = "es-1.example"  # never asked for: the fingerprint says who it is


def fingerprint(pem: trustme.Blob) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.bytes().decode())).hexdigest()


def serving(folder: Path, leaf: trustme.LeafCert, *more: trustme.Blob) -> ssl.SSLContext:
    """A server that sends these certificates."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(b"".join(one.bytes() for one in (leaf.cert_chain_pems[0], *more)))
    key.write_bytes(leaf.private_key_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


def client(site: Site, text: str) -> HttpClient:
    limits = {"connect": 5, "read": 5, "total": 10}
    settings = {"url": site.url, "tls": {"fingerprint": text}, "retry": {"attempts": 1}, "timeout": limits}
    return HttpClient(HttpSettings.model_validate(settings))


@pytest.mark.parametrize("colons", [True, False])
def test_the_authority_that_the_server_sends_along(tmp_path: Path, colons: bool) -> None:
    authority = trustme.CA()
    text = fingerprint(authority.cert_pem)
    if colons:
        text = ":".join(text[at : at + 2] for at in range(0, 64, 2)).upper()
    context = serving(tmp_path, authority.issue_cert(NAME), authority.cert_pem)
    with Site({"/": Call.answer}, context) as site, client(site, text) as http:
        assert [http.get().status for _ in range(2)] == [200, 200]
        http.close()
        assert http.get().status == 200
        assert len(site.seen) == 3


def test_the_servers_own_certificate(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert(NAME)
    text = fingerprint(leaf.cert_chain_pems[0])
    with Site({"/": Call.answer}, serving(tmp_path, leaf)) as site, client(site, text) as http:
        assert http.get().status == 200


def test_another_certificate_is_told_nothing(tmp_path: Path) -> None:
    with Site({"/": Call.answer}, serving(tmp_path, trustme.CA().issue_cert(NAME))) as site:
        with client(site, "ab" * 32) as http, pytest.raises(Unreachable) as caught:
            http.get()
        assert "no certificate there has the fingerprint of tls.fingerprint" in str(caught.value)
        assert site.seen == []


def test_who_only_sends_the_authority_along_is_not_trusted(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = serving(tmp_path, stranger.issue_cert(NAME), authority.cert_pem)
    with Site({"/": Call.answer}, context) as site:
        with client(site, fingerprint(authority.cert_pem)) as http, pytest.raises(Unreachable) as caught:
            http.get()
        assert "its certificate comes from an authority we do not trust" in str(caught.value)
        assert site.seen == []


def test_who_takes_the_servers_place_later_is_not_trusted(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = serving(tmp_path, authority.issue_cert(NAME), authority.cert_pem)
    with Site({"/": Call.answer}, context) as site, client(site, fingerprint(authority.cert_pem)) as http:
        assert http.get().status == 200
        serving(tmp_path, trustme.CA().issue_cert(NAME), authority.cert_pem)
        context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
        http.close()
        with pytest.raises(Unreachable):
            http.get()
        assert len(site.seen) == 1


@pytest.mark.parametrize("text", ["ab" * 31, "ab" * 33, "xy" * 32, "ab" * 32 + "\n", "٣" * 64])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValidationError):
        TlsSettings(fingerprint=text)


def test_a_fingerprint_and_an_authority_exclude_each_other(tmp_path: Path) -> None:
    for more in ({"ca": tmp_path / "ca.pem"}, {"verify": False}):
        with pytest.raises(ValidationError, match="leave out ca and verify"):
            TlsSettings.model_validate({"fingerprint": "ab" * 32} | more)


def test_through_a_proxy(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = serving(tmp_path, authority.issue_cert(NAME), authority.cert_pem)
    with (
        proxy.Proxy(PROXY) as running,
        Site({"/": Call.answer}, context) as site,
    ):
        tls = {"fingerprint": fingerprint(authority.cert_pem)}
        through = f"http://127.0.0.1:{running.flags.port}"
        settings = HttpSettings.model_validate({"url": site.url, "tls": tls, "proxy": through})
        with HttpClient(settings) as http:
            assert http.get().status == 200
