"""What containers say by their labels, and what becomes of it in the table of targets."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import redis
from sqlalchemy import Engine

from nms_workers.change import Proposal
from nms_workers.errors import ConfigError
from nms_workers.fleet.docker_discovery import Reconciled, described, reconcile
from nms_workers.fleet.inventory import Inventory
from nms_workers.fleet.labels import Container, Found, found
from nms_workers.fleet.proposals import approve, propose
from nms_workers.fleet.targets import sync
from nms_workers.settings import DockerDiscovery, Settings, TargetConfig
from tests.fleet.stores import rows

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ENGINE_HOST = "192.0.2.200"
Look = Callable[..., Reconciled]


def container(
    name: str = "cache",
    kind: str = "redis",
    address: str = "172.18.0.2",
    networks: Mapping[str, str] | None = None,
    ports: list[dict[str, object]] | None = None,
    **labels: str,
) -> Container:
    """As the engine lists one; `labels` with `__` for dots, below `nms.`."""
    networks = {"nms-monitoring": address} if networks is None else networks
    own = {f"nms.{key.replace('__', '.')}": value for key, value in labels.items()}
    listed = {
        "Id": f"{name}-id".ljust(64, "0"),
        "Names": [f"/web/{name}", f"/{name}"],
        "Image": "nms/test:1",
        "Labels": {"nms.service": "true", "nms.service.type": kind, "com.example": "x"} | own,
        "Ports": ports or [],
        "NetworkSettings": {"Networks": {one: {"IPAddress": ip} for one, ip in networks.items()}},
    }
    return msgspec.convert(listed, Container)


def told(one: Container, **rules: Any) -> Found:
    return found(one, DockerDiscovery(**rules), ENGINE_HOST)


@pytest.fixture
def look(engine: Engine) -> Look:
    """`look(containers..., on="engine", approve=...)`: one look at an engine that has these."""

    def make(*containers: Container, on: str = "local", approve: tuple[str, ...] = ()) -> Reconciled:
        rules = DockerDiscovery(approve=approve)
        wanted, faults = described(containers, rules, ENGINE_HOST)
        with engine.begin() as connection:
            result = reconcile(connection, on, wanted, rules, NOW)
        result.faults = faults | result.faults
        return result

    return make


def states(engine: Engine) -> dict[str, str]:
    return dict(rows(engine, "SELECT service || '/' || name, state FROM targets"))  # type: ignore[arg-type]


def test_labels_make_a_target() -> None:
    one = told(
        container(
            service__name="sessions",
            service__port="6380",
            target__password="env:REDIS_PASSWORD",
            service__target__db="2",
            target__key_patterns='["a:*", "b:*"]',
            restart="true",
            depends_on="db, queue",
            health__tcp="true",
        )
    )
    assert (one.kind, one.name, one.container, one.address) == ("redis", "sessions", "cache", "172.18.0.2")
    assert one.settings == {
        "host": "172.18.0.2",
        "port": 6380,
        "password": "env:REDIS_PASSWORD",
        "db": 2,
        "key_patterns": ["a:*", "b:*"],
    }
    assert (one.restart, one.depends_on, one.checks) == (True, ("db", "queue"), {"tcp": True})


def test_what_is_not_said_is_the_usual() -> None:
    one = told(container("grafana-1", "grafana", target__tls__verify="false", service__scheme="https"))
    assert (one.name, one.restart, one.depends_on, one.checks) == ("grafana-1", False, (), None)
    assert one.settings == {"url": "https://172.18.0.2:3000", "tls": {"verify": False}}
    behind = told(container("lb", "haproxy", service__path="/stats"))
    assert behind.settings == {"url": "http://172.18.0.2:8404/stats"}


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"kind": ""}, "the label nms.service.type is missing"),
        ({"kind": "mysql"}, "there is no service 'mysql'"),
        ({"kind": "fail2ban"}, "fail2ban is not spoken to at a port"),
        ({"kind": "fail2ban", "service__port": "1"}, "a label alone makes no target of it"),
        ({"service__name": "../etc"}, "the label nms.service.name"),
        ({"service__port": "0"}, "nms.service.port is not a port"),
        ({"service__port": "٣"}, "nms.service.port is not a port"),
        ({"service__port": "65536"}, "nms.service.port is not a port"),
        ({"service__prot": "6379"}, "there is no label nms.service.prot"),
        ({"health__command": "true"}, "there is no label nms.health.command"),
        ({"kind": "grafana", "service__scheme": "file"}, "neither http nor https"),
        ({"kind": "grafana", "service__path": "/a?b"}, "nms.service.path is no path"),
        ({"target__host": "192.0.2.1"}, "nms.target.host is not taken"),
        ({"kind": "grafana", "target__url": "http://x"}, "nms.target.url is not taken"),
        ({"target__nonsense": "1"}, "nms.target.nonsense: Extra inputs"),
        ({"target__db": "two"}, "nms.target.db: Input should be a valid integer"),
        ({"target__key_patterns": "[oops"}, "nms.target.key_patterns begins as JSON"),
        ({"kind": "grafana", "target__tls": "x", "target__tls__verify": "no"}, "leads into tls"),
        ({"target__db": "1", "service__target__db": "2"}, "sets what another label sets"),
        ({"target__username": "a\nb"}, "holds a control character"),
        ({"target__username": "a" * 5000}, "is longer than 4096"),
        ({"restart": "perhaps"}, "the label nms.restart"),
        ({"depends_on": "a b"}, "the label nms.depends_on"),
        ({"health__http": "ftp://x"}, "nms.health.http"),
        ({"address": ""}, "it has no address in any network"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value.replace("٣", "3"),
)
def test_what_cannot_be_a_target_is_told_by_its_label(labels: dict[str, str], why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        told(container(**labels))
    assert why in str(caught.value)


def test_a_secret_in_clear_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r'nms.target.password: write "env:NAME" or "file:/path"') as caught:
        told(container(target__password="hunter2"))
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        told(container(kind="grafana", target__headers__Authorization="Bearer hunter2"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ({}, ("172.18.0.2", 6379)),
        ({"networks": ("nms-*",)}, ("172.20.0.2", 6379)),
        ({"networks": ("zzz", "backend")}, ("172.18.0.2", 6379)),
        ({"address": "published"}, (ENGINE_HOST, 16379)),
        ({"address": "published", "published_at": "docker.example"}, ("docker.example", 16379)),
    ],
    ids=["any network", "by pattern", "the first there is", "published", "published elsewhere"],
)
def test_where_it_is_follows_from_the_settings(rules: dict[str, Any], place: tuple[str, int]) -> None:
    networks = {"backend": "172.18.0.2", "nms-net": "172.20.0.2"}
    ports: list[dict[str, object]] = [
        {"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 6379, "PublicPort": 16379, "Type": "tcp"},
    ]
    one = told(container(networks=networks, ports=ports), **rules)
    assert (one.settings["host"], one.settings["port"]) == place


def test_where_it_cannot_be_reached_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no address in nms-\* .*it is in: other"):
        told(container(networks={"other": "172.18.0.2"}), networks=("nms-*",))
    with pytest.raises(ConfigError, match="its port 6379 is not published"):
        told(container(), address="published")
    assert told(container(networks={"host": ""})).address == ENGINE_HOST


def test_one_bound_to_an_address_is_published_there_and_ipv6_is_bracketed() -> None:
    ports: list[dict[str, object]] = [{"IP": "2001:db8::1", "PrivatePort": 3000, "PublicPort": 3001}]
    assert told(container(kind="grafana", ports=ports), address="published").settings["url"] == (
        "http://[2001:db8::1]:3001"
    )


def test_two_that_claim_one_name_are_told_and_the_older_one_has_it() -> None:
    newer, older = container("b", service__name="x"), container("a", service__name="x", address="172.18.0.9")
    kept, faults = described([newer, older], DockerDiscovery(), ENGINE_HOST)
    assert [(one.container, one.address) for one in kept] == [("a", "172.18.0.9")]
    assert faults.keys() == {"b"}
    assert "redis/x is the container a already" in faults["b"]


def test_what_is_over_the_bound_is_told() -> None:
    kept, faults = described([container("b"), container("a")], DockerDiscovery(max_targets=1), ENGINE_HOST)
    assert [one.name for one in kept] == ["a"]
    assert "over discovery.docker.max_targets, 1" in faults["b"]


def test_a_container_waits_is_approved_goes_and_comes_back(engine: Engine, red: "redis.Redis", look: Look) -> None:
    assert look(container()).waiting == ["redis/cache"]
    assert look(container()).known == 1
    with engine.begin() as connection:
        assert approve(connection, None, ["cache"], NOW) == ["redis/cache"]
    inventory = Inventory(red)
    sync(engine, inventory, Settings(), NOW)
    (target,) = inventory.all().values()
    assert target.settings == {"host": "172.18.0.2", "port": 6379}
    gone = look()
    assert (gone.gone, gone.polled_otherwise) == (["redis/cache"], True)
    assert states(engine) == {"redis/cache": "gone"}
    sync(engine, inventory, Settings(), NOW)
    assert inventory.all() == {}
    back = look(container(address="172.18.0.7"))
    assert back.active == ["redis/cache"]
    sync(engine, inventory, Settings(), NOW)
    (again,) = inventory.all().values()
    assert (again.id, again.settings["host"]) == (target.id, "172.18.0.7")


def test_a_rule_approves_at_once_and_later_too(engine: Engine, look: Look) -> None:
    two = (container("web-1", "grafana"), container("cache"))
    assert look(*two, approve=("name:web-*",)).active == ["grafana/web-1"]
    assert look(*two, approve=("name:web-*", "type:redis")).active == ["redis/cache"]
    assert look(*two, approve=("engine:other",)).known == 2, "who is a target stays one"


def test_other_settings_want_another_approval_another_address_does_not(engine: Engine, look: Look) -> None:
    look(container(target__password="env:ONE"))
    with engine.begin() as connection:
        approve(connection, None, ["cache"], NOW)
    moved = look(container(target__password="env:ONE", address="172.18.0.8"))
    assert moved.changed == ["redis/cache"]
    asked = look(container(target__password="file:/run/secrets/another", address="172.18.0.8"))
    assert asked.waiting == ["redis/cache"]
    assert states(engine) == {"redis/cache": "proposed"}
    by_rule = look(container(target__password="env:TWO"), approve=("type:redis",))
    assert by_rule.active == ["redis/cache"]


def test_a_paused_one_stays_paused(engine: Engine, look: Look) -> None:
    look(container(), approve=("type:*",))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE targets SET state = 'paused'")
    look()
    look(container(), approve=("type:*",))
    assert states(engine) == {"redis/cache": "paused"}


def test_engines_do_not_take_each_others_targets(engine: Engine, look: Look) -> None:
    look(container(), approve=("type:*",))
    other = look(container(address="10.0.0.1"), on="second", approve=("type:*",))
    assert "a container of the engine local already" in other.faults["cache"]
    assert look(on="second").gone == []
    assert states(engine) == {"redis/cache": "active"}
    look()
    moved = look(container(address="10.0.0.1"), on="second")
    assert moved.waiting == ["redis/cache"], "the one engine's approval is not the other's"


def test_targets_of_other_sources_are_left_alone(engine: Engine, red: "redis.Redis", look: Look) -> None:
    configured = TargetConfig.model_validate({"service": "redis", "name": "cache", "host": "192.0.2.1"})
    sync(engine, Inventory(red), Settings(targets=[configured]), NOW)
    result = look(container(), container("second"))
    assert result.faults == {"cache": "redis/cache is a target already, which came from: file"}
    assert look().gone == ["redis/second"]
    assert rows(engine, "SELECT settings->>'host' FROM targets WHERE name = 'cache'") == [("192.0.2.1",)]


def test_a_container_that_the_settings_name_is_theirs() -> None:
    """With a port or without; another name, or another kind, is a target or a fault of its own."""
    listed = [container("cache"), container("web"), container("jail", "fail2ban"), container("jail2", "fail2ban")]
    own = {("redis", "cache"), ("fail2ban", "jail"), ("grafana", "web")}
    kept, faults = described(listed, DockerDiscovery(), ENGINE_HOST, own)
    assert [str(one) for one in kept] == ["redis/web"]
    assert list(faults) == ["jail2"]
    assert "add it to the settings as a target of fail2ban that is called jail2" in faults["jail2"]


def test_one_that_was_found_by_its_label_is_not_proposed_again(engine: Engine, look: Look) -> None:
    look(container("web", "grafana"))
    seen = Proposal("other", {"url": "http://172.18.0.2:3000"}, ("172.18.0.2",))
    with engine.begin() as connection:
        assert propose(connection, "grafana", "discovery", [seen]).known == 1
