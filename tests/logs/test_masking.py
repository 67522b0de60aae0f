"""Secrets of every kind are masked, what is none is left, and no line takes long."""

import time

import pytest

from nms_workers.logs.masking import masked
from nms_workers.masking import MASK

KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"

SECRETS = [
    ("connecting to postgresql://nms:hunter2@db:5432/nms", "hunter2"),
    ("redis://:p%40ss@cache/0 is away", "p%40ss"),
    ("clone https://0123456789abcdef0123@git.example/x.git", "0123456789abcdef0123"),
    ("> Authorization: Basic bm1zOmh1bnRlcjI=", "bm1zOmh1bnRlcjI="),
    ('{"headers":{"Authorization":"Bearer abc.def-123"}}', "abc.def-123"),
    ("Proxy-Authorization: Digest username=x, response=deadbeef", "deadbeef"),
    ("curl: using bearer abcdef123456 for it", "abcdef123456"),
    ("Set-Cookie: session=8f7e6d5c; HttpOnly", "8f7e6d5c"),
    ("X-Api-Key: 00112233", "00112233"),
    ("X-Auth-Token: t0k3n", "t0k3n"),
    ("login with password=hunter2 failed", "hunter2"),
    ("PASSWORD: hunter2", "hunter2"),
    ("DB_PASSWORD='hunter 2 and more' in the environment", "hunter 2 and more"),
    ('{"user":"x","password":"hun\\"ter2","n":1}', 'hun\\"ter2'),
    ('{"log":"{\\"password\\":\\"hunter2\\",\\"n\\":1}"}', "hunter2"),
    ("{'client_secret' => 'hunter2'}", "hunter2"),
    ("GET /api?token=abcdef&x=1", "abcdef"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("using AKIAIOSFODNN7EXAMPLE for s3", "AKIAIOSFODNN7EXAMPLE"),
    ("private_key: c2VjcmV0", "c2VjcmV0"),
    ("snmp community: n3tw0rk", "n3tw0rk"),
    ("exec: mysql --user x --password hunter2 db", "hunter2"),
    (f"token is {JWT}", JWT),
    ("pushed with ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_0123456789abcdefghijABCDEFGHIJ012345"),
    ("glpat-0123456789abcdefghij is used", "glpat-0123456789abcdefghij"),
    ("hook xoxb-0123456789-abcdefghijkl", "xoxb-0123456789-abcdefghijkl"),
    ("root:$6$saltsalt$abcdefghijklmnop:19000:0", "abcdefghijklmnop"),
    (f'{{"key":"-----BEGIN PRIVATE KEY-----\\n{KEY}\\n-----END PRIVATE KEY-----"}}', KEY),
    (KEY, KEY),
]

INNOCENT = [
    "password authentication failed for user nms",
    "the token has expired, please log in again",
    "Authorization is required",
    "basic authentication is off",
    "GET /index.html?page=2 200 1043",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "connected to https://example.net:9200/ as nms",
    "keyboard: us, monkey=3",
    "2026-11-22T20:30:00Z INFO user@example.net signed in at 10:20:30",
]


@pytest.mark.parametrize(("line", "secret"), SECRETS, ids=[str(number) for number in range(len(SECRETS))])
def test_a_secret_is_masked(line: str, secret: str) -> None:
    (told,) = masked([line])
    assert secret not in told
    assert MASK in told


@pytest.mark.parametrize("line", INNOCENT)
def test_what_is_no_secret_is_left(line: str) -> None:
    assert masked([line]) == [line]


def test_a_private_key_in_lines_of_its_own() -> None:
    lines = ["loaded:", "-----BEGIN RSA PRIVATE KEY-----", KEY, "c2hvcnQ=", "-----END RSA PRIVATE KEY-----", "done"]
    assert masked(lines) == ["loaded:", MASK, MASK, MASK, MASK, "done"]


@pytest.mark.parametrize(
    "part",
    [
        "a-",
        "password",
        "a://b:",
        "--password ",
        "eyJ",
        "$1$",
        "token=",
        '"',
        "\\",
        "-----BEGIN ",
        "Authorization:",
        " ",
        "AKIA",
    ],
)
def test_no_line_takes_long(part: str) -> None:
    """Of 16,000 characters: none of these may take a time that grows with the square of it."""
    short, long = _seconds(part * (2_000 // len(part))), _seconds(part * (16_000 // len(part)))
    assert long < 0.25 or long < 24 * short


def _seconds(line: str) -> float:
    best = float("inf")
    for _ in range(3):
        begun = time.process_time()
        masked([line])
        best = min(best, time.process_time() - begun)
    return best
