"""Prometheus, which scrapes itself and something that is not there."""

import http.client
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.servers.server import Conf, Server


class PrometheusServer(Server):
    """Prometheus with the jobs `prometheus` (itself) and `dead`, and rules: one records, two alert, one fails.

    Settings: those of the section `global`. `jobs` are more scrape configurations, `flags` take the place of those that
    switch on the lifecycle and admin APIs.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        program: Path,
        conf: Conf,
        *,
        jobs: Sequence[Mapping[str, Any]] = (),
        flags: Sequence[str] = ("--web.enable-lifecycle", "--web.enable-admin-api"),
    ) -> None:
        self.user = self.password = self.dbname = ""
        self.data, self.config, self.rules = folder / "data", folder / "prometheus.yml", folder / "rules.yml"
        self._jobs, self._flags = jobs, flags
        super().__init__(name, folder, program, conf)
        self.url = f"http://{self.host}:{self.port}"

    def prepare(self) -> None:
        self.configure()
        alert = {
            "alert": "TargetDown",
            "expr": "up == 0",
            "labels": {"severity": "critical"},
            "annotations": {"summary": "{{ $labels.instance }} is down"},
        }
        soon = {"alert": "Soon", "expr": "vector(1)", "for": "1h"}
        failing = {"record": "bad:rule", "expr": "up * on(nothing) up"}
        rules = [{"record": "job:up:sum", "expr": "sum by (job) (up)"}, alert, soon, failing]
        self.rules.write_text(yaml.safe_dump({"groups": [{"name": "nms", "rules": rules}]}))

    def configure(self) -> None:
        """Write the configuration; it counts from the next start or reload."""
        every = {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"}
        own = {"prometheus": f"{self.host}:{self.port}", "dead": f"{self.host}:1"}
        jobs = [{"job_name": name, "static_configs": [{"targets": [at]}]} for name, at in own.items()]
        settings = {
            "global": every | self.conf,
            "rule_files": [str(self.rules)],
            "scrape_configs": [*jobs, *self._jobs],
        }
        self.config.write_text(yaml.safe_dump(settings))

    def argv(self) -> list[str]:
        return [
            str(self.program),
            f"--config.file={self.config}",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address={self.host}:{self.port}",
            *self._flags,
        ]

    def ready(self) -> bool:
        """It has read its data. It hands its targets over 5 seconds later."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
