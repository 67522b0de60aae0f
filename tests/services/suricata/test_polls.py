"""What the polls read from a real engine."""

import shutil
import signal
import os

import pytest
import trustme

from nms_workers.errors import Unreachable
from nms_workers.records import Entity
from nms_workers.services.suricata import counters
from nms_workers.services.suricata.client import SuricataClient
from tests.servers import SuricataServer
from tests.services.suricata.conftest import Connect, send
from tests.services.suricata.support import await_true, collect, events, read, signatures, value, values


def test_counters_by_thread_and_in_total(suricata: SuricataServer, client: SuricataClient) -> None:
    send(suricata, ["http", "/found"])
    records = await_true(lambda: (r := read(client, "counters")) and _http_flows(r) >= 1 and r)
    assert value(records, "suricata_uptime_seconds") >= 0
    assert value(records, "suricata_unknown_counters") == 0
    assert any(one.value >= 5 for one in values_of(records, "suricata_decoder_tcp_packets_total"))
    about = next(r for r in records if isinstance(r, Entity) and r.kind == "engine").attributes
    assert about["capture_mode"] == "AF_PACKET_DEV"
    assert value(records, "suricata_info", **{k: about[k] for k in ("version", "running_mode", "capture_mode")}) == 1


def _http_flows(records):
    return sum(v for labels, v in values(records, "suricata_app_layer_flows_total").items() if ("app_protocol", "http") in labels)
