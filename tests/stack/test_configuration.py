"""The files of `deploy/`, given to the programs that will read them."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import yaml
from prometheus_client import REGISTRY

from nms_workers.runtime import Runtime
from nms_workers.settings import Settings
from nms_workers.store.migrations import upgrade
from tests.conftest import StartServer
from tests.real.fleet import until
from tests.servers import program
from tests.stack.compose import ROOT, make_secrets

DEPLOY = ROOT / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def said(*argv: str | Path, **options: Any) -> str:
    """What a program says that must end well."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.real("prometheus")
def test_prometheus_takes_its_configuration_and_rules() -> None:
    beside = program("prometheus").with_name("promtool")
    assert "6 rules found" in said(beside, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


@pytest.mark.real("haproxy")
def test_haproxy_takes_its_configuration_with_the_login_beside_it(tmp_path: Path) -> None:
    make_secrets(tmp_path / "secrets")
    files = (DEPLOY / "haproxy" / "haproxy.cfg", tmp_path / "secrets" / "haproxy_login.txt")
    said(program("haproxy"), "-c", "-f", files[0], "-f", files[1])
    alone = subprocess.run([program("haproxy"), "-c", "-f", files[0]], capture_output=True, timeout=60, check=False)
    assert alone.returncode != 0, "nobody is let in without a login"


@pytest.mark.real("suricata")
def test_suricata_takes_its_configuration(tmp_path: Path) -> None:
    rule = 'alert icmp any any -> $HOME_NET any (msg:"any ping"; itype:8; sid:1000001; rev:1;)'
    (tmp_path / "suricata.rules").write_text(rule + "\n")
    rules = ("--set", f"default-rule-path={tmp_path}")
    told = said(program("suricata"), "-T", "-v", "-c", DEPLOY / "suricata" / "suricata.yaml", "-l", tmp_path, *rules)
    assert "1 rules successfully loaded, 0 rules failed" in told, told


@pytest.mark.real("fail2ban")
def test_fail2ban_takes_its_jail(tmp_path: Path) -> None:
    shutil.copytree("/etc/fail2ban", tmp_path / "etc", symlinks=True)
    shutil.copy(DEPLOY / "fail2ban" / "jail.local", tmp_path / "etc")
    commands = said("fail2ban-client", "-c", tmp_path / "etc", "-d")
    jails = set(re.findall(r"^\['start', '(\w+)'\]", commands, re.MULTILINE))
    assert jails == {"nms"}, "one jail, and none that looks for a log which the container does not have"
    assert "nftables-allports" in commands


@pytest.mark.real("redis-7.0")
@pytest.mark.timeout(60)
def test_redis_takes_its_configuration(tmp_path: Path) -> None:
    """With the paths of this test. It asks for the password, forgets nothing and evicts nothing."""
    make_secrets(tmp_path / "secrets")
    conf = (DEPLOY / "redis" / "redis.conf").read_text()
    conf = conf.replace("/run/secrets/redis_auth", str(tmp_path / "secrets" / "redis_auth.txt"))
    conf = re.sub(r"^(dir|port|bind) .*$", "", conf, flags=re.MULTILINE)
    socket = tmp_path / "s"
    (tmp_path / "redis.conf").write_text(f"{conf}\nport 0\nunixsocket {socket}\ndir {tmp_path}\n")
    server = subprocess.Popen([program("redis-7.0"), tmp_path / "redis.conf"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "ready to accept connections" in line.lower():
                break
        with redis.Redis(unix_socket_path=str(socket)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        password = (tmp_path / "secrets" / "redis.txt").read_text().strip()
        with redis.Redis(unix_socket_path=str(socket), password=password, decode_responses=True) as client:
            held = client.config_get("maxmemory-policy", "appendonly")
        assert held == {"maxmemory-policy": "noeviction", "appendonly": "yes"}
    finally:
        server.terminate()
        server.communicate(timeout=20)


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression of the rules and the dashboards."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    yield from ((rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"])
    yield from ((where, target["expr"]) for where, target in targets() if "expr" in target)


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            yield from ((f"{path.stem}: {panel['title']}", target) for target in panel["targets"])


def test_every_metric_that_is_asked_for_is_one_of_ours() -> None:
    for module in ("nms_workers.store.writer", "nms_workers.store.latest", "nms_workers.traps.metrics"):
        import_module(module)
    ours = {sample for metric in REGISTRY.collect() for sample in (metric.name, f"{metric.name}_total")}
    asked = {name: where for where, one in expressions() for name in re.findall(r"\bnms_\w+", one)}
    assert len(asked) >= 7
    assert {name: where for name, where in asked.items() if name not in ours} == {}


def test_dashboards_name_sources_that_are_provisioned() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana" / "provisioning" / "datasources" / "nms.yml").read_text())[
        "datasources"
    ]
    assert {target["datasource"]["uid"] for _, target in targets()} <= {one["uid"] for one in sources}
    for one in sources:
        for secret in one.get("secureJsonData", {}).values():
            assert re.fullmatch(r"\$__file\{/run/secrets/\w+\}", secret), one["name"]
    assert len({json.loads(path.read_text())["uid"] for path in DASHBOARDS}) == len(DASHBOARDS) == 2


@pytest.mark.real("postgresql-18")
def test_every_query_of_the_dashboards_runs_as_the_reader(start_server: StartServer) -> None:
    """On our schema, made by `roles.sql` as in the stack, with Grafana's macros written out."""
    server = start_server("postgresql-18")
    roles = (DEPLOY / "postgres" / "roles.sql").read_text()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE nms_reader LOGIN PASSWORD 'reader'")
        connection.execute("ALTER ROLE nms_reader SET default_transaction_read_only = on")
        (grants,) = re.findall(r"^ALTER DEFAULT PRIVILEGES .*;$", roles, re.MULTILINE)
        connection.execute(grants)
    upgrade(server.url)
    reader = {"user": "nms_reader", "password": "reader", "dbname": server.dbname}
    with psycopg.connect(host=server.host, port=server.port, **reader) as connection:
        for where, target in targets():
            if "rawSql" not in target:
                continue
            query = target["rawSql"]
            query = re.sub(r"\$__timeFilter\(([\w.]+)\)", r"\1 BETWEEN now() - interval '1 hour' AND now()", query)
            query = re.sub(r"\$__timeGroupAlias\(([\w.]+), '(\w+)'\)", r"date_bin('\2', \1, 'epoch') AS time", query)
            for variable, value in (("$service", "redis"), ("$target", "one"), ("$metric", "redis_up")):
                query = query.replace(variable, value)
            assert "$" not in query, where
            assert connection.execute(query).fetchall() == [], where
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM targets")


@pytest.mark.real("haproxy", "valkey-9")
def test_the_fleets_redis_follows_the_master(
    start_server: StartServer, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`redis-master.cfg`: the master dies, its replica is promoted, as Sentinel would, and the same URL goes on."""
    first = start_server("valkey-9", password="plain")
    follow = {"replicaof": f"{first.host} {first.port}", "masterauth": first.password}
    second = start_server("valkey-9", password="plain", conf=follow)
    port = free_port()
    env = {
        "REDIS_PASSWORD": first.password,
        "REDIS_BIND": f"127.0.0.1:{port}",
        "REDIS_FIRST": f"{first.host}:{first.port}",
        "REDIS_SECOND": f"{second.host}:{second.port}",
    }
    argv = [program("haproxy"), "-db", "-f", DEPLOY / "haproxy" / "redis-master.cfg"]
    proxy = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    monkeypatch.setenv("NMS_REDIS_URL", f"redis://:{first.password}@127.0.0.1:{port}/0")
    here = Runtime(Settings.load(None)).redis
    try:
        until(lambda: _set(here, "before"), "the master is reached")
        with redis.Redis.from_url(second.url) as replica:
            until(lambda: replica.get("state") == b"before", "the replica has it")
            first.kill()
            replica.replicaof("NO", "ONE")
            until(lambda: _set(here, "after"), "the new master is reached")
            assert replica.get("state") == b"after"
    finally:
        here.close()
        proxy.terminate()
        proxy.wait(20)


def _set(client: "redis.Redis", value: str) -> bool:
    try:
        return bool(client.set("state", value))
    except (redis.ConnectionError, redis.TimeoutError, redis.ReadOnlyError):
        return False
