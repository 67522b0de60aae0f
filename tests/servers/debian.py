"""A package of another release of Debian than the one here, unpacked beside it with all of its libraries.

It runs with the loader and the C library of its own release, so nothing of this machine is changed or needed.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.servers.server import ServerFailed, ServerMissing, run

_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SECONDS = 600.0


def unpack(name: str, package: str, suite: str, root: Path, program: str) -> None:
    """Fetch a package and what it depends on with apt, and unpack them.

    Args:
        name: of the server, for what is missing.
        package: of Debian.
        suite: where it is: `trixie`, or `trixie-backports` with `trixie` behind it.
        root: where to; what is there already is overwritten.
        program: path of the program below `root`. A script of its name, beside `root`'s folders, runs it.

    Raises:
        ServerMissing: this is no Debian, or the package cannot be had.
    """
    install = "a machine with apt-get, Debian's keys and a mirror"
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and _KEYS.exists()):
        raise ServerMissing(name, "there is no apt-get, or not Debian's keys", install)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for deb in _fetched(package, suite, Path(scratch)):
                _run("dpkg-deb", "-x", str(deb), str(root))
    except (ServerFailed, subprocess.TimeoutExpired) as exc:
        raise ServerMissing(name, f"{package} of {suite} cannot be had: {str(exc)[-500:]}", install) from None
    (loader,) = root.glob("usr/lib*/ld-linux-*.so.*")
    (libraries,) = root.glob("usr/lib/*-linux-gnu*")
    script = root / Path(program).name
    script.write_text(f'#!/bin/sh\nexec "{loader}" --library-path "{libraries}" "{root / program}" "$@"\n')
    script.chmod(0o755)


def _fetched(package: str, suite: str, folder: Path) -> list[Path]:
    """The package and everything it depends on: an apt of its own, which believes that nothing is installed."""
    site = _run("apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian").split()
    if not site:
        raise ServerFailed("apt names no mirror of Debian")
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    suites = dict.fromkeys((suite, suite.partition("-")[0]))
    (folder / "sources").write_text("".join(f"deb [signed-by={_KEYS}] {site[0]} {one} main\n" for one in suites))
    settings = {
        "Dir::Etc::sourcelist": folder / "sources",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": "true",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
    }
    options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
    _run("apt-get", *options, "update", "-qq")
    _run("apt-get", *options, "install", "-qq", "-y", "--download-only", "-t", suite, package)
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _run(*argv: str) -> str:
    return run(argv, cwd=Path("/"), env={**os.environ, "LC_ALL": "C"}, stdin="", limit=_SECONDS)
