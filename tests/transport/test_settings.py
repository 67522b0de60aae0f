"""What the settings of an HTTP target take, and with which words they refuse."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from nms_workers.transport.http import HttpSettings

URL = {"url": "http://prometheus.example:9090/base/"}


def test_small_and_large() -> None:
    assert HttpSettings(**URL).weights() == {"http://prometheus.example:9090/base": 1}
    several = HttpSettings.model_validate({"urls": ["https://a", {"url": "https://b:8443/", "weight": 3}]})
    assert several.weights() == {"https://a": 1, "https://b:8443": 3}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "set either url or urls"),
        (URL | {"urls": ["http://b"]}, "set either url or urls"),
        ({"urls": ["http://a", "http://a/"]}, "names one place twice"),
        ({"urls": [{"url": "http://a", "weight": 0}]}, "greater than or equal to 1"),
        ({"url": "http://admin:hunter2@a"}, "must not carry credentials"),
        ({"urls": [{"url": "http://admin:hunter2@a"}]}, "must not carry credentials"),
        (URL | {"proxy": "http://admin:hunter2@a"}, "must not carry credentials"),
        (URL | {"proxy": "https://a"}, "spoken to over http://"),
        ({"url": "ftp://a"}, "write http://host:port"),
        ({"url": "a:9090"}, "write http://host:port"),
        ({"url": "http://"}, "write http://host:port"),
        ({"url": "http://a?key=hunter2"}, "takes no ?query"),
        ({"url": "http://a:99999"}, "Port out of range"),
        (URL | {"username": "admin"}, "username and password go together"),
        (URL | {"password": "env:P"}, "username and password go together"),
        (URL | {"proxy_username": "admin"}, "proxy_username and proxy_password go together"),
        (URL | {"username": "a", "password": "env:P", "token": "env:T"}, "either token or username"),
        (URL | {"token": "hunter2"}, "env:NAME"),
        (URL | {"headers": {"AUTHORIZATION": "hunter2"}}, "use username, token or secret_headers"),
        (URL | {"headers": {"Cookie": "hunter2"}}, "use username, token or secret_headers"),
        (URL | {"timeout": {"read": 0}}, "greater than 0"),
        (URL | {"timeout": {"reed": 1}}, "Extra inputs are not permitted"),
        (URL | {"tls": {"key": "k.pem"}}, "set cert too"),
        (URL | {"tls": {"min_version": "1.0"}}, "1.2"),
        (URL | {"retry": {"attempts": 0}}, "greater than or equal to 1"),
        (URL | {"cache": {"evict": "fifo"}}, "'lru', 'lfu' or 'ttl'"),
        (URL | {"breaker": {"failures": 0, "reset": 1}}, "greater than 0"),
    ],
)
def test_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        HttpSettings.model_validate(options)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_prints_references_and_never_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P", "hunter2")
    settings = HttpSettings.model_validate(
        URL | {"username": "a", "password": "env:P", "secret_headers": {"X": "env:P"}}
    )
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert "hunter2" not in shown
    again = HttpSettings.model_validate(json.loads(settings.model_dump_json()))
    assert again == settings
