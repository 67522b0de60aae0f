"""Finding the programs of servers, asking their version, and the environment they run in."""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

_SECONDS = 10.0
_VERSION = re.compile(r"\d+\.\d+(\.\d+)*")


def in_package(module: str, pattern: str) -> Iterator[Path]:
    """Files that an installed Python package carries."""
    spec = importlib.util.find_spec(module)
    if spec and spec.origin:
        yield from sorted(Path(spec.origin).parent.glob(pattern))


def version(program: Path) -> str:
    """Such as `18.6`, of the program's own `--version`; empty when it does not run on this machine."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = _VERSION.search(done.stdout)
    return found[0] if found and done.returncode == 0 else ""


def tried(programs: Iterable[Path]) -> str:
    """What was looked at, for an error message."""
    return ", ".join(f"{program} ({version(program) or 'does not run'})" for program in programs) or "nothing"


def environment() -> dict[str, str]:
    """A server's whole environment: nothing of ours leaks into it, and its messages are English."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
