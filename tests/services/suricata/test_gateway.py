"""`nms-workers gateway suricata` as a program, before a real engine, over real HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme

from nms_workers.cli import main
from nms_workers.services.suricata import gateway as gateway_module
from nms_workers.services.suricata.client import SuricataClient
from nms_workers.transport.secret import Secret
from tests.servers import SuricataServer
from tests.services.suricata.conftest import Connect, send
from tests.services.suricata.support import await_true

TOKEN = "a-token-that-is-long-enough"
PATHS = ("/eve/alerts", "/rules", "/stats", "/health")


class Gateway:
    """A running gateway, and a person who knows its token."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def ask(self, path: str, token: str | None = TOKEN, method: str = "GET", **query: Any) -> requests.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return requests.request(method, f"{self.url}{path}", params=query, headers=headers, timeout=30)

    def ended(self) -> str:
        """What it said, once it has ended."""
        return self.process.communicate(timeout=30)[1]


Start = Callable[..., Gateway]


def _settings(folder: Path, server: SuricataServer, **more: object) -> Path:
    own = {"socket": server.socket, "config": server.config, "program": server.program, "eve_file": server.eve}
    lines = [
        f"{name} = {one if isinstance(one, float) else json.dumps(str(one))}" for name, one in (own | more).items()
    ]
    path = folder / "nms.toml"
    path.write_text("\n".join(['[[targets]]\nservice = "suricata"\nname = "ids"', *lines]) + "\n")
    return path


def _run(settings: Path, *options: str, token: str | None = TOKEN) -> subprocess.Popen[str]:
    code = str(Path(__file__).parents[3])
    env = {"PATH": os.environ["PATH"], "HOME": str(settings.parent), "PYTHONPATH": code, "NMS_CONFIG": str(settings)}
    return subprocess.Popen(
        [sys.executable, "-m", "nms_workers", "gateway", "suricata", *options],
        cwd=settings.parent,
        env=env | ({} if token is None else {"NMS_GATEWAY_TOKEN": token}),
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Start]:
    """`gateway(server, *options, **settings)`: a gateway before this engine, at a port of its own."""
    started: list[Gateway] = []

    def start(server: SuricataServer, *options: str, **settings: object) -> Gateway:
        process = _run(_settings(tmp_path, server, **settings), "--port=0", *options)
        assert process.stderr is not None
        said = process.stderr.readline()
        assert "the gateway of ids listens at http" in said, said + process.communicate(timeout=30)[1]
        started.append(Gateway(process, said.split()[-1]))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def test_alerts_rules_statistics_and_health(suricata: SuricataServer, gateway: Start) -> None:
    asked = gateway(suricata)
    send(suricata, ["http", "/attack/1"], ["http", "/attack/2"], ["http", "/attack/3"])
    alerts = await_true(lambda: len(found := asked.ask("/eve/alerts").json()) == 3 and found)
    assert alerts == sorted(alerts, key=lambda alert: str(alert["at"]), reverse=True)
    assert alerts[0]["sid"] == 1000001
    assert alerts[0]["src"][0] == "127.0.0.1"
    assert asked.ask("/eve/alerts", limit=1).json() == alerts[:1]
    assert asked.ask("/eve/alerts", severity=2).json() == alerts
    assert asked.ask("/eve/alerts", severity=1).json() == []

    rules = asked.ask("/rules").json()
    assert rules["total"] == 6
    assert [rule["sid"] for rule in rules["rules"]] == [1000001, 1000002, 1000003, 1000004, 1000005, 1000006]
    assert [rule["enabled"] for rule in rules["rules"]][:2] == [True, False]
    assert asked.ask("/rules", limit=2, offset=3).json() == {"total": 6, "rules": rules["rules"][3:5]}
    assert asked.ask("/rules", offset=6).json() == {"total": 6, "rules": []}

    stats = await_true(lambda: (found := asked.ask("/stats").json())["counters"]["decoder.pkts"] and found)
    health = asked.ask("/health")
    assert health.json()["version"] == stats["version"]
    assert health.headers["Cache-Control"] == "no-store"


def test_who_does_not_know_the_token_sees_nothing(untouched: SuricataServer, gateway: Start) -> None:
    asked = gateway(untouched)
    for path in PATHS:
        for token in (None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xe9" * 20):
            answer = asked.ask(path, token)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            assert answer.json()["message"].startswith("send the gateway's token")
        basic = requests.get(f"{asked.url}{path}", auth=("user", TOKEN), timeout=30)
        assert basic.status_code == 401
        assert requests.get(f"{asked.url}{path}", params={"token": TOKEN}, timeout=30).status_code == 401
    asked.process.send_signal(signal.SIGTERM)
    assert TOKEN not in asked.ended()


def test_a_changed_token_needs_no_restart(untouched: SuricataServer, gateway: Start, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    asked = gateway(untouched, f"--token=file:{file}")
    assert asked.ask("/health").status_code == 200
    file.write_text("another-token-that-is-long-enough")
    assert asked.ask("/health").status_code == 401
    assert asked.ask("/health", "another-token-that-is-long-enough").status_code == 200
    for text in ("", "short"):  # nobody comes in by a token that is none
        file.write_text(text)
        refused = asked.ask("/health", text or TOKEN)
        assert refused.status_code == 503
        assert refused.json()["message"] == "the gateway is not set up well"


def test_what_is_asked_too_much(untouched: SuricataServer, gateway: Start) -> None:
    asked = gateway(untouched)
    for path, query, field in (
        ("/eve/alerts", {"limit": 0}, "limit"),
        ("/eve/alerts", {"limit": 1001}, "limit"),
        ("/eve/alerts", {"limit": "many<script>"}, "limit"),
        ("/eve/alerts", {"severity": 0}, "severity"),
        ("/rules", {"limit": 5001}, "limit"),
        ("/rules", {"offset": -1}, "offset"),
    ):
        answer = asked.ask(path, **query)
        assert answer.status_code == 422, query
        assert answer.json()["message"].startswith(f"{field}: "), query
        assert "<script>" not in answer.text


def test_paths_and_methods_that_are_not_there(untouched: SuricataServer, gateway: Start) -> None:
    asked = gateway(untouched)
    for path, method, status in (("/", "GET", 404), ("/docs", "GET", 404), ("/rules", "POST", 405)):
        answer = asked.ask(path, method=method)
        assert (answer.status_code, set(answer.json())) == (status, {"message", "hint"})


def test_the_description_is_typed(untouched: SuricataServer, gateway: Start) -> None:
    described = gateway(untouched).ask("/openapi.json", None).json()
    assert set(described["paths"]) == set(PATHS)
    for path in PATHS:
        get = described["paths"][path]["get"]
        assert get["security"] == [{"HTTPBearer": []}]
        assert {"200", "401", "422", "502", "503", "504"} <= set(get["responses"])
    shapes = described["components"]["schemas"]
    assert {"Alert", "Rule", "Rules", "Stats", "Health", "Problem"} <= set(shapes)
    assert shapes["Alert"]["properties"]["at"]["format"] == "date-time"


def test_an_engine_that_is_stopped_hangs_and_is_back(suricata: SuricataServer, gateway: Start) -> None:
    asked = gateway(suricata, timeout=0.5)
    assert asked.ask("/health").status_code == 200
    os.kill(suricata.pid, signal.SIGSTOP)
    try:
        answer = asked.ask("/stats")
    finally:
        os.kill(suricata.pid, signal.SIGCONT)
    assert answer.status_code == 504
    assert "no answer in time" in answer.json()["message"]
    assert answer.json()["hint"]
    suricata.stop()
    for path in ("/health", "/stats", "/rules"):
        answer = asked.ask(path)
        assert answer.status_code == 503
        assert "is Suricata running" in answer.json()["hint"]
    suricata.eve.unlink()
    assert asked.ask("/eve/alerts").status_code == 503
    suricata.start()
    assert asked.ask("/health").status_code == 200
    asked.process.send_signal(signal.SIGTERM)
    assert "Traceback" not in asked.ended()


def test_what_is_no_engine(untouched: SuricataServer, gateway: Start, tmp_path: Path) -> None:
    place = tmp_path / "other.socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        thread = threading.Thread(target=_answer, args=(listener, b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        thread.start()
        asked = gateway(untouched, socket=place)
        answer = asked.ask("/health")
        thread.join()
    assert answer.status_code == 502
    assert "does not answer as Suricata does" in answer.json()["message"]
    asked.process.send_signal(signal.SIGTERM)
    assert "Traceback" not in asked.ended()


def test_a_target_without_a_log_to_look_back_in(untouched: SuricataServer, gateway: Start, tmp_path: Path) -> None:
    settings = _settings(tmp_path, untouched)
    settings.write_text("".join(line for line in settings.read_text().splitlines(True) if "eve_file" not in line))
    process = _run(settings, "--port=0")
    assert process.stderr is not None
    answer = Gateway(process, process.stderr.readline().split()[-1]).ask("/eve/alerts")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert answer.status_code == 502
    assert answer.json() == {"message": "this target has no event log to look back in", "hint": "set eve_file"}


def _answer(listener: socket.socket, words: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(words)


@contextmanager
def served(client: SuricataClient, token: Path) -> Iterator[int]:
    """The port of a gateway in this process."""
    token.write_text(TOKEN)
    serving = gateway_module.server(gateway_module.application(client, Secret(f"file:{token}")), None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serving.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            serving.should_exit = True
            thread.join()


def test_a_fault_of_ours_is_no_traceback(
    untouched: SuricataServer, connect: Connect, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    client = connect(untouched)
    del client.ruleset  # so it is broken
    with served(client, tmp_path / "token") as port:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = requests.get(f"http://127.0.0.1:{port}/rules", headers=headers, timeout=30)
    assert answer.status_code == 500
    assert answer.json()["message"] == "this is a fault of ours"
    assert "Traceback" not in "".join(capfd.readouterr())


def test_who_asks_nothing_keeps_nobody_out(
    untouched: SuricataServer, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_module, "_SECONDS", 3.0)
    with served(connect(untouched), tmp_path / "token") as port, ExitStack() as held:

        def status() -> int:
            headers = {"Authorization": f"Bearer {TOKEN}", "Connection": "close"}
            return requests.get(f"http://127.0.0.1:{port}/health", headers=headers, timeout=30).status_code

        def crowded() -> bool:
            for _ in range(40):
                silent = held.enter_context(socket.create_connection(("127.0.0.1", port)))
                silent.sendall(b"GET /health HTTP/1.1\r\n")  # and then no more
            return status() == 503

        assert status() == 200
        await_true(crowded)
        await_true(lambda: status() == 200)


def test_it_stops_cleanly(untouched: SuricataServer, gateway: Start) -> None:
    asked = gateway(untouched)
    assert asked.ask("/health").status_code == 200
    asked.process.send_signal(signal.SIGTERM)
    assert asked.ended() == ""
    assert asked.process.returncode == 0
    with pytest.raises(requests.ConnectionError):
        asked.ask("/health")


def test_https(untouched: SuricataServer, gateway: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    asked = gateway(untouched, f"--cert={tmp_path / 'cert.pem'}", f"--key={tmp_path / 'key.pem'}")
    assert asked.url.startswith("https://127.0.0.1:")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    answer = requests.get(f"{asked.url}/health", headers=headers, verify=str(tmp_path / "ca.pem"), timeout=30)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("options", "token", "why"),
    [
        ([], None, "NMS_GATEWAY_TOKEN is not set"),
        ([], "", "16 or more printable characters"),
        ([], "too short", "16 or more printable characters"),
        (["--token=a-plain-token-that-is-long"], TOKEN, "a secret must be a reference"),
        (["--token=file:/no/such/file"], TOKEN, "cannot be read"),
        (["--host=0.0.0.0"], TOKEN, "would pass the network in clear"),
        (["--host=example.net"], TOKEN, "is no address"),
        (["--cert=/a.pem"], TOKEN, "go together"),
        (["--cert=/no/a.pem", "--key=/no/a.key"], TOKEN, "the certificate cannot be used: No such file"),
        (["--target=other"], TOKEN, "name one with --target: ids"),
    ],
)
def test_what_it_does_not_start_with(
    untouched: SuricataServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    options: list[str],
    token: str | None,
    why: str,
) -> None:
    monkeypatch.setenv("NMS_CONFIG", str(_settings(tmp_path, untouched)))
    monkeypatch.delenv("NMS_GATEWAY_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("NMS_GATEWAY_TOKEN", token)
    monkeypatch.setattr(sys, "argv", ["nms-workers", "gateway", "suricata", "--port=0", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert why in said
    assert "Traceback" not in said
    assert "a-plain-token" not in said


def test_a_port_that_is_taken(untouched: SuricataServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = _run(_settings(tmp_path, untouched), f"--port={taken.getsockname()[1]}")
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "nothing can listen at 127.0.0.1" in said


def test_without_its_libraries_it_says_how_to_get_them(untouched: SuricataServer, tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError(name='fastapi')\n")  # found before the real one
    process = _run(_settings(tmp_path, untouched))
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "the gateway needs fastapi (pip install 'nms-workers[gateway]')" in said
