"""The event log of a real engine: each record once, through rotation, truncation and the death of readers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from nms_workers.errors import Refused, Skipped, Unreachable
from nms_workers.records import Record
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.transport.deadline import deadline
from tests.conftest import StartServer
from tests.servers import SuricataServer
from tests.services.suricata.conftest import Connect, send
from tests.services.suricata.support import await_true, collect, events, read, signatures, value, values

ATTACK = 1000001

_DYING_READER = """
import sys
from pathlib import Path
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.services.suricata.target import SuricataTarget
client = SuricataClient(SuricataTarget(eve_file=Path(sys.argv[1])))
print(sum(getattr(record, "kind", "") == "alert" for record in client.read_log()))
"""


def _attacks(count: int) -> "list[list[str]]":
    return [["http", f"/attack/{number}"] for number in range(count)]


def _alerts(count: int):  # type: ignore[no-untyped-def]
    return lambda records: len(signatures(records)) >= count


def test_an_alert_says_who_did_what_and_no_secret(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, ["http", "/attack?token=hunter2"])
    records = collect(client, _alerts(1))
    (alert,) = events(records, "alert")
    assert alert.severity == "warning"
    assert alert.message.startswith("test attack [1:1000001]: TCP 127.0.0.1")
    assert alert.attributes["http"]["url"] == "/attack"
    assert alert.attributes["alert"]["category"] == "Attempted Information Leak"
    assert "hunter2" not in repr(records)
    assert value(records, "suricata_alerts_total", action="allowed", severity="2") == 1


def test_each_alert_is_told_once(suricata: SuricataServer, client: SuricataClient, connect: Connect) -> None:
    send(suricata, *_attacks(3))
    told = collect(client, _alerts(3))
    send(suricata, *_attacks(2))
    told += collect(connect(suricata), _alerts(2))  # another client of the same process goes on
    told += read(client)
    assert signatures(told) == [ATTACK] * 5
    assert len({event.fingerprint for event in events(told, "alert")}) == 5


def test_what_a_dead_worker_read_last_is_read_again_and_counted_once(
    suricata: SuricataServer, client: SuricataClient
) -> None:
    send(suricata, *_attacks(2))
    first = collect(client, _alerts(2))
    send(suricata, *_attacks(3))
    await_true(lambda: suricata.eve.read_bytes().count(b'"event_type":"alert"') == 5)
    argv = [sys.executable, "-c", _DYING_READER, str(suricata.eve)]
    dead = subprocess.run(argv, capture_output=True, text=True, check=True, env=os.environ, timeout=60)
    assert dead.stdout.strip() == "3"  # whether they reached the store nobody knows
    again = read(client)
    assert signatures(again) == [ATTACK] * 3
    assert value(again, "suricata_alerts_total", action="allowed", severity="2") == 5
    assert signatures(read(client)) == []
    everything = {event.fingerprint for event in events(first + again, "alert")}
    assert len(everything) == 5


def test_a_run_that_ends_early_is_read_again(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, *_attacks(2))
    await_true(lambda: suricata.eve.read_bytes().count(b'"event_type":"alert"') == 2)
    run = client.read_log()
    first = next(run)
    run.close()
    again = read(client)
    assert events(again, "alert")[0] == first
    assert len(events(again, "alert")) == 2


def test_rotation_loses_nothing(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, *_attacks(1))
    told = collect(client, _alerts(1))
    send(suricata, *_attacks(2))
    await_true(lambda: suricata.eve.read_bytes().count(b'"event_type":"alert"') == 3)
    suricata.eve.rename(suricata.eve.with_name("eve.json.1"))
    send(suricata, *_attacks(1))  # the engine goes on writing to the renamed file
    rotated = suricata.eve.with_name("eve.json.1")
    await_true(lambda: rotated.read_bytes().count(b'"event_type":"alert"') == 4)
    told += read(client)
    assert len(signatures(told)) == 4
    client.ask("reopen-log-files")
    send(suricata, *_attacks(2))
    told += collect(client, _alerts(2))
    assert len(signatures(told)) == 6
    assert values(told, "suricata_eve_rotations_total")[()] == 1, "the newest"
    assert values(told, "suricata_eve_gaps_total")[()] == 0


def test_two_rotations_between_two_runs(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, *_attacks(1))
    told = collect(client, _alerts(1))
    for old, new in (("eve.json", "eve.json.2"), ("eve.json", "eve.json.1")):
        send(suricata, *_attacks(2))
        await_true(lambda: suricata.eve.read_bytes().count(b'"event_type":"alert"') >= 2)
        (suricata.eve.parent / old).rename(suricata.eve.parent / new)
        client.ask("reopen-log-files")
        await_true(suricata.eve.exists)
    send(suricata, *_attacks(1))
    told += collect(client, _alerts(5))
    assert len(signatures(told)) == 6


def test_copytruncate_loses_nothing(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, *_attacks(1))
    told = collect(client, _alerts(1))
    send(suricata, *_attacks(2))
    await_true(lambda: suricata.eve.read_bytes().count(b'"event_type":"alert"') == 3)
    shutil.copy(suricata.eve, suricata.eve.with_name("eve.json.1"))
    os.truncate(suricata.eve, 0)
    send(suricata, *_attacks(2))
    told += collect(client, _alerts(4))
    assert len(signatures(told)) == 5


def test_a_log_cut_in_place_is_read_from_its_beginning(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, *_attacks(2))
    collect(client, _alerts(2))
    os.truncate(suricata.eve, 0)
    send(suricata, *_attacks(2))
    told = collect(client, _alerts(2))
    assert len(signatures(told)) == 2
    assert value(read(client), "suricata_eve_truncations_total") == 1


def _line(sid: int, second: int, padding: str = "") -> bytes:
    alert = f'{{"action":"allowed","gid":1,"signature_id":{sid},"rev":1,"signature":"s{padding}","severity":1}}'
    return f'{{"timestamp":"2026-01-01T00:00:{second:02}.000000+0000","event_type":"alert","alert":{alert}}}\n'.encode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "eve.json"


def test_a_log_that_was_cut_and_grew_past_where_we_were(log: Path, connect: Connect) -> None:
    client = connect(eve_file=log)
    log.write_bytes(_line(1, 1))
    assert signatures(read(client)) == [1]
    with log.open("r+b") as same_inode:
        same_inode.truncate()
        same_inode.write(_line(2, 2) + _line(3, 3) + _line(4, 4))
    records = read(client)
    assert signatures(records) == [2, 3, 4]
    assert value(records, "suricata_eve_truncations_total") == 1


def test_a_line_is_told_when_it_is_whole(log: Path, connect: Connect) -> None:
    client, line = connect(eve_file=log), _line(1, 1)
    for cut in (10, len(line) - 1):
        log.write_bytes(line[:cut])
        records = read(client)
        assert signatures(records) == []
        assert value(records, "suricata_eve_backlog_bytes") == cut
    log.write_bytes(line)
    assert signatures(read(client)) == [1]


def test_lines_that_are_no_records_cost_only_themselves(log: Path, connect: Connect) -> None:
    other = [
        b"",
        b"not json",
        b"[1,2]",
        b'{"event_type":"alert"}',
        b'{"timestamp":"yesterday"}',
        b"\xff\xfe",
        b"[" * 5000,
    ]
    strange = (
        b'{"timestamp":"2026-01-01T00:00:09+0000","event_type":"alert","alert":{"severity":"high","gid":[1]},"new":{}}'
    )
    long = _line(5, 5, "x" * (3 << 20))
    log.write_bytes(b"\n".join([*other, strange]) + b"\n" + long + _line(6, 6))
    records = read(connect(eve_file=log))
    assert [event.attributes["alert"].get("signature_id") for event in events(records, "alert")] == [None, 6]
    assert value(records, "suricata_eve_lines_skipped_total", reason="not a record") == len(other)
    assert value(records, "suricata_eve_lines_skipped_total", reason="too long") == 1


def test_what_was_not_read_and_is_gone_is_told(log: Path, connect: Connect) -> None:
    client = connect(eve_file=log)
    log.write_bytes(_line(1, 1))
    read(client)
    log.unlink()
    log.write_bytes(_line(2, 2))
    records = read(client)
    assert signatures(records) == [2]
    assert value(records, "suricata_eve_gaps_total") + value(records, "suricata_eve_truncations_total") == 1


def test_a_flood_is_taken_in_parts(log: Path, connect: Connect) -> None:
    log.write_bytes(b"".join(_line(number, number % 60) for number in range(1, 7001)))
    client = connect(eve_file=log)
    first, second = read(client), read(client)
    assert signatures(first) + signatures(second) == list(range(1, 7001))
    assert value(first, "suricata_eve_backlog_bytes") > 0
    assert value(second, "suricata_eve_backlog_bytes") == 0
    assert value(second, "suricata_alerts_total", action="allowed", severity="1") == 7000


def test_only_one_run_reads_at_a_time(log: Path, connect: Connect) -> None:
    log.write_bytes(_line(1, 1))
    one, other = connect(eve_file=log), connect(eve_file=log)
    run = one.read_log()
    next(run)
    with pytest.raises(Skipped):
        read(other)
    run.close()
    assert signatures(read(other)) == [1]


def test_a_log_that_is_not_there(log: Path, connect: Connect) -> None:
    with pytest.raises(Unreachable, match="there is no event log") as error:
        read(connect(eve_file=log))
    assert error.value.hint
    with pytest.raises(Refused, match="cannot note"):
        read(connect(eve_file=log, position=log.parent / "nowhere" / "position"))


def test_a_socket_is_as_good_as_a_file(start_server: StartServer, connect: Connect, tmp_path: Path) -> None:
    socket = tmp_path / "eve.socket"
    log = {"outputs.0.eve-log.filetype": "unix_stream", "outputs.0.eve-log.filename": str(socket)}
    listening = connect(eve_socket=socket)
    listening.listen()
    server = start_server("suricata", conf=log)
    assert isinstance(server, SuricataServer)
    client = connect(server, eve_socket=socket)  # the first client listens, and any may read
    send(server, *_attacks(2))
    told = collect(client, _alerts(2))
    listening.close()
    read(client)  # listens from now on
    records: list[Record] = []

    def attacked() -> bool:
        send(server, *_attacks(1))  # the engine connects anew when it has something to write
        records.extend(read(client))
        return bool(signatures(records))

    await_true(attacked)
    assert signatures(told) == [ATTACK] * 2
    assert len(client.get_alerts(limit=1)) == 1


@pytest.mark.parametrize("mode", ["list", "rpush"])
def test_a_redis_list(start_server: StartServer, connect: Connect, tmp_path: Path, mode: str) -> None:
    socket = tmp_path / "redis.socket"  # the network namespace of the engine does not matter to it
    store = start_server("redis-7.0", password="", conf={"unixsocket": str(socket)})
    log = {"filetype": "redis", "redis.server": str(socket), "redis.mode": mode, "redis.key": "suricata"}
    server = start_server("suricata", conf={f"outputs.0.eve-log.{key}": text for key, text in log.items()})
    assert isinstance(server, SuricataServer)
    client = connect(server, eve_list={"port": store.port, "mode": mode})
    send(server, *_attacks(3))
    told = collect(client, _alerts(3))
    assert [event.attributes["http"]["url"] for event in events(told, "alert")] == [
        "/attack/0",
        "/attack/1",
        "/attack/2",
    ]
    assert signatures(read(client)) == []
    with pytest.raises(Refused, match="no event log to look back in"):
        client.get_alerts()


@pytest.mark.parametrize("mode", ["list", "rpush"])
def test_each_entry_of_a_list_is_told_once(start_server: StartServer, connect: Connect, mode: str) -> None:
    store = start_server("redis-7.0", password="")
    client = connect(eve_list={"port": store.port, "mode": mode})
    with redis.Redis(port=store.port) as plain:
        push = plain.rpush if mode == "rpush" else plain.lpush
        for number in range(1, 4):
            push("suricata", _line(number, number).rstrip())
        run = client.read_log()
        next(run)
        run.close()  # a run that ended early
        assert signatures(read(client)) == [1, 2, 3]
        push("suricata", _line(4, 4).rstrip())
        records = read(client)
        assert signatures(records) == [4]
        assert value(records, "suricata_eve_backlog_records") == 0
        assert value(records, "suricata_alerts_total", action="allowed", severity="1") == 4
        note = plain.get("suricata:nms:position")
        plain.set("suricata:nms:position", note.replace(b'"reader":"', b'"reader":"another-host-'))
        push("suricata", _line(5, 5).rstrip())
        again = read(client)  # the reader of 4 is dead: nobody knows whether it was stored
        assert signatures(again) == [4, 5]
        assert value(again, "suricata_alerts_total", action="allowed", severity="1") == 5
        assert signatures(read(client)) == []
        assert plain.llen("suricata:nms:reading") == 0


def test_a_redis_that_is_away(connect: Connect, free_port) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unreachable, match="could not be reached"):
        read(connect(eve_list={"port": free_port()}))


def test_looking_back(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, ["http", "/attack/first"], ["http", "/attack/second"], ["dns", "nms.example"])
    await_true(lambda: len(client.search_events("event_type=dns")) == 2 and len(client.get_alerts()) == 2)
    newest, oldest = client.get_alerts()
    assert newest.at > oldest.at
    assert newest.sid == ATTACK
    assert client.get_alerts(limit=1) == [newest]
    assert client.get_alerts(severity=1) == []
    found = client.search_events("alert.signature_id=1000001 SECOND")
    assert [one["http"]["url"] for one in found] == ["/attack/second"]
    assert client.search_events("event_type=alert", start=newest.at) != []
    assert client.search_events("event_type=alert", end=oldest.at) == []
    with pytest.raises(Refused, match="time zone"):
        client.search_events(start=newest.at.replace(tzinfo=None))
    with deadline(60):
        assert len(client.search_events()) >= 4
