"""Images under the official names for the profiles `monitoring`, `network` and `security`, and what they need mounted.

Where this machine has the program, the image holds folders, users and the entry point, and the program comes from the
machine's /usr, mounted read-only without /usr/local: Prometheus, Netdata, snmpd, GNS3, HAProxy, Suricata, fail2ban, as
Debian and PyPI have them. Where nobody but the vendor's registry has it, a stub stands in (`tests/stack/stand_in.py`):
Grafana, Elasticsearch, Kibana, ntopng. Entry points do what the vendors' do, as far as docker-compose.yml uses them.
"""

import json
import site
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_MEMLOCK, RLIMIT_NOFILE, getrlimit
from typing import Any

import docker

from tests.servers import program
from tests.servers.server import which
from tests.stack.compose import ROOT
from tests.stack.images import Image, add_python

_PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_USR = [Path("/usr", name) for name in ("bin", "lib", "lib64", "libexec", "sbin", "share")]
_PACKAGES, _TESTS = "/opt/packages", "/opt/code/tests"
_PYTHON = f"ENV PYTHONPATH=/opt/code:{_PACKAGES} LD_LIBRARY_PATH=/usr/local/lib PYTHONDONTWRITEBYTECODE=1"
_ULIMITS = {"nofile": (RLIMIT_NOFILE, 65_535), "memlock": (RLIMIT_MEMLOCK, RLIM_INFINITY)}  # wanted of Elasticsearch
_STAND_IN_IMAGE = "nms-test/stand-in:1"
_STAND_IN = '#!/bin/sh\nset -eu\n{before}exec python3 -m tests.stack.stand_in {name} "$@"\n'


@dataclass(frozen=True)
class Ours:
    """An image of a program of this machine.

    Args:
        owned: folders and the user that they belong to; volumes take them over.
        etc: folders of the machine's /etc that are part of it.
        files: by path.
        changes: lines of a Dockerfile.
    """

    needs: str
    owned: Mapping[str, int] = field(default_factory=dict)
    users: Mapping[str, int] = field(default_factory=dict)
    etc: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


_NETDATA = """#!/bin/sh
set -eu
touch /etc/netdata/.opt-out-from-anonymous-statistics
exec /usr/sbin/netdata -u netdata -D -s /host -p 19999 "$@"
"""

REAL = {
    "prometheus": Ours(
        "prometheus",
        {"prometheus": 65534},
        {"nobody": 65534},
        changes=("USER nobody", "WORKDIR /prometheus", 'ENTRYPOINT ["/usr/bin/prometheus"]'),
    ),
    "netdata": Ours(
        "netdata",
        {"var/cache/netdata": 201, "var/lib/netdata": 201},
        {"netdata": 201},
        ("netdata",),
        {"sbin/run.sh": _NETDATA},
        ('ENTRYPOINT ["/sbin/run.sh"]',),
    ),
    "snmpd": Ours("snmpd", {"state": 0, "etc/snmp": 0}),
    "gns3": Ours("gns3-2.2", {"data": 10002}, {"gns3": 10002}),
    "haproxy": Ours("haproxy", {"usr/local/etc/haproxy": 99}, {"haproxy": 99}, changes=("USER haproxy",)),
    "suricata": Ours("suricata", {"var/lib/suricata": 0, "var/log/suricata": 0}, etc=("suricata",)),
    "fail2ban": Ours("fail2ban", {"var/lib/fail2ban": 0}, etc=("fail2ban",)),
}
STUBS = {
    "grafana": Ours(
        "",
        {"var/lib/grafana": 472},
        {"grafana": 472},
        files={
            "run.sh": _STAND_IN.format(
                name="grafana",
                before='export GF_SECURITY_ADMIN_PASSWORD="$(cat "$GF_SECURITY_ADMIN_PASSWORD__FILE")"\n',
            )
        },
        changes=("USER 472:0", "ENV GF_PATHS_PROVISIONING=/etc/grafana/provisioning", 'ENTRYPOINT ["/run.sh"]'),
    ),
    "elasticsearch": Ours(
        "",
        {"usr/share/elasticsearch/data": 1000},
        {"elasticsearch": 1000},
        files={
            "usr/local/bin/docker-entrypoint.sh": _STAND_IN.format(
                name="elasticsearch", before='[ "$1" = eswrapper ]\n'
            )
        },
        changes=("USER 1000:0", "WORKDIR /usr/share/elasticsearch"),
    ),
    "kibana": Ours(
        "",
        {"usr/share/kibana/data": 1000, "usr/share/kibana/config": 1000},
        {"kibana": 1000},
        files={"usr/share/kibana/bin/kibana": _STAND_IN.format(name="kibana", before="")},
        changes=("USER 1000", "WORKDIR /usr/share/kibana", 'ENTRYPOINT ["/bin/tini", "--"]'),
    ),
    "ntopng": Ours("", {"var/lib/ntopng": 0}, files={"usr/bin/ntopng": _STAND_IN.format(name="ntopng", before="")}),
}


def make(api: docker.APIClient, names: Mapping[str, str]) -> None:
    """Give all of them to an engine, under these names of images by service."""
    for service, one in REAL.items():
        image = Image(one.users, _folders(one) | {"root": (0o755, 0), "usr": (0o755, 0)})
        for link in ("lib", "lib64"):
            image.link(link, f"usr/{link}")
        for folder in one.etc:
            image.files(Path("/etc", folder), f"etc/{folder}")
        image.link("var/run", "/run")
        _finish(api, image, one.files, names[service], (_PATH, *_entry(service), *one.changes))
    stand_in = Image(
        {name: number for one in STUBS.values() for name, number in one.users.items()},
        {path: told for one in STUBS.values() for path, told in _folders(one).items()},
    )
    add_python(stand_in)
    for tool in ("curl", "install", "tini"):
        stand_in.program(Path(which(tool, "stack")), f"bin/{tool}")
    everything = {path: text for one in STUBS.values() for path, text in one.files.items()}
    _finish(api, stand_in, everything, _STAND_IN_IMAGE, (_PATH, _PYTHON))
    for service, one in STUBS.items():
        lines = "\n".join((f"FROM {_STAND_IN_IMAGE}", *one.changes))
        said = list(api.build(fileobj=BytesIO(lines.encode()), tag=names[service], decode=True, rm=True))
        assert api.images(names[service]), said


def override() -> dict[str, Any]:
    """What goes on top of docker-compose.yml: the mounts, and limits that this machine itself may not raise."""
    packages = next(path for path in map(Path, site.getsitepackages()) if (path / "werkzeug").exists())
    for_stubs = {_TESTS: ROOT / "tests", _PACKAGES: packages}
    mounts = {service: {str(path): path for path in _programs(service)} for service in REAL}
    mounts |= dict.fromkeys(STUBS, for_stubs)
    services: dict[str, dict[str, Any]] = {
        service: {
            "volumes": [
                {"type": "bind", "source": str(source), "target": target, "read_only": True}
                for target, source in of.items()
            ]
        }
        for service, of in mounts.items()
    }
    services["elasticsearch"]["ulimits"] = {
        name: own
        for name, (kind, wanted) in _ULIMITS.items()
        if (own := getrlimit(kind)[1]) != RLIM_INFINITY and (wanted == RLIM_INFINITY or own < wanted)
    }
    return {"services": services}


def _folders(one: Ours) -> dict[str, tuple[int, int]]:
    return {path: (0o755, owner) for path, owner in one.owned.items()}


def _finish(api: docker.APIClient, image: Image, files: Mapping[str, str], name: str, changes: tuple[str, ...]) -> None:
    for path, text in files.items():
        image.text(path, text, 0o755)
    image.imported(api, name, *changes)


def _programs(service: str) -> Iterator[Path]:
    """The folders of this machine that hold a program and what it needs; /usr/local is the image's own."""
    yield from (path for path in _USR if path.exists())
    if service == "gns3":
        yield from {program(REAL[service].needs).parents[1], Path(sys.base_prefix)} - {Path("/usr")}


def _entry(service: str) -> tuple[str, ...]:
    """What depends on where the program is."""
    if service != "gns3":
        return ()
    own = program("gns3-2.2")
    entry = json.dumps([str(own), "--host", "0.0.0.0", "--port", "3080"])
    path = f"{_PATH.replace('PATH=', f'PATH={own.parent}:')} HOME=/data"
    return (path, "USER 10002:10002", "WORKDIR /data", f"ENTRYPOINT {entry}")
