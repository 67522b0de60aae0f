"""The ways to an engine beside its socket: TLS, ssh, and Podman in its place."""

from pathlib import Path

import pytest
import trustme

from nms_workers.errors import AuthError, Unreachable
from tests.conftest import StartServer
from tests.metric_contract import undeclared
from tests.servers import DockerServer, PodmanServer, SshdServer
from tests.services.docker.conftest import Connect
from tests.services.docker.support import FOREVER, LABEL, Docker, act, read
from tests.services.records import value


def test_tls(start_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    authority, theirs, ours = trustme.CA(), tmp_path / "server.pem", tmp_path / "client.pem"
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(theirs)
    authority.issue_cert("worker@example.net").private_key_and_cert_chain_pem.write_to_path(ours)
    files = {"tlsverify": "true", "tlscacert": str(ca), "tlscert": str(theirs), "tlskey": str(theirs)}
    server = start_server("docker", tcp=True, conf=files)
    assert isinstance(server, DockerServer)
    client = connect(url=server.tcp_url, tls={"ca": str(ca), "cert": str(ours)})
    assert value(read(client, "engine"), "docker_images") == 1
    with pytest.raises((AuthError, Unreachable), match="certificate"):
        read(connect(url=server.tcp_url, tls={"ca": str(ca)}), "engine")
    with pytest.raises(Unreachable, match="comes from an authority we do not trust"):
        read(connect(url=server.tcp_url, tls={"cert": str(ours)}), "engine")


def test_ssh(start_server: StartServer, engine: DockerServer, connect: Connect, tmp_path: Path) -> None:
    server = start_server("sshd", environment={"DOCKER_HOST": engine.url})
    assert isinstance(server, SshdServer)
    client = connect(url=server.url, ssh_config=str(server.ssh_config))
    assert value(read(client, "engine"), "docker_images") == 1
    assert read(client, "containers")
    client.close()
    assert read(client, "engine")

    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile {server.folder}/known\nIdentityFile none\nIdentitiesOnly yes\n")
    with pytest.raises(AuthError, match=r"ssh to 127\.0\.0\.1: .*Permission denied"):
        read(connect(url=server.url, ssh_config=str(config)), "engine")
    config.write_text(f"UserKnownHostsFile none\nStrictHostKeyChecking yes\nIdentityFile {server.folder}/client\n")
    with pytest.raises(AuthError, match=r"[Hh]ost key"):
        read(connect(url=server.url, ssh_config=str(config)), "engine")
    server.stop()
    with pytest.raises(Unreachable, match="Connection refused"):
        read(connect(url=server.url, ssh_config=str(server.ssh_config)), "engine")


def test_podman(start_server: StartServer, connect: Connect) -> None:
    server = start_server("podman")
    assert isinstance(server, PodmanServer)
    client = connect(url=server.url)
    with server.plain() as api:
        host = api.create_host_config(network_mode="none", mem_limit="64m")
        made = api.create_container(api.images()[0]["Id"], FOREVER, name="web", labels=LABEL, host_config=host)
        assert act(client, "start", container="web").after["state"] == "running"
        records = [
            *read(client, "engine"),
            *read(client, "containers"),
            *read(client, "stats"),
            *read(client, "objects"),
        ]
        assert undeclared(Docker, records) == []
        assert client.get_version().product == "Podman"
        assert value(records, "docker_container_running", container="web") == 1
        assert value(records, "docker_container_memory_limit_bytes", container="web") == 64 << 20
        assert value(records, "docker_container_processes", container="web") >= 1
        assert act(client, "stop", container="web", grace=1).changed
        assert not api.inspect_container(made["Id"])["State"]["Running"]
