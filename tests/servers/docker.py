"""A Docker engine in namespaces of its own: nothing of it is left when it ends, however it ends."""

import io
import shutil
import socket
import subprocess
import tarfile
from pathlib import Path

import docker
import psutil
import requests

from tests.servers.server import Conf, Server, ServerFailed, which

IMAGE = "nms-test/busybox:1"  # every image of the tests is made here: nothing is pulled
_CGROUPS = Path("/sys/fs/cgroup")


class DockerServer(Server):
    """dockerd with its own containerd, at the socket `socket`, with the image `IMAGE` (busybox).

    Its network, mounts and processes are in namespaces of its own: published ports are reachable through
    `nsenter --net=/proc/<pid>/ns/net` only, and all its containers end with it. Its cgroups are the machine's, below
    `cgroup`.

    Settings: https://docs.docker.com/reference/cli/dockerd/, without the dashes; a list repeats the option.

    Args:
        tcp: it is in the machine's own network, without a bridge, and listens at `tcp_url` too.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        program: Path,
        conf: Conf,
        *,
        tcp: bool = False,
    ) -> None:
        self.user = self.password = self.dbname = ""
        self._tcp = tcp
        self.socket = folder / "docker.sock"
        super().__init__(name, folder, program, conf)
        self.cgroup = f"nms-{name}-{self.port}"
        self.url, self.tcp_url = f"unix://{self.socket}", f"tcp://{self.host}:{self.port}"

    def prepare(self) -> None:
        which("busybox", self.name)

    def argv(self) -> list[str]:
        conf = {
            "storage-driver": "overlay2",
            "data-root": str(self.folder / "root"),
            "exec-root": str(self.folder / "exec"),
            "pidfile": str(self.folder / "pid"),
            "cgroup-parent": f"/{self.cgroup}",
            "host": [self.url, self.tcp_url] if self._tcp else self.url,
            "log-level": "warn",
        } | ({} if not self._tcp else {"bridge": "none", "iptables": "false"})
        options = [
            f"--{key}={one}"
            for key, value in (conf | self.conf).items()
            for one in ([value] if isinstance(value, str) else value)
        ]
        unshare = [which("unshare", self.name), "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        own = [*unshare, *([] if self._tcp else ["--net"])]
        up = f'{which("ip", self.name)} link set lo up; exec "$@"'
        return [*own, "sh", "-c", up, "sh", str(self.program), *options]

    def start(self) -> None:
        (self.folder / "pid").unlink(missing_ok=True)  # of a process number that means nothing now
        try:
            super().start()
        except ServerFailed as exc:
            if "timeout waiting for containerd" not in str(exc):  # the engine waits 15 s, which a busy machine may take
                raise
            super().start()
        with self.plain() as api:
            if not api.images(IMAGE):
                api.import_image_from_data(busybox(), repository=IMAGE, changes=["ENV PATH=/bin", 'CMD ["sh"]'])

    def ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as sock:  # the vendor's client leaves one open that cannot be connected
            if sock.connect_ex(str(self.socket)):
                return False
        try:
            with self.plain() as api:
                return bool(api.ping())
        except (docker.errors.DockerException, requests.RequestException):
            return False

    def plain(self) -> docker.APIClient:
        """The vendor's client, without ours."""
        return docker.APIClient(self.url, version="1.41", timeout=60)

    def clear(self) -> None:
        """Remove every container, network, volume and image but `IMAGE`."""
        with self.plain() as api:
            for one in api.containers(all=True):
                api.remove_container(one["Id"], force=True, v=True)
            for one in api.networks():
                if one["Name"] not in {"bridge", "host", "none"}:
                    api.remove_network(one["Id"])
            for one in api.volumes()["Volumes"] or []:
                api.remove_volume(one["Name"], force=True)
            for one in api.images():
                if IMAGE not in (one["RepoTags"] or []):
                    api.remove_image(one["Id"], force=True)

    def stop(self) -> None:
        if self.running:
            with self.plain() as api:
                for one in api.containers(all=True):
                    api.remove_container(one["Id"], force=True, v=True)
            for child in psutil.Process(self.pid).children():
                child.terminate()  # unshare itself hears no SIGTERM
        super().stop()
        self._tidy()

    def kill(self) -> None:
        super().kill()
        self._tidy()

    def inside(self, *argv: str) -> str:
        """What a command says in the engine's network."""
        enter = [which("nsenter", self.name), f"--net=/proc/{self.pid}/ns/net"]
        done = subprocess.run([*enter, *argv], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise ServerFailed(f"{' '.join(argv)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def limit(self, container: str, controller: str, file: str) -> str:
        """A file of the cgroup (version 1) of a container, by its full id."""
        return (_CGROUPS / controller / self.cgroup / container / file).read_text().strip()

    def _tidy(self) -> None:
        for top in _CGROUPS.glob(f"*/{self.cgroup}"):
            for path in sorted(top.rglob("*/"), reverse=True):
                path.rmdir()
            top.rmdir()


def busybox() -> bytes:
    """A root file system with busybox under all of its names."""
    program = shutil.which("busybox") or ""
    names = subprocess.run([program, "--list"], capture_output=True, text=True, timeout=10, check=True).stdout.split()
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(program, "bin/busybox")
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for folder in ("tmp", "etc", "var", "root"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
    return made.getvalue()
