"""Whether a process of this host can do its work: what a container's health check asks, every few seconds.

    python3 -m nms_workers.alive polls

It looks at the heartbeat file alone and imports nothing of ours, so that asking costs 40 ms of CPU and not the two
seconds that reading the settings takes.
"""

import os
import socket
import sys
import time
from pathlib import Path

STALE_SECONDS = 15.0


def stale(path: Path) -> bool:
    """Whether the process of this file has stopped working."""
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except FileNotFoundError:
        return True


def main(arguments: list[str]) -> str:
    """What is wrong with the process whose --name is the only argument; empty: nothing.

    The folder is `run` below `$NMS_DATA`. Beat's file names no host, the others do, some by `$NMS_WORKER_NAME`.
    """
    data = os.environ.get("NMS_DATA")
    if len(arguments) != 1 or not data:
        return "usage: NMS_DATA=FOLDER python3 -m nms_workers.alive NAME"
    (name,) = arguments
    host = socket.gethostname()
    nodes = [name, f"{name}@{host}", f"{name}@{os.environ.get('NMS_WORKER_NAME') or host}"]
    files = [Path(data, "run", f"{node}.heartbeat") for node in nodes]
    if all(stale(file) for file in files):
        return f"{name} has not worked for {STALE_SECONDS:g} s: no fresh {files[1]}"
    return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) or 0)
