"""Stands in for uBridge where there is none: `-v` tells a version, `-H host:port` answers the hypervisor's protocol.

Every command is accepted and none carries a packet. Answers as uBridge's own (README of https://github.com/GNS3/ubridge):
a last line that begins with `100-`.
"""

import re
import socket
import sys

VERSION = "0.9.19"


def serve(host: str, port: int) -> None:
    """Accept one client after the other until one says `hypervisor stop`."""
    with socket.create_server((host, port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rw", encoding="utf-8", newline="") as lines:
                for line in lines:
                    command = line.strip()
                    lines.write(f"100-{VERSION}\r\n" if command == "hypervisor version" else "100-OK\r\n")
                    lines.flush()
                    if command == "hypervisor stop":
                        return


if __name__ == "__main__":
    if "-v" in sys.argv:
        print(f"ubridge version {VERSION}")
    elif "-H" in sys.argv:
        place = re.fullmatch(r"(.+):([0-9]+)", sys.argv[sys.argv.index("-H") + 1])
        if place is None:
            sys.exit("-H wants host:port")
        serve(place[1], int(place[2]))
    else:
        sys.exit("this stand-in knows -v and -H host:port")
