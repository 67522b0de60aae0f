"""A worker process to be killed: `python -m tests.store.worker URL SCHEMA FOLDER TARGET FIRST COUNT [how to die]`.

Prints each number once its slot is safe.
"""

import os
import signal
import sys
import time
from pathlib import Path

from nms_workers.store.engine import make_engine
from nms_workers.store.history import History
from nms_workers.store.spool import Spool
from nms_workers.store.writer import Writer
from tests.store.slots import LAYOUT, slot


def main(arguments: list[str]) -> None:
    url, schema, folder, target, first, count, *how = arguments
    spool = Spool(Path(folder))
    writer = Writer(spool, url, schema=schema)
    if not how:
        writer.start()
    for number in range(int(first), int(first) + int(count)):
        writer.put(slot(int(target), number), [LAYOUT])
        print(number, flush=True)
        time.sleep(0.002)
    if how == ["after-commit"]:
        history = History(make_engine(url, schema=schema), spool.layout)
        history.write([spooled.result for spooled in spool.batch(500)])
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(not writer.close(30))


if __name__ == "__main__":
    main(sys.argv[1:])
