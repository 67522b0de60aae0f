"""Everything that a real server makes the service emit is declared in `metrics.csv`, and the other way round."""

from nms_workers.services.fail2ban.service import Fail2ban
from tests.metric_contract import never_emitted, undeclared
from tests.servers import Fail2banServer
from tests.services.fail2ban.conftest import Connect
from tests.services.fail2ban.support import act, read


def test_what_is_emitted_and_what_is_declared(server: Fail2banServer, connect: Connect) -> None:
    client = connect(server)
    act(client, "ban_ip", jail="nms", address="192.0.2.1")
    records = [record for poll in Fail2ban.polls() for record in read(client, poll)]
    assert undeclared(Fail2ban, records) == []
    assert never_emitted(Fail2ban, records) == []


# hectorjsmith/fail2ban-prometheus-exporter, collector/f2b
EXPORTER = {
    "f2b_up": "fail2ban_up",
    "f2b_errors": "fail2ban_client_errors_total",
    "f2b_jail_count": "fail2ban_jails",
    "f2b_jail_banned_current": "fail2ban_jail_banned_addresses",
    "f2b_jail_banned_total": "fail2ban_jail_bans_total",
    "f2b_jail_failed_current": "fail2ban_jail_failing_addresses",
    "f2b_jail_failed_total": "fail2ban_jail_failures_total",
    "f2b_config_jail_ban_time": "fail2ban_jail_ban_time_seconds",
    "f2b_config_jail_find_time": "fail2ban_jail_find_time_seconds",
    "f2b_config_jail_max_retries": "fail2ban_jail_max_retries",
    "f2b_version": "fail2ban_server_info",
}


def test_all_that_the_exporter_has_is_there() -> None:
    assert len(EXPORTER) == 11
    assert set(EXPORTER.values()) <= set(Fail2ban.metrics())
