"""docker-compose.yml, as Compose reads it: what every container may do, use and reach."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nms_workers.queues import CLASSES
from nms_workers.service import services
from nms_workers.settings import Settings
from nms_workers.transport.http_settings import HttpSettings
from tests.stack.compose import PROFILES, Compose, make_secrets

pytestmark = pytest.mark.real("docker-compose")

IN_PROFILE = {
    "core": {
        *("postgres", "redis", "migrate", "beat", "flower", "flows", "traps"),
        *("worker-polls", "worker-actions", "worker-control"),
    },
    "discovery": {"discover", "worker-engine"},
    "logs": {"logs"},
    "monitoring": {"prometheus", "grafana", "elasticsearch", "kibana", "netdata", "ntopng", "ntopng-redis"},
    "network": {"snmpd", "gns3", "haproxy", "worker-network"},
    "security": {"suricata", "fail2ban", "worker-security"},
}  # fmt: skip
LIMITS = {  # of the design: bytes and processors
    "prometheus": (2 << 30, 1.0),
    "elasticsearch": (4 << 30, 2.0),
    "gns3": (4 << 30, 2.0),
    "netdata": (256 << 20, 0.5),
}
WRITABLE = {"elasticsearch", "netdata"}  # their own start scripts write beside their programs
UNPINNED = {"ntopng"}  # its vendor has no tags of versions
NOT_FOUND_AT_A_PORT = {"docker", "suricata", "fail2ban", "traffic_control"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    make_secrets(folder)
    return folder


@pytest.fixture
def compose(tmp_path: Path, secrets: Path) -> Compose:
    return Compose(tmp_path, secrets)


@pytest.fixture
def everything(compose: Compose) -> dict[str, Any]:
    return compose.config(*PROFILES)


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_stands_by_itself(compose: Compose, profile: str) -> None:
    config = compose.config(profile)
    assert set(config["services"]) == IN_PROFILE[profile]
    defined = {name: set(config.get(name, {})) for name in ("networks", "volumes", "secrets")}
    for name, one in config["services"].items():
        assert set(one.get("networks", {})) <= defined["networks"], name
        assert set(one.get("depends_on") or {}) <= set(config["services"]), f"{name} waits for another profile"


def test_no_container_has_more_power_than_it_needs(everything: dict[str, Any]) -> None:
    for name, one in everything["services"].items():
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert one.get("read_only", False) is (name not in WRITABLE), name
        assert not one.get("privileged"), name
        assert one.get("network_mode", "") != "host", name
        assert one["logging"]["options"]["max-size"], name
        sockets = [
            volume["source"] for volume in one.get("volumes", ()) if str(volume["source"]).endswith("docker.sock")
        ]
        assert bool(sockets) is (name in IN_PROFILE["discovery"] | IN_PROFILE["logs"]), name
    roots = {name for name, one in everything["services"].items() if one.get("user", "").startswith("0")}
    assert roots == {"ntopng", "snmpd", "suricata", "fail2ban", "worker-network", "worker-security"}
    powers = {name: set(one.get("cap_add", ())) for name, one in everything["services"].items() if one.get("cap_add")}
    assert set(powers) == {"netdata", "ntopng", "snmpd", "worker-network", "suricata", "fail2ban"}
    assert not {"SYS_ADMIN", "SYS_PTRACE", "SYS_MODULE", "ALL"} & set().union(*powers.values())


def test_everything_is_bounded_and_healthy_or_told(everything: dict[str, Any]) -> None:
    for name, one in everything["services"].items():
        limits = one["deploy"]["resources"]["limits"]
        assert int(limits["memory"]) >= 128 << 20, name
        assert float(limits["cpus"]) > 0, name
        assert int(limits["pids"]) > 0, name
        if name in LIMITS:
            assert (int(limits["memory"]), float(limits["cpus"])) == LIMITS[name]
        check = one["healthcheck"]
        assert (check.get("disable") is True) if name == "migrate" else check["test"][0] in ("CMD", "CMD-SHELL"), name
        assert set(one.get("depends_on") or {}) == set() or all(
            waited["condition"] in ("service_healthy", "service_completed_successfully")
            for waited in one["depends_on"].values()
        ), name
        assert one["restart"] == ("on-failure:3" if name == "migrate" else "unless-stopped"), name


def test_images_are_pinned(everything: dict[str, Any]) -> None:
    for name, one in everything["services"].items():
        tag = one["image"].rpartition(":")[2]
        assert (re.fullmatch(r"v?\d+\.\d+(\.\d+)?(-\w+)?", tag) is None) is (name in UNPINNED), one["image"]


def test_segments(everything: dict[str, Any]) -> None:
    """A server is reached in its own segment; only the fleet is in all of them."""
    networks = {name: set(one["networks"]) for name, one in everything["services"].items()}
    assert everything["networks"]["core"]["internal"] is True
    assert {one["name"] for one in everything["networks"].values()} == {
        *("nms-core", "nms-monitoring", "nms-network", "nms-security"),
    }
    assert networks["postgres"] == networks["redis"] == {"core"}
    fleet = {name for name, one in networks.items() if {"nms-monitoring", "nms-network", "nms-security"} <= one}
    assert fleet == {"worker-polls", "worker-actions"}
    for profile, segment in (
        ("monitoring", "nms-monitoring"),
        ("network", "nms-network"),
        ("security", "nms-security"),
    ):
        for name in IN_PROFILE[profile]:
            assert segment in networks[name], name
    assert networks["suricata"] == networks["fail2ban"] == {"nms-security"}


def test_web_pages_are_published_to_this_machine_only(everything: dict[str, Any]) -> None:
    for name, one in everything["services"].items():
        for port in one.get("ports", ()):
            assert port["host_ip"] == ("0.0.0.0" if port["protocol"] == "udp" else "127.0.0.1"), name
    received = {
        name: {int(p["published"]): p["target"] for p in everything["services"][name]["ports"]}
        for name in ("traps", "flows")
    }
    assert received == {"traps": {162: 1162}, "flows": {2055: 2055, 6343: 6343}}


def test_labels_say_what_each_server_is(everything: dict[str, Any]) -> None:
    """Every label is of a kind we have, with settings that the kind takes and secrets that our workers hold."""
    labelled = {}
    for name, one in everything["services"].items():
        labels = one.get("labels") or {}
        if labels.get("nms.service") != "true":
            continue
        kind, of = labels["nms.service.type"], services()[labels["nms.service.type"]]
        labelled[kind] = name
        settings = {
            key.removeprefix("nms.target."): text for key, text in labels.items() if key.startswith("nms.target.")
        }
        if kind in NOT_FOUND_AT_A_PORT:
            assert "nms.service.port" not in labels
            continue
        port, path = int(labels["nms.service.port"]), labels.get("nms.service.path", "")
        assert port == (3001 if kind == "ntopng" else of.port)  # its usual one is Grafana's
        where = (
            {"url": f"http://{name}:{port}{path}"}
            if issubclass(of.Target, HttpSettings)
            else {"host": name, "port": port}
        )
        try:
            of.Target.model_validate(settings | where)
        except ValidationError as exc:
            pytest.fail(f"{name}: {exc}")
        held = {secret["source"] for secret in everything["services"]["worker-polls"]["secrets"]}
        for text in settings.values():
            if text.startswith("file:"):
                assert text.removeprefix("file:/run/secrets/") in held, name
    assert set(labelled) == set(services()) - {"flows"}  # which has no server
    assert labelled["postgresql"] == "postgres"


def test_each_class_of_queues_has_a_worker(everything: dict[str, Any]) -> None:
    commands = [
        one["command"] for one in everything["services"].values() if (one.get("command") or [""])[0] == "worker"
    ]
    assert {command[1] for command in commands} == set(CLASSES)


def test_settings_of_the_stack(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are good, everything secret is a file that the containers have, and both servers are polled."""
    config = compose.config("core")
    for name, value in config["services"]["worker-polls"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Settings.load(Path(__file__).parents[2] / "deploy" / "nms.toml")
    assert {(one.service, one.settings["host"]) for one in settings.targets} == {
        ("postgresql", "postgres"),
        ("redis", "redis"),
    }
    held = {secret["source"] for secret in config["services"]["worker-polls"]["secrets"]}
    references = [settings.database.url, settings.redis.url, settings.web.flower_auth]
    references += [one.validated().password for one in settings.targets]  # type: ignore[attr-defined]
    assert {str(one).removeprefix("file:/run/secrets/") for one in references} <= held
    assert settings.web.metrics_host == "0.0.0.0"


def test_secrets_are_made_once_and_only_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = make_secrets(folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert len(made) == first.count("made ") >= 18
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o444}
    random = [
        made[f"{name}.txt"].strip() for name in ("postgres", "nms_db", "redis", "elastic", "grafana", "snmp_auth")
    ]
    assert len(set(random)) == len(random)
    assert all(re.fullmatch(r"[0-9a-f]{48}", one) for one in random)
    assert made["database_url.txt"] == f"postgresql://nms:{made['nms_db.txt'].strip()}@postgres:5432/nms\n"
    assert make_secrets(folder) == ""
    assert {path.name: path.read_text() for path in folder.iterdir()} == made


def test_no_secret_is_kept_with_the_project(everything: dict[str, Any], secrets: Path) -> None:
    root = Path(__file__).parents[2]
    assert "/secrets/" in (root / ".gitignore").read_text().splitlines()
    files = {Path(one["file"]) for one in everything["secrets"].values()}
    assert files <= set(secrets.iterdir())
    for name, one in everything["services"].items():
        for secret in files:
            assert secret.read_text().strip() not in str(one), name


def test_the_machine_itself_can_be_watched(compose: Compose) -> None:
    config = compose.config("core", "network", "security", files=("docker-compose.yml", "docker-compose.host.yml"))
    on_the_host = {name for name, one in config["services"].items() if one.get("network_mode") == "host"}
    assert on_the_host == {"suricata", "fail2ban", "worker-network"}
    for name in on_the_host:
        assert not config["services"][name].get("networks"), name
    assert {port["host_ip"] for port in config["services"]["postgres"]["ports"]} == {"127.0.0.1"}
