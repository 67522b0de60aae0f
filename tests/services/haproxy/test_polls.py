"""What the polls tell of a real HAProxy, by each way to it, against what is known of it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import pytest
import requests

from nms_workers.errors import ParseError, Refused
from nms_workers.services.haproxy import internals
from nms_workers.services.haproxy.client import HaproxyClient
from nms_workers.services.haproxy.service import Haproxy
from tests.servers import HaproxyServer
from tests.services.haproxy.conftest import App, Connect, load, settled
from tests.services.haproxy.support import act, events, read, state
from tests.services.records import await_true, entities, value

WAYS = ("socket", "tcp", "url", "json")


@pytest.mark.parametrize("way", WAYS)
def test_the_numbers_of_every_object(server: HaproxyServer, connect: Connect, way: str) -> None:
    load(server, 20)
    records = read(connect(server, way))
    assert value(records, "haproxy_frontend_http_requests_total", proxy="fe_web") == 20
    assert value(records, "haproxy_frontend_http_responses_total", proxy="fe_web", code="2xx") == 20
    assert value(records, "haproxy_listener_sessions_total", proxy="fe_web", listener="plain") == 1
    assert value(records, "haproxy_backend_loadbalanced_total", proxy="be_app") == 20
    for name in ("app1", "app2"):
        labels = {"proxy": "be_app", "server": name}
        assert value(records, "haproxy_server_loadbalanced_total", **labels) == 10
        assert value(records, "haproxy_server_weight", **labels) == 10
        assert value(records, "haproxy_server_check_status", **labels) == 15
        assert value(records, "haproxy_server_check_code", **labels) in (0, 200)  # 0 while a check is under way
        assert value(records, "haproxy_server_status", **labels, state="UP") == 1
        assert value(records, "haproxy_server_status", **labels, state="DOWN") == 0
    assert value(records, "haproxy_server_check_status", proxy="be_dead", server="d1") == 8
    assert value(records, "haproxy_backend_active_servers", proxy="be_app") == 2
    assert value(records, "haproxy_backend_servers", proxy="be_app", state="UP") == 2
    assert value(records, "haproxy_backend_servers", proxy="be_dead", state="DOWN") == 1
    assert value(records, "haproxy_backend_total_time_average_seconds", proxy="be_app") < 1
    assert value(records, "haproxy_unknown_fields", of="stats") == 0
    assert set(entities(records, "server")) == {"be_app/app1", "be_app/app2", "be_dead/d1"}
    assert set(entities(records, "frontend")) == {"fe_web", "stats"}
    assert set(entities(records, "backend")) == {"be_app", "be_dead"}
    assert set(entities(records, "listener")) == {"fe_web/plain"}


def test_under_load(server: HaproxyServer, connect: Connect) -> None:
    clients, proxy = [connect(server, way) for way in WAYS], {"proxy": "be_app"}
    counts, busy = [0.0], 0.0
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(load, server, 50) for _ in range(8)]
        for client in cycle(clients):
            over = all(one.done() for one in running)
            records = read(client)
            counts.append(value(records, "haproxy_backend_http_requests_total", **proxy))
            busy = max(busy, value(records, "haproxy_frontend_max_sessions", proxy="fe_web"))
            if over:
                break
        for one in running:
            one.result()
    assert counts == sorted(counts), "a counter never falls"
    assert counts[-1] == 400
    assert busy > 1


def test_every_way_tells_the_same(server: HaproxyServer, connect: Connect) -> None:
    load(server)
    seen = [{(r.kind, r.proxy, r.name, frozenset(r.fields)) for r in connect(server, way).get_stats()} for way in WAYS]
    apart = {"addr", "cookie", "algo"} | {
        "check_code",
        "check_duration",
    }  # of the socket alone; of a check that is over
    bare = [{tuple(key): fields - apart for *key, fields in one} for one in seen]
    for other in bare[1:]:
        assert {key: fields ^ other[key] for key, fields in bare[0].items()} == dict.fromkeys(bare[0], frozenset())


def test_the_process(server: HaproxyServer, client: HaproxyClient) -> None:
    records = read(client, "info")
    assert value(records, "haproxy_process_nbthread") == 2
    assert value(records, "haproxy_process_max_connections") == 200
    assert abs(value(records, "haproxy_process_start_time_seconds") - time.time()) < 120
    assert 0 <= value(records, "haproxy_process_idle_time_ratio") <= 1
    assert value(records, "haproxy_process_pool_allocated_bytes") > 10_000
    assert value(records, "haproxy_unknown_fields", of="info") == 0
    (process,) = entities(records, "process").values()
    assert process["pid"] == server.pid
    version = server.ask("show version").strip()
    assert process["version"] == version
    labels = {"version": version, "release_date": process["release_date"]}
    assert value(records, "haproxy_process_build_info", **labels) == 1


def test_what_is_down_fires_until_it_is_up(client: HaproxyClient, apps: list[App]) -> None:
    found = events(read(client))
    assert set(found) == {"server_down:be_dead/d1", "backend_down:be_dead"}
    down = found["server_down:be_dead/d1"]
    assert (down.kind, down.state, down.severity) == ("server_down", "firing", "error")
    assert "Connection refused" in down.message
    assert found["backend_down:be_dead"].severity == "critical"

    apps[0].well = False
    await_true(lambda: state(client, "app1") == "DOWN")
    one = events(read(client))["server_down:be_app/app1"]
    assert "L7STS" in one.message
    assert one.attributes["status"] == "DOWN"
    assert "backend_down:be_app" not in events(read(client))
    apps[0].well = True
    await_true(lambda: state(client, "app1") == "UP")
    assert set(events(read(client))) == {"server_down:be_dead/d1", "backend_down:be_dead"}


@pytest.mark.parametrize(
    ("wanted", "kind"), [("drain", "server_drain"), ("maint", "server_maintenance")], ids=["drain", "maint"]
)
def test_what_an_operator_did_fires_too(client: HaproxyClient, wanted: str, kind: str) -> None:
    act(client, "set_server_state", backend="be_app", server="app1", state=wanted)
    event = events(read(client))[f"{kind}:be_app/app1"]
    assert (event.kind, event.state, event.severity) == (kind, "firing", "info")
    act(client, "set_server_state", backend="be_app", server="app1", state="ready")
    await_true(lambda: f"{kind}:be_app/app1" not in events(read(client)))


def test_a_stopped_frontend_fires(client: HaproxyClient) -> None:
    act(client, "disable_frontend", frontend="fe_web")
    assert events(read(client))["frontend_stopped:fe_web"].severity == "warning"
    act(client, "enable_frontend", frontend="fe_web")
    assert "frontend_stopped:fe_web" not in events(read(client))


def test_every_alarm_is_one_that_the_fleet_resolves() -> None:
    kinds = {"server_down", "server_drain", "server_maintenance", "server_nolb", "backend_down", "frontend_stopped"}
    assert kinds < Haproxy.polls()["stats"].enumerates
    assert "certificate_expiry" in Haproxy.polls()["certificates"].enumerates


def test_counters_after_they_were_cleared_and_after_a_restart(server: HaproxyServer, client: HaproxyClient) -> None:
    load(server, 10)
    assert value(read(client), "haproxy_frontend_http_requests_total", proxy="fe_web") == 10
    server.ask("clear counters all")
    assert value(read(client), "haproxy_frontend_http_requests_total", proxy="fe_web") == 0
    load(server, 3)
    assert value(read(client), "haproxy_frontend_http_requests_total", proxy="fe_web") == 3
    server.restart()
    settled(client)
    assert value(read(client), "haproxy_frontend_http_requests_total", proxy="fe_web") == 0


def test_names_that_csv_has_to_quote_and_names_that_come_twice(
    start: Callable[..., HaproxyServer], connect: Connect, free_port: Callable[[], int]
) -> None:
    lines = [f'  bind 127.0.0.1:{free_port()} name "a, \\"b\\" c"' for _ in range(2)]
    server = start(web="\n".join(lines))
    for way in ("socket", "tcp", "url"):  # in its JSON a quote is not escaped, which makes it none
        records = read(connect(server, way))
        assert {'fe_web/a, "b" c', 'fe_web/a, "b" c#2', "fe_web/plain"} == set(entities(records, "listener"))
        assert value(records, "haproxy_listener_status", proxy="fe_web", listener='a, "b" c#2', state="OPEN") == 1


def test_a_bound_on_the_objects(server: HaproxyServer, connect: Connect) -> None:
    records = read(connect(server, max_objects=5))
    assert value(records, "haproxy_objects_left_out") == 3
    assert value(records, "haproxy_frontend_status", proxy="stats", state="OPEN") == 1
    assert value(records, "haproxy_server_status", proxy="be_app", server="app1", state="UP") == 1
    assert not [r for r in records if getattr(r, "metric", "").startswith("haproxy_listener")]
    assert len(entities(records, "server")) == 3
    assert "server_down:be_dead/d1" in events(records)


def test_sticky_tables_and_their_entries(start: Callable[..., HaproxyServer], connect: Connect) -> None:
    table = "  stick-table type string len 64 size 100 expire 60s store http_req_cnt,http_req_rate(10s)\n"
    server = start(web=table + "  http-request track-sc0 path")
    client = connect(server, table_entries=2)
    settled(client)
    for path in ("/a", "/b%20b", "/c", "/a"):
        assert requests.get(f"http://127.0.0.1:{server.web_port}{path}", timeout=10).ok
    records = read(client, "tables")
    assert value(records, "haproxy_sticktable_size", table="fe_web", type="string") == 100
    assert value(records, "haproxy_sticktable_used", table="fe_web", type="string") == 3
    assert value(records, "haproxy_sticktables_left_out") == 0
    entries = read(client, "table_entries")
    assert len({record.labels["key"] for record in entries}) == 2
    every = {one.key: one.data for one in client.get_table_entries("fe_web")}
    assert every["/a"]["http_req_cnt"] == 2
    assert every["/a"]["http_req_rate(10000)"] == 2
    assert len(every) == 3
    assert read(connect(server), "table_entries") == []
    with pytest.raises(Refused, match="there is no sticky table nope"):
        client.get_table_entries("nope")


def test_a_certificate_that_ends_soon(
    start: Callable[..., HaproxyServer], connect: Connect, certificate: Path, free_port: Callable[[], int]
) -> None:
    escaped = str(certificate).replace(" ", "\\ ")
    server = start(web=f"  bind 127.0.0.1:{free_port()} ssl crt {escaped}")
    client = connect(server, certificate_days=1)
    (one,) = client.get_certificates()
    records = read(client, "certificates")
    labels = {"certificate": str(certificate)}
    ends = value(records, "haproxy_certificate_not_after_timestamp_seconds", **labels)
    assert ends == one.not_after.timestamp() > time.time()
    assert value(records, "haproxy_certificates") == 1
    assert not events(records)
    days = (one.not_after - datetime.now(UTC)).days + 2
    event = events(read(connect(server, certificate_days=days), "certificates"))[f"certificate_expiry:{certificate}"]
    assert (event.state, event.severity) == ("firing", "warning")
    assert value(records, "haproxy_certificates_left_out") == 0


def test_certificates_that_are_not_looked_at(
    start: Callable[..., HaproxyServer], connect: Connect, certificate: Path, free_port: Callable[[], int]
) -> None:
    text, lines = certificate.read_text(), []
    for name in ("a.pem", "b;show env.pem", "c.pem", "d.pem"):
        path = certificate.with_name(name)
        path.write_text(text)
        lines.append(f"  bind 127.0.0.1:{free_port()} ssl crt '{path}'")
    server = start(web="\n".join(lines))
    every = connect(server)
    assert len(every.get_certificate_files()) == 4
    assert [Path(one.file).name for one in every.get_certificates()] == ["a.pem", "c.pem", "d.pem"]
    assert value(read(every, "certificates"), "haproxy_certificates_left_out") == 1
    few = read(connect(server, max_certificates=1), "certificates")
    assert value(few, "haproxy_certificates_left_out") == 3
    assert len(entities(few, "certificate")) == 1


def test_servers_and_their_states(server: HaproxyServer, client: HaproxyClient, apps: list[App]) -> None:
    app1, app2 = client.get_servers_state("be_app")
    assert (app1.address, app1.port, app1.admin, app1.operational) == ("127.0.0.1", apps[0].site.port, "ready", "up")
    assert (app2.weight, app2.initial_weight, app2.checked) == (10, 10, True)
    assert [one.server for one in client.get_servers_state()] == ["app1", "app2", "d1"]
    assert [row.proxy for row in client.get_backends()] == ["be_app", "be_dead"]
    assert [row.name for row in client.get_servers()] == ["app1", "app2", "d1"]
    for ask in (client.get_servers, client.get_servers_state):
        with pytest.raises(Refused, match="there is no backend nope"):
            ask("nope")


def test_threads_and_memory_pools(server: HaproxyServer, client: HaproxyClient) -> None:
    load(server, 10)
    records = read(client, "internals")
    told = server.ask("show pools")
    assert value(records, "haproxy_pool_allocated_bytes", pool="buffer") > 16_384
    assert value(records, "haproxy_pool_failures_total", pool="buffer") == 0
    assert len({r.labels["pool"] for r in records if getattr(r, "metric", "") == "haproxy_pool_used_objects"}) == len(
        {line.split()[2] for line in told.splitlines() if "- Pool" in line}
    )
    accepted = [value(records, "haproxy_thread_accepted_total", thread=thread) for thread in "12"]
    assert sum(accepted) >= 2
    assert all(value(records, "haproxy_thread_loops_total", thread=thread) > 0 for thread in "12")
    assert value(records, "haproxy_unknown_fields", of="internals") == 0
    assert value(records, "haproxy_pools_left_out") == value(records, "haproxy_threads_left_out") == 0


def test_a_process_of_one_thread_and_one_of_many() -> None:
    one = internals.threads("thread_id: 1 (1..1)\ndate_now: 1.5\nloops: 7\nnew_one: 3\n")
    assert one == {"loops": {"1": 7}, "new_one": {"1": 3}}
    pool = internals.pools(
        "Dumping pools usage.\n"
        + "  - Pool a (8 bytes) : 2 allocated (16 bytes), 1 used (~1 by thread caches), needed_avg 0, 3 failures\n" * 2
    )
    assert pool == {"a": {"allocated": 4, "bytes": 32, "used": 2, "failures": 6}}
    many = {"loops": {str(n): 1 for n in range(1, 151)}}
    records = list(internals.records(many | {"new_one": {"1": 3}}, {f"p{n}": pool["a"] for n in range(103)}))
    assert value(records, "haproxy_threads_left_out") == 50
    assert value(records, "haproxy_pools_left_out") == 3
    assert value(records, "haproxy_unknown_fields", of="internals") == 1
    assert entities(records, "internals")["threads and pools"]["unknown_fields"] == ["threads.new_one"]
    for parse in (internals.threads, internals.pools):
        with pytest.raises(ParseError, match="does not look like"):
            parse("# nothing of it")


@pytest.mark.parametrize("poll", ["info", "tables", "certificates", "internals"])
def test_what_a_page_cannot_tell_is_refused_with_a_hint(server: HaproxyServer, connect: Connect, poll: str) -> None:
    with pytest.raises(Refused, match=r"none of the ways .* \(set socket.*, or leave this poll out"):
        read(connect(server, "url"), poll)


def test_the_default_place_of_the_page(start: Callable[..., HaproxyServer], connect: Connect) -> None:
    server = start()
    text = (server.folder / "haproxy.cfg").read_text().replace("  stats uri /stats\n", "")
    (server.folder / "haproxy.cfg").write_text(text)
    server.restart()
    client = connect(server, "url", url=f"http://127.0.0.1:{server.port}/haproxy", stats_query="stats")
    assert {row.proxy for row in client.get_backends()} == {"be_app", "be_dead"}
