"""`python -m nms_workers`."""

from nms_workers.cli import main

main()
