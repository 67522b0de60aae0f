"""The compose file as Compose itself understands it."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers import program

ROOT = Path(__file__).parents[2]
PROFILES = ("core", "discovery", "logs", "monitoring", "network", "security")


class Compose:
    """`docker compose` for the project's file.

    Args:
        folder: of what it keeps for itself.
        secrets: the folder that `deploy/secrets.sh` made.
        settings: of `.env.example`, beside the folder of the secrets.
        engine: the URL of an engine; none: only `config`.
        override: a file that goes on top of the project's, where the engine runs images of this machine.
    """

    def __init__(
        self,
        folder: Path,
        secrets: Path,
        settings: Mapping[str, str] | None = None,
        engine: str = "unix:///none",
        override: Path | None = None,
    ) -> None:
        self._override = [] if override is None else [override]
        self._program = program("docker-compose")
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "DOCKER_HOST": engine,
            "DOCKER_CONFIG": str(folder / "docker"),
            "NMS_SECRETS": str(secrets),
            **(settings or {}),
        }

    def run(self, *arguments: str, seconds: float = 60.0, files: tuple[str, ...] = ("docker-compose.yml",)) -> str:
        """What a command prints.

        Raises:
            AssertionError: it failed.
        """
        named = [part for file in (*files, *self._override) for part in ("--file", str(ROOT / file))]
        done = subprocess.run(
            [self._program, *named, "--ansi=never", *arguments],
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}:\n{(done.stdout + done.stderr)[-5000:]}"
        return done.stdout

    def config(self, *profiles: str, files: tuple[str, ...] = ("docker-compose.yml",)) -> dict[str, Any]:
        """The whole of it, with these profiles."""
        chosen = [f"--profile={profile}" for profile in profiles]
        made: dict[str, Any] = json.loads(self.run(*chosen, "config", "--format=json", files=files))
        return made


def make_secrets(folder: Path) -> str:
    """Run the project's script; what it printed."""
    script = ROOT / "deploy" / "secrets.sh"
    done = subprocess.run(
        [shutil.which("sh") or "sh", script, folder], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout
