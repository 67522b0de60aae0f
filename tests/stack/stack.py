"""The stack of docker-compose.yml, running."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import docker

from tests.stack.compose import PROFILES, Compose


@dataclass
class Stack:
    """All of its profiles."""

    compose: Compose
    api: docker.APIClient
    secrets: Path

    @cached_property
    def services(self) -> dict[str, Any]:
        """Of the compose file, with all profiles, by name."""
        return dict(self.compose.config(*PROFILES)["services"])

    @cached_property
    def networks(self) -> dict[str, str]:
        """What the engine calls those of the compose file."""
        return {name: one["name"] for name, one in self.compose.config(*PROFILES)["networks"].items()}

    def targets(self) -> dict[tuple[str, str], str]:
        """Kind and name of the active targets, and where they come from."""
        rows = self.rows("SELECT service, name, source FROM targets WHERE state = 'active'")
        return {(row["service"], row["name"]): row["source"] for row in rows}

    def up(self) -> None:
        """Start it, and return when all of it is healthy; else tell what the containers said."""
        try:
            self.compose.run("up", "--detach", "--wait", "--no-build", "--pull=never", seconds=600)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self.compose.run('logs', '--tail=15')}") from None

    def container(self, service: str) -> dict[str, Any]:
        (found,) = self.api.containers(all=True, filters={"label": f"com.docker.compose.service={service}"})
        return dict(self.api.inspect_container(found["Id"]))

    def inside(self, service: str, *argv: str, seconds: float = 60.0) -> str:
        return self.compose.run("exec", "-T", service, *argv, seconds=seconds)

    def sql(self, statement: str) -> str:
        return self.inside("postgres", "psql", "-U", "postgres", "-d", "nms", "-Atc", statement).strip()

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """What a query gives, by names of its columns."""
        told: list[dict[str, Any]] = json.loads(
            self.sql(f"SELECT coalesce(json_agg(row_to_json(r)), '[]') FROM ({statement}) r")
        )
        return told
