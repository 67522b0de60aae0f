"""Images under the official names, made of what this machine has: nothing is pulled from a registry.

Each has the programs, the libraries they are linked with, busybox for everything a shell script calls, and as much of
the official image's entry point as docker-compose.yml uses.
"""

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import docker

from tests.servers.server import ServerMissing, which

_FOLDERS = {"tmp": 0o1777, "run": 0o755, "etc": 0o755, "usr/local/bin": 0o755, "root": 0o700}
_LINKED = re.compile(r"(?:=> )?(/\S+) \(0x")
_CAST_OFF = ("site-packages", "test", "idlelib", "tkinter", "turtledemo", "__pycache__", "lib2to3")

_OF_WHEELS = [  # what wheels with compiled code may count on, by PEP 600
    f"lib{name}" for name in ("stdc++.so.6", "gcc_s.so.1", "pthread.so.0", "dl.so.2", "rt.so.1", "util.so.1", "m.so.6")
]

_POSTGRES_ENTRY = """#!/bin/sh
set -eu
[ -n "${POSTGRES_PASSWORD_FILE:-}" ] || { echo "POSTGRES_PASSWORD_FILE is not set" >&2; exit 1; }
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb --encoding=UTF8 --no-locale --auth-host=scram-sha-256 --username="${POSTGRES_USER:-postgres}" \\
        --pwfile="$POSTGRES_PASSWORD_FILE"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    shift
    options="-c listen_addresses='' $*"
    pg_ctl -D "$PGDATA" -o "$options" -w start
    for file in /docker-entrypoint-initdb.d/*.sql; do
        psql -v ON_ERROR_STOP=1 --no-psqlrc --username "${POSTGRES_USER:-postgres}" --dbname postgres -f "$file"
    done
    pg_ctl -D "$PGDATA" -m fast -w stop
    set -- postgres "$@"
fi
exec "$@" -c listen_addresses='*'
"""


class Image:
    """The root file system of an image, as a tar that grows.

    Args:
        users: name to number, of `/etc/passwd`.
        folders: paths to (mode, owner).
    """

    def __init__(self, users: Mapping[str, int], folders: Mapping[str, tuple[int, int]] | None = None) -> None:
        self._made = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._made, mode="w")  # noqa: SIM115 - closed in `imported`
        self._there: set[str] = set()
        for path, (mode, owner) in (folders or {}).items():  # the first of a name counts
            self.folder(path, mode, owner)
        for path, mode in _FOLDERS.items():
            self.folder(path, mode, 0)
        everyone = {"root": 0, **users}
        self.text("etc/passwd", "".join(f"{name}:x:{n}:{n}::/tmp:/bin/sh\n" for name, n in everyone.items()))
        self.text("etc/group", "".join(f"{name}:x:{n}:\n" for name, n in everyone.items()))
        self._shell()

    def folder(self, path: str, mode: int, owner: int) -> None:
        """A folder, with the folders above it."""
        above = str(Path(path).parent)
        if above != "." and above not in self._there:
            self.folder(above, 0o755, 0)
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
        self._add(entry)

    def text(self, path: str, content: str, mode: int = 0o644) -> None:
        """A file of these words."""
        self.content(path, content.encode(), mode)

    def content(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """A file of these bytes."""
        entry = tarfile.TarInfo(path)
        entry.mode, entry.size = mode, len(content)
        self._add(entry, content)

    def link(self, path: str, to: str) -> None:
        """A symbolic link."""
        entry = tarfile.TarInfo(path)
        entry.type, entry.linkname = tarfile.SYMTYPE, to
        self._add(entry)

    def files(self, source: Path, path: str, without: Iterable[str] = ()) -> None:
        """A file or a folder of this machine, readable by everybody; links are followed."""
        names = frozenset(without)
        for found, where in _walk(source, path, names):
            self.content(where, found.read_bytes(), 0o755 if found.stat().st_mode & 0o100 else 0o644)

    def program(self, source: Path, path: str = "") -> None:
        """A program or library of this machine, with the libraries it needs, where the loader looks for them."""
        self.files(source, path or str(source).lstrip("/"))
        self.libraries(source)

    def libraries(self, *sources: Path) -> None:
        """The libraries that these need."""
        for source in sources:
            told = subprocess.run(
                [which("ldd", "stack"), source], capture_output=True, text=True, timeout=30, check=False
            ).stdout
            for library in _LINKED.findall(told):
                known = library.startswith(("/lib", "/usr/"))
                self.files(Path(library), library.lstrip("/") if known else f"usr/local/lib/{Path(library).name}")

    def imported(self, api: docker.APIClient, name: str, *changes: str) -> None:
        """Give it to an engine. `changes` are lines of a Dockerfile."""
        self._tar.close()
        repository, tag = name.rsplit(":", 1)
        api.import_image_from_data(self._made.getvalue(), repository=repository, tag=tag, changes=list(changes))

    def _shell(self) -> None:
        program = which("busybox", "busybox")
        self.files(Path(program), "bin/busybox")
        told = subprocess.run([program, "--list"], capture_output=True, text=True, timeout=10, check=True).stdout
        for name in told.split():
            if name != "busybox":
                self.link(f"bin/{name}", "busybox")

    def _add(self, entry: tarfile.TarInfo, content: bytes = b"") -> None:
        if entry.name not in self._there:
            self._there.add(entry.name)
            self._tar.addfile(entry, io.BytesIO(content))


def python(api: docker.APIClient, name: str) -> None:
    """An image with the interpreter that runs these tests, venv and pip: what the Dockerfile calls BASE_IMAGE."""
    image = Image({})
    add_python(image)
    image.imported(api, name, "ENV PATH=/usr/local/bin:/bin LD_LIBRARY_PATH=/usr/local/lib")


def add_python(image: Image) -> None:
    """The interpreter that runs these tests, venv and pip."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    interpreter = Path(sys.executable).resolve()
    image.program(interpreter, f"usr/local/bin/{version}")
    image.link("usr/local/bin/python3", version)
    standard = _standard()
    image.files(standard, f"usr/local/lib/{version}", without=_CAST_OFF)
    image.libraries(*standard.glob("lib-dynload/*.so"))
    for library in _OF_WHEELS:
        image.program(_library(library))
    with zipfile.ZipFile(pip()) as wheel:
        for one in wheel.namelist():
            image.content(f"usr/local/lib/{version}/site-packages/{one}", wheel.read(one))


def postgres(api: docker.APIClient, name: str, program: Path) -> None:
    """PostgreSQL as Debian packages it, and the entry point of the official image: `initdb` at the first start, the
    password from POSTGRES_PASSWORD_FILE, then the SQL files of /docker-entrypoint-initdb.d by psql."""
    image = Image({"postgres": 999}, {"var/lib/postgresql/data": (0o700, 999), "run/postgresql": (0o755, 999)})
    image.link("var/run", "/run")
    home = program.parents[1]  # /usr/lib/postgresql/NN
    share = Path("/usr/share/postgresql", home.name)
    for one in ("postgres", "initdb", "psql", "pg_isready", "pg_ctl", "pg_dump", "pg_restore", "createdb"):
        image.program(home / "bin" / one)
    image.files(home / "lib", str(home / "lib").lstrip("/"), without=("bitcode",))
    image.files(share, str(share).lstrip("/"), without=("man",))
    image.files(Path("/usr/share/zoneinfo"), "usr/share/zoneinfo")
    image.text("usr/local/bin/docker-entrypoint.sh", _POSTGRES_ENTRY, 0o755)
    path = f"ENV PATH={home}/bin:/usr/local/bin:/bin PGDATA=/var/lib/postgresql/data"
    image.imported(
        api, name, path, 'ENTRYPOINT ["docker-entrypoint.sh"]', 'CMD ["postgres"]', "VOLUME /var/lib/postgresql/data"
    )


def redis(api: docker.APIClient, name: str) -> None:
    """Redis as Debian packages it; run as another user than root, the official entry point only starts the command."""
    image = Image({"redis": 999}, {"data": (0o755, 999)})
    for one in ("redis-server", "redis-cli"):
        image.program(Path(which(one, "redis-7.0")), f"usr/local/bin/{one}")
    image.imported(api, name, "ENV PATH=/usr/local/bin:/bin", "WORKDIR /data", "VOLUME /data")


def pip() -> Path:
    """The wheel of pip that the interpreter brings along; it runs as it is."""
    (found,) = _standard().glob("ensurepip/_bundled/pip-*.whl")
    return found


def _standard() -> Path:
    return Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))


def _library(name: str) -> Path:
    told = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=30, check=True).stdout
    found = re.search(rf"{re.escape(name)} \(libc6,x86-64\) => (\S+)|{re.escape(name)} \(libc6\S*\) => (\S+)", told)
    if not found:
        raise ServerMissing("stack", f"there is no {name}", "apt-get install libstdc++6")
    return Path(found[1] or found[2])


def _walk(source: Path, path: str, without: frozenset[str]) -> Iterator[tuple[Path, str]]:
    if not source.is_dir():
        yield source, path
        return
    for one in sorted(source.iterdir()):
        if one.name not in without and not one.name.startswith("config-"):
            yield from _walk(one, f"{path}/{one.name}", without)
