"""Stands in for VPCS where there is none: `-v` tells a version, `-p PORT` greets on the console until it is ended.

A start script whose first line is `# crash` makes it end at once, as a broken one does.
"""

import socket
import sys
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


if __name__ == "__main__":
    if "-v" in sys.argv:
        print("Welcome to Virtual PC Simulator, version 0.8.3")
    else:
        script = Path("startup.vpc")
        if script.exists() and script.read_text().startswith("# crash"):
            sys.exit(3)
        serve(int(sys.argv[sys.argv.index("-p") + 1]))
