"""What is read: interfaces, protocols, hosts, flows, health; the greatest first, and no more than the settings say."""

from collections.abc import Iterator

import pytest

from nms_workers.errors import AuthError, ParseError, Refused, Unreachable
from nms_workers.records import Record
from nms_workers.services.ntopng import readings
from nms_workers.services.ntopng.client import NtopngClient
from nms_workers.services.ntopng.service import Ntopng
from tests.services.ntopng.conftest import Connect
from tests.services.ntopng.support import read, values
from tests.services.records import entities, events
from tests.stubs.ntopng import PASSWORD, TOKEN, USER, NtopngStub, flow, host, host_data
from tests.transport.sites import Site


def test_interfaces(client: NtopngClient) -> None:
    records = read(client, "interfaces")
    assert values(records, "ntopng_interfaces") == {"": 2}
    assert values(records, "ntopng_interface_received_bytes_total") == {"eth0": 2_500_000, "view:all": 2_500_000}
    assert values(records, "ntopng_interface_speed_bytes_per_second")["eth0"] == 125_000_000
    assert values(records, "ntopng_interface_drops_total")["eth0"] == 7
    assert values(records, "ntopng_interface_direction_bytes_per_second", "interface", "direction")[
        "eth0/received"
    ] == 1000  # fmt: skip
    problems = values(records, "ntopng_interface_tcp_packets_total", "interface", "problem")
    assert problems["eth0/lost"] == 6
    assert values(records, "ntopng_interface_hosts_capacity_ratio")["eth0"] == 0.02
    assert values(records, "ntopng_interface_zmq_drops_total", "interface", "reason")["eth0/udp_socket"] == 3
    assert values(records, "ntopng_uptime_seconds") == {"": 2 * 86_400 + 3 * 3600 + 4 * 60 + 5}
    assert values(records, "ntopng_unknown_fields") == {"interface": 0}
    assert entities(records, "interface") == {
        "eth0": {"ifid": 1, "name": "eth0", "view": False},
        "view:all": {"ifid": 4, "name": "view:all", "view": True},
    }
    assert events(records) == []


def test_numbers_of_a_later_version_are_counted_and_named(ntopng: NtopngStub, client: NtopngClient) -> None:
    ntopng.interfaces[4] |= {"num_quic_flows": 4, "tcpPacketStats": []}
    records = read(client, "interfaces")
    assert values(records, "ntopng_unknown_fields") == {"interface": 1}
    assert entities(records, "ntopng")["ntopng"]["unknown_fields"] == ["num_quic_flows"]
    assert "view:all/lost" not in values(records, "ntopng_interface_tcp_packets_total", "interface", "problem")


def test_a_licence_out_of_maintenance_fires(ntopng: NtopngStub, client: NtopngClient) -> None:
    ntopng.interfaces[1]["out_of_maintenance"] = True
    records = read(client, "interfaces")
    assert [(one.fingerprint, one.state) for one in events(records)] == [("licence", "firing")]
    assert values(records, "ntopng_licence_in_maintenance") == {"": 0}
    assert "licence" in Ntopng.polls()["interfaces"].enumerates


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1 year, 2 Days, 03:04:05", (365 + 2) * 86_400 + 3 * 3600 + 4 * 60 + 5),
        ("3 Tage, 04:05", 3 * 86_400 + 4 * 60 + 5),
        ("01:02:03", 3723),
        ("04:05", 245),
        ("00:05 sec", 5),
        ("< 1 sec", 1),
        ("", None),
        ("soon", None),
    ],
)
def test_uptime(text: str, seconds: float | None) -> None:
    assert readings.seconds_of(text) == seconds


def kept_then_refused(client: NtopngClient, poll: str) -> tuple[list[Record], str]:
    """What a poll yields before it says that there is more."""
    records: list[Record] = []
    run: Iterator[Record] = Ntopng.polls()[poll].run(client)
    with pytest.raises(Refused) as told:
        records.extend(run)  # what came before the error stays
    return records, str(told.value)


def test_chosen_interfaces_only(ntopng: NtopngStub, connect: Connect) -> None:
    assert set(entities(read(connect(ntopng, interfaces=["4"]), "interfaces"), "interface")) == {"view:all"}
    assert set(entities(read(connect(ntopng, interfaces=["eth0"]), "interfaces"), "interface")) == {"eth0"}
    records, told = kept_then_refused(connect(ntopng, interfaces=["eth0", "eth9"]), "interfaces")
    assert set(entities(records, "interface")) == {"eth0"}
    assert "watches no interface eth9" in told
    assert "it watches: eth0, view:all" in told
    records, told = kept_then_refused(connect(ntopng, max_interfaces=1), "interfaces")
    assert (set(entities(records, "interface")), "raise max_interfaces" in told) == ({"eth0"}, True)


def test_protocols(ntopng: NtopngStub, connect: Connect) -> None:
    records = read(connect(ntopng, interfaces=["eth0"]), "protocols")
    assert values(records, "ntopng_l4_flows", "protocol") == {"tcp": 20, "udp": 9, "200": 1}
    assert values(records, "ntopng_l7_flows", "application") == {"TLS": 12, "DNS": 9}
    assert values(records, "ntopng_l7_bytes_total", "application") == {"TLS": 1.5e15, "DNS": 3000}
    assert values(records, "ntopng_left_out", "what") == {"protocol": 0}
    few = read(connect(ntopng, interfaces=["eth0"], max_protocols=1), "protocols")
    assert values(few, "ntopng_l7_flows", "application") == {"TLS": 12}
    assert values(few, "ntopng_left_out", "what") == {"protocol": 4}
    ntopng.l4, ntopng.l7, ntopng.volumes = [], [], []
    assert values(read(connect(ntopng, interfaces=["eth0"]), "protocols"), "ntopng_l4_flows") == {}


def test_the_hosts_with_the_most_traffic(ntopng: NtopngStub, connect: Connect) -> None:
    for number in range(30):
        ip = f"192.0.2.{number}"
        ntopng.hosts.setdefault(1, []).append(host(ip, 1000 + number, local=number % 2 == 0))
        ntopng.host_data[1, ip] = host_data(ip)
    del ntopng.host_data[1, "192.0.2.28"]  # forgotten between the list and the question
    client = connect(ntopng, interfaces=["eth0"], max_hosts=3)
    records = read(client, "hosts")
    assert set(values(records, "ntopng_host_received_bytes_total", "host")) == {"192.0.2.29", "192.0.2.27"}
    assert values(records, "ntopng_host_bytes_per_second", "host")["192.0.2.29"] == 100  # 800 bits
    assert values(records, "ntopng_host_flows_total", "host", "role")["192.0.2.29/client"] == 20
    queries = values(records, "ntopng_host_dns_queries_by_type_total", "host", "direction", "type")
    assert queries["192.0.2.29/sent/AAAA"] == 1
    replies = values(records, "ntopng_host_dns_replies_total", "host", "direction", "status")
    assert replies["192.0.2.29/received/error"] == 1
    info = values(records, "ntopng_host_info", "host", "name", "mac", "local")
    assert "192.0.2.29/name of 192.0.2.29/00:00:5E:00:53:01/false" in info
    assert [one.args["perPage"] for one in ntopng.seen if one.path.endswith("host/active.lua")] == ["3"]
    local = connect(ntopng, interfaces=["eth0"], max_hosts=1, hosts="local")
    ntopng.host_data[1, "192.0.2.28"] = host_data("192.0.2.28")
    assert set(values(read(local, "hosts"), "ntopng_host_score", "host")) == {"192.0.2.28"}
    assert Ntopng.polls()["hosts"].volatile
    asked = len(ntopng.seen)
    assert read(connect(ntopng, max_hosts=0), "hosts") == []
    assert len(ntopng.seen) == asked


def test_flows_are_summed_up_to_conversations(ntopng: NtopngStub, connect: Connect) -> None:
    ntopng.flows[1] = [flow("192.0.2.7", 50_000 + number) for number in range(3)]
    ntopng.flows[1] += [flow("192.0.2.8", 40_000, bps=8e6), flow("192.0.2.9", 40_000, bps=8.0)]
    records = read(connect(ntopng, interfaces=["eth0"], max_flows=4), "flows")
    assert values(records, "ntopng_conversation_flows", "client", "server", "server_port", "l4", "l7") == {
        "192.0.2.8/198.51.100.3/443/TCP/TLS": 1, "192.0.2.7/198.51.100.3/443/TCP/TLS": 3,
    }  # fmt: skip
    assert values(records, "ntopng_conversation_bytes_per_second", "client") == {"192.0.2.8": 1e6, "192.0.2.7": 300}
    assert values(records, "ntopng_conversation_bytes", "client")["192.0.2.7"] == 3000
    assert values(records, "ntopng_left_out", "what") == {"flow": 1}
    assert Ntopng.polls()["flows"].volatile
    found, total = connect(ntopng).get_flows(1, limit=1)
    assert ([one.client.ip for one in found], total) == (["192.0.2.8"], 5)


def test_system(ntopng: NtopngStub, client: NtopngClient) -> None:
    records = read(client, "system")
    assert values(records, "ntopng_info") == {"6.3.241024/Community": 1}
    assert values(records, "ntopng_system_cpu_load_ratio") == {"": 0.25}
    assert values(records, "ntopng_system_memory_used_bytes") == {"": 4000 * 1024}
    assert values(records, "ntopng_storage_volume_bytes") == {"": 9000}
    assert values(records, "ntopng_redis_keys") == {"": 1200}
    assert values(records, "ntopng_unknown_fields") == {"system": 0}
    assert events(records) == []
    ntopng.redis["health"] = "red"
    (event,) = events(read(client, "system"))
    assert (event.kind, event.state, event.severity) == ("redis_unhealthy", "firing", "error")


def test_the_licence_key_and_credentials_are_told_nowhere(client: NtopngClient) -> None:
    told = [str(one) for poll in Ntopng.polls() for one in read(client, poll)]
    assert told
    assert "secret-licence-key" not in "".join(told)
    assert TOKEN not in "".join(told) + repr(client.target)


def test_who_may_not_ask_is_sent_to_the_login(
    ntopng: NtopngStub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_NTOPNG_PASSWORD", PASSWORD)
    known = connect(ntopng, username=USER, password="env:TEST_NTOPNG_PASSWORD")
    assert [one.ifname for one in known.get_interfaces()] == ["eth0", "view:all"]
    monkeypatch.setenv("TEST_NTOPNG_PASSWORD", "wrong")
    with pytest.raises(AuthError, match=r"login page .*/lua/login\.lua") as told:
        read(known, "interfaces")
    assert "wrong" not in str(told.value)


def test_an_ntopng_that_starts_is_not_there_yet(ntopng: NtopngStub, connect: Connect) -> None:
    ntopng.starting = True
    with pytest.raises(Unreachable, match="ntopng is starting"):
        connect(ntopng, retry={"attempts": 1}).get_interfaces()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("NOT_FOUND", Refused, r"code -1: Not found.*not there any more"),
        ("INVALID_INTERFACE", Refused, r"code -2: Invalid interface.*see get_interfaces"),
        ("NOT_GRANTED", Refused, r"code -3: Not granted.*lacks the permission"),
        ("INVALID_ARGUMENTS", Refused, r"code -5: Invalid arguments.*takes other arguments"),
        ("INTERNAL_ERROR", Refused, r"code -6: Internal error.*its own log"),
    ],
)
def test_codes_of_the_envelope(
    ntopng: NtopngStub, client: NtopngClient, name: str, kind: type[Exception], words: str
) -> None:
    ntopng.errors["interface/data.lua"] = name
    with pytest.raises(kind, match=words):
        client.get_interface_data(1)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, b'{"rc": -7, "rc_str": "BAD_FORMAT", "rsp": []}', ParseError, "code -7: BAD_FORMAT"),
        (409, b'{"rc": -18, "rc_str": "X", "rc_str_hr": "Unknown", "rsp": []}', Refused, "code -18: X.*said no"),
        (200, b'{"rc": 0, "rsp": {"what": 1}}', ParseError, "another shape"),
        (200, b'{"rc": 0}', ParseError, "no ntopng with the REST API v2"),
        (200, b'{"cluster_name": "es"}', ParseError, "no ntopng with the REST API v2"),
        (404, b"<html>not here</html>", Refused, "404"),
        (401, b'{"error": "no"}', AuthError, "401"),
    ],
    ids=["a format", "an unknown code", "another payload", "no payload", "another product", "an old one", "a proxy"],
)
def test_answers_that_are_none(connect: Connect, status: int, body: bytes, kind: type[Exception], words: str) -> None:
    with Site({"*": lambda call: call.answer(status, body)}) as site, pytest.raises(kind, match=words):
        connect(site, retry={"attempts": 1}).get_interfaces()
