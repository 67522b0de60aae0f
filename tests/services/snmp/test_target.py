"""Settings of an agent: what cannot be is refused where it is written."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from nms_workers.services.snmp.client import SnmpClient
from nms_workers.services.snmp.target import SnmpTarget

V2C = {"host": "192.0.2.1", "community": "env:TEST_PUBLIC"}
V3 = {"host": "192.0.2.1", "version": "3", "username": "nms"}
AUTH = {"auth_protocol": "sha256", "auth_key": "env:TEST_PASS"}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (V2C | {"host": "-oProxyCommand=x"}, "an address or a host name"),
        (V2C | {"host": "router:161"}, "an address or a host name"),
        (V2C | {"port": 0}, "greater than or equal to 1"),
        (V2C | {"community": "public"}, "env:NAME"),
        (V2C | {"version": "4"}, "'1', '2c' or '3'"),
        ({"host": "192.0.2.1"}, "version 2c needs a community"),
        (V2C | {"username": "nms"}, "belong to version 3"),
        (V2C | {"context": "vrf-a"}, "belong to version 3"),
        (V3 | {"community": "env:TEST_PUBLIC"}, "takes no community"),
        (V3 | {"username": "n" * 33}, "username"),
        (V3 | {"username": "two words"}, "username"),
        (V3 | {"username": "line\n"}, "username"),
        (V3 | {"context": "\u00fc"}, "context"),
        (V3 | {"auth_protocol": "sha256"}, "auth_protocol and auth_key belong together"),
        (V3 | AUTH | {"auth_protocol": "crc32"}, "auth_protocol"),
        (V3 | AUTH | {"priv_protocol": "aes128"}, "priv_protocol and priv_key belong together"),
        (V3 | {"priv_protocol": "aes128", "priv_key": "env:TEST_PASS"}, "encryption needs authentication"),
        (V2C | {"writable": ["1.3.6.1.4.1.x"]}, "no object identifier"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SnmpTarget.model_validate(settings)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1.3.", "1..3", "3.1", "1.40", "1.3.06", "1.3.4294967296", "1.3 6", "1.3\n", "sysName.0", "1.\u0663.6"],
    ids=ascii,
)
def test_what_is_no_object_identifier_is_never_sent(text: str) -> None:
    client = SnmpClient(SnmpTarget.model_validate(V2C))  # nobody answers there: it would end in a timeout
    calls: list[Callable[[], object]] = [
        lambda: client.get(text),
        lambda: list(client.walk(text)),
        lambda: client.translate(text),
        lambda: client.set({text: ("integer", 1)}),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="object identifier"):
            call()
