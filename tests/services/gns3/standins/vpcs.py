"""Stands in for VPCS where there is none: `-v` tells a version, `-p PORT` greets on the console until it is ended.

The first line of the start script may ask for trouble: `# slow 2` tells the version only after 2 seconds, as on a busy
machine, `# broken` tells none.
"""

import socket
import sys
import time
from pathlib import Path


def serve(port: int) -> None:
    """Greet each client of the console, and read what it types."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"VPCS> ")
                while connection.recv(4096):
                    connection.sendall(b"VPCS> ")


def tell_version() -> None:
    """As the start script of the working directory asks for."""
    script = Path("startup.vpc")
    words = script.read_text().split()[:3] if script.exists() else []
    if words[:2] == ["#", "broken"]:
        sys.exit("this VPCS is broken")
    if words[:2] == ["#", "slow"]:
        time.sleep(float(words[2]))
    print("Welcome to Virtual PC Simulator, version 0.8.3")


if __name__ == "__main__":
    if "-v" in sys.argv:
        tell_version()
    else:
        serve(int(sys.argv[sys.argv.index("-p") + 1]))
