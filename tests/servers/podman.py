"""Podman, which answers in Docker's API, with namespaces of its own: nothing of it is left when it ends."""

from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import docker

from tests.servers.docker import IMAGE, busybox
from tests.servers.server import Conf, Server, which


class PodmanServer(Server):
    """`podman system service` at the socket `socket`, with the image `IMAGE` (busybox). It has no network."""

    def __init__(self, name: str, folder: Path, program: Path, conf: Conf) -> None:
        self.user = self.password = self.dbname = ""
        self.socket = folder / "podman.sock"
        self._run_root = Path(mkdtemp(prefix="podman-"))  # of 50 characters at most, which `folder` is not everywhere
        super().__init__(name, folder, program, conf)
        self.url = f"unix://{self.socket}"

    def prepare(self) -> None:
        which("busybox", self.name)

    def argv(self) -> list[str]:
        unshare = [which("unshare", self.name), "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        storage = ["--root", f"{self.folder}/root", "--runroot", str(self._run_root), "--storage-driver=overlay"]
        runtime = f"--runtime={which('runc', self.name)}"  # takes control groups of version 1 and 2 side by side
        options = [runtime, "--cgroup-manager=cgroupfs", "--events-backend=file", f"--tmpdir={self.folder}/tmp"]
        return [*unshare, str(self.program), *storage, *options, "system", "service", "--time=0", self.url]

    def start(self) -> None:
        super().start()
        with self.plain() as api:
            api.import_image_from_data(busybox(), repository=IMAGE, changes=["ENV PATH=/bin", 'CMD ["sh"]'])

    def ready(self) -> bool:
        if not self.socket.exists():
            return False
        with self.plain() as api:
            return bool(api.ping())

    def stop(self) -> None:
        if self.running:
            with self.plain() as api:
                for one in api.containers(all=True):
                    api.remove_container(one["Id"], force=True)
        self.kill()  # unshare itself hears no SIGTERM
        rmtree(self._run_root, ignore_errors=True)  # what was mounted there was so in its own namespace

    def plain(self) -> docker.APIClient:
        """The vendor's client, without ours."""
        return docker.APIClient(self.url, version="1.41", timeout=60)
