"""TLS with real certificates over real sockets: what is accepted, what is not, and in which words."""

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from nms_workers.errors import AuthError, ConfigError, NmsError, Unreachable
from nms_workers.transport.http import HttpClient, HttpSettings
from nms_workers.transport.tls import TlsSettings, client_context
from tests.transport.sites import Call, Site

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEM files: the authority, another one, our certificate and keys of all kinds."""
    folder = tmp_path_factory.mktemp("pem")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other-ca.pem"))
    for name, issuer in (("me", authority), ("stranger", trustme.CA())):
        issued = issuer.issue_cert("me@nms.example")
        issued.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{name}.pem"))
        issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}-cert.pem"))
        issued.private_key_pem.write_to_path(str(folder / f"{name}-key.pem"))
    key = serialization.load_pem_private_key((folder / "me-key.pem").read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"open me")
    )
    (folder / "me-locked.pem").write_bytes(locked)
    (folder / "junk.pem").write_text("no certificate")
    return folder


def server(authority: trustme.CA, name: str = "127.0.0.1", **validity: datetime) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **validity).configure_cert(context)
    return context


def get(site: Site, **tls: object) -> int:
    settings = {"url": site.url, "tls": tls, "retry": {"attempts": 1}, "timeout": {"connect": 2, "read": 2, "total": 4}}
    with HttpClient(HttpSettings.model_validate(settings)) as client:
        return client.get().status


ROUTES = {"/": Call.answer}


def test_a_known_authority(authority: trustme.CA, files: Path) -> None:
    with Site(ROUTES, server(authority)) as site:
        assert get(site, ca=files / "ca.pem") == 200


def test_another_name_that_stands_in_the_certificate(authority: trustme.CA, files: Path) -> None:
    with Site(ROUTES, server(authority, "switch.example")) as site:
        assert get(site, ca=files / "ca.pem", server_name="switch.example") == 200


def test_unverified_takes_anything(authority: trustme.CA) -> None:
    with (
        Site(ROUTES, server(authority, "switch.example", not_after=NOW - DAY)) as site,
        pytest.warns(match="Unverified"),
    ):
        assert get(site, verify=False) == 200


@pytest.mark.parametrize(
    ("certificate", "ca", "words"),
    [
        ({"not_after": NOW - DAY}, "ca.pem", "has expired (renew it"),
        ({"not_before": NOW + DAY}, "ca.pem", "is not valid yet (check the clocks"),
        ({}, "other-ca.pem", "an authority we do not trust (set tls.ca"),
        ({}, None, "an authority we do not trust (set tls.ca"),
        ({"name": "switch.example"}, "ca.pem", "is for another address"),
    ],
    ids=["expired", "not yet valid", "unknown authority", "system's authorities", "wrong address"],
)
def test_refused_certificates(
    certificate: dict[str, datetime], ca: str | None, words: str, authority: trustme.CA, files: Path
) -> None:
    with Site(ROUTES, server(authority, **certificate)) as site, pytest.raises(Unreachable) as caught:
        get(site, **({"ca": files / ca} if ca else {}))
    assert words in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert site.seen == []


def test_wrong_name(authority: trustme.CA, files: Path) -> None:
    with (
        Site(ROUTES, server(authority, "switch.example")) as site,
        pytest.raises(Unreachable, match="for another name"),
    ):
        get(site, ca=files / "ca.pem", server_name="router.example")


def test_plain_http_behind_https(files: Path) -> None:
    with Site(ROUTES) as site:
        site.url = site.url.replace("http://", "https://")
        with pytest.raises(Unreachable, match="does not speak TLS"):
            get(site, ca=files / "ca.pem")


def test_too_old(authority: trustme.CA, files: Path) -> None:
    context = server(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with Site(ROUTES, context) as site:
        assert get(site, ca=files / "ca.pem") == 200
        with pytest.raises(Unreachable, match="no common version"):
            get(site, ca=files / "ca.pem", min_version="1.3")


@pytest.mark.parametrize(
    ("version", "stranger", "error", "words"),
    [
        (ssl.TLSVersion.TLSv1_3, {}, AuthError, "does not accept our certificate"),
        (ssl.TLSVersion.TLSv1_3, {"cert": "stranger.pem"}, AuthError, "does not accept our certificate"),
        (ssl.TLSVersion.TLSv1_2, {"cert": "stranger.pem"}, AuthError, "does not accept our certificate"),
        (ssl.TLSVersion.TLSv1_2, {}, Unreachable, "may want a certificate of ours"),
    ],
)
def test_client_certificates(
    version: ssl.TLSVersion,
    stranger: dict[str, str],
    error: type[NmsError],
    words: str,
    *,
    authority: trustme.CA,
    files: Path,
) -> None:
    context = server(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.maximum_version = version
    authority.configure_trust(context)
    with Site(ROUTES, context) as site:
        assert get(site, ca=files / "ca.pem", cert=files / "me.pem") == 200
        assert get(site, ca=files / "ca.pem", cert=files / "me-cert.pem", key=files / "me-key.pem") == 200
        with pytest.raises(error, match=words):
            get(site, ca=files / "ca.pem", **{name: files / file for name, file in stranger.items()})


def test_encrypted_key(authority: trustme.CA, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = server(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    ours = {"ca": files / "ca.pem", "cert": files / "me-cert.pem", "key": files / "me-locked.pem"}
    with Site(ROUTES, context) as site:
        monkeypatch.setenv("KEY_PASSWORD", "open me")
        assert get(site, key_password="env:KEY_PASSWORD", **ours) == 200
        monkeypatch.setenv("KEY_PASSWORD", "wrong-words")
        for password in ({}, {"key_password": "env:KEY_PASSWORD"}):
            with pytest.raises(ConfigError, match="key_password") as caught:
                get(site, **ours, **password)
            assert "wrong-words" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ca": "none.pem"}, "none.pem cannot be read: No such file"),
        ({"ca": "junk.pem"}, "holds no certificate"),
        ({"cert": "none.pem"}, "cannot be read: No such file"),
        ({"cert": "junk.pem"}, "both must be PEM"),
        ({"cert": "me-cert.pem"}, "both must be PEM"),
        ({"cert": "me-cert.pem", "key": "stranger-key.pem"}, "is not the key of the certificate"),
    ],
)
def test_files_that_cannot_be_used(options: dict[str, str], words: str, files: Path) -> None:
    settings = TlsSettings.model_validate({name: files / file for name, file in options.items()})
    with pytest.raises(ConfigError) as caught:
        client_context(settings)
    assert words in str(caught.value)


def test_a_drip_over_tls_ends(authority: trustme.CA, files: Path) -> None:
    slow: Callable[[Call], object] = lambda call: call.drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 900)  # noqa: E731
    quick = {"connect": 1, "read": 30, "total": 0.5}
    options = {"tls": {"ca": files / "ca.pem"}, "timeout": quick}
    with Site({"/": slow}, server(authority)) as site:
        started = time.monotonic()
        with pytest.raises(NmsError, match="no whole answer in time"):
            HttpClient(HttpSettings.model_validate({"url": site.url} | options)).get()
        assert time.monotonic() - started < 2
