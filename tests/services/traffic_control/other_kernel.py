"""Tests run on a second real Linux kernel: user-mode Linux, which has what the kernel of this machine may lack.

It is an ordinary process that sees this machine's files and has a network stack of its own.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.services.traffic_control.lab import need

_LIMIT = 300.0  # seconds; on an idle machine it takes about 30
_MODULES = (
    "lib/crc-ccitt",
    "net/ipv6/ipv6",
    "drivers/net/veth",
    "drivers/net/ifb",
    *(f"net/sched/sch_{kind}" for kind in ("htb", "tbf", "ingress", "netem", "fq_codel", "codel")),
    *(f"net/sched/{kind}" for kind in ("cls_u32", "act_mirred", "act_police")),
)
_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={root} HOME=/run
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /run
for module in {modules}; do insmod /usr/lib/uml/modules/$(uname -r)/kernel/$module.ko; done
cd {root}
{python} -m pytest -p no:cacheprovider --basetemp=/run/pytest --junitxml={report} {tests}
sync
exec {python} -c 'import ctypes; ctypes.CDLL(None).reboot(0xCDEF0123)'
"""


def results(tests: list[Path], folder: Path) -> dict[str, str]:
    """How each test (`module.name`) ended on the other kernel: `passed`, or what went wrong.

    Args:
        folder: takes what is written.
    """
    for program in ("linux.uml", "insmod"):
        need(program)
    root = Path(__file__).parents[3]
    report, init, console = folder / "report.xml", folder / "init", folder / "console.log"
    words = {"root": root, "report": report, "python": sys.executable}
    quoted = {name: shlex.quote(str(word)) for name, word in words.items()}
    init.write_text(
        _INIT.format(modules=" ".join(_MODULES), tests=" ".join(shlex.quote(str(test)) for test in tests), **quoted)
    )
    init.chmod(0o755)
    options = ["rootfstype=hostfs", "root=/dev/root", "rw", "mem=512M", f"init={init}", f"umid=nms-{os.getpid()}"]
    with console.open("wb") as log:
        kernel = subprocess.Popen(
            [shutil.which("linux.uml") or "", *options, "con=null", "con0=null,fd:1"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)},
            start_new_session=True,
        )
        try:
            kernel.wait(_LIMIT)
        finally:
            if kernel.poll() is None:
                os.killpg(kernel.pid, signal.SIGKILL)
                kernel.wait()
    assert report.exists(), f"the other kernel gave no report:\n{console.read_text(errors='replace')[-4000:]}"
    cases = ET.parse(report).iter("testcase")  # noqa: S314 - written by our own pytest
    return {f"{case.get('classname')}.{case.get('name')}": "".join(map(_ending, case)) or "passed" for case in cases}


def _ending(element: ET.Element) -> str:
    return f"{element.tag}: {element.text or element.get('message')}" if element.tag != "system-out" else ""
