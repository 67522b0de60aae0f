"""The contract, and that every service of the package keeps it."""

import csv
import re
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import IPvAnyAddress, PositiveInt

import nms_workers.services
from nms_workers.change import Change
from nms_workers.errors import ConfigError, Refused
from nms_workers.service import Service, TargetSettings, action, poll, seconds, service, services

ALL = list(services().values())
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Target(TargetSettings):
    host: str = "localhost"


class Client:
    def __init__(self, target: Target) -> None:
        self.target = target

    def close(self) -> None:
        """Nothing is open."""


class Router(Service):
    """A box with ports.

    Not a firewall.
    """

    kind = "router"
    Target = Target
    client = Client

    @poll(every="60s")
    def ports(self, client: Client) -> Iterator[Any]:
        """What each port says.

        At length.
        """
        yield client

    @poll(every="10s", deadline="3s", shard=50, volatile=True, enumerates=("port",))
    def neighbours(self, client: Client) -> Iterator[Any]:
        yield client

    @poll(every="10s", deadline="1h")
    def greedy(self, client: Client) -> Iterator[Any]:
        """Wants more than it may."""
        yield client

    @action(undo="enable", runs_at="edge", confirm=True, deadline="5s")
    def disable(self, client: Client, port: PositiveInt, peer: IPvAnyAddress | None = None) -> Change:
        """Shut a port."""
        return Change(changed=bool(peer), message=f"{port}")


@given(st.sampled_from(sorted(UNITS)), st.integers(1, 10**6), st.sampled_from(["", " "]))
def test_a_duration_is_a_number_and_a_unit(unit: str, number: int, space: str) -> None:
    assert seconds(f"{number}{space}{unit}") == pytest.approx(number * UNITS[unit])


@pytest.mark.parametrize("text", ["", "5", "s", "0s", "-1s", "5 parsecs", "1h30m", "x٣", "1e3s", "0.0ms", "5s\n5s"])
def test_what_is_no_duration_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a duration .*500ms"):
        seconds(text)


def test_a_poll_has_what_it_declares_and_a_deadline_within_its_interval() -> None:
    polls = Router.polls()
    assert list(polls) == ["ports", "neighbours", "greedy"]  # in the order they are written
    assert (polls["ports"].every, polls["ports"].deadline, polls["ports"].shard) == (60.0, 48.0, 1)
    assert polls["ports"].summary == "What each port says."
    assert not polls["ports"].volatile
    neighbours = polls["neighbours"]
    assert (neighbours.deadline, neighbours.shard, neighbours.volatile) == (3.0, 50, True)
    assert neighbours.enumerates == {"port"}
    assert neighbours.summary == "neighbours"
    assert polls["greedy"].deadline == pytest.approx(8.0)
    client = Client(Target())
    assert list(polls["ports"].run(client)) == [client]


@pytest.mark.parametrize("every", ["500ms", "8d", "often"])
def test_a_poll_with_an_interval_nobody_can_keep_is_refused(every: str) -> None:
    with pytest.raises(ConfigError, match=every):
        poll(every=every)


def test_an_action_has_what_it_declares() -> None:
    disable = Router.actions()["disable"]
    assert (disable.undo, disable.runs_at, disable.confirm, disable.deadline) == ("enable", "edge", True, 5.0)
    assert disable.summary == "Shut a port."
    assert disable.run(Client(Target()), port=3) == Change(changed=False, message="3")


def test_arguments_become_typed_values_by_the_method_s_own_signature() -> None:
    disable = Router.actions()["disable"]
    assert disable.validate({"port": "3", "peer": "192.0.2.1"}) == {"port": 3, "peer": IPv4Address("192.0.2.1")}
    assert disable.validate({"port": 3}) == {"port": 3, "peer": None}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, "port: Field required"),
        ({"port": 0}, "port: Input should be greater than 0"),
        ({"port": 1, "speed": 2}, "speed: Extra inputs are not permitted"),
        ({"port": 1, "peer": "hunter2"}, "peer: value is not a valid IPv4 or IPv6 address"),
    ],
)
def test_wrong_arguments_are_refused_by_name_and_never_repeated(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(Refused, match="disable cannot take these arguments") as refused:
        Router.actions()["disable"].validate(arguments)
    assert named in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_every_wrong_argument_is_named() -> None:
    with pytest.raises(Refused) as refused:
        Router.actions()["disable"].validate({"port": "x", "peer": "y", "z": 1})
    assert all(f"{name}:" in str(refused.value) for name in ("port", "peer", "z"))


@pytest.mark.parametrize("name", ["target", "confirm"])
def test_an_action_cannot_take_a_name_of_the_fleet(name: str) -> None:
    namespace: dict[str, Any] = {"Change": Change}
    exec(f"def act(self, client, {name}: str) -> Change: ...", namespace)  # noqa: S102 - a parameter by name
    bad = type("Bad", (Service,), {"kind": "bad", "act": action()(namespace["act"])})
    with pytest.raises(ConfigError, match=f"parameter '{name}'"):
        bad.actions()


def test_unknown_target_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Target(port=1)  # type: ignore[call-arg]


def test_the_registry_knows_the_services_by_kind() -> None:
    assert list(services()) == sorted(services())
    assert {"postgresql", "redis"} <= services().keys()
    assert all(kind == one.kind and service(kind) is one for kind, one in services().items())


def test_an_unknown_service_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no service 'gopher' .*known: .*redis"):
        service("gopher")


@pytest.fixture
def services_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(nms_workers.services, "__path__", [str(tmp_path)])
    services.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    services.cache_clear()


def _folder(path: Path, name: str, body: str) -> None:
    (path / name).mkdir()
    (path / name / "__init__.py").touch()
    (path / name / "service.py").write_text(f"from nms_workers.service import Service\n{body}\n")


def test_a_folder_is_all_it_takes(services_path: Path) -> None:
    _folder(services_path, "alone", "class Alone(Service):\n    '''Found.'''\n    kind = 'alone'")
    assert {kind: one.summary() for kind, one in services().items()} == {"alone": "Found."}
    assert services()["alone"].folder() == services_path / "alone"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("empty", ""),
        ("crowded", "class A(Service):\n    kind = 'a'\nclass B(Service):\n    kind = 'b'"),
        ("borrowed", "from nms_workers.services.taken_borrowed.service import A as Borrowed"),
        ("usurper", "class B(Service):\n    kind = 'a'"),
    ],
)
def test_a_folder_holds_one_service_of_a_kind_of_its_own(services_path: Path, name: str, body: str) -> None:
    _folder(services_path, f"taken_{name}", "class A(Service):\n    kind = 'a'")
    _folder(services_path, name, body)
    with pytest.raises(ConfigError, match=rf"nms_workers\.services\.{name}\.service"):
        services()


# What every service of the package must keep.


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.kind)
def test_a_service_says_what_it_is(one: type[Service]) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", one.kind)
    assert one.summary().endswith(".")
    assert issubclass(one.Target, TargetSettings)
    assert one.polls()
    for declared in (*one.polls().values(), *one.actions().values()):
        assert declared.summary.endswith("."), f"{one.kind}.{declared.name} says nothing of itself"


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.kind)
def test_deadlines_are_within_intervals(one: type[Service]) -> None:
    for declared in one.polls().values():
        assert 0 < declared.deadline <= 0.8 * declared.every
        assert declared.shard >= 1


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.kind)
def test_an_undo_is_an_action(one: type[Service]) -> None:
    undos = {declared.undo for declared in one.actions().values() if declared.undo}
    assert undos <= one.actions().keys()


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.kind)
def test_metrics_follow_openmetrics(one: type[Service]) -> None:
    with (one.folder() / "metrics.csv").open(newline="") as lines:
        names = [row["name"] for row in csv.DictReader(lines)]
    assert names
    assert len(names) == len(set(names)), "a metric is declared twice"
    for metric in one.metrics().values():
        assert re.fullmatch(rf"{one.kind}_[a-z0-9_]+", metric.name)
        assert metric.type in ("counter", "gauge", "info")
        assert (metric.type == "counter") == metric.name.endswith("_total"), metric.name
        assert metric.description, metric.name
        assert len(set(metric.labels)) == len(metric.labels), metric.name
        unit = metric.unit.replace(" ", "_")
        assert not unit or f"_{unit}_" in f"_{metric.name}_", f"{metric.name} must name its unit"
