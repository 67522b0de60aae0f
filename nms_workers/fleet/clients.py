"""The clients a worker process keeps, one a target, so that connections live from poll to poll."""

import threading

from nms_workers.fleet.inventory import Target
from nms_workers.service import Client, service


class Clients:
    """Builds a client at first use and anew when its target's settings changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[int, tuple[str, Client]] = {}

    def get(self, target: Target) -> Client:
        """The client of this target.

        Raises:
            pydantic.ValidationError: the settings do not fit the service any more.
        """
        with self._lock:
            kept = self._clients.get(target.id)
            if kept and kept[0] == target.fingerprint:
                return kept[1]
            kind = service(target.service)
            client = kind.client(kind.Target.model_validate(target.settings))
            self._clients[target.id] = (target.fingerprint, client)
        if kept:
            kept[1].close()
        return client

    def keep_only(self, targets: set[int]) -> None:
        """Close the clients of targets that are gone."""
        with self._lock:
            gone = [self._clients.pop(one)[1] for one in set(self._clients) - targets]
        for client in gone:
            client.close()

    def close(self) -> None:
        """Close them all."""
        self.keep_only(set())
