"""No secret passes the masks: lines of each vendor, with any secret in their place."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nms_workers.masking import MASK
from nms_workers.services.snmp.masking import difference, families

# Where HIDDEN stands there is one.
LINES = {
    "cisco": [
        "enable secret 5 HIDDEN",
        "enable secret sha512 HIDDEN",
        "enable password HIDDEN",
        "username admin privilege 15 secret 9 HIDDEN",
        "username admin password 0 HIDDEN",
        " password 7 HIDDEN",
        "snmp-server community HIDDEN RO 10",
        'snmp-server community "HIDDEN" operator unrestricted',
        "snmp-server host 192.0.2.1 version 2c HIDDEN",
        "snmp-server host 192.0.2.1 traps version 3 priv HIDDEN",
        "snmp-server user nms group v3 auth sha HIDDEN priv aes 128 HIDDEN",
        "tacacs-server key 7 HIDDEN",
        "tacacs-server host 192.0.2.1 key HIDDEN",
        " key HIDDEN",
        " key 7 HIDDEN",
        "  key-string HIDDEN",
        "radius-server host 192.0.2.1 auth-port 1812 key HIDDEN",
        "crypto isakmp key HIDDEN address 192.0.2.1",
        "  pre-shared-key local HIDDEN",
        " ip ospf message-digest-key 1 md5 HIDDEN",
        " ip ospf authentication-key HIDDEN",
        " neighbor 192.0.2.1 password 7 HIDDEN",
        " standby 1 authentication md5 key-string HIDDEN",
        " vrrp 1 authentication text HIDDEN",
        "ntp authentication-key 1 md5 HIDDEN 7",
        " ppp chap password 7 HIDDEN",
        " isis password HIDDEN",
        " wpa-psk ascii 0 HIDDEN",
        "ip ftp password HIDDEN",
        " archive path ftp://nms:HIDDEN@192.0.2.1/backup",
        "aaa root secret sha512 HIDDEN",
        'password manager user-name "admin" sha1 "HIDDEN"',
        "user admin group administrators password ciphertext HIDDEN",
    ],
    "junos": [
        '    encrypted-password "HIDDEN"; ## SECRET-DATA',
        'set system root-authentication encrypted-password "HIDDEN"',
        '        secret "HIDDEN"; ## SECRET-DATA',
        "set system radius-server 192.0.2.1 secret HIDDEN",
        'set protocols bgp group x authentication-key "HIDDEN"',
        "set protocols ospf area 0 interface x authentication md5 1 key HIDDEN",
        "    community HIDDEN {",
        "set snmp community HIDDEN authorization read-only",
        'pre-shared-key ascii-text "HIDDEN"; ## SECRET-DATA',
    ],
    "fortios": [
        "        set password ENC HIDDEN",
        "        set passwd HIDDEN",
        "        set psksecret ENC HIDDEN",
        '        set auth-pwd "HIDDEN"',
        "        set passphrase ENC HIDDEN",
        '        set key "HIDDEN"',
    ],
    "huawei": [
        " local-user admin password irreversible-cipher HIDDEN",
        " set authentication password cipher HIDDEN",
        "snmp-agent community read cipher HIDDEN",
        "snmp-agent community read HIDDEN",
        " ospf authentication-mode md5 1 cipher HIDDEN",
        " radius-server shared-key cipher HIDDEN",
        " key-string cipher HIDDEN",
        "snmp-agent usm-user v3 nms authentication-mode sha HIDDEN",
    ],
    "routeros": [
        "/user add name=admin password=HIDDEN group=full",
        '/ppp secret add name=x password="HIDDEN"',
        "/interface wireless security-profiles add name=p wpa2-pre-shared-key=HIDDEN mode=x",
        "/radius add address=192.0.2.1 secret=HIDDEN",
        "/snmp community set [ find default=yes ] name=HIDDEN",
        "/interface wireguard add listen-port=1 private-key=HIDDEN",
    ],
}
OPEN = {
    "cisco": [
        "hostname edge-7",
        "service password-encryption",
        "interface GigabitEthernet0/1",
        " description key account of the city",
        "key chain OSPF",
        "snmp-server location rack 7",
        "ip route 0.0.0.0 0.0.0.0 192.0.2.1",
        "router bgp 64500",
        " neighbor 192.0.2.1 remote-as 64501",
        "ip ssh version 2",
    ],
    "junos": ["set system host-name edge-7", "    address 192.0.2.1/24;", "set protocols lldp interface all"],
    "fortios": ["config system interface", "        set ip 192.0.2.1 255.255.255.0", '        set hostname "edge"'],
    "huawei": [" ip address 192.0.2.1 24", "sysname edge-7", "interface GigabitEthernet0/0/1"],
    "routeros": ["/ip address add address=192.0.2.1/24 interface=ether1", "/system identity set name=edge-7"],
}
CASES = [(family, line) for family, lines in LINES.items() for line in lines]

secrets = st.text(string.ascii_letters + string.digits + "$./!*+^", min_size=6, max_size=40).map(
    lambda text: f"Zq{text}"
)


@pytest.mark.parametrize(("family", "line"), CASES)
@settings(max_examples=25)
@given(secret=secrets, around=st.integers(0, 2))
def test_no_secret_passes(family: str, line: str, secret: str, around: int) -> None:
    lines = [*OPEN[family][:around], line.replace("HIDDEN", secret), "!"]
    masked = families()[family].masked(lines)
    assert len(masked) == len(lines)
    assert secret not in "\n".join(masked)
    assert MASK in masked[around]
    assert families()[family].masked(masked) == masked, "masked once is masked"


@pytest.mark.parametrize("family", OPEN)
def test_what_is_no_secret_is_shown(family: str) -> None:
    lines = OPEN[family]
    hidden = [line for line, shown in zip(lines, families()[family].masked(lines), strict=True) if line != shown]
    assert hidden in ([], [" description key account of the city"]), "rather too much than too little"


@pytest.mark.parametrize("family", families())
@settings(max_examples=25)
@given(body=st.lists(st.text(string.ascii_letters + string.digits + "+/=", min_size=8, max_size=64), min_size=1))
def test_a_private_key_is_masked_wherever_it_stands(family: str, body: list[str]) -> None:
    key = ["-----BEGIN RSA PRIVATE KEY-----", *body, "-----END RSA PRIVATE KEY-----"]
    masked = families()[family].masked(["before", *key, "after"])
    assert masked == ["before", *[MASK] * len(key), "after"]


@given(secret=secrets)
def test_a_community_of_fortios_is_known_by_where_it_stands(secret: str) -> None:
    lines = ["config system snmp community", "    edit 1", f'        set name "{secret}"', "    next", "end"]
    other = ["config system admin", '    set name "shown"', "end"]
    masked = families()["fortios"].masked([*lines, *other])
    assert secret not in "\n".join(masked)
    assert masked[-3:] == other


@pytest.mark.parametrize(("family", "line"), CASES)
def test_a_difference_shows_that_a_secret_changed_and_not_what_it_is(family: str, line: str) -> None:
    old, new = ([OPEN[family][0], line.replace("HIDDEN", secret)] for secret in ("Zqfirst01", "Zqsecond2"))
    told, came, went = difference(families()[family], old, new)
    assert (came, went) == (1, 1)
    assert [one[0] for one in told] == ["@", " ", "-", "+"]
    assert "Zq" not in "\n".join(told)


lines_of_text = st.lists(st.sampled_from(["a", "b", "c", " d", "password x"]), max_size=12)


@given(old=lines_of_text, new=lines_of_text)
def test_a_difference_counts_what_it_shows(old: list[str], new: list[str]) -> None:
    told, came, went = difference(families()["cisco"], old, new)
    assert sum(line.startswith("+") for line in told) == came
    assert sum(line.startswith("-") for line in told) == went
    assert came - went == len(new) - len(old)
    assert (told == []) == (old == new)
