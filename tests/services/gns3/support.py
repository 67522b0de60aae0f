"""How the tests of this service read, act, and find out what is true."""

from collections.abc import Iterable
from typing import Any, ClassVar

import requests

from nms_workers.change import Change
from nms_workers.records import Link, Record
from nms_workers.services.gns3.client import Gns3Client
from nms_workers.services.gns3.service import Gns3
from tests.servers import Server

_SECONDS = 30.0


class Plain:
    """The server's own API without our code."""

    _tokens: ClassVar[dict[str, str]] = {}  # by server: GNS3 takes its time over a password

    def __init__(self, server: Server) -> None:
        self.api = int(server.name.removeprefix("gns3-")[0])
        self._base = f"{server.url}/v{self.api}"
        self._user, self._password = server.user, server.password

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of the answer, None when it has none; fails on anything but 2xx."""
        with requests.Session() as session:
            if self.api == 2:
                session.auth = (self._user, self._password)
            else:
                session.headers["Authorization"] = f"Bearer {self.token()}"
            answer = session.request(method, self._base + path, json=body, timeout=_SECONDS)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        return answer.json() if answer.content else None

    def token(self) -> str:
        """A token of version 3, the same for all tests of a server."""
        if self._base in self._tokens:
            return self._tokens[self._base]
        login = {"username": self._user, "password": self._password}
        answer = requests.post(f"{self._base}/access/users/authenticate", json=login, timeout=_SECONDS)
        return self._tokens.setdefault(self._base, str(answer.json()["access_token"]))

    def project(self, name: str) -> dict[str, Any]:
        """The one project of this name."""
        (found,) = [one for one in self.ask("GET", "/projects") if one["name"] == name]
        return dict(found)

    def of(self, name: str, what: str) -> list[dict[str, Any]]:
        """`nodes`, `links`, `snapshots` of a project."""
        return list(self.ask("GET", f"/projects/{self.project(name)['project_id']}/{what}"))

    def states(self, name: str) -> dict[str, str]:
        """The state of each node of a project."""
        return {one["name"]: one["status"] for one in self.of(name, "nodes")}

    def clear(self) -> None:
        """Delete every project and every compute but the server's own."""
        for project in self.ask("GET", "/projects"):
            self.ask("DELETE", f"/projects/{project['project_id']}")
        for compute in self.ask("GET", "/computes"):
            if compute["compute_id"] != "local":
                self.ask("DELETE", f"/computes/{compute['compute_id']}")


def read(client: Gns3Client, poll: str) -> list[Record]:
    """Every record of one run of a poll."""
    return list(Gns3.polls()[poll].run(client))


def act(client: Gns3Client, action: str, **arguments: Any) -> Change:
    """Run an action as a job does: its arguments come as JSON and are validated."""
    declared = Gns3.actions()[action]
    return declared.run(client, **declared.validate(arguments))


def links(records: Iterable[Record]) -> list[Link]:
    """The links."""
    return [r for r in records if isinstance(r, Link)]


def two_linked(client: Gns3Client, project: str = "lab") -> None:
    """A project with PC1 and PC2, connected, both stopped."""
    nodes = [{"name": name, "node_type": "vpcs"} for name in ("PC1", "PC2")]
    act(client, "build_topology", project=project, nodes=nodes, links=[{"a": "PC1", "b": "PC2"}])
