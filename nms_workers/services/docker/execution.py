"""A command run in a container, its output bounded."""

from collections.abc import Sequence
from typing import Any

from nms_workers.change import Change, about_to_change
from nms_workers.errors import Refused
from nms_workers.services.docker.acting import find, wait
from nms_workers.services.docker.client import DockerClient
from nms_workers.services.docker.logs import frames

_KEPT = 32_768  # bytes of each stream that are kept
_READ = 16 << 20  # bytes that are read before the command is given up
_SECONDS = 10.0


def run(  # noqa: PLR0913 - the arguments of the job
    client: DockerClient, name: str, command: Sequence[str], *, own: bool, user: str, folder: str
) -> Change:
    """Run a command and wait for its end.

    Raises:
        Refused: the settings do not allow it, it ended with another code than 0, or wrote more than is read.
    """
    if not client.target.allow_exec:
        raise Refused("running commands in containers is switched off", hint="set allow_exec = true in the settings")
    container = find(client, name, own=own)
    about_to_change({"container": container.name, "command": list(command)})
    with client.engine() as api:
        options: dict[str, Any] = {"user": user} | ({"workdir": folder} if folder else {})
        key = str(api.exec_create(container.id, list(command), **options)["Id"])
        kept = {"stdout": b"", "stderr": b""}
        read = 0
        with api.body_of("POST", f"/exec/{key}/start", body={"Detach": False, "Tty": False}) as body:
            for stream, piece in frames(body, tty=False):
                read += len(piece)
                kept[stream] = (kept[stream] + piece)[:_KEPT]
                if read > _READ:
                    hint = "it may still run in the container; have it write to a file"
                    raise Refused(f"{command[0]} in {container.name} writes more than {_READ} bytes", hint=hint)
        code = wait(lambda: _ended(api, key), _SECONDS, f"{command[0]} still runs in {container.name}")
    out = {stream: text.decode("utf-8", "replace") for stream, text in kept.items()}
    if code:
        words = " ".join((out["stderr"] or out["stdout"]).split())[-300:]
        raise Refused(f"{command[0]} in {container.name} ended with {code}" + (f": {words}" if words else ""))
    before = {"container": container.name, "command": list(command)}
    return Change(True, f"{command[0]} ran in {container.name}", before, {"exit_code": code, "cut": read > _KEPT} | out)


def _ended(api: Any, key: str) -> int | None:
    told = api.exec_inspect(key)
    return None if told.get("Running") else int(told.get("ExitCode") or 0)
