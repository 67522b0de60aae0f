"""One of the stubs in a container, at its vendor's port and with the login that docker-compose.yml gives it.

    python3 -m tests.stack.stand_in elasticsearch

Grafana, Elasticsearch, Kibana and ntopng cannot be had without their vendors' images. What stands in for them answers
as `tests/stubs` does, and reads what the real one reads of the compose file: passwords from their files, the
provisioning of Grafana, both files of Kibana, the command line of ntopng. It ends when it is told to (SIGTERM).
"""

import argparse
import json
import os
import re
import signal
import socket
import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import requests
import yaml
from werkzeug.wrappers import Request, Response

from tests.stubs.elasticsearch import ElasticsearchStub
from tests.stubs.grafana import GrafanaStub
from tests.stubs.kibana import KibanaStub
from tests.stubs.ntopng import TOKEN, NtopngStub
from tests.stubs.stub import Stub, route

_SECONDS = 10.0


class Grafana(GrafanaStub):
    """With the admin's password, the data sources and the dashboards that it is provisioned with."""

    listens_at: ClassVar[tuple[str, int]] = ("0.0.0.0", 3000)

    def __init__(self) -> None:
        super().__init__(major=12)
        self.accounts[0].password = os.environ["GF_SECURITY_ADMIN_PASSWORD"]
        provisioning = Path(os.environ["GF_PATHS_PROVISIONING"])
        for one in _yaml(provisioning / "datasources" / "nms.yml")["datasources"]:
            known = {key: one[key] for key in ("name", "type", "url", "access")}
            self.add_source(one["uid"], **known, readOnly=True)
            self.secrets[one["uid"]] = {
                key: re.sub(r"\$__file\{(.+)\}", lambda match: _secret(match[1]), text)
                for key, text in one.get("secureJsonData", {}).items()
            }
        for provider in _yaml(provisioning / "dashboards" / "nms.yml")["providers"]:
            for path in Path(provider["options"]["path"]).glob("*.json"):
                model = json.loads(path.read_text())
                self.add_dashboard(model["uid"], model["title"], provisioned=True, model=model)


class Elasticsearch(ElasticsearchStub):
    """With the users `elastic`, whose password it is given, and `kibana_system`, whose password it is told."""

    listens_at: ClassVar[tuple[str, int]] = ("0.0.0.0", 9200)

    def __init__(self) -> None:
        super().__init__(version="9.1.3")
        self.users = {"elastic": _secret(os.environ["ELASTIC_PASSWORD_FILE"])}

    def refuse(self, request: Request) -> Any:
        given = request.authorization
        if given is None or not given.username or self.users.get(given.username) != given.password:
            reason = f"unable to authenticate user for REST request [{request.path}]"
            return {"error": {"type": "security_exception", "reason": reason}, "status": 401}, 401
        return super().refuse(request)

    @route("/_security/_authenticate")
    def authenticate(self, request: Request) -> Any:
        return {"username": request.authorization.username if request.authorization else "", "enabled": True}

    @route("/_security/user/<name>/_password", "PUT", "POST")
    def set_password(self, request: Request, name: str) -> Any:
        self.users[name] = request.get_json()["password"]
        return {}


class Kibana(KibanaStub):
    """Whose users are those of its Elasticsearch, to which it comes as the user of its own files."""

    def __init__(self, files: Sequence[str]) -> None:
        settings = {key: value for path in files for key, value in _yaml(Path(path)).items()}
        (self._elasticsearch,) = settings["elasticsearch.hosts"]
        login = f"{settings['elasticsearch.username']}:{settings['elasticsearch.password']}"
        if not self._good(f"Basic {b64encode(login.encode()).decode()}"):
            raise SystemExit("Elasticsearch does not take the user of kibana.yml")
        type(self).listens_at = (settings["server.host"], 5601)
        super().__init__(version="9.1.3")

    def known(self, request: Request) -> bool:
        return self._good(request.headers.get("Authorization", ""))

    def _good(self, authorization: str) -> bool:
        where = f"{self._elasticsearch}/_security/_authenticate"
        answer = requests.get(where, headers={"Authorization": authorization}, timeout=_SECONDS)
        return answer.status_code == 200


class Ntopng(NtopngStub):
    """Without a login, if it is told so; it wants its Redis."""

    def __init__(self, arguments: Sequence[str]) -> None:
        known = argparse.ArgumentParser()
        for flag in ("--community", "--dont-change-user"):
            known.add_argument(flag, action="store_true")
        known.add_argument("--http-port", type=int, required=True)
        for option in ("--redis", "--interface", "--disable-login"):
            known.add_argument(option, required=True)
        told = known.parse_args(arguments)
        host, _, port = told.redis.partition(":")
        with socket.create_connection((host, int(port)), timeout=_SECONDS) as redis:
            redis.sendall(b"PING\r\n")
            if redis.recv(7) != b"+PONG\r\n":
                raise SystemExit(f"{told.redis} is no Redis")
        socket.if_nametoindex(told.interface)
        self._open = told.disable_login == "1"
        type(self).listens_at = ("0.0.0.0", told.http_port)
        super().__init__()

    def refuse(self, request: Request) -> Any | None:
        if self._open:
            request = Request({**request.environ, "HTTP_AUTHORIZATION": f"Token {TOKEN}"}, populate_request=False)
        return super().refuse(request)

    @route("/")
    def page(self, _: Request) -> Any:
        return Response("<title>ntopng</title>", content_type="text/html")


def main(name: str, arguments: Sequence[str]) -> None:
    """Run one until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    with STAND_INS[name](arguments) as stub:
        print(f"{name} stands at port {stub.port}", flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


STAND_INS: dict[str, Callable[[Sequence[str]], Stub]] = {
    "grafana": lambda _: Grafana(),
    "elasticsearch": lambda _: Elasticsearch(),
    "kibana": lambda arguments: Kibana(arguments[1::2]),  # --config FILE, twice
    "ntopng": Ntopng,
}


def _yaml(path: Path) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load(path.read_text())
    return made


def _secret(path: str) -> str:
    return Path(path).read_text().strip()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
